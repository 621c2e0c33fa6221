"""examples/sandbox_service, as a process of its own: what it promises holds whatever clients and scripts do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shlex
import signal
import socket
from typing import TYPE_CHECKING, Any, TypeAlias

import browser as browsers
import httpx
import leaks
import pages
import proof
import pytest
import sandbox_server
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from proof import Tried
    from runtime import Runtime
    from selenium.webdriver import Chrome

pytestmark = [
    pytest.mark.runc,
    pytest.mark.needs("events"),
    pytest.mark.needs("memory controller"),
    pytest.mark.needs("pids controller"),
]

Message: TypeAlias = "dict[str, Any]"

MANY = proof.amount(50, 10)
"""How many clients come at once."""

FOREVER = "echo up; while :; do sleep 1; done"

CONFINED = """
id -u
grep -E 'CapEff|Seccomp:' /proc/self/status
ls /sys/class/net
touch /x
touch /tmp/y
ls /tmp
"""


@pytest.fixture
def serve(runtime: Runtime, root: Path, prefix: str, tmp_path: Path) -> Iterator[Callable[..., sandbox_server.Server]]:
    """Return a function that starts a service; at the end each has ended well, and left nothing."""
    servers: list[sandbox_server.Server] = []

    def start(*options: str) -> sandbox_server.Server:
        command = ("--runtime", runtime.command, "--name", prefix)
        servers.append(sandbox_server.Server(root, tmp_path, *command, *options))
        return servers[-1]

    yield start
    said = "".join([server.end() for server in servers])
    assert {server.process.returncode for server in servers} <= {0, -signal.SIGKILL}, said
    assert "Error" not in said, said
    assert "Warning" not in said, said
    assert list(leaks.containers(root)) == []
    assert list((tmp_path / "bundles").iterdir()) == []


@contextlib.asynccontextmanager
async def connect(server: sandbox_server.Server) -> AsyncGenerator[httpx.AsyncClient]:
    """Open a client that may have any number of connections, one for each request."""
    # A connection that is kept may be closed by the server just when it is used again.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=server.address, trust_env=False, timeout=50, limits=limits) as client:
        yield client


class Run:
    """A run that was submitted: its messages, one by one."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.reason_phrase
        assert response.headers["content-type"].startswith("text/event-stream")
        self._lines = response.aiter_lines()

    async def next(self) -> Message:
        """Wait for a message."""
        async for line in self._lines:
            if line:
                word, _, text = line.partition(": ")
                assert word == "data"
                message: Message = json.loads(text)
                return message
        raise EOFError

    async def until(self, kind: str) -> Message:
        """Wait for a message of a kind."""
        while (message := await self.next())["type"] != kind:
            pass
        return message

    async def rest(self) -> list[Message]:
        """Wait for the end, and return all messages until then."""
        messages: list[Message] = []
        with contextlib.suppress(EOFError):
            while True:
                messages.append(await self.next())
        return messages


@contextlib.asynccontextmanager
async def submit(client: httpx.AsyncClient, script: str) -> AsyncGenerator[Run]:
    """Submit a script; hang up at the end of the block."""
    async with client.stream("POST", "/runs", json={"script": script}) as response:
        yield Run(response)


async def finish(client: httpx.AsyncClient, script: str) -> list[Message]:
    """Submit a script, and wait for its end; return all messages, of which some are always there."""
    async with submit(client, script) as run:
        messages = await run.rest()
    kinds = [message["type"] for message in messages]
    assert kinds[:2] == ["waiting", "started"]
    assert kinds[-1] == "ended"
    return messages


def printed(messages: list[Message], stream: str = "stdout") -> str:
    """Return the output among messages."""
    return "".join(m["text"] for m in messages if m["type"] == "output" and m["stream"] == stream)


async def metrics(client: httpx.AsyncClient) -> dict[str, float]:
    """Ask for the metrics: by name, and where they have one by outcome or bucket as well."""
    text = (await client.get("/metrics")).text
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def counted(client: httpx.AsyncClient, outcome: str, number: int) -> dict[str, float]:
    """Wait until so many runs have ended in a way."""
    async with asyncio.timeout(30):
        while (figures := await metrics(client))[f"sandbox_runs_ended_total {outcome}"] < number:  # noqa: ASYNC110 - as Prometheus does
            await asyncio.sleep(0.05)
    return figures


