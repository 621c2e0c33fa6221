"""What is set up between fork and exec."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import children
import pytest
from children import gone, post, python, shell, write_program

from runc_async._process.launch import helped, needs_restoring, signal_name
from runc_async._process.running import ProcessRunner
from runc_async.errors import RuncNotFound
from runc_async.runner import Completed, Invocation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.any_loop

TOLD = 'for fd in "$@"; do cat <&$fd; done; echo; ls /proc/self/fd'


async def run(invocation: Invocation) -> Completed:
    """Run it with the real runner."""
    return await ProcessRunner().run(invocation)


def on_asyncio() -> bool:
    """Tell whether the running loop is asyncio's own."""
    return isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)


def lend(path: Path, text: str) -> int:
    """Open a file that says something, and return its descriptor."""
    path.write_text(text)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@pytest.mark.parametrize(
    ("signum", "name"),
    [
        (signal.SIGTERM, "TERM"),
        (signal.SIGKILL, "KILL"),
        (signal.SIGRTMIN, "RTMIN"),
        (signal.SIGRTMIN + 3, "RTMIN+3"),
        (signal.SIGRTMAX, "RTMAX"),
        (0, None),
        (32, None),
    ],
)
def test_names_of_signals(signum: int, name: str | None) -> None:
    """A signal goes to setpriv by its name; what has none can't be given to it."""
    assert signal_name(signum) == name


async def test_no_helper_where_none_is_needed() -> None:
    """Without special wishes the program itself is spawned, and gets our descriptors by their numbers."""
    argv, options = helped(shell("exit", cwd="/", env={}), ["sh"], [10], [])
    assert argv == ["sh"]
    found = {"executable": "/bin/sh"} if on_asyncio() else {}
    assert options == {"cwd": "/", "env": {}, "pass_fds": (10,), **found}


async def test_the_first_program_in_the_path(tmp_path: Path) -> None:
    """The program is the one that exec would take: neither a directory, nor a file that isn't executable."""
    kinds = [tmp_path / name for name in ("none", "directory", "data", "first", "second")]
    for kind in kinds[1:]:
        kind.mkdir()
    (tmp_path / "directory" / "runc").mkdir()
    (tmp_path / "data" / "runc").write_text("data")
    for kind in kinds[3:]:
        write_program(kind / "runc", f"#!/bin/sh\necho {kind.name}\n")
    completed = await run(Invocation(command="x", argv=("runc",), env={"PATH": os.pathsep.join(map(str, kinds))}))
    assert completed.stdout == b"first\n"


async def test_a_relative_directory_in_the_path(tmp_path: Path) -> None:
    """It is taken from the working directory of the program, as without our looking."""
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin" / "runc", "#!/bin/sh\necho found\n")
    completed = await run(Invocation(command="x", argv=("runc",), env={"PATH": "bin"}, cwd=str(tmp_path)))
    assert completed.stdout == b"found\n"


async def test_descriptors_come_as_3_and_on(tmp_path: Path) -> None:
    """Descriptors get the numbers 3, 4, ... in the order given, one of them twice, and nothing else is inherited.

    uvloop adds copies of its own of the standard streams.
    """
    fds = [lend(tmp_path / name, name) for name in ("one", "two")]
    try:
        completed = await run(shell(TOLD, "3", "4", preserve_fds=(fds[1], fds[0], fds[1])))
    finally:
        for fd in fds:
            os.close(fd)
    said, _, numbers = completed.stdout.partition(b"\n")
    assert said == b"twoone"
    expected = {b"0", b"1", b"2", b"3", b"4", b"5", b"6"}  # 6 is that of ls, for the directory
    assert expected == set(numbers.split()) if on_asyncio() else expected < set(numbers.split())


async def test_a_standard_stream_as_a_descriptor() -> None:
    """The caller's own stdout can be lent: in the child it is the caller's, and not what the child has as stdout."""
    script = f"""
        import asyncio, sys
        sys.path.insert(0, {os.path.dirname(children.__file__)!r})
        from children import shell
        from runc_async._process.running import ProcessRunner
        out = asyncio.run(ProcessRunner().run(shell("echo lent >&3; echo own", preserve_fds=(1,))))
        assert out.stdout == b"own\\n", out
    """
    assert python(script).stdout == b"lent\n"


async def test_descriptors_that_change_places(tmp_path: Path) -> None:
    """Sources that are targets too, 3 and 4 the other way round, arrive as they should."""
    for name in ("three", "four"):
        (tmp_path / name).write_text(name)
    script = f"""
        import asyncio, os, sys
        sys.path.insert(0, {os.path.dirname(children.__file__)!r})
        from children import shell
        from runc_async._process.running import ProcessRunner
        async def main():
            for name, fd in (("three", 3), ("four", 4)):
                file = os.open({str(tmp_path)!r} + "/" + name, os.O_RDONLY)
                os.dup2(file, fd, inheritable=False)
                os.close(file) if file != fd else None
            return await ProcessRunner().run(shell('cat <&3; cat <&4', preserve_fds=(4, 3)))
        for fd in (3, 4):  # taken before the event loop takes them
            os.dup2(0, fd)
        print(asyncio.run(main()).stdout)
    """
    assert python(script).stdout == b"b'fourthree'\n"


