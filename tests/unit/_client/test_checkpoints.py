"""`checkpoint`, `restore` and `open_restored`, without a runtime."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async._client.calls import LET_FINISH
from runc_async._client.checkpoints import LET_CRIU_FINISH, LET_RESTORE_FINISH
from runc_async._commands.options import CheckpointOptions, RestoreOptions
from runc_async.client import Runc
from runc_async.errors import (
    CheckpointError,
    ContainerNotRunning,
    ExitError,
    InvalidContainerID,
    RuncTimeout,
    UnsupportedError,
)
from runc_async.runner import PidFile, PrivateLog, StopPolicy
from runc_async.stdio import CapturedIO, NullIO, PipedIO
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = ("runc", "--log", PrivateLog(), "--log-format", "json")
CRIU_FAILED = b'{"level":"error","msg":"criu failed: type DUMP errno 0\\nlog file: dump.log"}\n'
OLD = b"runc version 1.1.5\nspec: 1.0.2\n"


@pytest.fixture
def runner() -> FakeRunner:
    """Return a runner that starts nothing."""
    return FakeRunner()


@pytest.fixture
def client(runner: FakeRunner) -> Runc:
    """Return a client of that runner."""
    return Runc(runner=runner)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe's reading and writing end."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


async def test_checkpoint(client: Runc, runner: FakeRunner) -> None:
    """Nothing is asked of the runtime but the checkpoint."""
    await client.checkpoint("web", "/images", extra_args=["--foo"])
    [invocation] = runner.invocations
    assert invocation.argv == (*PREFIX, "checkpoint", "--image-path", "/images", "--foo", "--", "web")
    assert (invocation.stop, invocation.pass_fds) == (LET_CRIU_FINISH, ())


async def test_the_handle_passes_all_options_on(client: Runc, runner: FakeRunner, pipe: tuple[int, int]) -> None:
    """`Container.checkpoint` has the options of `Runc.checkpoint`."""
    status_fd = pipe[1]
    await client.container("web").checkpoint(
        "/images",
        work_path="/work",
        parent_path="/before",
        page_server="host:27",
        leave_running=True,
        pre_dump=True,
        tcp_established=True,
        tcp_skip_in_flight=True,
        ext_unix_sk=True,
        shell_job=True,
        file_locks=True,
        link_remap=True,
        lazy_pages=True,
        status_fd=status_fd,
        manage_cgroups_mode="soft",
        empty_ns=["network"],
        auto_dedup=True,
        extra_args=["--foo"],
        timeout=3,
    )
    version, invocation = runner.invocations
    assert version.command == "version"
    assert invocation.args[5:] == (
        *("checkpoint", "--image-path", "/images", "--work-path", "/work", "--tcp-established", "--ext-unix-sk"),
        *("--shell-job", "--file-locks", "--lazy-pages", "--auto-dedup", "--manage-cgroups-mode", "soft"),
        *("--empty-ns", "network", "--parent-path", "../before", "--leave-running", "--pre-dump"),
        *("--tcp-skip-in-flight", "--link-remap", "--page-server", "host:27", "--status-fd", str(status_fd)),
        *("--foo", "--", "web"),
    )
    assert (invocation.timeout, invocation.pass_fds) == (3, (status_fd,))


def test_the_typed_dictionaries_are_complete() -> None:
    """They hold exactly what the methods take; `open_restored` leaves out what belongs to waiting."""
    options = set(inspect.signature(Runc.checkpoint).parameters) - {"self", "container_id", "image_path"}
    assert set(CheckpointOptions.__annotations__) == options
    waiting = {"detach", "check", "timeout", "grace", "drain_timeout", "io", "input", "console_socket", "task_status"}
    own = {"self", "container_id", "bundle", "image_path", "no_subreaper"}
    options = set(inspect.signature(Runc.restore).parameters) - waiting - own
    assert set(RestoreOptions.__annotations__) == options


@pytest.mark.parametrize(
    "options",
    [
        {"manage_cgroups_mode": "hard"},
        {"empty_ns": ["pid"]},
        {"page_server": "host"},
        {"status_fd": 1 << 20},
        {"timeout": 0},
        {"work_path": ""},
    ],
)
async def test_bad_options_of_checkpoint(client: Runc, runner: FakeRunner, options: dict[str, Any]) -> None:
    """A bad value is a `ValueError` before anything is started."""
    with pytest.raises(ValueError, match=next(iter(options)) + "|path must"):
        await client.checkpoint("web", "/images", **options)
    assert runner.invocations == []


@pytest.mark.parametrize(
    "options",
    [
        {"manage_cgroups_mode": "hard"},
        {"empty_ns": ["pid"]},
        {"timeout": -1},
        {"grace": -1},
        {"drain_timeout": -1},
        {"detach": True, "input": b"x"},
    ],
)
async def test_bad_options_of_restore(client: Runc, runner: FakeRunner, options: dict[str, Any]) -> None:
    """A bad value is a `ValueError` before anything is started."""
    with pytest.raises(ValueError, match="|".join(options)):
        await client.restore("web", "/b", "/images", **options)
    assert runner.invocations == []


async def test_bad_ids(client: Runc, runner: FakeRunner) -> None:
    """An id that can't be one is refused before anything is started."""
    with pytest.raises(InvalidContainerID):
        await client.checkpoint("..", "/images")
    with pytest.raises(InvalidContainerID):
        await client.restore("a/b", "/b", "/images")
    with pytest.raises(InvalidContainerID):
        async with client.open_restored("", "/b", "/images"):
            pytest.fail("there is nothing to open")
    assert runner.invocations == []


