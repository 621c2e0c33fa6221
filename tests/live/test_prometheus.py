"""`ContainerCollector` scraped by a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from runc_async.prometheus import ContainerCollector

if TYPE_CHECKING:
    from pathlib import Path

    from containers import MakeContainer

    from runc_async import Runc

pytestmark = [pytest.mark.runc, pytest.mark.root]

PROMETHEUS = shutil.which("prometheus")

CONFIG = """\
global: {{scrape_interval: 200ms}}
scrape_configs:
- job_name: containers
  static_configs:
  - targets: ["127.0.0.1:{port}"]
"""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """Ask Prometheus; nothing as long as it doesn't listen yet."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except OSError:
        return []
    return found


async def answer(port: int, query: str) -> list[dict[str, Any]]:
    """Ask Prometheus until it has an answer."""
    async with asyncio.timeout(45):
        while not (found := await asyncio.to_thread(ask, port, query)):  # noqa: ASYNC110 - another program's state
            await asyncio.sleep(0.2)
    return found


@pytest.mark.skipif(PROMETHEUS is None, reason="needs prometheus in $PATH")
async def test_prometheus_has_the_figures(client: Runc, make_container: MakeContainer, tmp_path: Path) -> None:
    """A real Prometheus scrapes the collector, and answers the queries that dashboards for cAdvisor ask."""
    assert PROMETHEUS is not None
    name = await make_container(args=("sh", "-c", "while :; do :; done"))
    collector = ContainerCollector(client)
    registry = CollectorRegistry()
    registry.register(collector)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    (tmp_path / "prometheus.yml").write_text(CONFIG.format(port=server.server_port))
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROMETHEUS,
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        container = f'{{name="{name}",image!=""}}'
        (cpu,) = await answer(port, f"sum by (name) (rate(container_cpu_usage_seconds_total{container}[10s])) > 0")
        assert cpu["metric"] == {"name": name}
        (threads,) = await answer(port, f"container_threads{container}")
        assert int(threads["value"][1]) >= 1
        assert threads["metric"]["id"].endswith(f"/{name}")
        (up,) = await answer(port, 'up{job="containers"}')
        assert up["value"][1] == "1"
    finally:
        process.terminate()
        await process.wait()
        server.shutdown()
        server.server_close()
        thread.join()
        collector.close()