@pytest.mark.needs("cheap containers")
async def test_many_at_once(serve: Callable[..., sandbox_server.Server], tried: Tried) -> None:
    """Each of many clients gets its own output and exit code, and all are counted."""
    server = serve("--at-once", "6")
    async with connect(server) as client, asyncio.TaskGroup() as group:
        scripts = [f"echo run {number}; echo error {number} >&2; exit {number % 5}" for number in range(MANY)]
        runs = [group.create_task(finish(client, script)) for script in scripts]
        answers = await asyncio.gather(*runs)
        figures = await metrics(client)
    for number, messages in enumerate(answers):
        assert printed(messages) == f"run {number}\n"
        assert printed(messages, "stderr") == f"error {number}\n"
        assert messages[-1]["outcome"] == "exited"
        assert messages[-1]["code"] == number % 5
    assert any(messages[0]["ahead"] for messages in answers)
    assert figures["sandbox_runs_ended_total exited"] == figures["sandbox_run_seconds_count"] == MANY
    assert figures["sandbox_output_bytes_total"] == sum(2 * len(f"run {n}\n") + 2 for n in range(MANY))
    assert figures["sandbox_runs_running"] == figures["sandbox_runs_waiting"] == 0
    tried("requests to the sandbox service", MANY)


async def test_the_request_of_the_readme(serve: Callable[..., sandbox_server.Server]) -> None:
    """It is answered by messages of the same kinds and with the same words as stand below it."""
    page = sandbox_server.PROJECT / "examples" / "sandbox_service" / "README.md"
    words = shlex.split(pages.commands(page)[-1])
    assert words[0] == "curl"
    name, _, value = words[words.index("-H") + 1].partition(": ")
    path = httpx.URL(f"http://{words[-1]}").path
    async with (
        connect(serve()) as client,
        client.stream("POST", path, content=words[words.index("-d") + 1], headers={name: value}) as response,
    ):
        messages = await Run(response).rest()
    shown = [json.loads(line.removeprefix("data: ")) for line in page.read_text().splitlines() if line[:6] == "data: "]
    assert [list(message) for message in shown if message["type"] != "figures"] == [
        list(message) for message in messages if message["type"] != "figures"
    ]
    for kind in ("output", "ended"):
        theirs, ours = ([m for m in told if m["type"] == kind][-1] for told in (shown, messages))
        assert {**theirs, "seconds": None} == {**ours, "seconds": None}
    assert any(message["type"] == "figures" for message in messages)


async def test_clients_hang_up(serve: Callable[..., sandbox_server.Server], tried: Tried) -> None:
    """A client that hangs up, while its script runs or waits, ends it; the place is free for the next."""
    server = serve("--at-once", "2", "--seconds", "50")
    async with connect(server) as client:
        async with contextlib.AsyncExitStack() as clients:
            runs = [await clients.enter_async_context(submit(client, FOREVER)) for _ in range(5)]
            async with asyncio.TaskGroup() as group:
                for run in runs[:2]:
                    group.create_task(run.until("output"))
                for run in runs[2:]:
                    group.create_task(run.until("waiting"))
            assert len(server.containers()) == 2
            figures = await metrics(client)
            assert (figures["sandbox_runs_running"], figures["sandbox_runs_waiting"]) == (2, 3)
        figures = await counted(client, "abandoned", 5)
        assert server.containers() == []
        assert (figures["sandbox_runs_running"], figures["sandbox_runs_waiting"]) == (0, 0)
        assert printed(await finish(client, "echo next")) == "next\n"
    tried("requests to the sandbox service", 6)


