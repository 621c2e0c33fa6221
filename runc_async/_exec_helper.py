"""What has to be set up between fork and exec, by a small program that runs there.

Not by `preexec_fn`: that runs Python code in a forked child, takes vfork away, and isn't safe beside threads.

Most calls need no helper. Where one is needed it costs an exec more: about 1 ms for `setpriv`, 15 ms for Python.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any

from ._call import Invocation

# Moves the descriptors to 3, 4, ... and joins the process group. The text is constant; what varies are numbers and the
# program's own arguments. Targets may be sources as well, so all are lifted out of the way first.
_PLACE = """\
import fcntl, os, sys
group, count = sys.argv[1], int(sys.argv[2])
fds = [int(word) for word in sys.argv[3 : 3 + count]]
lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + count) for fd in fds]
for fd in fds:
    os.set_inheritable(fd, False)
for target, fd in enumerate(lifted, 3):
    os.dup2(fd, target)
if group:
    os.setpgid(0, int(group))
os.execvp(sys.argv[3 + count], sys.argv[3 + count :])
"""


def helped(invocation: Invocation, argv: Sequence[str], inherited: Sequence[int]) -> tuple[list[str], dict[str, Any]]:
    """Return the argument vector to spawn and the options for `asyncio.create_subprocess_exec`.

    Args:
        invocation: What is started.
        argv: Its argument vector, in words.
        inherited: Descriptors of ours that it needs, each above those that `preserve_fds` asks for.
    """
    options: dict[str, Any] = {
        "cwd": invocation.cwd,
        "env": invocation.env,
        "pass_fds": (*invocation.preserve_fds, *inherited),
    }
    group = invocation.process_group
    if group is not None and isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        options["process_group"] = group  # uvloop hasn't this option
        group = None
    prefix: list[str] = []
    if invocation.pdeathsig is not None:
        prefix += ["setpriv", "--pdeathsig", signal.Signals(invocation.pdeathsig).name[3:], "--"]
    if group is not None or invocation.preserve_fds:
        numbers = [str(fd) for fd in invocation.preserve_fds]
        prefix += [sys.executable, "-ISc", _PLACE, "" if group is None else str(group), str(len(numbers)), *numbers]
    return [*prefix, *argv], options
