"""One child of ours, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import leaks
import pytest
from children import alive, each_loop, post, python, run_in, write_program

from runc_async._process import child as child_module
from runc_async._process.child import Child
from runc_async._shield import shielded, wait_shielded
from runc_async.errors import CleanupWarning, RuncNotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NULL: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.DEVNULL)
FOREVER = ("/bin/sleep", "100")

pytestmark = pytest.mark.any_loop


async def started(*argv: str, **options: Any) -> Child:
    """Start a child that nobody cancels meanwhile."""
    child = Child()
    assert await child.start(argv, **NULL, **options) is None
    return child


def only_in_process(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Let `pidfd_open` fail for the module under test, and not for asyncio, which uses it too from Python 3.12 on."""
    real = os.pidfd_open

    def fail(pid: int, flags: int = 0) -> int:
        if inspect.stack(0)[1].filename == child_module.__file__:
            raise error
        return real(pid, flags)

    monkeypatch.setattr(os, "pidfd_open", fail)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -9)])
async def test_the_exit_code(script: str, code: int) -> None:
    """A child ends with its exit code, or with -n if signal n ended it."""
    child = await started("/bin/sh", "-c", script)
    assert child.pid > 0
    assert await child.wait() == code
    assert child.returncode == code
    assert repr(child) == f"<Child {child.pid} returncode {code}>"


async def test_waiting_for_some_time() -> None:
    """A wait that is limited ends without the child, which runs on."""
    child = await started(*FOREVER)
    assert await child.wait(0.01) is None
    assert alive(child.pid)
    assert repr(child) == f"<Child {child.pid} running>"
    await child.stop()
    assert child.returncode == -signal.SIGKILL


async def test_waiting_for_something_else() -> None:
    """A wait ends with the other thing that it was given, and the child runs on."""
    child = await started(*FOREVER)
    other = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(other.set_result, None)
    assert await child.wait(or_for=other) is None
    await child.stop()


async def test_cancelling_a_wait() -> None:
    """A cancelled wait leaves the child running."""
    child = await started(*FOREVER)
    with anyio.move_on_after(0.01) as scope:
        await child.wait()
    assert scope.cancelled_caught
    assert alive(child.pid)
    await child.stop()


async def test_a_child_that_was_never_started() -> None:
    """Waiting for one that wasn't started, or signalling it, does nothing."""
    child = Child()
    assert await child.wait() is None
    child.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("name", ["/no/such/program", "no-such-program"])
async def test_a_program_that_does_not_exist(name: str) -> None:
    """A program that isn't there is a RuncNotFound, which tells the searched $PATH if the program is a name."""
    with pytest.raises(RuncNotFound) as caught:
        await started(name, env={"PATH": "/no:/where"})
    assert caught.value.command == name
    assert caught.value.path == (None if name.startswith("/") else "/no:/where")


async def test_the_path_is_that_of_the_childs_environment(tmp_path: Path) -> None:
    """A program given by name is looked up in the $PATH of the environment that it gets."""
    write_program(tmp_path / "program", "#!/bin/sh\nexit 3\n")
    child = await started("program", env={"PATH": str(tmp_path)})
    assert await child.wait() == 3


async def test_a_working_directory_that_does_not_exist() -> None:
    """A missing working directory isn't taken for a missing program."""
    with pytest.raises(FileNotFoundError) as caught:
        await started("/bin/true", cwd="/no/such/directory")
    assert not isinstance(caught.value, RuncNotFound)


async def test_a_program_that_is_not_executable(tmp_path: Path) -> None:
    """A file without the right to be executed is a PermissionError."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(PermissionError):
        await started(str(program))


async def test_an_argument_that_has_no_bytes() -> None:
    """What can't be encoded is a ValueError, and nothing is started."""
    with pytest.raises(ValueError, match="surrogates"):
        await started("/bin/echo", "\ud800")


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_while_it_starts(turns: int) -> None:
    """A cancel during the spawn loses no child: it comes back, and the child runs."""
    child = Child()
    task = asyncio.create_task(child.start(FOREVER, **NULL))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        cancelled = await task
    except asyncio.CancelledError:
        cancelled = None
        assert child.pid == 0
    if child.pid:
        assert turns == 0 or cancelled is None or isinstance(cancelled, asyncio.CancelledError)
        assert alive(child.pid)
        await child.stop()


async def test_cancelled_while_it_fails_to_start() -> None:
    """A cancel counts more than the error of a spawn that it came into."""
    task = asyncio.create_task(Child().start(("/no/such/program",), **NULL))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_child_that_ignores_sigterm(tmp_path: Path) -> None:
    """A child that ignores SIGTERM is killed after its grace."""
    with post(tmp_path) as said:
        child = await started("/bin/sh", "-c", f"trap '' TERM; echo up > {said.path}; exec sleep 100")
        assert await said.word() == "up"
        await child.stop(grace=0.05)
    assert child.returncode == -signal.SIGKILL


