"""Conditions for starting children and for learning of the end of a child, and the errors for an unmet condition."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterable, Mapping

from ..errors import ArgumentsTooLong, SpawnError
from .files import reserved

LONGEST_ARGUMENT = 32 * os.sysconf("SC_PAGESIZE") - 1
"""Bytes of one argument, or of one variable as `NAME=value`: execve(2), MAX_ARG_STRLEN, less its final NUL."""

DELETION_DESCRIPTORS = 8
"""Descriptors that a deletion opens at once, rounded up: 6 on Python 3.11, with those of the spawn."""

INSTEAD_OF_ARGUMENTS = "pass large data by input=, or by a file that is mounted into the container"


def check_process() -> None:
    """Check that the current process can have children: two system calls, before each spawn.

    Raises:
        SpawnError: If SIGCHLD is ignored (ECHILD), or pidfd_open(2) is denied (EPERM) or missing (ENOSYS).
    """
    check_sigchld()
    check_pidfd()


def check_sigchld() -> None:
    """Check that the kernel keeps the exit statuses of children.

    Raises:
        SpawnError: If SIGCHLD is ignored.
    """
    # A process whose parent ignores SIGCHLD starts with that setting: execve(2) keeps it. asyncio then reports 255 for
    # each child. uvloop sets a handler of its own and would work, but an asyncio loop that starts later would not. So
    # it is an error on both.
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        raise SpawnError(
            errno.ECHILD,
            "SIGCHLD is ignored, perhaps by the program that started this one, so the kernel forgets how children end",
            "call signal.signal(signal.SIGCHLD, signal.SIG_DFL) before the event loop starts",
        )


def check_pidfd() -> None:
    """Check that pidfd_open(2) may be called: without a pidfd a signal could hit another process.

    Raises:
        SpawnError: If the call is denied or missing.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as exc:
        if exc.errno in {errno.EPERM, errno.ENOSYS}:
            raise SpawnError(
                exc.errno,
                f"pidfd_open(2) fails: {os.strerror(exc.errno)}; a seccomp profile denies it (those of Docker before "
                "20.10 do), or Linux is older than 5.3",
                "update the container engine and libseccomp, or allow pidfd_open and pidfd_send_signal in the profile",
            ) from None


def check_descriptors() -> None:
    """Check that enough descriptors are left to delete a container: a creation can need fewer.

    Raises:
        OSError: If the current process, or the system, has too few.
    """
    reserved(DELETION_DESCRIPTORS).close()


def check_file_size(size: int, what: str) -> None:
    """Check that a file may have `size` bytes: RLIMIT_FSIZE applies to files in memory too.

    Raises:
        SpawnError: If RLIMIT_FSIZE is lower.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and size > limit:
        raise SpawnError(
            errno.EFBIG,
            f"RLIMIT_FSIZE is {limit} bytes, and the file in memory for {what} needs {size}",
            "raise the limit: ulimit -f, or LimitFSIZE= of the unit",
        )


def check_lengths(arguments: Iterable[str], variables: Iterable[str] = ()) -> None:
    """Check that execve(2) takes each argument and each variable. The text may be secret and isn't shown.

    Args:
        arguments: An argument vector.
        variables: An environment, as `NAME=value`.

    Raises:
        ArgumentsTooLong: If an argument or a variable is too long.
    """
    for number, word in enumerate(arguments):
        _check_length(word, f"argument {number}")
    for variable in variables:
        _check_length(variable, f"the variable {variable.partition('=')[0]}")


def too_long(arguments: Iterable[str], environment: Mapping[str, str] | None) -> ArgumentsTooLong:
    """Return the error for a spawn refused with E2BIG.

    Args:
        arguments: The argument vector.
        environment: The environment; None for the environment of the current process.
    """
    words = list(arguments)
    variables = [f"{name}={value}" for name, value in (os.environ if environment is None else environment).items()]
    try:
        check_lengths(words, variables)
    except ArgumentsTooLong as error:
        return error
    total = sum(len(os.fsencode(word)) + 1 for word in (*words, *variables))
    return ArgumentsTooLong(
        errno.E2BIG,
        f"the arguments and the environment have {total} bytes, which is more than execve(2) takes (a quarter of "
        "RLIMIT_STACK, 6 MiB at most)",
        INSTEAD_OF_ARGUMENTS,
    )


def _check_length(text: str, what: str) -> None:
    """Check the length of an argument."""
    # A character has four bytes at most, so short texts need no encoding.
    if len(text) * 4 > LONGEST_ARGUMENT and (size := len(os.fsencode(text))) > LONGEST_ARGUMENT:
        raise ArgumentsTooLong(
            errno.E2BIG,
            f"{what} has {size} bytes, and execve(2) takes {LONGEST_ARGUMENT} for one",
            INSTEAD_OF_ARGUMENTS,
        )