@pytest.mark.needs("host kernel")
async def test_limits(
    serve: Callable[..., sandbox_server.Server], runtime: Runtime, tmp_path: Path, tried: Tried
) -> None:
    """Each limit holds, none harms the others, the client is told which one, and all are counted."""
    ending = {
        "out of memory": "x=12345678; while true; do x=$x$x; done",
        "too much output": "yes",
        "exited": CONFINED,
    }
    endless = {
        "out of time": "echo soon; while :; do :; done",
        "bomb": "(bomb() { bomb | bomb & }; bomb) & while :; do :; done",
    }
    scripts = ending | endless
    # A service with time for all that ends by itself, however busy the machine is, beside one without.
    apart = ("--root", str(tmp_path / "hasty" / "root"), "--data", str(tmp_path / "hasty"))
    hurried = serve("--seconds", "3", *apart)
    async with connect(serve("--seconds", "30")) as patient, connect(hurried) as hasty:
        asked = [finish(patient if name in ending else hasty, script) for name, script in scripts.items()]
        answers = dict(zip(scripts, await asyncio.gather(*asked), strict=True))
        figures, hasty_figures = await metrics(patient), await metrics(hasty)
    ends = {name: messages[-1] for name, messages in answers.items()}
    for name in scripts.keys() - {"bomb"}:
        assert ends[name]["outcome"] == name
    assert ends["out of memory"]["oom_killed"] is True
    # The kernel may kill another process of a sandbox, which then ends by itself.
    assert ends["out of memory"]["signal"] in ({signal.SIGKILL, None} if runtime.is_sandbox else {signal.SIGKILL})
    assert printed(answers["out of time"]) == "soon\n"
    assert 3 <= ends["out of time"]["seconds"] < 10
    assert len(printed(answers["too much output"])) == 1 << 20

    lines = printed(answers["exited"]).split()
    assert lines == ["65534", "CapEff:", "0000000000000000", "Seccomp:", "2", "lo", "y"]
    assert "Read-only" in printed(answers["exited"], "stderr")

    tasks = [message["pids"] for message in answers["bomb"] if message["type"] == "figures"]
    assert ends["bomb"]["outcome"] == "out of time"
    assert 1 <= max(tasks) <= 32
    assert "can't fork" in printed(answers["bomb"], "stderr")

    assert hasty_figures["sandbox_runs_ended_total out of time"] == hasty_figures["sandbox_timeouts_total"] == 2
    assert figures["sandbox_oom_kills_total"] == figures["sandbox_runs_ended_total out of memory"] == 1
    assert figures["sandbox_runs_ended_total too much output"] == 1
    assert figures["sandbox_runs_failed_total"] == hasty_figures["sandbox_runs_failed_total"] == 0
    tried("requests to the sandbox service", len(scripts))


@pytest.mark.proof
async def test_figures(serve: Callable[..., sandbox_server.Server]) -> None:
    """What a script uses is told while it runs: the CPU of one that computes, the memory of one that writes."""
    server = serve()
    script = "head -c 20000000 /dev/zero > /tmp/x; i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done; sleep 0.5"
    async with connect(server) as client:
        figures = [m for m in await finish(client, script) if m["type"] == "figures"]
    assert max(m["memory"] for m in figures) > 20_000_000
    assert max(m["cpu"] or 0 for m in figures) > 5
    assert [m["seconds"] for m in figures] == sorted(m["seconds"] for m in figures)


@pytest.mark.proof
async def test_a_client_that_reads_nothing(serve: Callable[..., sandbox_server.Server]) -> None:
    """It slows its script down, and holds its place no longer than the script's time; nothing piles up."""
    server = serve("--at-once", "1", "--output", "256", "--seconds", "2")
    body = json.dumps({"script": "yes"}).encode()
    head = "POST /runs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    url = httpx.URL(server.address)
    with socket.socket() as sleeper:
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeper.connect((url.host, url.port))
        sleeper.sendall((head % len(body)).encode() + body)
        async with connect(server) as client:
            assert printed(await finish(client, "echo next")) == "next\n"
            figures = await counted(client, "out of time", 1)
    assert 0 < figures["sandbox_output_bytes_total"] < 32 << 20


async def test_sigterm(serve: Callable[..., sandbox_server.Server], tried: Tried) -> None:
    """With scripts that run and scripts that wait, each client is told, no container is left, and it exits with 0."""
    server = serve("--at-once", "3", "--seconds", "50")
    async with connect(server) as client, contextlib.AsyncExitStack() as clients:
        runs = [await clients.enter_async_context(submit(client, FOREVER)) for _ in range(6)]
        for run in runs[:3]:
            await run.until("output")
        assert len(server.containers()) == 3
        server.terminate()
        server.terminate()  # as who is impatient does
        rests = await asyncio.gather(*(run.rest() for run in runs))
    assert [messages[-1]["outcome"] for messages in rests] == ["stopped"] * 6
    await asyncio.to_thread(server.end)
    assert server.process.returncode == 0
    assert server.containers() == []
    tried("requests to the sandbox service", 6)


