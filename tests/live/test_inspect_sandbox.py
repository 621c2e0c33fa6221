"""examples/agent/inspect_sandbox.py: the sandbox as inspect_ai sees it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [pytest.mark.runc, pytest.mark.root]

MODULE = "examples.agent.inspect_sandbox"

INSTALLED = importlib.util.find_spec("inspect_ai") is not None
"""Whether inspect_ai is there: it is too large for the development environment, and has a stand-in in its place."""

NEEDS = {
    "test_exec_as_user": "adduser, and an /etc that can be written",
    "test_read_file_not_allowed": "a user other than root, for whom permissions count",
    "test_write_text_file_without_permissions": "likewise",
    "test_write_binary_file_without_permissions": "likewise",
}
"""The parts of inspect_ai's own check of sandboxes that this one doesn't have."""


class ExecResult(NamedTuple):
    """The stand-in for inspect_ai's result of a command."""

    success: bool
    returncode: int
    stdout: str
    stderr: str


class SandboxEnvironment:
    """The stand-in for inspect_ai's class."""

    def as_type(self, expected: type[Any]) -> Any:
        """Return it as what it is."""
        assert isinstance(self, expected)
        return self


class OutputLimitExceededError(Exception):
    """The stand-in for inspect_ai's exception."""


class SandboxUserUnsupportedError(RuntimeError):
    """The stand-in for inspect_ai's exception."""


def sandboxenv(name: str) -> Callable[[type[Any]], type[Any]]:
    """Register nothing: the stand-in for inspect_ai's decorator."""
    assert name
    return lambda made: made


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Return a sandbox that inspect_ai has made for a sample, or a stand-in in its place."""
    if not INSTALLED:
        module = ModuleType("inspect_ai")
        module.__dict__["util"] = SimpleNamespace(
            ExecResult=ExecResult,
            OutputLimitExceededError=OutputLimitExceededError,
            SandboxEnvironment=SandboxEnvironment,
            SandboxEnvironmentLimits=SimpleNamespace(
                MAX_EXEC_OUTPUT_SIZE=1 << 20, MAX_READ_FILE_SIZE=1 << 20, MAX_READ_FILE_SIZE_STR="1 MiB"
            ),
            SandboxUserUnsupportedError=SandboxUserUnsupportedError,
            sandboxenv=sandboxenv,
        )
        monkeypatch.setitem(sys.modules, "inspect_ai", module)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    runc_sandbox = importlib.import_module(MODULE).RuncSandbox
    environments = await runc_sandbox.sample_init("task", None, {})
    yield environments["default"]
    await runc_sandbox.sample_cleanup("task", None, environments, False)
    sys.modules.pop(MODULE, None)


async def test_what_inspect_asks_of_a_sandbox(sandbox: Any) -> None:
    """Commands run with input, a directory, variables and a user; files go in and out; errors are inspect_ai's."""
    await sandbox.write_file("a/b.txt", "text\r\n")
    assert await sandbox.read_file("a/b.txt") == "text\r\n"
    assert await sandbox.read_file("/root/a/b.txt", text=False) == b"text\r\n"
    script = "cat; pwd; echo $X; id -u; echo err >&2; exit 3"
    ended = await sandbox.exec(["sh", "-c", script], input="in\n", cwd="a", env={"X": "x"}, user="nobody")
    assert (ended.success, ended.returncode, ended.stderr) == (False, 3, "err\n")
    assert ended.stdout == "in\n/root/a\nx\n65534\n"
    assert (await sandbox.exec(["absent"])).returncode == 127
    with pytest.raises(PermissionError):
        await sandbox.exec(["/etc/passwd"])
    with pytest.raises(RuntimeError, match="no such user: somebody"):
        await sandbox.exec(["true"], user="somebody")
    with pytest.raises(FileNotFoundError):
        await sandbox.read_file("absent")
    with pytest.raises(IsADirectoryError):
        await sandbox.read_file("a")


async def test_a_command_out_of_time(sandbox: Any) -> None:
    """It ends with all that it has started."""
    before = await sandbox.container.ps()
    with pytest.raises(TimeoutError):
        await sandbox.exec(["sh", "-c", "setsid sleep 1234 & sleep 1234; true"], timeout=1)
    assert await sandbox.container.ps() == before


@pytest.mark.skipif(not INSTALLED, reason="inspect_ai is too large for the development environment")
@pytest.mark.timeout(600)
async def test_inspects_own_check(sandbox: Any) -> None:
    """It passes inspect_ai's own check of sandboxes, but for the parts that it doesn't have."""
    checks = importlib.import_module("inspect_ai.util._sandbox.self_check")
    passed: list[str] = []
    for name, check in vars(checks).items():
        if name.startswith("test_") and inspect.iscoroutinefunction(check) and name not in NEEDS:
            await check(sandbox)
            passed.append(name)
    assert len(passed) >= 40
