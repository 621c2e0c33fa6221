"""What has to be set up between fork and exec, by a small program that runs there.

Not by `preexec_fn`: that runs Python code in a forked child, takes vfork away, and isn't safe beside threads.

Most calls need no helper. Where one is needed it costs an exec more: about 1 ms for `setpriv`, 15 ms for Python.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ._call import Invocation
from ._process import spawn_error

# Moves the descriptors to 3, 4, ... and joins the process group. The text is constant; what varies are numbers and the
# program's own arguments. Targets may be sources as well, so all are lifted out of the way first. It fails by a signal,
# because an exit code would be taken for that of a container's process.
_PLACE = """\
import fcntl, os, signal, sys
group, count = sys.argv[1], int(sys.argv[2])
fds = [int(word) for word in sys.argv[3 : 3 + count]]
try:
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + count) for fd in fds]
    for fd in fds:
        os.set_inheritable(fd, False)
    for target, fd in enumerate(lifted, 3):
        os.dup2(fd, target)
    if group:
        os.setpgid(0, int(group))
    os.execvp(sys.argv[3 + count], sys.argv[3 + count :])
except OSError as error:
    os.write(2, f"starting {sys.argv[3 + count]}: {error}\\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
"""


def named(signum: int) -> str | None:
    """Return a signal's name as setpriv(1) takes it, or None if it has none."""
    if signal.SIGRTMIN < signum < signal.SIGRTMAX:
        return f"RTMIN+{signum - signal.SIGRTMIN}"
    return next((known.name[3:] for known in signal.Signals if known == signum), None)


def helped(
    invocation: Invocation, argv: Sequence[str], inherited: Sequence[int], lent: Sequence[int]
) -> tuple[list[str], dict[str, Any]]:
    """Return the argument vector to spawn and the options for `asyncio.create_subprocess_exec`.

    Args:
        invocation: What is started.
        argv: Its argument vector, in words.
        inherited: Descriptors that it needs under their numbers, each above those that `preserve_fds` asks for.
        lent: Descriptors for `preserve_fds`, none of them a standard stream.

    Raises:
        RuncNotFound: If a helper is needed, and there is no such program.
        PermissionError: If a helper is needed, and the program can't be executed.
    """
    options: dict[str, Any] = {
        "cwd": invocation.cwd,
        "env": invocation.env,
        "pass_fds": (*lent, *inherited),
    }
    group = invocation.process_group
    on_asyncio = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    if group is not None and on_asyncio:
        options["process_group"] = group  # uvloop hasn't this option
        group = None
    prefix: list[str] = []
    if invocation.pdeathsig is not None:
        prefix += ["setpriv", "--pdeathsig", named(invocation.pdeathsig) or "", "--"]
    if group is not None or lent:
        numbers = [str(fd) for fd in lent]
        prefix += [sys.executable, "-ISc", _PLACE, "" if group is None else str(group), str(len(numbers)), *numbers]
    if prefix:
        _look_up(argv, options)
    elif on_asyncio:  # uvloop looks up in C, and puts what it is given into the argument vector
        options["executable"] = _found(argv[0], os.environ if invocation.env is None else invocation.env)
    return [*prefix, *argv], options


def _found(program: str, env: Mapping[str, str]) -> str | None:
    """Look a program up in $PATH, in half the time that `subprocess` takes; None leaves it to that.

    A relative directory in $PATH means another one to the child, if it gets a working directory of its own.
    """
    if os.sep in program:
        return None
    for directory in env.get("PATH", os.defpath).split(os.pathsep):
        path = f"{directory}/{program}"
        if not directory.startswith(os.sep):
            return None
        if os.access(path, os.X_OK, effective_ids=True) and not os.path.isdir(path):
            return path
    return None


def _look_up(argv: Sequence[str], options: Mapping[str, Any]) -> None:
    """Raise what the spawn would: from behind a helper nobody hears that there is no such program.

    Raises:
        RuncNotFound: If there is none.
        PermissionError: If there is one that can't be executed.
    """
    import shutil  # noqa: PLC0415  (most calls need no helper)

    program = argv[0]
    path = os.pathsep.join(os.get_exec_path(options["env"]))
    place = os.path.join(options["cwd"] or "", program) if os.sep in program else program
    if shutil.which(place, path=path) is not None:
        return
    if shutil.which(place, mode=os.F_OK, path=path) is not None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), program)
    raise spawn_error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program), argv, options)
