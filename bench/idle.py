"""`python -m bench.idle`: what containers cost that wait in a pool: CPU time in a minute, and memory, by state."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from bench.report import machine
from bench.warm import suited
from runc_async import Bundle, Pool, Runc
from runc_async._pool.warm import WarmState

PROGRAMS: Final = {
    "sleeps": ("sleep", "100000"),
    "looks around ten times a second": ("sh", "-c", "while sleep 0.1; do :; done"),
}
MILLION: Final = 1e6


def resident() -> int:
    """Return the memory of this process, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(command: str, state: WarmState, args: Sequence[str], *, size: int, seconds: float) -> str:
    """Fill a pool, let it wait, and return a row's figures."""
    with tempfile.TemporaryDirectory(prefix="runc_async-idle-") as root:
        runc = Runc(command, root=root)
        async with Bundle.busybox(args) as bundle:
            before = resident()
            async with Pool(runc, bundle, size=size, state=state, grace=0) as pool, runc.stats_reader() as reader:
                await pool.filled()
                grown = (resident() - before) / size
                begun, own, first = time.monotonic(), time.process_time(), await reader.read()
                await asyncio.sleep(seconds)
                last, own, passed = await reader.read(), time.process_time() - own, time.monotonic() - begun
    minute = 60.0 / passed
    cpu = sum(last[name].cpu.usage.total - first[name].cpu.usage.total for name in last) / MILLION
    memory = statistics.median(stats.memory.usage.usage for stats in last.values()) / MILLION
    return f"{cpu * minute:.0f} | {own * 1e3 * minute:.0f} | {memory:.1f} | {grown / 1e3:.0f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--size", type=int, default=50, help="containers in each pool")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they wait")
    parser.add_argument("runtime", nargs="?", default="runc", help="name or path of a runtime")
    options = parser.parse_args()
    print(f"{machine()}; {options.runtime}, {options.size} containers\n")
    print(
        "| program | state | CPU of all in a minute, ms | own CPU, ms | memory of each, MB | own memory for each, kB |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as made:
        command = suited(options.runtime, Path(made))
        for program, args in PROGRAMS.items():
            for state in get_args(WarmState):
                row = measure(command, state, args, size=options.size, seconds=options.seconds)
                print(f"| {program} | {state} | {asyncio.run(row)} |", flush=True)


if __name__ == "__main__":
    main()
