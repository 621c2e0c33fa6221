"""The program that waits for an exec's process in place of runc, and the terminal that runc hands over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from subprocess import PIPE
from typing import TYPE_CHECKING, Any, cast

import pytest
from children import alive, post
from waiting import until

from runc_async._linux.fdsocket import FDSocket
from runc_async._process.terminal import hands_over, receive_terminal, waiting_for
from runc_async.errors import TerminalError
from runc_async.runner import Invocation, PrivateLog
from runc_async.stdio import PtyIO

if TYPE_CHECKING:
    from pathlib import Path

ARGV = ("runc", "--log", PrivateLog(), "exec", "--tty", "--", "web", "exec")


@pytest.mark.parametrize(
    ("argv", "detach_at", "expected"),
    [
        (ARGV, 4, True),
        (ARGV, None, False),
        (("sudo", *ARGV), 4, False),
        (("nsenter", "--target", "7", "--mount", *ARGV), 4, False),
    ],
    ids=["runc", "no terminal", "sudo", "nsenter"],
)
def test_behind_another_command_runc_stays(
    argv: tuple[str | PrivateLog, ...], detach_at: int | None, *, expected: bool
) -> None:
    """Runc hands the terminal over only where it is started by this process itself."""
    assert hands_over(Invocation(command="exec", argv=argv, detach_at=detach_at)) is expected


# Starts a process as a runc that detaches does, and never reaps it: a shell would. Then it does what is asked for.
RUNC = """\
import os, subprocess, sys, time
pid_file, script, then = sys.argv[1:]
if script:
    process = subprocess.Popen(["sh", "-c", script])
    with open(pid_file + "~", "w") as file:
        file.write(str(process.pid))
    os.rename(pid_file + "~", pid_file)
exec(then)
os._exit(0)
"""


def started(pid_file: Path, script: str, then: str = "", **options: Any) -> subprocess.Popen[bytes]:
    """Start the program in front of something like a runc."""
    command = [*waiting_for(str(pid_file)), sys.executable, "-ISc", RUNC, str(pid_file), script, then]
    return cast("subprocess.Popen[bytes]", subprocess.Popen(command, stdout=PIPE, stderr=PIPE, **options))


def killed(number: int) -> str:
    """Return how something like a runc is ended by a signal."""
    return f"os.kill(os.getpid(), {number:d})"


@pytest.mark.parametrize(
    ("script", "then", "code"),
    [
        ("exit 0", "", 0),
        ("sleep 0.2; exit 7", "", 7),
        ("exit 255", "", 255),
        ("sleep 0.2; kill -TERM $$", "", 128 + signal.SIGTERM),
        ("kill -KILL $$", "", 128 + signal.SIGKILL),
        ("exit 7", "time.sleep(0.3)", 7),
        ("sleep 0.3; exit 7", "subprocess.Popen(['true'])", 7),
        ("", "os._exit(3)", 3),
        ("exit 7", "os._exit(255)", 255),
        ("", killed(signal.SIGSEGV), -signal.SIGSEGV),
        ("exit 7", killed(signal.SIGKILL), -signal.SIGKILL),
    ],
    ids=[
        *("at once", "later", "255", "by SIGTERM", "by SIGKILL", "before runc", "beside a stray"),
        *("runc fails", "runc fails with a process", "runc crashes", "runc is killed"),
    ],
)
def test_it_ends_as_runc_would(tmp_path: Path, script: str, then: str, code: int) -> None:
    """It ends as a runc that stays: with the process's code, or as runc itself if that fails."""
    process = started(tmp_path / "pid", script, then)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == code


@pytest.mark.parametrize("content", [None, "", "1", "0", "-1"])
def test_without_a_process_it_has_no_exit_code(tmp_path: Path, content: str | None) -> None:
    """Where there is no process to wait for it ends by a signal, which is never taken for an exit code, and says so."""
    process = started(tmp_path / "pid", "", "" if content is None else f"open(pid_file, 'w').write({content!r})")
    _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert said.startswith(b"waiting for the process of")


async def test_signals_reach_the_process(tmp_path: Path) -> None:
    """A signal is passed on, also one that came before the process was known; changes of the window's size are not."""
    traps = 'trap "echo usr1 > post" USR1; trap "echo winch > post" WINCH; trap "exit 9" TERM'
    waits = "echo ready > post; while :; do sleep 0.02; done"
    os.mkfifo(tmp_path / "go")
    with post(tmp_path) as said:
        process = started(tmp_path / "pid", f"{traps}; {waits}", "open('go').read()", cwd=tmp_path)
        try:
            assert await said.word() == "ready"
            process.send_signal(signal.SIGUSR1)
            await asyncio.to_thread((tmp_path / "go").write_text, "")
            assert await said.word() == "usr1"
            process.send_signal(signal.SIGWINCH)
            process.send_signal(signal.SIGUSR1)
            assert await said.word() == "usr1"
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 30) == 9
        finally:
            process.kill()
            process.communicate()


async def test_it_keeps_no_descriptor(tmp_path: Path) -> None:
    """What only the runtime was given is closed with the runtime: the other end of a pipe sees the end."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    process = started(tmp_path / "pid", "exec sleep 60", pass_fds=[writing])
    try:
        os.close(writing)
        assert await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), 20) == b""
        assert process.poll() is None
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 30) == 128 + signal.SIGTERM
    finally:
        os.close(reading)
        process.kill()
        process.communicate()


def test_runc_begins_with_the_callers_signals(tmp_path: Path) -> None:
    """Nothing that this program blocks, or that Python ignores, is blocked or ignored in the runtime."""
    look = "os.write(1, open('/proc/self/status', 'rb').read())"
    said, _ = started(tmp_path / "pid", "exit 0", look).communicate(timeout=30)
    fields = dict(line.split(b":\t", 1) for line in said.splitlines())
    ignored = int(fields[b"SigIgn"], 16)
    assert int(fields[b"SigBlk"], 16) == 0
    assert {number for number in signal.valid_signals() if ignored >> (number - 1) & 1} == {
        *(signal.SIGPIPE, signal.SIGXFSZ)  # by the Python in the place of the runtime
    }


async def test_an_orphan_is_reaped(tmp_path: Path) -> None:
    """What others leave to it, as in a container without a pid namespace, stays no zombie."""
    script = "sh -c 'sleep 0.1 & echo $! > stray'; exec sleep 60"
    process = started(tmp_path / "pid", script, cwd=tmp_path)
    try:
        await until(lambda: (tmp_path / "stray").exists() and (tmp_path / "stray").read_text().endswith("\n"))
        stray = (tmp_path / "stray").read_text().strip()
        await until(lambda: not os.path.exists(f"/proc/{stray}"))
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("sent", [None, "file", "nothing"])
async def test_what_is_no_terminal(sent: str | None) -> None:
    """Without a terminal, or with something else in its place, it is an error that says so."""
    async with FDSocket() as console:
        if sent is not None:
            script = (
                "import os, socket, sys\n"
                "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
                "socket.send_fds(s, [b'x'], [os.open('/dev/null', 0)] if sys.argv[2] == 'file' else [])"
            )
            child = await asyncio.create_subprocess_exec("python3", "-c", script, console.path, sent)
            assert await child.wait() == 0
        with pytest.raises(TerminalError, match=r"no terminal|no descriptors"):
            receive_terminal(console, os.getpid(), PtyIO())