async def test_restore(client: Runc, runner: FakeRunner) -> None:
    """In the foreground the output is captured, and the exit code is the process's own."""
    runner.reply("restore", stdout=b"hello", exit_code=7)
    response = await client.restore("web", "/b", "/images", grace=2)
    [invocation] = runner.invocations
    pid_file = ("--pid-file", PidFile())
    assert invocation.argv == (*PREFIX, "restore", "--bundle", "/b", "--image-path", "/images", *pid_file, "--", "web")
    assert (invocation.streams, invocation.timeout) == (CapturedIO(), None)
    assert invocation.stop == StopPolicy(patience=LET_FINISH.patience, grace=2, waits_for_process=True)
    assert (response.exit_code, response.stdout) == (7, b"hello")
    with pytest.raises(ExitError):
        await client.restore("web", "/b", "/images", check=True)


async def test_a_detached_restore_with_everything(client: Runc, runner: FakeRunner) -> None:
    """Each option is in the command line; a detached container has no streams unless some are given."""
    await client.restore(
        "web",
        Path("/b"),
        "/images",
        detach=True,
        no_subreaper=True,
        console_socket="/s",
        work_path="/work",
        lazy_pages=True,
        auto_dedup=True,
        tcp_established=True,
        ext_unix_sk=True,
        shell_job=True,
        file_locks=True,
        manage_cgroups_mode="ignore",
        empty_ns=["network"],
        lsm_profile="apparmor:web",
        lsm_mount_context="context",
        pid_file="/p",
        no_pivot=True,
        extra_args=["--foo"],
    )
    invocation = runner.invocations[-1]
    assert invocation.args[5:] == (
        *("restore", "--bundle", "/b", "--detach", "--no-subreaper", "--image-path", "/images", "--work-path"),
        *("/work", "--tcp-established", "--ext-unix-sk", "--shell-job", "--file-locks", "--lazy-pages"),
        *("--auto-dedup", "--manage-cgroups-mode", "ignore", "--empty-ns", "network", "--lsm-profile"),
        *("apparmor:web", "--lsm-mount-context", "context", "--pid-file", "/p", "--console-socket", "/s"),
        *("--no-pivot", "--foo", "--", "web"),
    )
    assert (invocation.streams, invocation.stop) == (NullIO(), LET_RESTORE_FINISH)


