"""examples/functions, as a process of its own: each call has a container of its own, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import leaks
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runtime import Runtime

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.runc,
    pytest.mark.root,
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs a python3 in /usr"),
    pytest.mark.needs("memory controller"),
    pytest.mark.needs("pids controller"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"

HANDLER = """
import os
import time

calls = 0


def handle(event):
    global calls
    calls += 1
    print("this is no answer")
    match event:
        case "fail":
            raise KeyError("missing")
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "write":
            open("/run/x", "w")
    return [event, calls, os.getuid(), os.getpid()]
"""


@pytest.fixture
def serve(runtime: Runtime, root: Path, prefix: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that starts a service and gives its address; at the end each has ended well."""
    started: list[subprocess.Popen[str]] = []
    handler = tmp_path / "handler.py"
    handler.write_text(HANDLER)

    def start(*options: str) -> str:
        words = [sys.executable, "-X", "dev", "-m", "functions", "--port=0", f"--root={root}", f"--name={prefix}f"]
        command = [*words, f"--runtime={runtime.command}", f"--handler={handler}", *options]
        process = subprocess.Popen(command, cwd=EXAMPLES, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        said = next((line for line in process.stderr if "running on " in line), "")
        return said.partition("running on ")[2].split()[0]

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
        assert process.returncode == 0, said
        assert "Warning" not in said, said
    assert list(leaks.containers(root)) == []


@pytest.mark.proof(every=3)
@pytest.mark.parametrize("mode", ["cold", "created", "running", "paused"])
async def test_calls(serve: Callable[..., str], mode: str) -> None:
    """Calls at the same time are all answered, each by a container that no other call has had."""
    async with httpx.AsyncClient(base_url=serve(f"--mode={mode}", "--size=2"), trust_env=False, timeout=50) as client:
        answers = await asyncio.gather(*(client.post("/call", json=number) for number in range(5)))
        assert [answer.json() for answer in answers] == [{"result": [number, 1, 65534, 1]} for number in range(5)]
        metrics = (await client.get("/metrics")).text
        assert ("runc_async_pool_hits_total" in metrics) == (mode != "cold")


async def test_what_goes_wrong(serve: Callable[..., str]) -> None:
    """Whatever a function does, its caller is told, and the next call works."""
    expected = {"fail": 500, "exit": 502, "write": 500, "hang": 504, "fine": 200}
    async with httpx.AsyncClient(base_url=serve("--seconds=3", "--size=1"), trust_env=False, timeout=50) as client:
        for event, status in expected.items():
            answer = await client.post("/call", json=event)
            assert answer.status_code == status, answer.text
        assert (await client.post("/call", content=b"{")).status_code == 422
        assert (await client.post("/call", content=bytes(2 << 20))).status_code == 413
        with contextlib.suppress(httpx.ReadTimeout):  # a client that goes away in the middle
            await client.post("/call", json="hang", timeout=0.1)


@pytest.mark.proof
@pytest.mark.timeout(150)
async def test_the_measurement(runtime: Runtime) -> None:
    """The program that measures prints a line for each mode that is asked for."""
    options = ["--requests=2", "--size=1", "--pause=0", "--mode=cold", "--mode=running"]
    words = ["-m", "functions.latency", *options, f"--runtime={runtime.command}"]
    measuring = await asyncio.create_subprocess_exec(sys.executable, *words, cwd=EXAMPLES, stdout=subprocess.PIPE)
    said, _ = await measuring.communicate()
    assert measuring.returncode == 0
    modes = [line.split(" | ")[0] for line in said.decode().splitlines()[2:]]
    assert modes == ["| cold", "| running"]
