"""The options of `exec` and `create` as typed dictionaries, for the methods that pass them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from anyio.abc import TaskStatus

from ._argv import StrPath, User
from ._descriptors import FileDescriptor
from .stdio import StdIO


class ProcessOptions(TypedDict, total=False):
    """What `Runc.exec` and `Runc.open_exec` have in common: see `Runc.exec`."""

    tty: bool
    cwd: StrPath | None
    env: Mapping[str, str] | None
    user: User | None
    additional_gids: Sequence[int]
    caps: Sequence[str]
    no_new_privs: bool
    process_label: str | None
    apparmor: str | None
    drain_timeout: float
    preserve_fds: Sequence[FileDescriptor]
    cgroup: str | Sequence[str]
    ignore_paused: bool
    pid_file: StrPath | None
    pidfd_socket: StrPath | None
    extra_args: Sequence[str]


class ExecOptions(ProcessOptions, total=False):
    """The options of `Runc.exec`."""

    detach: bool
    check: bool
    timeout: float | None
    io: StdIO | None
    input: bytes | None
    console_socket: StrPath | None
    task_status: TaskStatus[int]


class CreateOptions(TypedDict, total=False):
    """What `Runc.create` and `Runc.open_container` have in common: see `Runc.create`."""

    preserve_fds: Sequence[FileDescriptor]
    pid_file: StrPath | None
    pidfd_socket: StrPath | None
    no_pivot: bool
    no_new_keyring: bool
    extra_args: Sequence[str]
