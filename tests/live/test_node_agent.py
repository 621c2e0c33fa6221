"""examples/node_agent, as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from runc_async.state import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containers import MakeBundle
    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = [pytest.mark.runc, pytest.mark.needs("memory controller"), pytest.mark.needs("watch")]

EXAMPLES = Path(__file__).parents[2] / "examples"
RESTARTED = {"annotations": {"runc-async.restart": "on-failure"}}


class Agent:
    """An agent that runs.

    Attributes:
        terminal: The other end of its terminal.
        process: Its process.
    """

    def __init__(self, runtime: str, root: Path, log: Path) -> None:
        self._log = log
        self.terminal, inner = os.openpty()
        words = ["--runtime", runtime, "--root", str(root), "--log", str(log), "--port", "0", "--interval", "0.1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "node_agent", *words],
            cwd=EXAMPLES,
            stdin=subprocess.DEVNULL,
            stdout=inner,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
        )
        os.close(inner)
        os.set_blocking(self.terminal, False)
        self._shown = b""

    def log(self) -> list[str]:
        """Return the log, without the times."""
        self.shown()  # else the agent waits for its terminal
        return [line.split(" ", 2)[2] for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def shown(self) -> str:
        """Return all that it has shown."""
        try:
            while data := os.read(self.terminal, 1 << 16):
                self._shown += data
        except OSError:  # nothing more for now
            pass
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._shown.decode(errors="replace"))

    def metrics(self) -> dict[tuple[str, str], float]:
        """Ask for the metrics, by name and id of the container."""
        address = next(line.removeprefix("metrics at ") for line in self.log() if line.startswith("metrics at "))
        families = text_string_to_metric_families(httpx.get(address, trust_env=False, timeout=30).text)
        return {
            (sample.name, sample.labels.get("id", sample.labels.get("name", ""))): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def agent(runtime: Runtime, root: Path, tmp_path: Path) -> Iterator[Agent]:
    """Return an agent; at the end it ends well."""
    made = Agent(runtime.command, root, tmp_path / "log")
    yield made
    made.process.send_signal(signal.SIGTERM)
    while made.process.poll() is None:
        made.shown()  # else it waits for its terminal
    os.close(made.terminal)
    assert made.process.returncode == 0


async def test_it_restarts_what_crashes(
    agent: Agent, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A marked container that crashes is restarted, each time later; its life is in the log, and it is counted."""
    name = container_id()
    await until(agent.log, 60)
    await client.run(name, make_bundle(["sh", "-c", "sleep 0.2; exit 3"], **RESTARTED), detach=True)
    await until(lambda: agent.log().count(f"{name} started") == 3, 60)
    assert agent.log().count(f"{name} exited, exited with 3") >= 2
    assert agent.metrics()["node_agent_restarts_total", name] >= 1
    await until(lambda: all(f"restart in {delay} s" in agent.shown() for delay in (0.5, 1.0)), 30)
    await client.delete(name, force=True)
    await until(lambda: f"{name} deleted" in agent.log()[-1], 30)


@pytest.mark.proof(every=3)
@pytest.mark.parametrize("why", ["not marked", "done", "deleted meanwhile"])
async def test_it_restarts_nothing_else(
    *, agent: Agent, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], why: str
) -> None:
    """A container without the annotation stays stopped, and so does one that has exited with 0, or was deleted."""
    name, other = container_id(), container_id()
    await until(agent.log, 60)
    changes = {} if why == "not marked" else RESTARTED
    await client.run(name, make_bundle(["sh", "-c", f"exit {int(why != 'done')}"], **changes), detach=True)
    await until(lambda: any(f"{name} exited" in line for line in agent.log()), 30)
    if why == "deleted meanwhile":
        await client.delete(name)
    # A marked one that crashes later is restarted, and this one isn't.
    await client.run(other, make_bundle(["sh", "-c", "exit 1"], **RESTARTED), detach=True)
    await until(lambda: agent.log().count(f"{other} started") == 2, 60)
    assert agent.log().count(f"{name} started") == 1
    await client.delete(other, force=True)


async def test_it_shows_what_runs(
    agent: Agent, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """CPU and memory of a container are in the table, and in the metrics; the end of the agent ends no container."""
    name = container_id()
    await until(agent.log, 60)
    await client.run(name, make_bundle(["sh", "-c", "while :; do :; done"]), detach=True)
    await until(
        lambda: re.search(rf"{re.escape(name)} *│ started *│ *[1-9][0-9]* % *│ *[0-9.]+ MiB", agent.shown()), 60
    )
    assert any(metric == "container_memory_working_set_bytes" for metric, _ in agent.metrics())
    agent.process.send_signal(signal.SIGTERM)
    await until(lambda: (agent.shown(), agent.process.poll())[1] is not None, 30)
    assert (await client.state(name)).status == Status.RUNNING