async def test_our_own_files_come_behind() -> None:
    """The files that we lend ourselves stand above those of the caller."""
    read, write = os.pipe()
    try:
        invocation = shell("cat /proc/self/fd/$1", preserve_fds=(read, write))
        _, options = helped(invocation, ["sh"], [], [read, write])
        assert options["pass_fds"] == (read, write)
    finally:
        os.close(read)
        os.close(write)


async def test_a_group_of_its_own() -> None:
    """Process group 0 is one of the child's own."""
    completed = await run(shell("cut -d' ' -f5 /proc/$$/stat", process_group=0))
    assert int(completed.stdout) == completed.pid


async def test_somebody_elses_group(tmp_path: Path) -> None:
    """A child can be put into the process group of another child."""
    with post(tmp_path) as said:
        leader = await ProcessRunner().open(shell(f"echo up > {said.path}; exec sleep 100", process_group=0))
        try:
            assert await said.word() == "up"
            completed = await run(shell("cut -d' ' -f5 /proc/$$/stat", process_group=leader.pid))
            assert int(completed.stdout) == leader.pid
        finally:
            await leader.aclose()


async def test_a_group_that_does_not_exist() -> None:
    """A group that can't be joined is an error, and never an exit code of the program, which hasn't run."""
    with subprocess.Popen(["/bin/true"]) as process:  # noqa: ASYNC220 - it ends at once
        process.wait()
    invocation = shell("exit 1", process_group=process.pid)
    if on_asyncio():
        with pytest.raises(OSError, match="not permitted"):
            await run(invocation)
    else:
        completed = await run(invocation)
        assert completed.returncode == -signal.SIGKILL
        assert b"starting /bin/sh: " in completed.stderr


async def test_a_program_that_cannot_be_executed_after_all(tmp_path: Path) -> None:
    """A program that passes all checks and can't be executed is no exit code either."""
    program = write_program(tmp_path / "program", "no program at all")
    (tmp_path / "program").write_bytes(b"\0\0\0\0")
    read, write = os.pipe()
    try:
        completed = await run(Invocation(command="x", argv=(program,), preserve_fds=(read,)))
    finally:
        os.close(read)
        os.close(write)
    assert completed.returncode == -signal.SIGKILL
    assert b"Exec format error" in completed.stderr


async def test_the_death_signal() -> None:
    """A child with a death signal gets it when the thread that started it is gone."""
    script = f"""
        import asyncio, os, sys
        sys.path.insert(0, {os.path.dirname(children.__file__)!r})
        from children import shell
        from runc_async._process.running import ProcessRunner
        from runc_async.stdio import NullIO
        async def main():
            process = await ProcessRunner().open(shell("exec sleep 100", pdeathsig=9, streams=NullIO()))
            while open(f"/proc/{{process.pid}}/comm").read() != "sleep\\n":
                await asyncio.sleep(0.01)
            print(process.pid, flush=True)
            os._exit(0)
        asyncio.run(main())
    """
    pid = int(python(script).stdout)
    async with asyncio.timeout(10):
        await gone(pid)


async def test_the_death_signal_with_the_other_helper() -> None:
    """Both helpers can stand in front of one program, which keeps its arguments."""
    read, write = os.pipe()
    try:
        invocation = shell("echo $1; cat <&3", "--help", pdeathsig=signal.SIGRTMIN + 1, preserve_fds=(read,))
        os.write(write, b"lent")
        os.close(write)
        completed = await run(invocation)
    finally:
        os.close(read)
    assert completed.stdout == b"--help\nlent"
    assert completed.stderr == b""


UNCOMMON = signal.SIGRTMIN + 3
"""A signal that uvloop doesn't restore either."""


@pytest.fixture
def odd_signals() -> Iterator[None]:
    """Ignore and block signals for the time of a test, as a service does that waits for them by sigwait(3)."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, UNCOMMON)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def told_signals(status: bytes) -> dict[str, int]:
    """Read what is blocked and ignored in a file like /proc/self/status, but for the C library's own two signals."""
    fields = dict(line.split(":", 1) for line in status.decode().splitlines())
    return {name: int(fields[name], 16) & ~(3 << 31) for name in ("SigBlk", "SigIgn")}


STATUS = ("/bin/cat", "/proc/self/status")


