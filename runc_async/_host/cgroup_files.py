"""The files of a cgroup, read again and again; as many descriptors stay open as the process may have."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Mapping
from typing import Final

_SIZE: Final = 1 << 16
"""Bytes of the largest file: `cpuacct.usage_all` has 40 for each CPU."""

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_SEVERAL: Final = 4
"""Files from which on it pays to open their directory first: a path of one part is looked up in a third of the time."""

_SHARE: Final = 0.75
"""Part of the descriptors that the process may have and hasn't yet, which may be used up here."""

_MOST_FILES: Final = 48
"""Files of one container, at most."""

_KNOWN_FOR: Final = 60.0
"""Seconds for which a file that was absent counts as absent."""

_ABSENT: Final = {errno.ENOENT, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EINVAL}
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE}


class CgroupGoneError(Exception):
    """The cgroup was removed."""


class Descriptors:
    """How many descriptors may stay open, and which sets of files hold some.

    Attributes:
        limit: How many there may be.
        used: How many there are.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Take a limit; that of the process, RLIMIT_NOFILE, if None."""
        if limit is None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            limit = max(0, int((soft - len(os.listdir("/proc/self/fd"))) * _SHARE))
        self.limit = limit
        self.used = 0
        self._holders: dict[CgroupFiles, None] = {}

    def admits(self, holder: CgroupFiles) -> bool:
        """Whether a set of files may keep its descriptors."""
        if holder not in self._holders and not self.are_used_up:
            self._holders[holder] = None
        return holder in self._holders

    @property
    def are_used_up(self) -> bool:
        """Whether no further set of files is admitted."""
        return self.limit - self.used < _MOST_FILES

    def halve(self) -> None:
        """Close half of the descriptors, because others need some: the process, or the host, has no more."""
        self.limit = self.used // 2
        while self.used > self.limit:
            next(iter(self._holders)).close()

    def leave(self, holder: CgroupFiles) -> None:
        """Forget a set of files that is closed."""
        self._holders.pop(holder, None)


class AbsentFiles:
    """Which files the cgroups in a directory don't have; that is the same for all of them, and costs time to try.

    It depends on the kernel, and with v2 on the controllers that are enabled there. Those can change, so it is tried
    again every minute.
    """

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._expires = 0.0

    def expire(self) -> None:
        """Forget all, if it is time."""
        if (now := time.monotonic()) >= self._expires:
            for names in self._names.values():
                names.clear()
            self._expires = now + _KNOWN_FOR

    def below(self, directory: str) -> set[str]:
        """Return the names for a cgroup, by its directory; the set itself, which is added to."""
        return self._names.setdefault(os.path.dirname(directory), set())


class CgroupFiles:
    """The files of one container's cgroup.

    Args:
        directories: The cgroup's directory by controller.
        descriptors: How many descriptors may stay open.
        absent: Which files the cgroups in a directory don't have.
    """

    def __init__(self, directories: Mapping[str, str], descriptors: Descriptors, absent: AbsentFiles) -> None:
        self._places = {name: (path, absent.below(path)) for name, path in directories.items()}
        self._descriptors = descriptors
        self._kept: dict[str, int] = {}
        self._present: set[str] = set()

    def read(self, controller: str, *names: str) -> list[bytes | None]:
        """Read files; None for one that this cgroup doesn't have, or that can't be read.

        Raises:
            CgroupGoneError: If the cgroup was removed.
            OSError: If no descriptor is left.
        """
        if (place := self._places.get(controller)) is None:
            return [None] * len(names)
        kept, directory, absent = self._kept, *place
        try:
            if not kept and self._present and self._descriptors.are_used_up:
                return self._read_once(directory, names, absent)
            return [
                os.pread(kept[name], _SIZE, 0)
                if name in kept
                else None
                if name in absent
                else self._open(directory, name, absent)
                for name in names
            ]
        except OSError as exc:
            if exc.errno == errno.ENODEV:
                raise CgroupGoneError from exc
            raise

    def lacks(self, controller: str, name: str) -> bool:
        """Whether it is known that this cgroup doesn't have a file."""
        place = self._places.get(controller)
        return place is None or name in place[1]

    @property
    def found(self) -> bool:
        """Whether any file was there."""
        return bool(self._present)

    def close(self) -> None:
        """Close the descriptors; reading opens the files again. Idempotent."""
        for fd in self._kept.values():
            os.close(fd)
        self._descriptors.used -= len(self._kept)
        self._kept.clear()
        self._descriptors.leave(self)

    def _read_once(self, directory: str, names: tuple[str, ...], absent: set[str]) -> list[bytes | None]:
        """Read files without keeping their descriptors."""
        place = None
        try:
            if len(names) >= _SEVERAL:
                place = os.open(directory, _DIRECTORY)
            prefix = "" if place is not None else f"{directory}/"
            found: list[bytes | None] = []
            for name in names:
                if name in absent:
                    found.append(None)
                    continue
                fd = os.open(prefix + name, _FLAGS, dir_fd=place)
                try:
                    found.append(os.read(fd, _SIZE))
                finally:
                    os.close(fd)
        except OSError:  # the cgroup is gone, or lacks a file that it had, or no descriptor is left
            return [None if name in absent else self._open(directory, name, absent) for name in names]
        finally:
            if place is not None:
                os.close(place)
        return found

    def _open(self, directory: str, name: str, absent: set[str]) -> bytes | None:
        """Open a file and read it; keep the descriptor if there may be one more."""
        try:
            fd = os.open(f"{directory}/{name}", _FLAGS)
        except OSError as exc:
            if exc.errno in _ABSENT:
                self._note_absent(directory, name, absent, exc)
                return None
            if exc.errno not in _EXHAUSTED or not self._descriptors.used:
                raise
            self._descriptors.halve()
            return self._open(directory, name, absent)
        keep = False
        try:
            data = os.pread(fd, _SIZE, 0)
            self._present.add(name)
            keep = self._descriptors.admits(self)
        except OSError as exc:
            if exc.errno in _ABSENT:
                self._note_absent(directory, name, absent, exc)
                return None
            raise
        finally:
            if keep:
                self._kept[name] = fd
                self._descriptors.used += 1
            else:
                os.close(fd)
        return data

    def _note_absent(self, directory: str, name: str, absent: set[str], error: OSError) -> None:
        """Note that there is no such file.

        Raises:
            CgroupGoneError: If it is the cgroup that isn't there, and not its hierarchy.
        """
        if name in self._present or (not os.path.isdir(directory) and os.path.isdir(os.path.dirname(directory))):
            raise CgroupGoneError from error
        absent.add(name)
