"""Pid files in odd places, and looked at without inotify: what runc says counts, and our look at them is an extra."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from runc_async.client import Runc
from runc_async.errors import CommandError
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

pytestmark = pytest.mark.runc

WAYS = ["create", "run", "run detached", "exec", "exec detached", "open_exec", "open_container"]


@pytest.fixture
def call(
    make_bundle: MakeBundle, make_container: MakeContainer, container_id: Callable[[], str]
) -> Callable[[Runc, str, str], Awaitable[Any]]:
    """Return a function that starts a process in one of the ways, with a pid file."""

    async def start(client: Runc, way: str, pid_file: str) -> Any:
        if way in {"create", "run", "run detached", "open_container"}:
            bundle, name = make_bundle(["sleep", "0" if way == "run" else "600"]), container_id()
            if way == "create":
                return await client.create(name, bundle, pid_file=pid_file)
            if way == "open_container":
                async with client.open_container(name, bundle, pid_file=pid_file, grace=0) as container:
                    return container.pid
            return await client.run(name, bundle, pid_file=pid_file, detach=way == "run detached")
        name = await make_container()
        if way == "open_exec":
            async with client.open_exec(name, ["sleep", "600"], pid_file=pid_file, grace=0) as process:
                return process.pid
        return await client.exec(name, ["sleep", "0"], pid_file=pid_file, detach=way == "exec detached")

    return start


@pytest.mark.parametrize("parent", ["missing", "file"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_directory_that_is_none(
    *, client: Runc, runtime: Runtime, call: Callable[..., Awaitable[Any]], tmp_path: Path, way: str, parent: str
) -> None:
    """Where the pid file can't be made, every command fails with what runc says of it; runsc may say nothing."""
    (tmp_path / "file").touch()
    nothing = "|no error message" if runtime.is_sandbox else ""
    with pytest.raises(CommandError, match=rf"no such file|not a directory|No such file|Not a directory{nothing}"):
        await call(client, way, str(tmp_path / parent / "pid"))


@pytest.mark.parametrize("way", WAYS)
async def test_a_relative_path_and_a_working_directory_of_runcs(
    *,
    runtime: Runtime,
    root: Path,
    call: Callable[..., Awaitable[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """A relative path is one from the caller's working directory, as all paths are, and for all commands."""
    for name in ("ours", "runcs"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "ours")
    await call(Runc(runtime.command, root=root, cwd=tmp_path / "runcs"), way, "pid")
    assert int((tmp_path / "ours" / "pid").read_text(encoding="ascii")) > 0
    assert not any((tmp_path / "runcs").iterdir())


@pytest.mark.usefixtures("no_inotify")
@pytest.mark.any_loop
@pytest.mark.parametrize("way", WAYS)
async def test_no_inotify_instance(client: Runc, call: Callable[..., Awaitable[Any]], tmp_path: Path, way: str) -> None:
    """Where others have used up this user's inotify instances, every command works as ever."""
    answer = await call(client, way, str(tmp_path / "pid"))
    pid = int((tmp_path / "pid").read_text(encoding="ascii"))
    assert answer == pid if way.startswith("open") else answer.exit_code == 0


@pytest.mark.usefixtures("no_inotify")
@pytest.mark.any_loop
async def test_an_exec_whose_child_holds_its_pipes_without_inotify(client: Runc, make_container: MakeContainer) -> None:
    """The end of a process is heard also where only a timer looks at the pid file."""
    name = await make_container()
    async with client.open_exec(name, ["sh", "-c", "read go; sleep 600 & exit 7"], io=PipedIO()) as process:
        assert process.stdin is not None
        await process.stdin.send(b"go\n")
        async with asyncio.timeout(20):
            assert (await process.wait()).code == 7
    assert len(await client.ps(name)) == 2
