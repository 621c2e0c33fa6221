"""Values of `env=` stay out of the runtime's command line, and nothing else is other than with its options."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runc_async.client import Runc
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from containers import MakeContainer
    from runtime import Runtime

    from runc_async.runner import Invocation

pytestmark = pytest.mark.runc

LOOK = """
env | sort; id -u; id -g; id -G | tr ' ' '\\n' | sort -u; pwd; umask; ulimit -a; cat /proc/self/oom_score_adj
grep -E 'Cap|NoNew|Uid|Gid' /proc/self/status; tty || true
"""
ENV = {"TOKEN": "x y=z", "A": "new"}

# Soft and hard limit are the same: runc before 1.1.13 may leave the soft one of descriptors raised to the hard one.
FULL = {
    "user": {"uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27},
    "cwd": "/tmp",
    "env": ["PATH=/bin", "HOME=/x", "A=old"],
    "oomScoreAdj": 300,
    "noNewPrivileges": False,
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 50}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 2}],
    "capabilities": {
        kind: ["CAP_KILL", "CAP_CHOWN"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
    },
}
SPARSE = {"user": {}, "env": ["PATH=/bin"], "rlimits": [], "capabilities": {"bounding": ["CAP_KILL"]}}

TEMPLATES: dict[str, dict[str, Any]] = {"proposed": {}, "full": FULL, "sparse": SPARSE, "terminal": {"oomScoreAdj": 1}}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a user": {"user": 5},
    "a user and a group": {"user": "5:6"},
    "a directory": {"cwd": "/etc"},
    "no new privileges": {"no_new_privs": True},
    "a capability": {"caps": ["CAP_NET_RAW"]},
    "a capability for a user": {"caps": ["CAP_NET_RAW"], "user": 5},
    "groups": {"additional_gids": [77]},
}


class ByWords(Runc):
    """A client that leaves all to the options of the runtime, as it was before."""

    async def _as_document(self, invocation: Invocation, build: Any, process: Any, options: Any) -> Invocation:
        del build, process, options
        return invocation


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.needs("host kernel")
async def test_nothing_else_changes(
    template: str, client: Runc, runtime: Runtime, root: Path, make_container: MakeContainer
) -> None:
    """With each option, on top of each container's process, a program finds itself the same in both ways."""
    name = await make_container(process=TEMPLATES[template])
    for what, options in OPTIONS.items():
        if runtime.is_crun and (what == "groups" or "caps" in options):
            continue  # it has no such option, and breaks down over --cap
        found = [
            await each.exec(name, ["sh", "-c", LOOK], env=ENV, check=True, **options)
            for each in (ByWords(runtime.command, root=root), client)
        ]
        assert ["TOKEN=***" in each.args for each in found] == [True, False]
        assert found[0].output == found[1].output, what
        assert "TOKEN=x y=z\n" in found[1].output


async def test_a_capability_is_added(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """With values, capabilities can be added on crun too, which breaks down over its own option."""
    if not runtime.is_crun:
        pytest.skip("compared above")
    looked = ["sed", "-n", r"s/^CapEff:\s*//p", "/proc/self/status"]
    found = await client.exec(await make_container(), looked, caps=["CAP_NET_RAW"], env=ENV)
    assert int(found.stdout, 16) >> 13 & 1


async def test_no_process_shows_a_value(client: Runc, make_container: MakeContainer, prefix: str) -> None:
    """While the program runs, no command line on the host has the value; the program has it."""
    name, secret = await make_container(), f"{prefix}secret"
    script = 'test "$TOKEN" && echo there; read line'
    async with client.open_exec(name, ["sh", "-c", script], env={"TOKEN": secret}, io=PipedIO()) as process:
        assert process.stdout
        assert await process.stdout.receive() == b"there\n"
        shown = await asyncio.to_thread(command_lines)
        assert any(name.encode() in line for line in shown)
        assert [line for line in shown if secret.encode() in line] == []


def command_lines() -> list[bytes]:
    """Return the command lines of all processes."""
    found: list[bytes] = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
