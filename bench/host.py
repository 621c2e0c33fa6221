"""`python -m bench.host`: what it costs to read the resource usage of a whole host, and to watch it.

1,000 cgroups are made for the measurement, with a record of a container for each, and no process in them. CPU time is
measured, since that doesn't depend on what else the machine does; a ratio is that of two readers in the same round.
With `--watch` real containers are made instead, which sleep while `Runc.watch` runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from bench.report import machine
from runc_async import Bundle, Runc
from runc_async.statsreader import StatsReader

MILLI: Final = 1e3
SIZE: Final = 1 << 12

Reader: TypeAlias = Callable[[], object]


class Bare:
    """The same files, read by the least code that can: nothing is parsed.

    It reads by the descriptors that the reader keeps, since a process may not have as many as two readers need.
    """

    def __init__(self, kept: Mapping[str, int], places: Sequence[Mapping[str, str]]) -> None:
        """Take what one reader keeps open, and the directories of all cgroups by controller."""
        self._kept = list(kept.values())
        one = os.path.basename(next(iter(kept)).rpartition("/")[0])
        names = [
            (controller, os.path.basename(path))
            for controller, directory in next(
                each for each in places if one in set(map(os.path.basename, each.values()))
            ).items()
            for path in kept
            if os.path.dirname(path) == directory
        ]
        self._paths = [f"{directories[controller]}/{name}" for directories in places for controller, name in names]
        self._rest = [path for path in self._paths if path not in kept]

    def __len__(self) -> int:
        """Count the files."""
        return len(self._paths)

    def same(self) -> None:
        """Read by descriptors where the reader does; open, read and close the others."""
        for fd in self._kept:
            os.pread(fd, SIZE, 0)
        _read(self._rest)

    def opened(self) -> None:
        """Open, read and close each."""
        _read(self._paths)


def _read(paths: Sequence[str]) -> None:
    """Open, read and close files."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.pread(fd, SIZE, 0)
        os.close(fd)


@contextlib.contextmanager
def many(record: Mapping[str, object], number: int, root: Path) -> Generator[list[dict[str, str]]]:
    """Have so many cgroups beside the one of a record, each with a record of its own."""
    made: list[str] = []
    owned: list[dict[str, str]] = []
    places: dict[str, str] = dict(record["cgroup_paths"])  # type: ignore[call-overload]
    try:
        for count in range(number):
            own = {name: f"{path}-{count}" for name, path in places.items() if path}
            owned.append(own)
            for path in set(own.values()):
                os.mkdir(path)
                made.append(path)
            directory = root / f"bench{count}"
            directory.mkdir(parents=True)
            (directory / "state.json").write_text(json.dumps({**record, "id": directory.name, "cgroup_paths": own}))
        yield owned
    finally:
        for path in made:
            os.rmdir(path)


def spent(work: Reader) -> float:
    """Return the CPU time that something takes, in seconds."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def kept_files() -> dict[str, int]:
    """Return the files of cgroups that this process has open, and the descriptors."""
    found: dict[str, int] = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[os.readlink(f"/proc/self/fd/{fd}")] = int(fd)
    return {path: fd for path, fd in sorted(found.items()) if path.startswith("/sys/fs/cgroup/")}


def read(command: str, number: int, rounds: int, soft: int) -> list[str]:
    """Measure the reader beside the others; return the table."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="runc_async-host-") as made:
        root, source = Path(made, "root"), Path(made, "source")
        bundle = Bundle.busybox(["sleep", "1000"], directory=made)
        name = f"bench{os.getpid()}"

        async def one() -> None:
            async with bundle as own, Runc(command, root=source).open_container(name, own, grace=0):
                record = json.loads((source / name / "state.json").read_bytes())
                with many(record, number, root) as places:
                    lines.extend(measured(root, places, rounds))
                begun = resource.getrusage(resource.RUSAGE_CHILDREN)
                words = [command, "--root", str(source), "events", "--stats", name]
                for _ in range(rounds):
                    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)  # noqa: ASYNC221 - nothing else runs
                ended = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime
                lines.append(f"| `runc events --stats`, {number} of them | {cpu / rounds * number * MILLI:.0f} | |")

        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        asyncio.run(one())
    return lines


def measured(root: Path, places: Sequence[Mapping[str, str]], rounds: int) -> list[str]:
    """Measure all readers in turn; return the table."""
    found: dict[str, list[float]] = {}
    with contextlib.closing(StatsReader(str(root))) as reader:
        assert len(reader.read_now()) == len(places)
        kept = kept_files()
        bare = Bare(kept, places)
        ways: dict[str, Reader] = {
            "`StatsReader.read_now`": reader.read_now,
            "bare: the same system calls": bare.same,
            "bare: open, read and close each file": bare.opened,
        }
        for _ in range(rounds):
            for way, work in ways.items():
                found.setdefault(way, []).append(spent(work))
    ours = found["`StatsReader.read_now`"]
    lines = [f"{len(places)} cgroups with {len(bare)} files, {len(kept)} of them kept open\n"]
    lines += ["| way | CPU, ms | `StatsReader` beside it |", "|---|---|---|"]
    for way, times in found.items():
        ratio = statistics.median(a / b for a, b in zip(ours, times, strict=True))
        lines.append(f"| {way} | {statistics.median(times) * MILLI:.0f} | {ratio:.2f} |")
    return lines


async def watch(command: str, number: int, seconds: float) -> list[str]:
    """Watch so many idle containers; return the CPU time that it takes."""
    with tempfile.TemporaryDirectory(prefix="runc_async-host-") as root:
        runc = Runc(command, root=root)
        async with Bundle.busybox(["sleep", "100000"]) as bundle, contextlib.AsyncExitStack() as stack:
            for count in range(number):
                await stack.enter_async_context(runc.open_container(f"bench{os.getpid()}-{count}", bundle, grace=0))
            async with runc.watch() as changes:
                for _ in range(2 * number):
                    await anext(changes)
                begun = time.process_time()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await anext(changes)
                cpu = time.process_time() - begun
    return [f"watching {number} idle containers for {seconds:g} s: {cpu * MILLI:.1f} ms of CPU"]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.host", description=__doc__)
    parser.add_argument("--number", type=int, default=1000, help="cgroups, or with --watch containers")
    parser.add_argument("--rounds", type=int, default=10, help="measurements of each way")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="watch for so long instead")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    parser.add_argument("--files", type=int, default=hard, help=f"descriptors that this process may have (now {soft})")
    parser.add_argument("runtime", nargs="?", default="runc", help="name or path of a runc")
    options = parser.parse_args()
    if options.watch:
        lines = asyncio.run(watch(options.runtime, options.number, options.watch))
    else:
        lines = read(options.runtime, options.number, options.rounds, options.files)
    print(f"{machine()}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
