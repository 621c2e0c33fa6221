"""Set-up between fork and exec, done by a small helper program before executing runc.

Most calls need no helper. A helper costs an additional exec: about 1 ms for `prlimit` or `setpriv`, 15 ms for Python.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .._linux.files import read_whole
from .._linux.procfs import status_field
from .._linux.search_path import find_executable
from ..runner import Invocation
from .child import spawn_error

# Why not `preexec_fn`: it runs Python code in the forked child, rules out vfork, and isn't safe beside threads.
# Moves the descriptors to 3, 4, ..., joins the process group and forgets which signals are blocked or ignored. The text
# is constant; what varies are numbers and the program's own arguments. Targets may be sources as well, so all are moved
# out of the way first. It fails by a signal, because an exit code would be taken for that of a container's process.
_MOVE_DESCRIPTORS = """\
import fcntl, os, signal, sys
group, forgets, count, *words = sys.argv[1:]
count = int(count)
fds, program = [int(word) for word in words[:count]], words[count:]
try:
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + count) for fd in fds]
    for fd in fds:
        os.set_inheritable(fd, False)
    for target, fd in enumerate(lifted, 3):
        os.dup2(fd, target)
    if group:
        os.setpgid(0, int(group))
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}  # by Python itself
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP} if forgets else ignored:
        signal.signal(number, signal.SIG_DFL)
    if forgets:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execvp(program[0], program)
except OSError as error:
    os.write(2, f"starting {program[0]}: {error}\\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
"""


_SCRIPT_HEAD = 256
"""Bytes of a script in which the kernel looks for its interpreter."""


def signal_name(signum: int) -> str | None:
    """Return a signal's name as setpriv(1) takes it, or None if the signal has no name."""
    if signal.SIGRTMIN < signum < signal.SIGRTMAX:
        return f"RTMIN+{signum - signal.SIGRTMIN}"
    return next((known.name[3:] for known in signal.Signals if known == signum), None)


def helped(
    invocation: Invocation,
    argv: Sequence[str],
    inherited: Sequence[int],
    lent: Sequence[int],
    *,
    launcher: Sequence[str] = (),
    waiter: Sequence[str] = (),
) -> tuple[list[str], dict[str, Any]]:
    """Return the argument vector to spawn, and the options for `asyncio.create_subprocess_exec`.

    Args:
        invocation: The invocation.
        argv: The argument vector, in words.
        inherited: Descriptors that runc needs under their own numbers, all above the ones for `preserve_fds`.
        lent: Descriptors for `preserve_fds`; none is a standard stream.
        launcher: Words of a program that executes the rest after a first step; all that is started inherits that step.
        waiter: Words of a program to put in front, which starts runc and waits for the container's process.

    Raises:
        RuncNotFound: If a helper is needed, and runc doesn't exist.
        PermissionError: If a helper is needed, and runc isn't executable.
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
    prefix = [*launcher]
    if invocation.pdeathsig is not None:
        prefix += ["setpriv", "--pdeathsig", signal_name(invocation.pdeathsig) or "", "--"]
    forgets = invocation.restore_signals and _has_signals_to_restore(on_asyncio=on_asyncio)
    if group is not None or lent or forgets:
        numbers = [str(fd) for fd in lent]
        chosen = ["" if group is None else str(group), "1" if forgets else ""]
        prefix += [sys.executable, "-ISc", _MOVE_DESCRIPTORS, *chosen, str(len(numbers)), *numbers]
    prefix += waiter
    if prefix:
        _look_up(argv, options)
    elif on_asyncio:  # uvloop looks up in C, and puts what it is given into the argument vector
        env = os.environ if invocation.env is None else invocation.env
        # None leaves the lookup to `subprocess`.
        options["executable"] = None if os.sep in argv[0] else find_executable(argv[0], env.get("PATH", os.defpath))
    return [*prefix, *argv], options


def _has_signals_to_restore(*, on_asyncio: bool) -> bool:
    """Return whether a child would start with a signal blocked or ignored: signal(7), execve(2).

    Raises:
        OSError: If no descriptor is left.
    """
    status = read_whole("/proc/thread-self/status")  # 30 times as quick as `signal.getsignal` for all
    # `subprocess` restores the two signals that Python ignores itself; uvloop restores the mask and all signals but the
    # real-time ones.
    blocked, ignored = (int(status_field(status, name), 16) for name in (b"SigBlk", b"SigIgn"))
    return needs_restoring(blocked, ignored, on_asyncio=on_asyncio)


def needs_restoring(blocked: int, ignored: int, *, on_asyncio: bool) -> bool:
    """Return whether a child would inherit one of these blocked and ignored signals."""
    # The C library keeps signals 32 and 33 for itself: they can't be restored, and make(1) starts programs with both
    # ignored.
    if on_asyncio:
        return bool((blocked | ignored & ~_BY_PYTHON) & _VALID)
    return bool(ignored & _VALID & ~_STANDARD)


def _bits(*numbers: int) -> int:
    """Return a set of signals in the form of proc_pid_status(5)."""
    return sum(1 << (number - 1) for number in numbers)


_VALID = _bits(*signal.valid_signals())  # to ask for each call would take 0.1 ms
_BY_PYTHON = _bits(signal.SIGPIPE, signal.SIGXFSZ)
_STANDARD = _bits(*range(1, signal.SIGRTMIN))


def _look_up(argv: Sequence[str], options: Mapping[str, Any]) -> None:
    """Raise the error that the spawn itself would raise.

    Raises:
        RuncNotFound: If there is no such program.
        PermissionError: If the program isn't executable.
    """
    import shutil  # noqa: PLC0415  (most calls need no helper)

    # Behind a helper, the spawn succeeds even if runc doesn't exist.
    program = argv[0]
    path = os.pathsep.join(os.get_exec_path(options["env"]))
    place = os.path.join(options["cwd"] or "", program) if os.sep in program else program
    found = shutil.which(place, path=path)
    if found is not None and _has_interpreter(found):
        return
    if found is None and shutil.which(place, mode=os.F_OK, path=path) is not None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), program)
    raise spawn_error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program), argv, options)


def _has_interpreter(path: str) -> bool:
    """Return whether the interpreter of a script exists; True for a binary, and for an unreadable file: execve(2)."""
    try:
        with open(path, "rb", buffering=0) as file:
            line = file.read(_SCRIPT_HEAD).partition(b"\n")[0]
        words = line[2:].split() if line.startswith(b"#!") else []
        return not words or os.path.exists(words[0])
    except OSError:
        return True