async def test_a_child_that_ends_by_itself() -> None:
    """A child that SIGTERM ends isn't killed; to stop it again does nothing."""
    child = await started(*FOREVER)
    await child.stop(grace=10)
    assert child.returncode == -signal.SIGTERM
    await child.stop(grace=10)
    child.send_signal(signal.SIGKILL)


async def test_a_child_that_survives_sigkill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is still there after SIGKILL is named in a warning, and nobody waits for ever."""

    def lose(child: Child, signum: int) -> None:
        del child, signum

    child = await started(*FOREVER)
    with monkeypatch.context() as patch:
        patch.setattr(child_module, "KILL_TIMEOUT", 0.01)
        patch.setattr(Child, "send_signal", lose)
        with pytest.warns(CleanupWarning, match=f"process {child.pid} is still there after SIGKILL"):
            await child.stop()
    await child.stop()


async def test_a_child_that_we_may_not_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that runs as somebody else gets no signal from us, as sudo: that is waited for, and told by a warning."""

    def forbid(pidfd: int, signum: int) -> NoReturn:
        raise PermissionError(pidfd, signum)

    child = await started(*FOREVER)
    with monkeypatch.context() as patch:
        patch.setattr(child_module, "KILL_TIMEOUT", 0.01)
        patch.setattr(signal, "pidfd_send_signal", forbid)
        with pytest.warns(CleanupWarning, match=f"process {child.pid} is still there after SIGKILL"):
            await child.stop(grace=0.01)
        with pytest.raises(PermissionError):
            child.send_signal(signal.SIGTERM)
    await child.stop()


async def test_no_pidfd_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child for which there is no pidfd is killed and reaped before the error is raised."""
    only_in_process(monkeypatch, OSError(24, "Too many open files"))
    child = Child()
    with pytest.raises(OSError, match="Too many open files"):
        await child.start(FOREVER, **NULL)
    assert child.returncode == -signal.SIGKILL


async def test_a_child_that_has_ended_before_its_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that was reaped before its pidfd could be opened is no error; nobody else gets its signals."""
    only_in_process(monkeypatch, ProcessLookupError())
    child = await started("/bin/true")
    child.send_signal(signal.SIGKILL)
    assert await child.wait() == 0


async def test_patiently() -> None:
    """Work that is done patiently gives its result, or its error."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    assert await shielded(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(LookupError):
        await shielded(fail())


@pytest.mark.parametrize("fails", [False, True])
async def test_patiently_through_cancels(fails: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Work goes on to its end through any number of cancels; then the first one is raised, also if the work fails."""
    released = asyncio.Event()
    ended = False

    async def work() -> None:
        nonlocal ended
        await released.wait()
        ended = True
        if fails:
            raise LookupError

    task = asyncio.create_task(shielded(work()))
    for message in ("first", "second", "third"):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel(message)
    await asyncio.sleep(0)
    assert not task.done()
    released.set()
    with pytest.raises(asyncio.CancelledError, match="first"):
        await task
    assert ended


