"""Measure the service: python -m functions.latency; from the request to the answer, cold and warm.

It starts the service once for each mode, sends requests one after the other, and prints percentiles; with --plot it
draws the histogram.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

MODES: Final = ("cold", "created", "paused", "running")
EVENT: Final = json.dumps({"numbers": [3, 1, 2]})


@contextlib.contextmanager
def serving(mode: str, runtime: str, size: int) -> Generator[int]:
    """Have a service; give its port."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "functions", "--port=0", f"--mode={mode}", f"--runtime={runtime}"]
        process = subprocess.Popen(
            [*command, f"--root={root}", f"--name=latency{os.getpid()}", f"--size={size}"],
            cwd=Path(__file__).parents[1],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert process.stderr is not None
        try:
            said = next((line for line in process.stderr if "running on " in line), "")
            yield int(said.split()[-5].rpartition(":")[2])
        finally:
            process.terminate()
            process.communicate()


def seconds(port: int) -> float:
    """Call the function once; return how long the answer has taken."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begun = time.perf_counter()
    connection.request("POST", "/call", EVENT)
    answer = connection.getresponse()
    body = answer.read()
    passed = time.perf_counter() - begun
    connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise RuntimeError(body.decode())
    return passed


def measure(mode: str, runtime: str, *, size: int, requests: int, pause: float) -> list[float]:
    """Measure one mode; the pause between requests gives the pool time for the next container."""
    found: list[float] = []
    with serving(mode, runtime, size) as port:
        for _ in range(requests):
            found.append(seconds(port))
            time.sleep(pause)
    return found


def table(found: dict[str, list[float]]) -> str:
    """Return the percentiles, in milliseconds."""
    lines = ["| mode | p50, ms | p95, ms | p99, ms |", "|---|---|---|---|"]
    for mode, times in found.items():
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        lines.append(f"| {mode} | {cuts[49] * 1e3:.1f} | {cuts[94] * 1e3:.1f} | {cuts[98] * 1e3:.1f} |")
    return "\n".join(lines)


def plot(found: dict[str, list[float]], path: Path, title: str) -> None:
    """Draw the histogram; it needs matplotlib."""
    importlib.import_module("matplotlib").use("agg")
    figure, axes = importlib.import_module("matplotlib.pyplot").subplots(figsize=(8, 4))
    everything = [value * 1e3 for times in found.values() for value in times]
    low, high = min(everything), max(everything)
    edges = [low * (high / low) ** (step / 60) for step in range(61)]
    for mode, times in found.items():
        axes.hist([value * 1e3 for value in times], bins=edges, alpha=0.6, label=mode)
    axes.set(xscale="log", xlabel="milliseconds from request to answer", ylabel="requests", title=title)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(prog="functions.latency", description=__doc__)
    parser.add_argument("--requests", type=int, default=100, help="requests in each mode")
    parser.add_argument("--mode", action="append", choices=MODES, help="this mode alone; can be given several times")
    parser.add_argument("--size", type=int, default=4, help="containers that are held ready")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two requests")
    parser.add_argument("--runtime", default="runc", help="name or path of the runtime")
    parser.add_argument("--plot", type=Path, help="draw the histogram into this file")
    options = parser.parse_args()
    given = {"size": options.size, "requests": options.requests, "pause": options.pause}
    found = {mode: measure(mode, options.runtime, **given) for mode in options.mode or MODES}
    print(table(found))
    if options.plot:
        plot(found, options.plot, f"{options.runtime}, {options.requests} requests in each mode")


if __name__ == "__main__":
    main()
