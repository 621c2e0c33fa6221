"""A first container: created, started, looked at, killed, deleted. Needs root, runc, and a static busybox."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile

from runc_async import Bundle, Container, PipedIO, Runc, RuncError

PROGRAM = """
trap 'echo I was told to end; exit 3' TERM
echo I am process $$ on $(hostname)
while true; do sleep 0.1; done
"""


async def main() -> None:
    """Take a container through its life, and say what happens."""
    # A root directory of its own keeps the example away from other containers of this host.
    with tempfile.TemporaryDirectory(prefix="quickstart-") as root:
        runc = Runc(root=root)
        version = await runc.version()
        print("runtime  ", version.runtime, version.version)
        async with Bundle.busybox(["sh", "-c", PROGRAM]) as bundle:
            print("bundle   ", bundle.path)
            # Created and started here; at the end stopped and deleted, whatever happens in between.
            async with runc.open_container(f"quickstart-{os.getpid()}", bundle, io=PipedIO()) as container:
                await look_at(container)
        print("deleted  ", "containers left:", len(await runc.list()))


async def look_at(container: Container) -> None:
    """Ask about a running container, run a command in it, and end it."""
    assert container.stdout is not None, "PipedIO gives all three streams"
    output = container.stdout.lines()
    print("it says  ", await anext(output))

    state = await container.state()
    print("state    ", state.status, "with pid", state.pid, "on this host, since", state.created)

    response = await container.exec(["sh", "-c", "echo $(id -un) sees $(ls /proc | grep -c '^[0-9]') processes"])
    print("exec     ", response.output.strip(), f"(exit code {response.exit_code})")

    print("processes", *await container.ps())
    stats = await container.stats()
    print("stats    ", f"{stats.memory.usage.usage} bytes of memory, {stats.cpu.usage.total} ns of CPU time")

    await container.kill("TERM")
    print("it says  ", await anext(output))
    print("ended    ", await container.wait())


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this example needs root; `python -m runc_async` tells what containers without root need")
    try:
        asyncio.run(main())
    except RuncError as error:
        sys.exit(f"{error}\n`python -m runc_async` tells what this host lacks.")
