"""What a test run may leave behind on its machine, and how to find it.

Every function here only looks. Those that take a `prefix` report what carries it, so that several test runs, and other
people's containers, don't see each other; those without one report what belongs to the calling process.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from runc_async._client.claim import ContainerClaim
from runc_async._host import owners
from runc_async._linux import owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


class Footprint(NamedTuple):
    """What the calling process holds at one moment."""

    children: frozenset[str]
    descriptors: frozenset[str]


def footprint() -> Footprint:
    """Take stock of the calling process: its children, zombies among them, and its descriptors."""
    return Footprint(children=frozenset(children()), descriptors=frozenset(descriptors()))


def left_since(before: Footprint, patience: float = 2.0) -> list[str]:
    """Name what the calling process holds beyond `before`.

    Threads and kernel workers close things a moment after the call that caused it, so a difference is looked at again
    for `patience` seconds before it is believed.
    """

    def look() -> list[str]:
        release_kept_records()
        now = footprint()
        if now == before:
            return []
        return [
            *(f"child process {child}" for child in sorted(now.children - before.children)),
            *(f"descriptor {descriptor}" for descriptor in sorted(now.descriptors - before.descriptors)),
        ]

    return persisting(look, patience)


async def left_in_loop(before: Footprint, patience: float = 3.0) -> list[str]:
    """Do as `left_since` in a running event loop, which goes on meanwhile.

    Its own timers close things too, such as an instance of inotify that wasn't in use for a second.
    """
    deadline = time.monotonic() + patience
    while (found := left_since(before, patience=0)) and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)
    return found


def left_on_host(prefix: str, patience: float = 5.0) -> list[str]:
    """Name the processes, mounts and cgroups of this machine that carry `prefix`."""

    def look() -> list[str]:
        return [
            *(f"process {process}" for process in processes(prefix)),
            *(f"mount {mount}" for mount in mounts(prefix)),
            *(f"cgroup {cgroup}" for cgroup in cgroups(prefix)),
        ]

    return persisting(look, patience)


def persisting(look: Callable[[], list[str]], patience: float) -> list[str]:
    """Return what `look` still reports after `patience` seconds, or nothing as soon as it reports nothing."""
    deadline = time.monotonic() + patience
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def children() -> Iterator[str]:
    """Yield each child of the calling process as `pid name state`."""
    # Plain paths here and below: each test asks several times, and a `Path` costs more than the look.
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            for pid in _read(f"/proc/self/task/{thread}/children").split():
                with contextlib.suppress(OSError):
                    # The name is in brackets and may hold blanks and brackets itself.
                    name, _, rest = _read(f"/proc/{pid}/stat").partition("(")[2].rpartition(")")
                    yield f"{pid} {name} {rest.split()[0]}"


def descriptors() -> Iterator[str]:
    """Yield each open descriptor of the calling process as `number target`."""
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield f"{entry} {os.readlink(f'/proc/self/fd/{entry}')}"


def _read(path: str) -> str:
    """Return the text of a small file."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def processes(prefix: str) -> Iterator[str]:
    """Yield the processes whose environment or cgroup holds `prefix`, as `pid command`.

    A process that was orphaned, or that a runtime set free, keeps the environment it was started with; one inside a
    container is in a cgroup named after the container. Zombies are their parent's matter, and have no command.
    """
    for directory in _process_directories():
        with contextlib.suppress(OSError):
            carrier = (directory / "environ").read_bytes() + (directory / "cgroup").read_bytes()
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if prefix.encode() in carrier and command:
                yield f"{directory.name} {command.strip()}"


def mounts(prefix: str, table: Path = PROC / "self" / "mountinfo") -> Iterator[str]:
    """Yield the mount points in `table` whose line holds `prefix`."""
    for line in table.read_text().splitlines():
        if prefix in line:
            yield line.split()[4]


def cgroups(prefix: str, top: Path = CGROUPS, own: Path = PROC / "self" / "cgroup") -> Iterator[str]:
    """Yield the cgroups whose name holds `prefix`, where runtimes make them.

    That is below the root of a hierarchy, below the cgroup of the calling process (read from `own`) and in systemd's
    slice, and nowhere else: criu, run by somebody else, may make copies of every cgroup on the machine.
    """
    paths = {line.split(":", 2)[2].lstrip("/") for line in own.read_text().splitlines()}
    hierarchies = [str(top), *(f"{top}/{name}" for name in os.listdir(top))]
    parents = {os.path.join(hierarchy, path) for hierarchy in hierarchies for path in ("", "system.slice", *paths)}
    for parent in sorted(parents):
        with contextlib.suppress(OSError):
            for name in os.listdir(parent):
                if prefix in name and os.path.isdir(found := os.path.join(parent, name)):
                    yield found


def containers(root: Path) -> Iterator[str]:
    """Yield the ids that a runtime keeps under its root directory.

    crun has directories of its own there too, and runsc has a file for each container instead of a directory.
    """
    if root.is_dir():
        names = {entry.name for entry in root.iterdir() if entry.is_dir()}
        names |= {entry.name.partition("_sandbox:")[0] for entry in root.glob("*_sandbox:*.state")}
        # The longest first: runsc takes the beginning of an id for the id.
        yield from sorted(names - {".cache", ".empty-directory", ".alone"}, key=lambda name: (-len(name), name))


_kept: list[ContainerClaim] = []
"""Records of containers that a test has left behind on purpose."""


def note_kept_records() -> None:
    """Note which records are kept because a container couldn't be deleted: their file is no leak of the test's."""
    end = ContainerClaim.end

    def noting(self: ContainerClaim) -> None:
        end(self)
        # The container may be gone since that look: the record is what counts.
        if self._claim is not None and self._claim._number in owner._owner._held:
            _kept.append(self)

    ContainerClaim.end = noting  # type: ignore[method-assign]


def release_kept_records() -> None:
    """Strike out the records of containers that were left behind on purpose, and are gone with their test."""
    while _kept:
        _kept.pop()._release()
    for number, line in list(owner._owner._held.items()):
        if b'"type":"bundle"' in line:  # a directory that stays is a leak of another kind
            owner._owner.remove(number)


def forget_dead_owners(prefix: str) -> None:
    """Strike out what processes that tests have killed held, of the things that carry `prefix`."""
    for path in owners.files():
        dead = owners.DeadOwner.take(path)
        if dead is not None:
            with dead:
                for number, held in list(dead.held.items()):
                    if prefix in repr(held):
                        dead.strike(number)


def _process_directories() -> Iterator[Path]:
    return (PROC / name for name in os.listdir(PROC) if name.isdecimal())