async def test_what_a_killed_service_has_left(serve: Callable[..., sandbox_server.Server]) -> None:
    """The next one deletes it."""
    server = serve("--seconds", "50")
    async with connect(server) as client, submit(client, FOREVER) as run:
        await run.until("output")
        await asyncio.to_thread(server.end, signal.SIGKILL)
    (left,) = server.containers()
    successor = serve()
    assert successor.containers() == []
    await until(lambda: not any(left in process for process in leaks.processes(left)))


async def test_refusals(serve: Callable[..., sandbox_server.Server]) -> None:
    """A full queue is told so; what can't be a script, or comes from elsewhere, is refused and costs no container."""
    server = serve("--at-once", "1", "--queue", "1", "--seconds", "50")
    async with connect(server) as client:
        async with submit(client, FOREVER) as first, submit(client, FOREVER) as second:
            assert (await first.next())["ahead"] == 0
            assert (await second.next())["ahead"] == 1
            full = await client.post("/runs", json={"script": "true"})
            assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        figures = await counted(client, "abandoned", 2)
        assert figures["sandbox_runs_refused_total"] == 1
        for status, script in {422: 1, 413: "#" * 70_000}.items():
            assert (await client.post("/runs", json={"script": script})).status_code == status
        assert (await client.post("/runs", json={"script": "a\0b"})).status_code == 422
        assert (await client.post("/runs", content='{"script": "true"}')).status_code == 415
        elsewhere = {"host": "elsewhere.example"}
        assert (await client.post("/runs", json={"script": "true"}, headers=elsewhere)).status_code == 400
    assert server.containers() == []


needs_browser = pytest.mark.skipif(browsers.missing() is not None, reason=str(browsers.missing()))


@pytest.fixture
def page(serve: Callable[..., sandbox_server.Server]) -> Iterator[Chrome]:
    """Return a browser with the page."""
    server = serve()
    with browsers.browse() as browser:
        browser.get(server.address)
        WebDriverWait(browser, 20).until(lambda b: "64 MiB" in b.find_element(By.ID, "limits").text)
        yield browser


def write(page: Chrome, script: str) -> None:
    """Put a script into the page."""
    field = page.find_element(By.ID, "script")
    field.clear()
    field.send_keys(script)


def shows(page: Chrome, element: str, text: str) -> None:
    """Wait until an element has a text."""
    WebDriverWait(page, 20, 0.05).until(lambda b: text in b.find_element(By.ID, element).text)


def colours(page: Chrome, element: str) -> int:
    """Count the colours of an element on the screen."""
    image = Image.open(io.BytesIO(page.find_element(By.ID, element).screenshot_as_png)).convert("RGB")
    found = image.getcolors(image.width * image.height)
    assert found is not None
    return len(found)


@needs_browser
@pytest.mark.needs("fast events")
def test_a_script_on_the_page(page: Chrome) -> None:
    """Output comes while the script runs, both curves are drawn, and at last stands how it ended."""
    empty = {name: colours(page, name) for name in ("output", "cpu", "memory")}
    write(page, "echo first; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 1; echo '<b>last'; exit 3")
    page.find_element(By.ID, "run").click()
    shows(page, "output", "first")
    assert "last" not in page.find_element(By.ID, "output").text
    shows(page, "words", "exited with 3")
    assert page.find_element(By.ID, "output").text.split() == ["first", "<b>last"]
    for plot in ("cpu", "memory"):
        assert browsers.run_script(page, f"return document.querySelector('#{plot} .curve').getBBox().width") > 20
        assert " of " in (page.find_element(By.ID, plot).get_attribute("aria-label") or "")
    for name, number in empty.items():
        assert colours(page, name) > number
    assert browsers.complaints(page) == []


@pytest.mark.proof
@needs_browser
def test_stop_on_the_page(page: Chrome) -> None:
    """The button ends the script, and another one can be run."""
    write(page, FOREVER)
    page.find_element(By.ID, "run").click()
    shows(page, "output", "up")
    page.find_element(By.ID, "stop").click()
    shows(page, "words", "stopped")
    write(page, "echo again")
    page.find_element(By.ID, "run").click()
    shows(page, "words", "exited with 0")
    assert page.find_element(By.ID, "output").text == "again"
