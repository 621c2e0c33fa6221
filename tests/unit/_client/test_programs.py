"""The client with small programs in the place of runc, and with runners of one's own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import leaks
import msgspec
import pytest
from calls import BUNDLE, CALLS, QUIET, commands
from children import alive, post, write_program

from runc_async import (
    CapturedIO,
    CommandError,
    Completed,
    ContainerNotFound,
    DecodeError,
    ExitError,
    InheritedIO,
    NullIO,
    PipedIO,
    ProcessRunner,
    PtyIO,
    Response,
    Runc,
    RuncNotFound,
    RuncTimeout,
    spec,
)
from runc_async.runner import OwnOutput
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from runc_async import Invocation, Process

REPORTS = """#!/bin/sh
while [ $# -gt 0 ]; do test "$1" = --pid-file && pid=$2; test "$1" = --log && log=$2; shift; done
"""
"""The beginning of a runtime that knows where its log and its pid file are."""

FALSE = '{"level":"error","msg":"%s"}\n'

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def state(created: str) -> bytes:
    """Return what runc tells of a container."""
    return json.dumps({"id": "web", "status": "created", "bundle": "/b", "created": created}).encode()


# --- small programs in the place of runc: the cases of the library that this one comes from


@pytest.mark.parametrize("name", QUIET)
async def test_a_runc_that_succeeds(name: str) -> None:
    """With a program that succeeds and prints nothing, each command that says nothing succeeds."""
    await CALLS[name](Runc("/bin/true"))


@pytest.mark.parametrize("name", ["create", "run", "exec"])
async def test_what_a_success_tells(name: str) -> None:
    """The result of a success has a pid, an exit code of 0, and no output."""
    response: Any = await CALLS[name](Runc("/bin/true"))
    assert response.pid > 0
    assert (response.exit_code, response.output, response.truncated) == (0, "", False)
    assert response.args[0] == "/bin/true"


@each_call
async def test_a_runc_that_fails(call: Callable[[Runc], Awaitable[object]]) -> None:
    """With a program that fails without a word, each command fails with code 1 and empty streams."""
    with pytest.raises((CommandError, ExitError)) as caught:
        await call(Runc("/bin/false"))
    result: Any = caught.value.response if isinstance(caught.value, ExitError) else caught.value
    assert (result.exit_code, result.stdout, result.stderr) == (1, b"", b"")


@pytest.mark.parametrize("name", ["run", "exec"])
async def test_a_code_of_the_process_is_no_failure(tmp_path: Path, name: str) -> None:
    """A code of `run` and `exec` is the process's own if runc has reported a process, and logs no error."""
    client = Runc(write_program(tmp_path / "runc", REPORTS + 'sh -c "exit 1" & echo $! >$pid; wait $!'))
    response = await (client.run("fake-id", BUNDLE) if name == "run" else client.exec("fake-id", ["x"]))
    assert response.exit_code == 1


LOADER = "runc: error while loading shared libraries: libseccomp.so.2: cannot open shared object file"
"""What the dynamic loader prints for a runtime that can't run."""

CANNOT_RUN: dict[str, str] = {
    "the dynamic loader": f"#!/bin/sh\necho '{LOADER}' >&2\nexit 127\n",
    "a command in front of it": f"#!/bin/sh\necho '{LOADER}' >&2\nexit 1\n",
    "a shell script around it": f"#!/bin/sh\necho '{LOADER}' >&2\nexit 126\n",
}


@each_call
@pytest.mark.parametrize("program", CANNOT_RUN.values(), ids=CANNOT_RUN)
async def test_a_runtime_that_cannot_run(
    tmp_path: Path, program: str, call: Callable[[Runc], Awaitable[object]]
) -> None:
    """Every command raises the same class, with the last line of stderr unless that is the container's."""
    with pytest.raises(CommandError) as caught:
        await call(Runc(write_program(tmp_path / "runc", program)))
    assert type(caught.value) is CommandError
    assert LOADER in str(caught.value) or caught.value.stderr == b""
    assert "exit code" in str(caught.value) or caught.value.stderr


@pytest.mark.parametrize("io", [NullIO(), CapturedIO(), PipedIO(), PtyIO()], ids=repr)
@pytest.mark.parametrize("name", ["run", "exec"])
async def test_a_runtime_that_cannot_run_has_no_exit_code(tmp_path: Path, name: str, io: Any) -> None:
    """Whatever the streams, a code without a process is no result, and the message names the cause where it is read."""
    client = Runc(write_program(tmp_path / "runc", CANNOT_RUN["the dynamic loader"]))
    with pytest.raises(CommandError) as caught:
        await (client.run("web", BUNDLE, io=io) if name == "run" else client.exec("web", ["x"], io=io))
    assert type(caught.value) is CommandError
    assert ("can't be run" if isinstance(io, NullIO) else LOADER) in str(caught.value)


@pytest.mark.parametrize("code", [1, 127])
async def test_a_runtime_that_cannot_run_with_a_pid_file_of_the_callers(tmp_path: Path, code: int) -> None:
    """The file may be in another mount namespace, so the runtime is asked for its version before a code is believed."""
    pid_file = tmp_path / "pid"
    broken = Runc(write_program(tmp_path / "broken", f"#!/bin/sh\necho '{LOADER}' >&2\nexit {code}\n"))
    sound = Runc(write_program(tmp_path / "sound", f'#!/bin/sh\ncase "$*" in *--version*) exit;; esac\nexit {code}\n'))
    calls: tuple[Callable[[Runc], Awaitable[Response]], ...] = (
        lambda client: client.run("web", BUNDLE, pid_file=pid_file),
        lambda client: client.exec("web", ["x"], pid_file=pid_file),
    )
    for call in calls:
        with pytest.raises(CommandError, match=LOADER):
            await call(broken)
        assert (await call(sound)).exit_code == code
    with pytest.raises(CommandError, match=f"exit code {code}"):
        async with broken.open_exec("web", ["x"], io=PipedIO(), pid_file=pid_file):
            pytest.fail("there is nothing to enter")
    async with sound.open_exec("web", ["x"], io=PipedIO(), pid_file=pid_file) as process:
        assert (await process.wait()).code == code


@pytest.mark.parametrize("io", [NullIO(), PipedIO(), PtyIO()], ids=repr)
async def test_a_handle_of_a_runtime_that_cannot_run(tmp_path: Path, io: Any) -> None:
    """The block isn't entered, and what waits in the pipe or the terminal for stderr is in the error."""
    client = Runc(write_program(tmp_path / "runc", CANNOT_RUN["the dynamic loader"]))
    for opened in (client.open_exec("web", ["x"], io=io), client.open_container("web", BUNDLE, io=io)):
        with pytest.raises(CommandError) as caught:
            async with opened:
                pytest.fail("there is nothing to enter")
        assert type(caught.value) is CommandError
        assert ("can't be run" if isinstance(io, NullIO) else LOADER) in str(caught.value)


@pytest.mark.parametrize(
    ("io", "printed"),
    [
        (InheritedIO(), False),
        (NullIO(), False),
        (CapturedIO(), True),
        (PipedIO(), True),
        (PtyIO(), True),
        (None, False),
    ],
    ids=repr,
)
async def test_output_of_create(io: Any, printed: bool) -> None:  # noqa: FBT001 - of the table
    """Output is in the result if the streams capture it."""
    response = await Runc("/bin/echo").create("fake-id", BUNDLE, io=io)
    assert response.exit_code == 0
    assert bool(response.output) is printed
    assert not response.truncated


async def test_create_does_not_wait_for_the_container(tmp_path: Path) -> None:
    """A container that holds its streams for all its life doesn't hold up the call which has made it."""
    with post(tmp_path) as said:
        program = write_program(tmp_path / "runc", f"#!/bin/sh\nexec 3< {said.path}; read word <&3 & echo made\n")
        begun = time.monotonic()
        response = await Runc(program).create("fake-id", BUNDLE, io=CapturedIO(), timeout=60)
        detached = await Runc(program).run("fake-id", BUNDLE, io=CapturedIO(), detach=True, timeout=60)
        assert time.monotonic() - begun < 1
        assert (response.stdout, response.truncated) == (b"made\n", True)
        assert (detached.stdout, detached.truncated) == (b"made\n", True)


@each_call
async def test_no_runc(call: Callable[[Runc], Awaitable[object]]) -> None:
    """A runtime that doesn't exist is a RuncNotFound from the first call of any command."""
    with pytest.raises(RuncNotFound, match="no runtime 'no-such-runtime' in"):
        await call(Runc("no-such-runtime"))
    with pytest.raises(RuncNotFound, match="no runtime at '/no/such/runtime'"):
        await call(Runc("/no/such/runtime"))


@pytest.mark.parametrize("name", ["state", "list", "ps", "events", "spec", "features", "version"])
async def test_answers_that_cannot_be_understood(name: str) -> None:
    """A runtime that answers with nonsense is a DecodeError; stderr is never decoded."""
    with pytest.raises(DecodeError):
        await CALLS[name](Runc("/bin/echo"))


async def test_an_answer_without_end() -> None:
    """An answer of which bytes are missing is never decoded."""
    runner = FakeRunner()
    runner.reply("list", stdout=b"[]", truncated=True)
    with pytest.raises(DecodeError, match="runc list printed more than can be taken"):
        await Runc(runner=runner).list()


# --- list and spec


async def test_list_is_tried_again() -> None:
    """A list that fails is tried once more, for a container can be deleted while runc reads."""
    runner = FakeRunner()
    runner.reply("list", exit_code=1, stderr=b"race")
    runner.reply("list", stdout=b"null")
    assert await Runc(runner=runner).list() == []
    runner = FakeRunner()
    runner.reply("list", exit_code=1, stderr=b"no race")
    with pytest.raises(CommandError):
        await Runc(runner=runner).list()
    assert commands(runner) == ["list", "list"]


async def test_list_while_containers_vanish() -> None:
    """Each of many deletions can make one try fail; if all fail, the last one's error is raised."""
    gone = (FALSE % "stat /run/runc/web: no such file or directory").encode()
    runner = FakeRunner()
    for _ in range(5):
        runner.reply("list", exit_code=1, log=gone)
    runner.reply("list", stdout=b"null")
    assert await Runc(runner=runner).list() == []
    assert commands(runner) == ["list"] * 6
    runner = FakeRunner()
    runner.reply("list", exit_code=1, log=gone)
    with pytest.raises(CommandError, match="stat /run/runc/web"):
        await Runc(runner=runner).list()


@pytest.mark.parametrize(("root", "directory"), [("/no/such/root", "/no/such/root"), (None, "/run/runc")])
async def test_a_root_directory_that_does_not_exist(root: str | None, directory: str) -> None:
    """A root directory that isn't there is an empty one. It is runc who says so: it may see other files than we do."""
    runner = FakeRunner()
    runner.reply("list", exit_code=1, log=(FALSE % f"open {directory}: no such file or directory").encode())
    assert await Runc(runner=runner, root=root).list() == []
    runner = FakeRunner()
    runner.reply("list", stdout=b'[{"id": "web", "status": "running", "bundle": "/b"}]')
    assert [found.id for found in await Runc(runner=runner, root=root).list()] == ["web"]


async def test_spec(tmp_path: Path) -> None:
    """The runtime writes its example into a private directory, which is removed."""
    program = write_program(
        tmp_path / "runc",
        f"""#!/bin/sh
        for last; do :; done
        echo "$last" > {tmp_path}/args
        echo '{{"ociVersion": "1.0.2"}}' > "$last/config.json"
        """,
    )
    assert (await Runc(program).spec()).oci_version == "1.0.2"
    assert not os.path.exists((tmp_path / "args").read_text().strip())


@pytest.mark.parametrize("act", ["", "mkdir", "mkfifo", "ln -s /dev/zero", "ln -s /etc/passwd"])
async def test_a_spec_that_was_not_written(tmp_path: Path, act: str) -> None:
    """A runc that succeeds and writes nothing, or something that is no file, is a DecodeError, at once."""
    program = write_program(tmp_path / "runc", f'#!/bin/sh\nfor last; do :; done\n{act or ":"} "$last/config.json"\n')
    with pytest.raises(DecodeError, match=r"runc wrote no config.json") as caught:
        await Runc(program).spec()
    assert caught.value.data == b""


async def test_a_runtime_that_moves_beyond_its_output(tmp_path: Path) -> None:
    """A runtime that says it has printed exabytes costs no more memory than an answer may have."""
    move = "import os; os.lseek(1, 1 << 62, 0); os.lseek(2, 1 << 62, 0)"
    program = write_program(tmp_path / "runc", f"#!/bin/sh\nexec {sys.executable} -ISc '{move}'\n")
    with pytest.raises(DecodeError, match="more than can be taken") as caught:
        await Runc(program).state("web")
    assert len(caught.value.data) == OwnOutput().limit


# --- real processes


@pytest.mark.any_loop
async def test_output_of_a_call_that_is_out_of_time(tmp_path: Path) -> None:
    """A timeout has the output so far, and is a TimeoutError too."""
    program = write_program(tmp_path / "runc", "#!/bin/sh\necho out; echo err >&2; exec sleep 100\n")
    for call in (Runc(program).state("web", timeout=1.0), Runc(program).exec("web", ["x"], timeout=1.0)):
        with pytest.raises(RuncTimeout) as caught:
            await call
        error = caught.value
        assert isinstance(error, TimeoutError)
        assert (error.stdout, error.stderr, error.timeout, error.container_id) == (b"out\n", b"err\n", 1.0, "web")


@pytest.mark.any_loop
async def test_a_cancelled_query_is_killed(tmp_path: Path) -> None:
    """A cancelled query returns when its process is gone; the client is used again."""
    before = leaks.footprint()
    with post(tmp_path) as said:
        program = write_program(tmp_path / "runc", f"#!/bin/sh\ntrap '' TERM\necho $$ > {said.path}; exec sleep 100\n")
        task = asyncio.create_task(Runc(program).state("web"))
        pid = int(await said.word())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(pid)
    assert leaks.left_since(before) == []
    await Runc("/bin/true").start("web")


async def test_a_runc_that_a_signal_ended(tmp_path: Path) -> None:
    """A runc that was killed is a failure of runc's, never an exit code of the process."""
    program = write_program(tmp_path / "runc", '#!/bin/sh\n[ "$5" != run ] || kill -KILL $$\n')
    with pytest.raises(CommandError) as caught:
        await Runc(program).run("web", BUNDLE)
    assert caught.value.exit_code == -signal.SIGKILL


async def test_the_private_log_tells_failures(tmp_path: Path) -> None:
    """An error in the private log makes the exit code runc's, for `run` and `exec` too."""
    program = write_program(
        tmp_path / "runc", """#!/bin/sh\necho '{"level":"error","msg":"container does not exist"}' > $2; exit 1\n"""
    )
    with pytest.raises(ContainerNotFound, match="container 'web': container does not exist"):
        await Runc(program).exec("web", ["true"])


# --- a runner of one's own: the example of docs/howto/custom-runner.md


class Prefixed:
    """Starts the runtime by way of another command."""

    def __init__(self, *prefix: str) -> None:
        self._prefix = prefix
        self._runner = ProcessRunner()

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Run it behind the prefix."""
        return await self._runner.run(self._prefixed(invocation), started=started)

    async def open(self, invocation: Invocation) -> Process:
        """Open it behind the prefix."""
        return await self._runner.open(self._prefixed(invocation))

    def _prefixed(self, invocation: Invocation) -> Invocation:
        return msgspec.structs.replace(invocation, argv=(*self._prefix, *invocation.argv))


async def test_a_prefix(tmp_path: Path) -> None:
    """A command in front of the runtime that keeps descriptors changes nothing else: documents and log arrive."""
    program = write_program(
        tmp_path / "runc",
        """#!/bin/sh
        while [ "$1" != --process ]; do test "$1" = --log && log=$2; shift; done
        echo "$PREFIXED $(cat $2)"; echo '{"level":"warning","msg":"x"}' > $log
        while [ "$1" != --pid-file ]; do shift; done
        sh -c "exit 4" & echo $! >$2; wait $!
        """,
    )
    client = Runc(program, runner=Prefixed("env", "PREFIXED=yes"))
    response = await client.exec("web", spec.Process(cwd="/"))
    assert response.exit_code == 4
    assert response.output.startswith('yes {"')
    assert response.args[0] == program


@pytest.mark.root
async def test_another_mount_namespace(tmp_path: Path) -> None:
    """The runtime can run in another mount namespace: paths of ours through descriptors are valid there."""
    program = write_program(tmp_path / "runc", '#!/bin/sh\nwhile [ "$1" != --process ]; do shift; done\ncat $2\n')
    client = Runc(program, runner=Prefixed("unshare", "--mount", "--"))
    response = await client.exec("web", spec.Process(cwd="/somewhere"))
    assert json.loads(response.stdout)["cwd"] == "/somewhere"
