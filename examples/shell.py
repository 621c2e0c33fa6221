"""An interactive shell in a container of its own, in this terminal: python shell.py [root]. Ctrl-P Ctrl-Q leaves it."""

from __future__ import annotations

import asyncio
import os
import sys

from runc_async import AttachEnd, Bundle, PtyIO, Runc, subreaper


async def main(root: str | None = None) -> None:
    """Connect this terminal with the container's until the shell ends, or the user leaves it."""
    async with Bundle.busybox(["sh"]) as bundle:
        bundle.spec.set_terminal().set_env({"PS1": r"container:\w\$ "})
        async with Runc(root=root).open_container(f"shell-{os.getpid()}", bundle, io=PtyIO(), grace=0) as container:
            assert container.pty is not None, "PtyIO gives a terminal"
            if await container.pty.attach() is AttachEnd.ENDED:
                print("the shell", await container.wait())
            else:
                print("\nleft the shell, which ends now")


if __name__ == "__main__":
    with subreaper():  # so that the exit status is known on every kernel
        asyncio.run(main(*sys.argv[1:]))
