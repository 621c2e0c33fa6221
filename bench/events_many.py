"""What streams of many real containers cost in one event loop, and that nothing of them is lost or left.

    python bench/events_many.py [-c CONTAINERS] [-s SECONDS] [-i INTERVAL]

Needs root and runc. All containers share a bundle of busybox; one event loop reads all streams, as one iteration. The
costs are those of this process; each stream has a runc of its own beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from runc_async import Bundle, EventStream, OOMEvent, Runc, StatsEvent, UnknownEvent, merge_events

LAZY = ["sh", "-c", "while :; do sleep 1; done"]


def resident() -> int:
    """Return the memory that this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Reading:
    """What came of the streams once all had begun, and what that took.

    Attributes:
        seen: How many figures came of each container.
        disorder: How many figures were older than those before.
        seconds: The time.
        cpu: The CPU time of this process, in seconds.
        memory: What this process had at the end, in bytes.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.disorder = 0
        self.seconds = self.cpu = 0.0
        self.memory = 0

    async def read(self, streams: list[EventStream], seconds: float) -> None:
        """Read all streams, for some time from the first figures of the last one on."""
        last: dict[str, int] = {}
        begun = None
        async with merge_events(streams) as events:
            async for event in events:
                match event:
                    case StatsEvent(name, stats):
                        self.seen[name] += 1
                        self.disorder += stats.cpu.usage.total < last.get(name, 0)
                        last[name] = stats.cpu.usage.total
                    case OOMEvent() | UnknownEvent():
                        pass
                    case failure:
                        raise RuntimeError(f"a stream has ended: {failure}")
                if begun is None and len(last) == len(streams):
                    begun = time.monotonic(), time.process_time()
                    self.seen.clear()
                if begun is not None and time.monotonic() > begun[0] + seconds:
                    self.seconds = time.monotonic() - begun[0]
                    self.cpu = time.process_time() - begun[1]
                    self.memory = resident()
                    break


async def measure(runc: Runc, number: int, seconds: float, interval: float) -> None:
    """Make the containers, read their streams, and print what that costs."""
    names = [f"events-many-{os.getpid()}-{index}" for index in range(number)]
    reading = Reading()
    async with Bundle.busybox(LAZY) as bundle:
        try:
            for name in names:
                await runc.run(name, bundle, detach=True)
            memory, descriptors = resident(), len(os.listdir("/proc/self/fd"))
            await reading.read([runc.events(name, interval=interval) for name in names], seconds)
            descriptors = len(os.listdir("/proc/self/fd")) - descriptors
        finally:
            await asyncio.gather(*(runc.delete(name, force=True) for name in names))
    fewest, most = min(reading.seen[name] for name in names), max(reading.seen.values())
    share, expected = reading.cpu / reading.seconds, int(reading.seconds / interval)
    tasks, left = len(asyncio.all_tasks()) - 1, children()
    print(f"{number} streams for {seconds:g} s, figures every {interval:g} s")
    print(f"figures of a container: {fewest} to {most}; {expected} intervals went by; {reading.disorder} out of order")
    print(f"CPU of the client:      {share:.2%} of a core, {share / number:.4%} for a stream,")
    print(f"                        {reading.cpu / reading.seen.total() * 1e6:.0f} us for an event")
    print(f"memory of the client:   {(reading.memory - memory) / number / 1024:.0f} KiB for a stream")
    print(f"left afterwards:        {descriptors} descriptors, {tasks} tasks, {len(left)} children")
    if reading.disorder or fewest < expected - 1 or descriptors or tasks or left:
        raise RuntimeError("figures were lost, or something was left")


def children() -> list[str]:
    """Return the pids of the children of this process."""
    return [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]


def main() -> None:
    """Measure with what the command line asks for."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("-c", "--containers", type=int, default=100, help="default: %(default)s")
    parser.add_argument("-s", "--seconds", type=float, default=60, help="default: %(default)s")
    parser.add_argument("-i", "--interval", type=float, default=1.0, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(measure(Runc(root=root), options.containers, options.seconds, options.interval))


if __name__ == "__main__":
    main()
