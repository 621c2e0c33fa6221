#!/usr/bin/env python3
"""Make docs/node-agent.svg: the table of examples/node_agent, with real containers. As root, with busybox and runc."""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from prometheus_client import CollectorRegistry
from rich.console import Console

from runc_async import Bundle, Runc, subreaper
from runc_async.rootfs import Busybox
from runc_async.spec import Spec

TOP = Path(__file__).resolve().parent.parent
OUTPUT = TOP / "docs" / "node-agent.svg"
WIDTH = 92

SCRIPTS = {
    "web": "sleep 600",
    "batch": "while :; do :; done",
    "cache": "head -c 20000000 /dev/zero > /dev/shm/cache; sleep 600",
    "flaky": "sleep 0.7; exit 3",
    "report": "exit 0",
}

sys.path.insert(0, str(TOP))

from examples.node_agent.__main__ import table  # noqa: E402 - it stands in that directory
from examples.node_agent.agent import RESTART, Agent  # noqa: E402 - as above


async def main(seconds: float = 7.0) -> None:
    """Write the picture of an agent that has watched for some seconds."""
    with tempfile.TemporaryDirectory(prefix="agent-") as root:
        prefix = f"{Path(root).name}-"
        runc = Runc(root=root)
        agent = Agent(runc, CollectorRegistry())
        async with AsyncExitStack() as stack:
            stack.push_async_callback(delete_all, runc)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(agent.follow)
                tasks.start_soon(agent.measure, 1.0)
                for name, script in SCRIPTS.items():
                    spec = Spec.default().set_args("sh", "-c", script).set_terminal(enabled=False)
                    spec.annotations = {RESTART: "on-failure"}
                    bundle = await stack.enter_async_context(Bundle.temporary(rootfs=Busybox(), spec=spec))
                    await runc.run(prefix + name, bundle, detach=True)
                await anyio.sleep(seconds)
                tasks.cancel_scope.cancel()
            await delete_all(runc)
        console = Console(record=True, width=WIDTH, file=io.StringIO())
        console.print(table({name.removeprefix(prefix): row for name, row in agent.rows.items()}))
        OUTPUT.write_text(console.export_svg(title="python -m node_agent", unique_id="node-agent"))


async def delete_all(runc: Runc) -> None:
    """Delete all containers."""
    for state in await runc.list():
        await runc.delete(state.id, force=True)


if __name__ == "__main__":
    with subreaper():
        anyio.run(main)
    print(OUTPUT)