async def test_open_restored(client: Runc, runner: FakeRunner) -> None:
    """A restored container needs no `start`; it is deleted on the way out."""
    async with client.open_restored(
        "web", "/b", "/images", io=PipedIO(), timeout=3, file_locks=True, no_pivot=True, extra_args=["--foo"]
    ) as container:
        assert container.id == "web"
    version, restore, delete = runner.invocations
    assert (version.command, delete.command) == ("version", "delete")
    assert restore.argv == (
        *(*PREFIX, "restore", "--bundle", "/b", "--detach", "--image-path", "/images", "--file-locks"),
        *("--pid-file", PidFile(), "--no-pivot", "--foo", "--", "web"),
    )
    assert (restore.streams, restore.timeout, restore.stop) == (PipedIO(), 3, LET_RESTORE_FINISH)


async def test_open_restored_has_no_end_to_capture(client: Runc, runner: FakeRunner) -> None:
    """`CapturedIO` is refused."""
    with pytest.raises(ValueError, match="PipedIO"):
        async with client.open_restored("web", "/b", "/images", io=CapturedIO()):
            pytest.fail("there is nothing to open")
    assert runner.invocations == []


async def test_criu_s_log_is_in_the_error(client: Runc, runner: FakeRunner, tmp_path: Path) -> None:
    """All three calls look for it in the work path, or else beside the images."""
    for command in ("checkpoint", "restore"):
        runner.reply(command, log=CRIU_FAILED, exit_code=1)
    (tmp_path / "dump.log").write_bytes(b"Error (x): no\n")
    with pytest.raises(CheckpointError) as dumped:
        await client.checkpoint("web", tmp_path)
    with pytest.raises(CheckpointError) as restored:
        await client.restore("web", "/b", "/images", work_path=tmp_path)
    with pytest.raises(CheckpointError) as opened:
        async with client.open_restored("web", "/b", tmp_path):
            pytest.fail("there is nothing to open")
    for error in (dumped.value, restored.value, opened.value):
        assert (error.log_path, error.log_tail) == (str(tmp_path / "dump.log"), b"Error (x): no\n")
        assert error.container_id == "web"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("Container cannot be checkpointed in stopped state", ContainerNotRunning),
        ("Container cannot be checkpointed in created state", ContainerNotRunning),
        ("open /images/descriptors.json: no such file or directory", CheckpointError),
        ("CRIU is missing features", CheckpointError),
        ("criu is missing features: [MemTrack]", CheckpointError),
    ],
)
async def test_what_runc_says(client: Runc, runner: FakeRunner, message: str, error: type[Exception]) -> None:
    """The wordings of runc for what can't be done have their classes."""
    runner.reply("checkpoint", log=b'{"level":"error","msg":"%b"}' % message.encode(), exit_code=1)
    with pytest.raises(error):
        await client.checkpoint("web", "/images")


async def test_out_of_time(client: Runc, runner: FakeRunner) -> None:
    """A restore out of time is undone, as long as it is ours: what it made is deleted."""
    runner.reply("restore", hang=True)
    with pytest.raises(RuncTimeout):
        await client.restore("web", "/b", "/images", timeout=0.3)
    assert [invocation.command for invocation in runner.invocations] == ["restore", "state", "delete"]


async def test_a_cancelled_restore_is_undone(client: Runc, runner: FakeRunner) -> None:
    """A detached restore that is cancelled is deleted."""
    runner.reply("restore", hang=True)
    with anyio.move_on_after(0.01):
        async with client.open_restored("web", "/b", "/images"):
            pytest.fail("there is nothing to open")
    assert runner.invocations[-1].args[-4:] == ("delete", "--force", "--", "web")


@pytest.mark.parametrize("options", [{"tcp_skip_in_flight": True}, {"link_remap": True}])
async def test_options_of_newer_runtimes(client: Runc, runner: FakeRunner, options: dict[str, Any]) -> None:
    """An option that the runtime hasn't got is refused before anything is done."""
    runner.reply("version", stdout=OLD)
    [flag] = ["--" + option.replace("_", "-") for option in options]
    with pytest.raises(UnsupportedError, match=f"runc 1.1.5 has no checkpoint {flag}"):
        await client.checkpoint("web", "/images", **options)
    with pytest.raises(UnsupportedError, match="restore --manage-cgroups-mode ignore"):
        await client.restore("web", "/b", "/images", manage_cgroups_mode="ignore")
    assert [invocation.command for invocation in runner.invocations] == ["version"]
