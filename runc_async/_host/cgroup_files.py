"""Repeated reads of cgroup files, with as many open descriptors as the process may have."""

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
"""Number of files for which opening the directory first pays: a path of one part takes a third of the time."""

_SHARE: Final = 0.75
"""Part of the process's remaining descriptors that may be used here."""

_MOST_FILES: Final = 48
"""Maximal number of files of one container."""

_KNOWN_FOR: Final = 60.0
"""Seconds for which a missing file counts as missing."""

_ABSENT: Final = {errno.ENOENT, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EINVAL}
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE}


class CgroupGoneError(Exception):
    """The cgroup was removed."""


class Descriptors:
    """The number of descriptors that may stay open, and the sets of files that hold some.

    Attributes:
        limit: The maximal number.
        used: The current number.
    """

    def __init__(self, limit: int | None = None) -> None:
        """Set a limit; derived from RLIMIT_NOFILE if None."""
        if limit is None:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            # The program needs descriptors of its own: at the limit, its next open fails too, and not only ours.
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
        """Close half of the descriptors, because the process or the host has run out of them."""
        self.limit = self.used // 2
        while self.used > self.limit:
            next(iter(self._holders)).close()

    def leave(self, holder: CgroupFiles) -> None:
        """Remove a closed set of files."""
        self._holders.pop(holder, None)


class AbsentFiles:
    """The files missing in the cgroups of a directory: the same for all cgroups there, and costly to try."""

    def __init__(self) -> None:
        # Which files exist depends on the kernel, and on v2 on the controllers enabled in the parent. These can change,
        # so missing files are tried again every minute.
        self._names: dict[str, set[str]] = {}
        self._expires = 0.0

    def expire(self) -> None:
        """Forget all names when it is time."""
        if (now := time.monotonic()) >= self._expires:
            for names in self._names.values():
                names.clear()
            self._expires = now + _KNOWN_FOR

    def below(self, directory: str) -> set[str]:
        """Return the set of names for a cgroup's directory, for reading and adding."""
        return self._names.setdefault(os.path.dirname(directory), set())


class CgroupFiles:
    """The files of one container's cgroup.

    Args:
        directories: The cgroup's directory by controller.
        descriptors: The limit of open descriptors.
        absent: The files missing in a directory's cgroups.
    """

    def __init__(self, directories: Mapping[str, str], descriptors: Descriptors, absent: AbsentFiles) -> None:
        self._places = {name: (path, absent.below(path)) for name, path in directories.items()}
        self._descriptors = descriptors
        self._kept: dict[str, int] = {}
        self._present: set[str] = set()

    def read(self, controller: str, *names: str) -> list[bytes | None]:
        """Read files; None for a file that is missing or unreadable.

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
            # kernfs: a file that was opened before the removal of its cgroup fails with ENODEV.
            if exc.errno == errno.ENODEV:
                raise CgroupGoneError from exc
            raise

    def lacks(self, controller: str, name: str) -> bool:
        """Whether a file is known to be missing in this cgroup."""
        place = self._places.get(controller)
        return place is None or name in place[1]

    @property
    def found(self) -> bool:
        """Whether any file was found."""
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
        """Open a file and read it; keep the descriptor if the limit permits."""
        try:
            fd = os.open(f"{directory}/{name}", _FLAGS)
        except OSError as exc:
            if exc.errno in _ABSENT:
                self._note_absent(directory, name, absent, exc)
                return None
            # EMFILE or ENFILE: our kept descriptors are a cache, so give half of them back and try again.
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
        """Record a missing file.

        Raises:
            CgroupGoneError: If the cgroup itself is missing, but not its hierarchy.
        """
        # A file that was there vanishes only with its cgroup. For the first file, the parent decides: a missing parent
        # means that this hierarchy isn't mounted here.
        if name in self._present or (not os.path.isdir(directory) and os.path.isdir(os.path.dirname(directory))):
            raise CgroupGoneError from error
        absent.add(name)
