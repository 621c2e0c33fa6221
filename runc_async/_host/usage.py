"""The resource usage of all containers below a root directory, from the files of their cgroups."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator

from runc_async.stats import Stats

from .._runtimes.dialect import Record
from .._runtimes.known import read_record
from .cgroup_files import AbsentFiles, CgroupFiles, CgroupGoneError, Descriptors
from .usage_v1 import read_v1
from .usage_v2 import read_v2

_HUGE_PAGES = "/sys/kernel/mm/hugepages"
_UNITS = ("kB", "MB", "GB")


class HostUsage:
    """Reads the usage repeatedly, from any number of threads.

    Args:
        root: The runtime's root directory.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._descriptors = Descriptors()
        self._absent = AbsentFiles()
        self._page_sizes = page_sizes()
        self._known: dict[str, tuple[Record, CgroupFiles]] = {}
        self._lock = threading.Lock()  # held for one container, so a thread waits for a fraction of a millisecond

    def read(self, ids: Iterable[str] | None = None) -> Iterator[tuple[Record, Stats]]:
        """Yield the stats of containers one by one; of all containers if `ids` is None.

        Containers without a cgroup are left out.

        Raises:
            OSError: If the root directory or a record can't be read, or no descriptor is left.
        """
        self._absent.expire()
        if ids is None:
            ids = self._names()
        for container_id in ids:
            with self._lock:
                found = self._read(container_id)
            if found is not None:
                yield found

    def close(self) -> None:
        """Close all descriptors; reading opens them again. Idempotent."""
        with self._lock:
            for container_id in tuple(self._known):
                self._forget(container_id)

    def _names(self) -> list[str]:
        """List the directories of containers, and forget deleted containers."""
        try:
            with os.scandir(self._root) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:  # the runtime makes it with the first container
            names = []
        with self._lock:
            # Otherwise their descriptors would stay open: nothing else reports a deletion here.
            for container_id in self._known.keys() - set(names):
                self._forget(container_id)
        return names

    def _read(self, container_id: str) -> tuple[Record, Stats] | None:
        """Read one container's files; None if the container or its cgroup is gone."""
        known = self._known.get(container_id)
        if known is not None:
            try:
                return known[0], self._stats(known)
            except CgroupGoneError:  # deleted, and perhaps created again
                self._forget(container_id)
        if (record := read_record(self._root, container_id)) is None:
            return None
        unified = record.unified
        files = CgroupFiles(record.cgroups if unified is None else {"": unified}, self._descriptors, self._absent)
        try:
            stats = self._stats((record, files))
        except CgroupGoneError:
            files.close()
            return None
        except BaseException:
            files.close()
            raise
        self._known[container_id] = record, files
        return record, stats

    def _stats(self, known: tuple[Record, CgroupFiles]) -> Stats:
        """Read the files of the container's version of cgroups."""
        record, files = known
        stats = (read_v1 if record.unified is None else read_v2)(files, self._page_sizes)
        # With no file at all, every value would be 0.
        if not files.found:
            raise CgroupGoneError
        return stats

    def _forget(self, container_id: str) -> None:
        """Close a container's files."""
        self._known.pop(container_id)[1].close()


def page_sizes(directory: str = _HUGE_PAGES) -> tuple[str, ...]:
    """Return the host's sizes of huge pages, in the spelling of cgroup files: `2MB`."""
    try:
        names = os.listdir(directory)
    except OSError:
        return ()
    return tuple(sorted(_size(int(match[1])) for name in names if (match := re.fullmatch(r"hugepages-(\d+)kB", name))))


def _size(kilobytes: int) -> str:
    """Return a size in the largest unit of which it is a multiple."""
    size = kilobytes
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:  # noqa: PLR2004
            return f"{size}{unit}"
        size //= 1024
    raise AssertionError
