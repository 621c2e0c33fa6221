"""Which parts of a configuration some runtimes don't know, in one table, and a look through a document for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeGuard

from ..features import Version
from ..ignored import Ignored


class Part(NamedTuple):
    """A part of a configuration that came late, or is another platform's.

    Attributes:
        since: For each runtime the numbers of the first version that knows it, None for none. A runtime that isn't
            named knows it in all versions, or isn't known itself.
        refused: Whether an older version fails because of it.
        until: For each runtime the numbers of the first version that ignores it again.
    """

    since: Mapping[str, tuple[int, ...] | None]
    refused: bool = False
    until: Mapping[str, tuple[int, ...]] = {}


_NONE: Final = Part({"runc": None, "crun": None})
_FROM_1_1: Final = Part({"runc": (1, 1)})
_FROM_1_2: Final = Part({"runc": (1, 2)})
_FROM_1_4: Final = Part({"runc": (1, 4)})

PARTS: Final[Mapping[str, Part]] = {
    "domainname": _FROM_1_2,
    "process.commandLine": _NONE,
    "process.execCPUAffinity": Part({"runc": (1, 3)}),
    "process.ioPriority": _FROM_1_2,
    "process.scheduler": _FROM_1_2,
    "process.user.username": _NONE,
    "mounts[].uidMappings": _FROM_1_2,
    "mounts[].gidMappings": _FROM_1_2,
    "linux.namespaces[].type=time": Part({"runc": (1, 2)}, refused=True),
    "linux.timeOffsets": _FROM_1_2,
    "linux.personality": _FROM_1_2,
    "linux.netDevices": _FROM_1_4,
    "linux.memoryPolicy": _FROM_1_4,
    "linux.intelRdt.schemata": _FROM_1_4,
    "linux.intelRdt.enableMonitoring": _FROM_1_4,
    "linux.resources.cpu.burst": _FROM_1_2,
    "linux.resources.cpu.idle": _FROM_1_2,
    "linux.resources.memory.checkBeforeUpdate": _FROM_1_2,
    "linux.resources.memory.kernel": Part({}, until={"runc": (1, 1)}),
    "linux.resources.memory.kernelTCP": Part({}, until={"runc": (1, 1)}),
    "linux.resources.rdma": _FROM_1_1,
    "linux.seccomp.defaultErrnoRet": _FROM_1_1,
    "linux.seccomp.listenerPath": _FROM_1_1,
    "linux.seccomp.flags": Part({"runc": (1, 2)}, refused=True),
    "linux.seccomp.flags[]=SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": Part({"runc": (1, 5)}, refused=True),
    "freebsd": _NONE,
    "solaris": _NONE,
    "vm": Part({"runc": None}),
    "windows": _NONE,
    "zos": _NONE,
}
"""By path: `[]` is each item of an array, `=` a value. docs/topics/runtimes.md shows the table."""


def ignored_parts(document: Mapping[str, Any], version: Version) -> list[Ignored]:
    """Return what a version of a runtime doesn't know of a document, in the order of the table.

    Of a runtime or version that isn't known, nothing is known to be ignored.

    Args:
        document: A configuration as plain values.
        version: The runtime's.
    """
    found: list[Ignored] = []
    for path, part in PARTS.items():
        if not _knows(part, version):
            first = part.since.get(version.runtime)
            since = None if first is None else ".".join(map(str, first))
            keys, _, value = path.partition("=")
            found += (
                Ignored(path=place, since=since, refused=part.refused)
                for place in _places(document, "$", keys.replace("[]", ".[]").split("."), value)
            )
    return found


def _knows(part: Part, version: Version) -> bool:
    """Return whether a version knows a part."""
    if not version.number:
        return True
    until = part.until.get(version.runtime)
    if until is not None and version.number >= until:
        return False
    since = part.since.get(version.runtime, ())
    return since is not None and version.number >= since


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a plain value is a JSON object; `spec` has the same, and takes milliseconds to load."""
    return isinstance(value, dict)


def _is_array(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a plain value is a JSON array."""
    return isinstance(value, list)


def _places(value: Any, path: str, keys: list[str], wanted: str) -> Iterator[str]:
    """Yield the places in a document to which keys lead, if they lead to anything, or to a wanted value."""
    if not keys:
        if value is not None and (not wanted or value == wanted):
            yield path
    elif keys[0] == "[]":
        for index, item in enumerate(value if _is_array(value) else ()):
            yield from _places(item, f"{path}[{index}]", keys[1:], wanted)
    elif _is_object(value) and keys[0] in value:
        yield from _places(value[keys[0]], f"{path}.{keys[0]}", keys[1:], wanted)
