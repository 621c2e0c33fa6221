"""The options of `checkpoint` and `restore` as words; most are criu's own, see criu(8)."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from .words import FileDescriptor, StrPath, absolute, argument, option, path_option, strings, switches

CgroupsMode: TypeAlias = Literal["soft", "full", "strict", "ignore"]

EMPTY_NAMESPACES: Final = frozenset({"network"})
"""Namespaces that all versions of runc can leave empty."""

_ADDRESS_PORT = re.compile(r"[^:\s]+:([0-9]{1,5})", re.ASCII)
_LAST_PORT = 65535
_FIRST_OTHER = 3


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """The common options of `checkpoint` and `restore`. Attributes as in `Runc.checkpoint`."""

    image_path: StrPath
    work_path: StrPath | None = None
    tcp_established: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    lazy_pages: bool = False
    auto_dedup: bool = False
    manage_cgroups_mode: CgroupsMode | None = None
    empty_ns: Sequence[str] = ()

    @property
    def log_directory(self) -> str:
        """The directory of criu's log."""
        return absolute(self.image_path if self.work_path is None else self.work_path)

    def words(self) -> tuple[str, ...]:
        """Return the options as words."""
        return (
            *("--image-path", absolute(self.image_path)),
            *path_option("--work-path", self.work_path),
            *switches(
                tcp_established=self.tcp_established,
                ext_unix_sk=self.ext_unix_sk,
                shell_job=self.shell_job,
                file_locks=self.file_locks,
                lazy_pages=self.lazy_pages,
                auto_dedup=self.auto_dedup,
            ),
            *option("--manage-cgroups-mode", _cgroups_mode(self.manage_cgroups_mode)),
            *(word for name in _empty_namespaces(self.empty_ns) for word in ("--empty-ns", name)),
        )


class Dump(Images, frozen=True, kw_only=True):
    """The options of `checkpoint`. Attributes as in `Runc.checkpoint`."""

    parent_path: StrPath | None = None
    leave_running: bool = False
    pre_dump: bool = False
    tcp_skip_in_flight: bool = False
    link_remap: bool = False
    page_server: str | None = None
    status_fd: int | None = None

    def words(self) -> tuple[str, ...]:
        """Return the options as words."""
        return (
            *super().words(),
            *option("--parent-path", None if self.parent_path is None else self._relative(self.parent_path)),
            *switches(
                leave_running=self.leave_running,
                pre_dump=self.pre_dump,
                tcp_skip_in_flight=self.tcp_skip_in_flight,
                link_remap=self.link_remap,
            ),
            *option("--page-server", None if self.page_server is None else _address_port(self.page_server)),
            *option("--status-fd", None if self.status_fd is None else str(self.status_fd)),
        )

    def _relative(self, path: StrPath) -> str:
        """Return the path from the images to the earlier images: runc refuses an absolute path."""
        absolute(path)
        path = os.fspath(path)
        return os.path.relpath(path, absolute(self.image_path)) if os.path.isabs(path) else path


class Restoration(Images, frozen=True, kw_only=True):
    """The options of `restore`. Attributes as in `Runc.restore`."""

    lsm_profile: str | None = None
    lsm_mount_context: str | None = None

    def words(self) -> tuple[str, ...]:
        """Return the options as words."""
        return (
            *super().words(),
            *option("--lsm-profile", self.lsm_profile),
            *option("--lsm-mount-context", self.lsm_mount_context),
        )


def status_descriptor(file: FileDescriptor | None) -> int | None:
    """Return the number of a descriptor open for writing only; runc refuses other descriptors.

    Raises:
        ValueError: If the descriptor isn't write-only, or is a standard stream, which is a different file in runc.
    """
    if file is None:
        return None
    fd = file if isinstance(file, int) else file.fileno()
    try:
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    except (OSError, OverflowError, ValueError) as exc:
        raise ValueError(f"status_fd must be an open descriptor: {fd}") from exc
    # The standard streams of the runc process are replaced by ours.
    if not writable or fd < _FIRST_OTHER:
        raise ValueError(f"status_fd must be open for writing only, as a pipe's end is, and be 3 or above: {fd}")
    return fd


def _cgroups_mode(mode: str | None) -> str | None:
    """Check a mode.

    Raises:
        ValueError: If there is no such mode.
    """
    if mode is not None and mode not in get_args(CgroupsMode):
        raise ValueError(f"manage_cgroups_mode must be one of {', '.join(get_args(CgroupsMode))}: {mode!r}")
    return mode


def _empty_namespaces(names: Sequence[str]) -> tuple[str, ...]:
    """Check the namespaces to leave empty.

    Raises:
        ValueError: If runc can't leave one empty.
        TypeError: If `names` is one str instead of a sequence of str.
    """
    for name in strings("empty_ns", names):
        if name not in EMPTY_NAMESPACES:
            raise ValueError(f"empty_ns must be of {', '.join(sorted(EMPTY_NAMESPACES))}: {name!r}")
    return tuple(names)


def _address_port(server: str) -> str:
    """Check the address of a page server.

    Raises:
        ValueError: If the address isn't `address:port`.
        TypeError: If the address isn't a str.
    """
    match = _ADDRESS_PORT.fullmatch(argument("page_server", server))
    if match is None or not 0 < int(match[1]) <= _LAST_PORT:
        raise ValueError(f"page_server must be 'address:port', without another colon: {server!r}")
    return server
