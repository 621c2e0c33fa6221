"""What a runc has yet to copy, and when its process's output is complete: played by a small program that copies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from runtime import KERNEL_KEEPS
from waiting import until

from runc_async._process.relay import Relay, look_at_relay
from runc_async._process.running import ProcessRunner
from runc_async.runner import Invocation, PidFile, StopPolicy
from runc_async.stdio import CapturedIO, NullIO

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from runc_async.runner import Completed
    from runc_async.stdio import StdIO

RUNC = """if 1:
    import os, signal, subprocess, sys, time
    file, script, seconds = sys.argv[1:]
    reading, writing = os.pipe()
    process = subprocess.Popen(["/bin/sh", "-c", script], stdout=writing)
    os.close(writing)
    with open(file + ".new", "w") as pid_file:
        pid_file.write(str(process.pid))
    os.rename(file + ".new", file)
    code = process.wait()
    time.sleep(float(seconds))
    while data := os.read(reading, 1 << 16):
        os.write(1, data)
    sys.exit(code)
"""
"""A runc: it runs a script, tells its pid, waits for it, takes its time, and copies until nobody holds the pipe."""


async def executed(
    script: str, *, seconds: float = 0.0, drain_timeout: float = 60.0, io: StdIO | None = None
) -> Completed:
    """Let such a runc execute a script."""
    argv = (sys.executable, "-ISc", RUNC, PidFile(), script, str(seconds))
    invocation = Invocation(
        command="exec",
        argv=argv,
        streams=io or CapturedIO(),
        stop=StopPolicy(grace=5.0, waits_for_process=True),
        drain_timeout=drain_timeout,
    )
    async with asyncio.timeout(40):
        return await ProcessRunner().run(invocation)


LIVES_ON = "sleep 100 & echo $!; sleep 0.3; "
"""The process lives for long enough to be looked at, and leaves another one that holds its pipe."""


@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
@pytest.mark.any_loop
@pytest.mark.parametrize("drain_timeout", [0.0, 60.0])
async def test_the_end_of_a_process_that_leaves_another_behind(drain_timeout: float) -> None:
    """The end is known at once, and the output complete, however long others may hold the pipe."""
    completed = await executed(LIVES_ON + "exit 5", drain_timeout=drain_timeout)
    os.kill(int(completed.stdout), signal.SIGKILL)
    assert (completed.returncode, completed.truncated) == (5, False)


@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
async def test_nothing_is_lost_in_a_runc_that_takes_its_time() -> None:
    """What is in runc's own pipe still is waited for, though nothing comes for long."""
    completed = await executed(LIVES_ON + "head -c 30000 /dev/zero; exit 5", seconds=0.5)
    pid, data = completed.stdout.split(b"\n")
    os.kill(int(pid), signal.SIGKILL)
    assert (completed.returncode, len(data), completed.truncated) == (5, 30000, False)


@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
async def test_what_is_lost_is_said() -> None:
    """Where the drain timeout is over while more comes, the output is incomplete, and says so."""
    script = "(sleep 0.2; while :; do echo more; sleep 0.01; done) & echo $!; sleep 0.3; exit 5"
    completed = await executed(script, drain_timeout=0.3)
    pid, *rest = completed.stdout.split(b"\n")
    os.kill(int(pid), signal.SIGKILL)
    assert (completed.returncode, completed.truncated) == (5, True)
    assert set(rest) == {b"more", b""}


@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
async def test_output_that_goes_nowhere(tmp_path: Path) -> None:
    """A process whose output isn't captured needs no time to drain."""
    completed = await executed(f"sleep 100 & echo $! > {tmp_path}/pid; sleep 0.3; exit 5", io=NullIO())
    os.kill(int((tmp_path / "pid").read_text(encoding="ascii")), signal.SIGKILL)
    assert completed.returncode == 5


# a look at runc


@contextlib.contextmanager
def copying(script: str, program: str = "import sys; sys.stdin.read()") -> Generator[subprocess.Popen[bytes]]:
    """Run a program with a pipe as descriptor 5, and as stdin, that a shell's script holds."""
    reading, writing = os.pipe()
    with subprocess.Popen(["/bin/sh", "-c", script], stdout=writing, stdin=subprocess.PIPE) as holder:
        os.close(writing)
        argv = ["/bin/sh", "-c", f'exec 5<&0; exec "$0" -ISc "{program}" </dev/null', sys.executable]
        with subprocess.Popen(argv, stdin=reading) as process:
            os.close(reading)
            try:
                yield process
            finally:
                process.kill()
                assert holder.stdin is not None
                holder.stdin.close()


SLEEPING = "import time; time.sleep(600)"


async def test_a_pipe_that_is_held_and_empty() -> None:
    """A runc that waits for more from another process is held up."""
    with copying("read go", SLEEPING) as process:
        await until(lambda: look_at_relay(process.pid) == Relay(held=True, idle=True))


async def test_a_pipe_with_something_in_it() -> None:
    """A runc that has something to read has something to do."""
    with copying("echo out; read go", SLEEPING) as process:
        await until(lambda: look_at_relay(process.pid) == Relay(held=True, idle=False))


async def test_a_pipe_that_nobody_holds() -> None:
    """A runc whose pipes are at their end ends by itself."""
    with copying("exit 0", SLEEPING) as process:
        await until(lambda: look_at_relay(process.pid) == Relay(held=False, idle=True))


async def test_a_thread_that_runs() -> None:
    """A runc that works may have something to write yet."""
    with copying("read go", "while True: pass") as process:
        await until(lambda: look_at_relay(process.pid) == Relay(held=True, idle=False))


async def test_pipes_that_say_nothing() -> None:
    """The caller's stdin, and a pipe that a process writes itself, are none that runc copies from."""
    program = "import os, time; pipe = os.pipe(); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-ISc", program], stdin=subprocess.PIPE) as process:  # noqa: ASYNC220 - it sleeps
        await until(lambda: os.path.exists(f"/proc/{process.pid}/fd/4"))
        assert look_at_relay(process.pid) is None
        process.kill()


def test_a_process_that_is_gone() -> None:
    """Of a process that is gone nothing is known."""
    assert look_at_relay(1 << 22) is None
