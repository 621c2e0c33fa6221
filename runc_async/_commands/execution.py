"""`runc exec` with a document, or with arguments and changes to the container's own process."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .._linux.prerequisites import check_lengths
from .._linux.subreaper import adopting
from ..runner import PidfdSocket
from . import argv
from .argv import Command, Execution, Overrides
from .options import ProcessOptions
from .words import StrPath

if TYPE_CHECKING:
    from ..spec import Process
    from .exec_document import ProcessDocument


EXECUTION_OPTIONS = ("cgroup", "ignore_paused", "pid_file", "pidfd_socket", "extra_args")
"""The `ProcessOptions` that are also valid with a process document."""


def exec_command(
    container_id: str,
    process: Process | ProcessDocument | Sequence[str],
    options: ProcessOptions,
    *,
    preserve_fds: int = 0,
    detach: bool = False,
    console_socket: StrPath | None = None,
    pidfd_socket: PidfdSocket | None = None,
) -> Command:
    """Return `runc exec` with a document, or with arguments and changes to the container's own process.

    Raises:
        ValueError: If changes are combined with a document, where runc would ignore them.
        ArgumentsTooLong: If an argument or a variable is longer than the limit of execve(2).
    """
    given: dict[str, Any] = dict(options)
    if given.get("pidfd_socket") is None:
        given["pidfd_socket"] = pidfd_socket
    overrides = overrides_of(options)
    execution = Execution(
        detach=detach,
        # A detached exec needs the pid only to reap the process under `subreaper()`.
        own_pid_file=not detach or adopting(),
        console_socket=console_socket,
        preserve_fds=preserve_fds,
        **{name: given[name] for name in EXECUTION_OPTIONS if name in given},
    )
    if not isinstance(process, msgspec.Struct):
        return argv.exec_arguments(container_id, process, execution, overrides)
    # runc ignores such options next to --process without an error.
    if overrides != Overrides():
        raise ValueError("a spec.Process says everything itself: set its fields instead of giving options beside it")
    check_lengths(process.args or (), process.env or ())
    return argv.exec_document(container_id, process.encode(), execution)


def overrides_of(options: ProcessOptions) -> Overrides:
    """Return the options that change the container's own process."""
    given: dict[str, Any] = dict(options)
    return Overrides(**{name: given[name] for name in Overrides.__struct_fields__ if name in given})


def has_terminal(process: Process | Sequence[str], options: ProcessOptions) -> bool:
    """Return whether the process of an `exec` has a terminal."""
    return bool(process.terminal if isinstance(process, msgspec.Struct) else options.get("tty"))


def sized(process: Process, size: tuple[int, int]) -> Process:
    """Return a process with this terminal size, unless a size is set or the process has no terminal."""
    if not process.terminal or process.console_size is not None:
        return process
    from ..spec import Box  # noqa: PLC0415 - there is a `Process`, so the module is loaded

    found = copy.copy(process)
    found.console_size = Box(height=size[0], width=size[1])
    return found
