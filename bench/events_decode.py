"""How fast events are framed and decoded, beside json.loads and msgspec on lines that are cut already.

    python bench/events_decode.py [-n EVENTS]

The lines are those of all runc versions that were recorded for the tests. They are cut and decoded as by `Runc.events`,
and go through the whole of `Runc.events`: once from memory, by a runner, and once from a child process, by a pipe. Each
figure is the median of five rounds, in microseconds of this process's CPU time for an event.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from runc_async import Runc
from runc_async._answers.decode import EVENT, StatsLine
from runc_async._client.streaming import LINE_LIMIT
from runc_async._events.lines import LineFramer
from runc_async.event import OOMEvent
from runc_async.testing import FakeRunner

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "recorded"
PIPE = 1 << 16
ROUNDS = 5


def recorded(number: int) -> list[bytes]:
    """Return so many lines of stats, each an object of its own as it is when it comes from a pipe."""
    lines: list[bytes] = []
    for path in sorted(RECORDED.glob("runc-*.jsonl")):
        for case in path.read_bytes().splitlines():
            output: str = json.loads(case)["stdout"] or ""
            lines += [line.encode() for line in output.splitlines() if line.startswith('{"type":"stats"')]
    return [bytes(bytearray(lines[index % len(lines)])) for index in range(number)]


def clocked(work: Callable[[], object]) -> float:
    """Return the CPU time of a call, in seconds."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


async def streamed(runc: Runc, number: int) -> float:
    """Return the CPU time of reading a whole stream, without the start of runc."""
    count = 0
    async with runc.events("web") as events:
        begun = time.process_time()
        async for _ in events:
            count += 1
        took = time.process_time() - begun
    if count != number:
        raise RuntimeError(f"{count} events of {number} lines")
    return took


def from_memory(data: bytes) -> Runc:
    """Return a client whose runc is a runner that gives these bytes as a pipe would."""
    runner = FakeRunner()
    runner.reply("events", stdout=[data[at : at + PIPE] for at in range(0, len(data), PIPE)])
    return Runc(runner=runner)


def from_a_pipe(data: bytes, directory: Path) -> Runc:
    """Return a client whose runc is a program that prints these bytes."""
    (directory / "data").write_bytes(data)
    program = directory / "runc"
    program.write_text(f"#!/bin/sh\nexec cat {directory}/data\n")
    program.chmod(0o755)
    return Runc(program)


def each(lines: list[bytes], decode: Callable[[bytes], object]) -> Callable[[], None]:
    """Return a call that decodes all lines."""

    def work() -> None:
        for line in lines:
            decode(line)

    return work


def framed(data: bytes) -> Callable[[], None]:
    """Return a call that cuts a stream of chunks into lines and decodes them, without a stream's waits."""
    chunks = [data[at : at + PIPE] for at in range(0, len(data), PIPE)]

    def work() -> None:
        framer = LineFramer(LINE_LIMIT)
        for chunk in chunks:
            for line in io.BytesIO(framer.feed(chunk)):
                EVENT.decode(line)

    return work


def measure(number: int) -> dict[str, float]:
    """Return the microseconds for an event, by way."""
    lines = recorded(number)
    data = b"\n".join(lines) + b"\n"
    msgspec_only: msgspec.json.Decoder[StatsLine | OOMEvent] = msgspec.json.Decoder(StatsLine | OOMEvent)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        memory, pipe = from_memory(data), from_a_pipe(data, Path(directory))
        for _ in range(ROUNDS):
            for way, took in {
                "json.loads, lines cut before": clocked(each(lines, json.loads)),
                "msgspec, lines cut before": clocked(each(lines, msgspec_only.decode)),
                "framed and decoded": clocked(framed(data)),
                "events, from memory": asyncio.run(streamed(memory, number)),
                "events, from a pipe": asyncio.run(streamed(pipe, number)),
            }.items():
                seconds.setdefault(way, []).append(took)
    return {way: statistics.median(rounds) / number * 1e6 for way, rounds in seconds.items()}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=sys.modules[__name__].__doc__)
    parser.add_argument("-n", "--number", type=int, default=10_000, help="events in a round (default: %(default)s)")
    figures = measure(parser.parse_args().number)
    loads, bare, *_ = figures.values()
    print(f"{'':30} us/event   x json.loads   x msgspec")
    for way, took in figures.items():
        print(f"{way:30} {took:8.2f} {loads / took:14.2f} {bare / took:11.2f}")


if __name__ == "__main__":
    main()
