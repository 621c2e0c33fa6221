"""The resources used by a container, from the files of its cgroup: one reading before the start, others later."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from ..usage import Usage
from .parsing import key_values, number
from .usage_v1 import blkio_entries
from .usage_v2 import io_tables

_Values = TypeVar("_Values", "Counters", "Peaks")
_SIZE: Final = 1 << 16
_MICROSECOND: Final = 1000
"""Nanoseconds."""

_TICK: Final = 10_000_000
"""Nanoseconds: cpuacct.stat counts in USER_HZ, which is 100 on all architectures of Linux with a runtime."""


class Counters(NamedTuple):
    """Counters of a cgroup; None for a missing file. Times in nanoseconds."""

    cpu: int | None = None
    user: int | None = None
    system: int | None = None
    oom_kills: int | None = None
    read: int | None = None
    written: int | None = None


class Peaks(NamedTuple):
    """Peak values of a cgroup; None for a missing file."""

    memory: int | None = None
    pids: int | None = None


class Meter:
    """Reads the resources used by a container, and keeps the last known values.

    Args:
        cgroups: The cgroup's directories by controller; cgroup v2's under the empty name. A hybrid host has both, and
            both are read.
        is_running: Returns whether the first process runs.

    Attributes:
        started: The start of the program, by the monotonic clock; None if unknown.
        ended: The end of the first process, likewise.
    """

    def __init__(self, cgroups: Mapping[str, str], is_running: Callable[[], bool]) -> None:
        self._cgroups = cgroups
        self._is_running = is_running
        self._before: Counters | None = None
        self._counters = Counters()
        self._peaks = Peaks()
        self._reset_peak = -1
        self.started: float | None = None
        self.ended: float | None = None

    def begin(self) -> None:
        """Count the usage so far as the runtime's own, and reset the peak if the kernel can."""
        # The cgroup exists since `create`: the runtime's own process has used CPU time and memory in it by now.
        self._before = self._read_counters()
        memory = self._cgroups.get("memory")
        with contextlib.suppress(OSError):
            if memory is not None:
                # Any write resets the peak to the present usage, for all readers.
                _write(f"{memory}/memory.max_usage_in_bytes", b"0")
            elif (unified := self._cgroups.get("")) is not None:
                # The new peak belongs to this descriptor alone, so it stays open: cgroup-v2.rst, memory.peak.
                fd = os.open(f"{unified}/memory.peak", os.O_RDWR | os.O_CLOEXEC)
                try:
                    os.write(fd, b"reset\n")
                except OSError:  # before Linux 6.12
                    os.close(fd)
                else:
                    if self._reset_peak >= 0:  # a container of a pool begins twice
                        os.close(self._reset_peak)
                    self._reset_peak = fd

    def end(self) -> None:
        """Record the end of the first process."""
        self.ended = time.monotonic()

    def read(self) -> Usage:
        """Read the files; missing files leave the last values."""
        # After the deletion no file is left, and the values of the reading before it stay.
        self._counters = _merged(self._read_counters(), self._counters)
        self._peaks = _merged(self._read_peaks(), self._peaks)
        return self.usage

    @property
    def usage(self) -> Usage:
        """The values of the last reading."""
        now, before = self._counters, self._before or Counters()
        return Usage(
            wall_seconds=self._wall(),
            cpu_seconds=_seconds(_since(now.cpu, before.cpu)),
            user_seconds=_seconds(_since(now.user, before.user)),
            system_seconds=_seconds(_since(now.system, before.system)),
            peak_memory=self._peaks.memory,
            peak_pids=self._peaks.pids,
            oom_kills=_since(now.oom_kills, before.oom_kills),
            read_bytes=_since(now.read, before.read),
            written_bytes=_since(now.written, before.written),
            includes_runtime=self._before is None,
        )

    def _wall(self) -> float | None:
        """Return the seconds from the start to the end, or until now; None if the end wasn't noticed."""
        # An end that wasn't noticed has no time: a reading later would count the time since.
        ended = time.monotonic() if self.ended is None and self._is_running() else self.ended
        return None if self.started is None or ended is None else max(0.0, ended - self.started)

    def close(self) -> None:
        """Close the descriptor; `usage` still works. Idempotent."""
        if self._reset_peak >= 0:
            os.close(self._reset_peak)
            self._reset_peak = -1

    def _read_counters(self) -> Counters:
        """Read all counters."""
        cpu, user, system = self._times()
        read, written = self._transfers()
        return Counters(cpu, user, system, self._oom_kills(), read, written)

    def _times(self) -> tuple[int | None, int | None, int | None]:
        """Read the CPU time: total, user mode, kernel mode."""
        # On a hybrid host, v2 is more precise than v1.
        if found := key_values(self._file("", "cpu.stat")):
            names = ("usage_usec", "user_usec", "system_usec")
            total, user, system = (found[name] * _MICROSECOND if name in found else None for name in names)
            return total, user, system
        ticks = key_values(self._file("cpuacct", "cpuacct.stat"))
        user, system = (ticks[name] * _TICK if name in ticks else None for name in ("user", "system"))
        return _number(self._file("cpuacct", "cpuacct.usage")), user, system

    def _oom_kills(self) -> int | None:
        """Read the number of OOM kills."""
        for controller, name in (("memory", "memory.oom_control"), ("", "memory.events")):
            if (found := key_values(self._file(controller, name)).get("oom_kill")) is not None:
                return found
        return None

    def _transfers(self) -> tuple[int | None, int | None]:
        """Read the bytes read and written."""
        for name in ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"):
            if (data := self._file("blkio", name)) is not None:
                entries = blkio_entries(data)
                break
        else:
            if (data := self._file("", "io.stat")) is None:
                return None, None
            entries = io_tables(data).get("io_service_bytes_recursive", [])
        read, written = (sum(entry.value for entry in entries if entry.op == kind) for kind in ("Read", "Write"))
        return read, written

    def _read_peaks(self) -> Peaks:
        """Read the largest values."""
        if self._reset_peak >= 0:
            memory = _number(_pread(self._reset_peak))
        else:
            memory = self._peak("memory", "memory.max_usage_in_bytes", "memory.peak")
        return Peaks(memory, self._peak("pids", "pids.peak", "pids.peak"))

    def _peak(self, controller: str, name: str, unified_name: str) -> int | None:
        """Read a peak value from the hierarchy of a controller, or from cgroup v2."""
        found = _number(self._file(controller, name))
        return _number(self._file("", unified_name)) if found is None else found

    def _file(self, controller: str, name: str) -> bytes | None:
        """Read a file; None if missing or unreadable."""
        if (directory := self._cgroups.get(controller)) is None:
            return None
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return _pread(fd)
        finally:
            os.close(fd)


def _pread(fd: int) -> bytes | None:
    """Read a file from its start; None if its cgroup is gone."""
    try:
        return os.pread(fd, _SIZE, 0)
    except OSError:
        return None


def _number(data: bytes | None) -> int | None:
    """Parse a file with one number; None for a missing file."""
    return number(data) if data else None


def _merged(now: _Values, before: _Values) -> _Values:
    """Return the new values, and the last values for missing files."""
    # Value by value: a cgroup is removed hierarchy by hierarchy on v1, so some files may be left.
    return type(now)._make(old if new is None else new for new, old in zip(now, before, strict=True))


def _since(now: int | None, before: int | None) -> int | None:
    """Return the growth of a counter; the whole counter without an earlier value."""
    return now if now is None or before is None else max(now - before, 0)


def _seconds(nanoseconds: int | None) -> float | None:
    """Return a time in seconds."""
    return None if nanoseconds is None else nanoseconds / 1e9


def _write(path: str, data: bytes) -> None:
    """Write to an existing file.

    Raises:
        OSError: If the file is missing, or can't be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
