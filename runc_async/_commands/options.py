"""The options of `exec` and `create` as typed dictionaries, for methods that pass them on."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, TypedDict

from anyio.abc import TaskStatus

from ..limits import Limits
from ..stdio import StdIO
from .criu import CgroupsMode
from .words import FileDescriptor, StrPath, User


class ProcessOptions(TypedDict, total=False):
    """The common options of `Runc.exec` and `Runc.open_exec`: see `Runc.exec`."""

    tty: bool
    cwd: StrPath | None
    env: Mapping[str, str] | None
    user: User | None
    additional_gids: Sequence[int]
    caps: Sequence[str]
    no_new_privs: bool
    process_label: str | None
    apparmor: str | None
    kill_tree: bool
    drain_timeout: float
    preserve_fds: Sequence[FileDescriptor]
    cgroup: str | Sequence[str]
    ignore_paused: bool
    pid_file: StrPath | None
    pidfd_socket: StrPath | None
    extra_args: Sequence[str]


class ExecOptions(ProcessOptions, total=False):
    """The options of `Runc.exec`."""

    grace: float
    detach: bool
    check: bool
    limits: Limits | None
    timeout: float | None
    io: StdIO | None
    input: bytes | None
    console_socket: StrPath | None
    task_status: TaskStatus[int]


class CreateOptions(TypedDict, total=False):
    """The common options of `Runc.create` and `Runc.open_container`: see `Runc.create`."""

    strict: bool
    preserve_fds: Sequence[FileDescriptor]
    pid_file: StrPath | None
    pidfd_socket: StrPath | None
    no_pivot: bool
    no_new_keyring: bool
    extra_args: Sequence[str]


class CheckpointOptions(TypedDict, total=False):
    """The options of `Runc.checkpoint`."""

    work_path: StrPath | None
    parent_path: StrPath | None
    page_server: str | None
    leave_running: bool
    pre_dump: bool
    tcp_established: bool
    tcp_skip_in_flight: bool
    ext_unix_sk: bool
    shell_job: bool
    file_locks: bool
    link_remap: bool
    lazy_pages: bool
    status_fd: FileDescriptor | None
    manage_cgroups_mode: CgroupsMode | None
    empty_ns: Sequence[str]
    auto_dedup: bool
    extra_args: Sequence[str]
    timeout: Timeout


class RestoreOptions(TypedDict, total=False):
    """The common options of `Runc.restore` and `Runc.open_restored`: see `Runc.restore`."""

    work_path: StrPath | None
    lazy_pages: bool
    auto_dedup: bool
    tcp_established: bool
    ext_unix_sk: bool
    shell_job: bool
    file_locks: bool
    manage_cgroups_mode: CgroupsMode | None
    empty_ns: Sequence[str]
    lsm_profile: str | None
    lsm_mount_context: str | None
    pid_file: StrPath | None
    no_pivot: bool
    extra_args: Sequence[str]


class Default(enum.Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "the client's"

    def __repr__(self) -> str:
        """Show the name as in a signature."""
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""Stands for the client's own setting where None is a valid setting."""


Timeout: TypeAlias = float | Literal[Default.DEFAULT] | None


def check_timeout(timeout: float | None) -> float | None:
    """Return a timeout in seconds.

    Raises:
        ValueError: If the number isn't positive and finite.
    """
    if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"timeout must be a positive number of seconds, or None: {timeout!r}")
    return timeout


def check_seconds(name: str, seconds: float) -> float:
    """Return a number of seconds, possibly zero.

    Raises:
        ValueError: If the number is negative or not finite.
    """
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"{name} must be a number of seconds, and not negative: {seconds!r}")
    return seconds
