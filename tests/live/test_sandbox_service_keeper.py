"""examples/sandbox_service with --keeper: its runs outlive it, whether it is killed or told to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, TypeAlias

import browser as browsers
import httpx
import keepers
import leaks
import pytest
import sandbox_server
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from runtime import Runtime

pytestmark = [
    pytest.mark.runc,
    pytest.mark.needs("events"),
    pytest.mark.needs("memory controller"),
    pytest.mark.needs("pids controller"),
]

Message: TypeAlias = "dict[str, Any]"

COUNTING = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); [ $((i%20)) = 0 ] && sleep 0.1; done; exit 42"
LINES = "".join(f"line {number}\n" for number in range(400))


@pytest.fixture
async def serve(
    runtime: Runtime, root: Path, scratch: Path, prefix: str, tmp_path: Path
) -> AsyncIterator[Callable[..., sandbox_server.Server]]:
    """Return a function that starts a service, with the same keeper each time, which is ended with the test."""
    servers: list[sandbox_server.Server] = []
    place = scratch / f"k{os.urandom(3).hex()}"

    def start(*options: str) -> sandbox_server.Server:
        command = ("--runtime", runtime.command, "--name", prefix, "--keeper", str(place), "--seconds", "50")
        servers.append(sandbox_server.Server(root, tmp_path, *command, *options))
        return servers[-1]

    yield start
    said = "".join([server.end() for server in servers])
    await keepers.end(place)
    keepers.remove(place)
    assert {server.process.returncode for server in servers} <= {0, -signal.SIGKILL}, said
    assert "Error" not in said, said
    assert list(leaks.containers(root)) == []


class Client:
    """A client that comes back.

    Attributes:
        messages: All that it was told.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._last = 0

    @property
    def printed(self) -> str:
        """The output."""
        return "".join(message["text"] for message in self.messages if message["type"] == "output")

    @property
    def name(self) -> str:
        """The name of the run; empty as long as it isn't known."""
        return next((message["id"] for message in self.messages if message["type"] == "started"), "")

    async def submit(self, server: sandbox_server.Server, script: str) -> None:
        """Submit a script, and listen until the service hangs up."""
        await self._listen(server, "POST", "/runs", json={"script": script})

    async def come_back(self, server: sandbox_server.Server) -> None:
        """Listen to the rest."""
        await self._listen(server, "GET", f"/runs/{self.name}", headers={"last-event-id": str(self._last)})

    async def _listen(self, server: sandbox_server.Server, method: str, path: str, **options: Any) -> None:
        async with (
            httpx.AsyncClient(base_url=server.address, trust_env=False, timeout=60) as client,
            client.stream(method, path, **options) as response,
        ):
            assert response.status_code == 200
            with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):  # it was killed
                async for line in response.aiter_lines():
                    word, _, text = line.partition(": ")
                    if word == "id":
                        assert int(text) == self._last + 1
                        self._last = int(text)
                    elif word == "data":
                        self.messages.append(json.loads(text))


@pytest.mark.proof(every=2)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_rest_after_an_end(serve: Callable[..., sandbox_server.Server], number: signal.Signals) -> None:
    """A service that ends in the middle of runs, and is started again: no line is lost, and the code is right."""
    server = serve()
    clients = [Client() for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.submit(server, COUNTING)) for client in clients]
        await until(lambda: all("line 40\n" in client.printed for client in clients), 60)
        server.process.send_signal(number)
        await asyncio.gather(*tasks)
    await asyncio.to_thread(server.end)
    assert all("line 399\n" not in client.printed for client in clients)
    server = serve()
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.come_back(server))
    for client in clients:
        assert client.printed == LINES
        assert [message["type"] for message in client.messages].count("started") == 1
        assert client.messages[-1] == {**client.messages[-1], "type": "ended", "outcome": "exited", "code": 42}
    assert server.containers() == []


async def test_an_end_in_between(serve: Callable[..., sandbox_server.Server]) -> None:
    """A script that ends while no service is there has its output, and its exit code."""
    server = serve()
    client = Client()
    task = asyncio.create_task(client.submit(server, "echo begin; sleep 2; echo end; exit 7"))
    await until(lambda: "begin\n" in client.printed)
    await asyncio.to_thread(server.end, signal.SIGKILL)
    await task
    await asyncio.sleep(3)
    await client.come_back(serve())
    assert client.printed == "begin\nend\n"
    assert client.messages[-1]["code"] == 7


@pytest.mark.proof
async def test_the_whole_run_again(serve: Callable[..., sandbox_server.Server]) -> None:
    """A run can be followed from its beginning, also after its end; one that isn't known is a 404."""
    server = serve()
    client, other = Client(), Client()
    await client.submit(server, "echo once")
    other.messages = [message for message in client.messages if message["type"] == "started"]
    await other.come_back(server)
    assert other.messages[1:] == client.messages
    async with httpx.AsyncClient(base_url=server.address, trust_env=False) as asking:
        assert (await asking.get("/runs/other")).status_code == 404


@pytest.mark.proof
async def test_what_waited(serve: Callable[..., sandbox_server.Server], tmp_path: Path) -> None:
    """A run that waited for its place when the service was killed is over; its place is free."""
    server = serve("--at-once", "1")
    first, second = Client(), Client()
    tasks = [asyncio.create_task(first.submit(server, "echo up; sleep 3; exit 5"))]
    await until(lambda: first.printed)
    tasks.append(asyncio.create_task(second.submit(server, "echo never")))
    await until(lambda: second.messages)
    await asyncio.to_thread(server.end, signal.SIGKILL)
    await asyncio.gather(*tasks)
    server = serve("--at-once", "1")
    await first.come_back(server)
    assert first.messages[-1]["code"] == 5
    third = Client()
    await third.submit(server, "echo third")
    assert third.printed == "third\n"
    assert sorted(path.name for path in (tmp_path / "bundles").iterdir()) == ["shared"]


@pytest.mark.proof
@pytest.mark.skipif(browsers.missing() is not None, reason=str(browsers.missing()))
def test_the_rest_on_the_page(serve: Callable[..., sandbox_server.Server]) -> None:
    """The page shows the rest of the output, and the end, when the service is there again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve("--port", str(port))
    with browsers.browse() as page:
        page.get(server.address)
        WebDriverWait(page, 20).until(lambda b: "64 MiB" in b.find_element(By.ID, "limits").text)
        browsers.run_script(page, f"document.getElementById('script').value = {json.dumps(COUNTING)}")
        page.find_element(By.ID, "run").click()
        WebDriverWait(page, 30).until(lambda b: "line 40\n" in b.find_element(By.ID, "output").text)
        server.end(signal.SIGKILL)
        WebDriverWait(page, 20).until(lambda b: "waiting for" in b.find_element(By.ID, "words").text)
        serve("--port", str(port))
        WebDriverWait(page, 60).until(lambda b: "exited with 42" in b.find_element(By.ID, "words").text)
        assert page.find_element(By.ID, "output").text.strip() == LINES.strip()