@pytest.mark.parametrize("turns", range(6))
@each_loop
def test_patiently_at_the_end_of_the_loop(turns: int, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Work begins and ends also if the loop ends in the turn in which it was made."""
    asked: list[None] = []
    ended: list[None] = []

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
        ended.append(None)

    async def ask() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        asked.append(None)
        await shielded(work())

    async def main() -> None:
        tasks.append(asyncio.create_task(ask()))

    tasks: list[asyncio.Task[None]] = []
    with asyncio.Runner(debug=True, loop_factory=new_loop) as runner:
        runner.run(main())
    assert ended == asked


async def test_patiently_in_a_cancelled_scope() -> None:
    """A scope of anyio's, which delivers its cancel in every turn of the loop, waits for the work; no turn is burnt."""
    turns = 0

    async def work() -> None:
        nonlocal turns
        while turns < 5:
            turns += 1
            await asyncio.sleep(0.002)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await shielded(work())
    assert scope.cancelled_caught
    assert turns == 5


async def test_a_time_limit_of_asyncios() -> None:
    """`asyncio.timeout` ends as a TimeoutError when the patient work is done."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await shielded(asyncio.sleep(0.02))


async def test_a_cancel_that_comes_while_a_scope_is_cancelled() -> None:
    """`Task.cancel()` isn't lost when it comes while the work goes on for a scope that was cancelled before."""
    released = asyncio.Event()
    reached = False

    async def body() -> None:
        nonlocal reached
        with anyio.CancelScope() as scope:
            scope.cancel()
            await shielded(released.wait())
        await asyncio.sleep(0)
        reached = True

    task = asyncio.create_task(body())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not reached


async def test_outwait_without_a_cancel() -> None:
    """Nothing is returned if no cancel came."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    assert await wait_shielded(future) is None


@each_loop
@pytest.mark.parametrize("turns", range(6))
def test_the_end_of_the_loop_while_it_starts(new_loop: Callable[[], asyncio.AbstractEventLoop], turns: int) -> None:
    """A loop that ends in any turn of a spawn doesn't hang, and no child outlives it."""
    child = Child()

    async def main() -> None:
        asyncio.get_running_loop().call_soon(asyncio.ensure_future, child.start(FOREVER, **NULL))
        for _ in range(turns):
            await asyncio.sleep(0)

    run_in(new_loop, main())
    assert not alive(child.pid) if child.pid else True


@each_loop
def test_all_tasks_cancelled_before_the_child_has_begun(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A child's task that is cancelled before its first step lets nobody wait for the spawn for ever."""

    async def main() -> None:
        start = asyncio.ensure_future(Child().start(FOREVER, **NULL))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start

    run_in(new_loop, main())


@each_loop
def test_the_end_of_the_loop(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A child that nobody sees to is killed and reaped at the end of the loop."""

    async def main() -> Child:
        return await started(*FOREVER)

    child = run_in(new_loop, main())
    assert not os.path.exists(f"/proc/{child.pid}")
    assert child.returncode == -signal.SIGKILL


def test_the_end_of_the_loop_with_a_child_that_we_may_not_kill() -> None:
    """A loop doesn't wait for ever for a child that it can't end; what is left is named."""
    script = """
        import asyncio, signal
        from runc_async._process import child as child_module
        def forbid(pidfd, signum):
            raise PermissionError
        async def main():
            null = asyncio.subprocess.DEVNULL
            await child_module.Child().start(("/bin/sleep", "0.5"), stdin=null, stdout=null, stderr=null)
        child_module.KILL_TIMEOUT = 0.01
        signal.pidfd_send_signal = forbid
        asyncio.run(main())
        print("ended")
    """
    ended = python(script)
    assert ended.stdout == b"ended\n"
    assert b"CleanupWarning: process " in ended.stderr


def test_the_end_of_the_loop_with_a_child_that_is_being_stopped() -> None:
    """The same holds while somebody sees to the child's end; it is waited for as long as he does."""
    script = """
        import asyncio, contextlib
        from runc_async._process import child as child_module
        async def watch(child):
            with child.watched():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                await asyncio.sleep(0.1)
                print("seen to")
        async def main():
            null = asyncio.subprocess.DEVNULL
            child = child_module.Child()
            await child.start(("/bin/sleep", "0.5"), stdin=null, stdout=null, stderr=null)
            watching = asyncio.ensure_future(watch(child))
            await asyncio.sleep(0.01)
            del watching
        child_module.KILL_TIMEOUT = 0.01
        asyncio.run(main())
        print("ended")
    """
    ended = python(script)
    assert ended.stdout == b"seen to\nended\n"
    assert b"CleanupWarning: process " in ended.stderr


async def test_no_thread_to_watch_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that asyncio can't watch for want of a thread, as on Python 3.11, is ended, and it is an OSError."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before, child = leaks.footprint(), Child()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        try:
            await child.start(["/bin/sleep", "1000"])
        except BlockingIOError:
            assert child.pid == 0
        else:  # later Pythons need no thread
            await child.stop()
    assert leaks.left_since(before) == []


@pytest.mark.parametrize("call", ["pidfd_open", "_add_reader"])
async def test_no_pidfd_to_watch_a_child(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A child that asyncio can't watch by a pidfd, as from Python 3.12 on, is ended; the error is the system's."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, asyncio.BaseEventLoop):
        pytest.skip("uvloop needs none")

    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before, child = leaks.footprint(), Child()
    with monkeypatch.context() as patch:
        if sys.version_info < (3, 12):
            watcher = asyncio.PidfdChildWatcher()
            watcher.attach_loop(loop)
            patch.setattr(asyncio.events, "get_child_watcher", lambda: watcher)
        patch.setattr(os if hasattr(os, call) else loop, call, refuse)
        with pytest.raises(OSError, match="Too many open files"):
            await child.start(["/bin/sleep", "1000"])
    assert child.pid == 0
    assert leaks.left_since(before) == []


async def test_a_cancelled_spawn_may_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawn cancelled by the end of the loop may have had a process, and one that waited for its turn had none."""
    begun = asyncio.Event()

    async def hang(*_: object, **__: object) -> NoReturn:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("it has been cancelled")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", hang)
    children = [Child(), Child()]
    starts = [asyncio.create_task(child.start(["/bin/true"])) for child in children]
    await begun.wait()
    for child in children:
        assert child._life is not None  # pyright: ignore[reportPrivateUsage]
        child._life.cancel()  # pyright: ignore[reportPrivateUsage]
    await asyncio.wait(starts)
    assert [child.may_have_run for child in children] == [True, False]


async def test_a_spawn_that_fails_has_not_run() -> None:
    """A program that isn't there has had no process."""
    child = Child()
    with pytest.raises(FileNotFoundError):
        await child.start(["/nonexistent/program"])
    assert not child.may_have_run
