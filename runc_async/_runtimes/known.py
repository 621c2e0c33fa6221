"""All known runtimes, and questions to all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from .._linux.files import opened, read_rest
from ..features import Version
from .crun import CRUN
from .dialect import UNDECODABLE, Dialect, Numbers, Record, RecordFile
from .runc import RUNC
from .runsc import RUNSC

DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in (RUNC, CRUN, RUNSC)}
"""Dialects by the name that `--version` prints."""

FEATURES: Final = tuple(dict.fromkeys(name for dialect in DIALECTS.values() for name in dialect.features))
"""Features that some of the runtimes lack: see `Dialect.features`."""

RECORDS: Final = frozenset(
    os.path.basename(dialect.record) for dialect in DIALECTS.values() if os.path.dirname(dialect.record)
)
"""Names of records in a container's directory. A container exists, also for its runtime, as long as its record does."""

FIFOS: Final = frozenset(filter(None, (dialect.fifo for dialect in DIALECTS.values())))
"""Names of the files beside the records that exist until a container is started."""


def has_record(root: str, container_id: str) -> bool:
    """Return whether the id is in use, or a container with the id is being created.

    Raises:
        OSError: If the root directory can't be read.
    """
    places = [os.path.join(root, container_id)]
    places += [os.path.join(root, dialect.record.format(id=container_id)) for dialect in DIALECTS.values()]
    return any(map(_is_there, places))


def _is_there(path: str) -> bool:
    """Return whether there is a file."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def recorded_ids(root: str) -> list[str]:
    """Return the ids of the containers that may have a record.

    Raises:
        OSError: If the root directory can't be read.
    """
    # The record's path begins with the id. The name of a file may begin with the id of another runtime's container.
    separators = [dialect.record.partition("{id}")[2].partition("{id}")[0] for dialect in DIALECTS.values()]
    names = os.listdir(root)
    return sorted({name.partition(separator)[0] for name in names for separator in separators})


def numbers(version: Version) -> Numbers:
    """Return the numbers of a version for comparing; empty for a version without numbers."""
    dialect = DIALECTS.get(version.runtime)
    return version.number if dialect is None or dialect.numbers is None else dialect.numbers(version.version)


def read_record(root: str, container_id: str) -> Record | None:
    """Read the record of a container; None if there is none, none yet, or an invalid one.

    Takes some ten microseconds; the runtime's `state` takes some milliseconds and a process.

    Args:
        root: The runtime's root directory.
        container_id: The container's id.

    Raises:
        PermissionError: If the record can't be read.
        OSError: If no descriptor is left.
    """
    for dialect in DIALECTS.values():
        try:
            with opened(f"{root}/{dialect.record.format(id=container_id)}", os.O_RDONLY) as fd:
                found = RecordFile(root, container_id, os.fstat(fd).st_uid, read_rest(fd))
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            record = dialect.decode_record(found)
        except UNDECODABLE:
            return None
        # A record without a pid belongs to a container that is still being created.
        return record if record.process.pid > 0 else None
    return None


def record_version(root: str, container_id: str) -> tuple[int, int] | None:
    """Return a key that differs between records of a container; None without a visible record."""
    for dialect in DIALECTS.values():
        try:
            found = os.stat(os.path.join(root, dialect.record.format(id=container_id)))
        except OSError:
            continue
        # Each change creates a new file. stat(2) takes a tenth of the time for reading the record.
        return found.st_ino, found.st_mtime_ns
    return None