@pytest.mark.usefixtures("odd_signals")
async def test_signals_are_restored() -> None:
    """A child that is to begin with no signal blocked or ignored does so, whatever this process does about signals."""
    completed = await run(Invocation(command="x", argv=STATUS, restore_signals=True))
    assert told_signals(completed.stdout) == {"SigBlk": 0, "SigIgn": 0}
    assert not completed.stderr
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.usefixtures("odd_signals")
async def test_signals_are_inherited_if_nothing_else_is_asked_for() -> None:
    """A child inherits what this process blocks and ignores, but for what Python ignores itself; uvloop restores."""
    told = told_signals((await run(Invocation(command="x", argv=STATUS))).stdout)
    blocked = 1 << (signal.SIGUSR1 - 1) | 1 << (signal.SIGTERM - 1)
    ignored = 1 << (signal.SIGHUP - 1) | 1 << (UNCOMMON - 1)
    assert told == (
        {"SigBlk": blocked, "SigIgn": ignored} if on_asyncio() else {"SigBlk": 0, "SigIgn": 1 << (UNCOMMON - 1)}
    )


async def test_signals_need_no_helper_where_there_is_nothing_to_restore() -> None:
    """The usual service pays nothing for that."""
    argv, _ = helped(Invocation(command="x", argv=STATUS, restore_signals=True), STATUS, (), ())
    assert argv == list(STATUS)


async def test_what_python_ignores_itself_is_not_ignored_behind_a_helper() -> None:
    """A helper, which is a Python, leaves no signal ignored either."""
    read, write = os.pipe()
    try:
        completed = await run(Invocation(command="x", argv=STATUS, preserve_fds=(read,)))
    finally:
        os.close(read)
        os.close(write)
    assert told_signals(completed.stdout) == {"SigBlk": 0, "SigIgn": 0}


@pytest.mark.parametrize("name", ["/no/such/program", "no-such-program", "./no-such-program"])
@pytest.mark.parametrize("helper", ["pdeathsig", "preserve_fds"])
async def test_a_program_that_does_not_exist(name: str, helper: str) -> None:
    """A missing program is a RuncNotFound from behind a helper too, and never an exit code of 127 or 1."""
    invocation = Invocation(
        command="x",
        argv=(name,),
        env={"PATH": "/usr/bin:/bin"},
        pdeathsig=9 if helper == "pdeathsig" else None,
        preserve_fds=(1,) if helper == "preserve_fds" else (),
    )
    with pytest.raises(RuncNotFound) as caught:
        await run(invocation)
    assert caught.value.command == name
    assert caught.value.path == (None if "/" in name else "/usr/bin:/bin")


async def test_a_script_without_its_interpreter(tmp_path: Path) -> None:
    """So is a script whose interpreter is missing, which the helper alone would find out."""
    program = write_program(tmp_path / "program", "#!/no/such/interpreter -x\nexit 0\n")
    with pytest.raises(RuncNotFound) as caught:
        await run(Invocation(command="x", argv=(program,), pdeathsig=9))
    assert caught.value.command == program


async def test_a_program_that_is_not_executable(tmp_path: Path) -> None:
    """A file without the right to be executed is a PermissionError from behind a helper too."""
    (tmp_path / "program").touch()
    with pytest.raises(PermissionError) as caught:
        await run(Invocation(command="x", argv=(str(tmp_path / "program"),), pdeathsig=9))
    assert caught.value.filename == str(tmp_path / "program")


async def test_a_working_directory_that_does_not_exist() -> None:
    """A missing working directory isn't taken for a missing program."""
    with pytest.raises(FileNotFoundError) as caught:
        await run(Invocation(command="x", argv=("./program",), pdeathsig=9, cwd="/no/such/directory"))
    assert not isinstance(caught.value, RuncNotFound)


async def test_a_program_relative_to_its_working_directory(tmp_path: Path) -> None:
    """A relative path counts from the working directory of the child, with and without a helper."""
    write_program(tmp_path / "program", "#!/bin/sh\nexit 3\n")
    for pdeathsig in (None, 9):
        invocation = Invocation(command="x", argv=("./program",), pdeathsig=pdeathsig, cwd=str(tmp_path))
        assert (await run(invocation)).returncode == 3


async def test_no_setpriv(tmp_path: Path) -> None:
    """Without setpriv, which gives the death signal, the error names it."""
    program = write_program(tmp_path / "program", "#!/bin/sh\n")
    with pytest.raises(RuncNotFound) as caught:
        await run(Invocation(command="x", argv=(program,), pdeathsig=9, env={"PATH": "/nowhere"}))
    assert caught.value.command == "setpriv"


@pytest.mark.parametrize("on_asyncio", [True, False])
def test_signals_of_the_c_library_are_not_restored(*, on_asyncio: bool) -> None:
    """Signals 32 and 33, with which make(1) starts programs ignored, need no helper; others do."""
    assert not needs_restoring(0, 3 << 31, on_asyncio=on_asyncio)
    assert needs_restoring(0, 1 << signal.SIGRTMAX - 1, on_asyncio=on_asyncio)
