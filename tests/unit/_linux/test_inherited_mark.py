"""A mark that processes inherit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import until

from runc_async._linux.inherited_mark import InheritedMark


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """Return a shell in a session of its own, which does what is written to it."""
    with subprocess.Popen(
        ["/bin/sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
    ) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def asked(shell: subprocess.Popen[bytes], script: bytes) -> list[int]:
    """Let a shell do something, and return the numbers in the line that it prints."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(script + b"\n")
    return [int(word) for word in shell.stdout.readline().split()]


def test_it_is_inherited(shell: subprocess.Popen[bytes]) -> None:
    """What a marked process starts has the mark, also when it has lost its parent."""
    mark = InheritedMark()
    mark.put(shell.pid)
    pids = asked(shell, b"sleep 100 & a=$!; b=$(sh -c 'sleep 100 >/dev/null & echo $!'); echo $a $b")
    assert set(mark.members()) == {shell.pid, *pids}
    assert not mark.is_member(os.getpid())
    assert InheritedMark().members() == []


def test_the_first_step() -> None:
    """What is started behind the words of a mark has it before its own first step, and so has what it starts."""
    mark = InheritedMark()
    script = "grep 'file locks' /proc/self/limits"
    said = subprocess.run([*mark.words(), "sh", "-c", f"{script}; true"], capture_output=True, text=True, check=True)
    limit, other = said.stdout.split()[3:5]
    assert limit == other
    assert int(limit) > 1 << 56


def test_a_limit_that_cannot_be_raised() -> None:
    """A mark has no words where this process is marked itself: only CAP_SYS_RESOURCE would let it raise the limit."""
    program = "from runc_async._linux.inherited_mark import InheritedMark; print(InheritedMark().words())"
    said = subprocess.run([*InheritedMark().words(), sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout == b"[]\n"


def test_a_late_mark(shell: subprocess.Popen[bytes]) -> None:
    """With a process that is marked late, its descendants are marked, and what has lost its parent in its session."""
    mark = InheritedMark()
    pids = asked(shell, b"sleep 100 & a=$!; b=$(sh -c 'sleep 100 >/dev/null & echo $!'); echo $a $b")
    mark.put_late(shell.pid)
    assert set(mark.members()) == {shell.pid, *pids}
    mark.put_late(shell.pid)
    assert set(mark.members()) == {shell.pid, *pids}


async def test_a_zombie_is_no_member(shell: subprocess.Popen[bytes]) -> None:
    """A process that has ended, and wasn't reaped, has the mark, and isn't listed."""
    mark = InheritedMark()
    mark.put(shell.pid)
    shell.kill()
    await until(lambda: not mark.is_member(shell.pid))
    assert mark.members() == []


def test_a_process_that_is_gone() -> None:
    """A number that no process has can be marked, which does nothing."""
    with subprocess.Popen(["/bin/true"]) as process:
        pass
    mark = InheritedMark()
    mark.put(process.pid)
    assert not mark.is_member(process.pid)
