"""`python -m bench.shares`: where the CPU time of a call goes, by what is done.

A profiler counts the time that each function itself takes in the thread of the event loop, so waiting doesn't count. It
makes all of Python slower alike, so the shares are right and the times aren't.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import re
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from bench.peers import ours
from bench.peers.serve import Operation
from bench.report import machine
from bench.stage import Stage, stage
from runc_async import subreaper

ROOMS: Final[Mapping[str, str]] = {
    r"/asyncio/(base_)?subprocess|/asyncio/unix_events|/subprocess\.py|/threading\.py|_weakrefset": "asyncio: spawning",
    r"/asyncio/|/selectors\.py": "asyncio: tasks, callbacks, the selector",
    r"/contextlib\.py": "context managers",
    r"_linux/(memfd|prerequisites)|_process/(plumbing|argument_files)|_streams/": "streams, files in memory",
    r"_linux/inotify|_linux/scratch|_containers/workload|ctypes": "the pid file: a directory, inotify, the pidfd",
    r"_linux/(pidfd|procfs|exits|cgroup|files|libc|subreaper)|_containers/first_process": "procfs, cgroups, pidfds",
    r"_host/|usage": "usage",
    r"_linux/owner|_containers/ownership|_client/(claim|undo)": "whose the container is, and undoing",
    r"_commands/|_client/(calls|requirements|identity)|_linux/search_path|_process/launch|features": "words, versions",
    r"_process/": "the child: a task, signals, the tree",
    r"spec/|bundle|_bundles/": "the bundle",
    r"_runtimes/|_answers/|json": "records, answers, errors",
    r"runc_async/": "clients and handles",
}
"""What is done, by where it is done: the first pattern that a file's path has counts."""

OTHER: Final = "the rest of Python's library"


def room(path: str) -> str:
    """Return what a file is for."""
    return next((name for pattern, name in ROOMS.items() if re.search(pattern, path)), OTHER)


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Return the share of each room in the time, without the wait for events."""
    seconds: Counter[str] = Counter()
    found: dict[Any, Any] = vars(pstats.Stats(profile))["stats"]
    for (path, _, name), (_, _, own, _, callers) in found.items():
        if "select.epoll" in name:
            continue
        if path == "~":  # a function in C counts for its callers
            for (caller, _, _), (_, _, part, _) in callers.items():
                seconds[room(caller)] += part
        else:
            seconds[room(path)] += own
    total = sum(seconds.values())
    return {name: part / total for name, part in seconds.most_common()}


async def profiled(operation: Operation, count: int) -> dict[str, float]:
    """Profile an operation that has been done before."""
    await operation()
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    for _ in range(count):
        await operation()
    profile.disable()
    return shares(profile)


def operations(made: Stage) -> dict[str, Operation]:
    """Return what is profiled."""
    (name,) = made.containers(1)
    root, bundle = str(made.root), made.bundle("true")
    return {
        "open_container": ours.cycle(root, bundle),
        "run": ours.foreground(root, bundle),
        "exec": ours.output(root, name),
        "state": ours.state(root, name),
    }


def main() -> None:
    """Profile, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.shares", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="calls of each")
    count = parser.parse_args().count
    with stage() as made, subreaper():
        found = {name: asyncio.run(profiled(operation, count)) for name, operation in operations(made).items()}
    print(f"{machine()}; per cent of the CPU time of the thread of the event loop\n")
    print(f"| | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for name in [*dict.fromkeys(ROOMS.values()), OTHER]:
        print(f"| {name} | {' | '.join(f'{100 * share.get(name, 0):.0f}' for share in found.values())} |")


if __name__ == "__main__":
    main()
