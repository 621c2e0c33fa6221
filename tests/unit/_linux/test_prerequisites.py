"""What this process needs to have children, and the error for what it lacks."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from children import each_loop, python, run_in, shell, write_program
from descriptors import spare

from runc_async import ArgumentsTooLong, NullIO, ProcessRunner, Runc, RuncError, SpawnError, spec
from runc_async._linux.prerequisites import DELETION_DESCRIPTORS, LONGEST_ARGUMENT
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from pathlib import Path

LONG = "x" * (LONGEST_ARGUMENT + 1)


async def refused(directory: Path) -> SpawnError:
    """Make calls of several kinds, each of which has to be refused before a program starts; return the last error."""
    mark = directory / "started"
    client = Runc(write_program(directory / "runc", f"#!/bin/sh\necho >{mark}\n"))
    caught: SpawnError | None = None
    for call in (
        client.list,
        client.version,
        lambda: client.create("web", "/no/bundle"),
        lambda: client.run("web", "/no/bundle"),
    ):
        with pytest.raises(SpawnError) as raised:
            await call()
        caught = raised.value
        assert isinstance(caught, RuncError)
        assert isinstance(caught, OSError)
    with pytest.raises(SpawnError):
        async with client.open_exec("web", ["true"]):
            pytest.fail("there is nothing to enter")
    assert not mark.exists()
    assert caught is not None
    return caught


@each_loop
def test_sigchld_that_is_ignored(tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A process that was started with SIGCHLD ignored gets one clear error on every loop, and nothing is started."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        error = run_in(new_loop, refused(tmp_path))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert error.errno == errno.ECHILD
    assert str(error).startswith("ECHILD: SIGCHLD is ignored")
    assert "signal.SIG_DFL" in error.remedy


def test_sigchld_that_was_ignored_by_the_parent(tmp_path: Path) -> None:
    """execve(2) keeps an ignored signal ignored, and that is seen."""
    program = write_program(tmp_path / "runc", "#!/bin/sh\n")
    script = f"""
        import os, signal, sys
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.dup2(1, 2)
        code = "import asyncio, runc_async; asyncio.run(runc_async.Runc({program!r}).list())"
        if not os.fork():
            os.execv(sys.executable, [sys.executable, "-c", code])
        try:
            os.wait()
        except ChildProcessError:  # so it is told, when the last one has ended
            pass
    """
    assert b"SpawnError: ECHILD: SIGCHLD is ignored" in python(script).stdout


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
async def test_pidfds_that_are_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Under a seccomp profile without pidfd_open(2) a call names that, and nothing is started."""
    monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError(code, os.strerror(code))))
    error = await refused(tmp_path)
    assert error.errno == code
    assert "pidfd_open(2) fails" in str(error)
    assert "seccomp" in str(error)


def test_a_limit_below_the_size_of_a_file_in_memory(tmp_path: Path) -> None:
    """RLIMIT_FSIZE counts for files in memory too, and the error says so."""
    program = write_program(tmp_path / "runc", "#!/bin/sh\n")
    script = f"""
        import asyncio, resource, runc_async
        from runc_async import spec
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        client = runc_async.Runc({program!r})
        async def main():
            process = spec.Process(cwd="/", args=["x" * 2000])
            for call in (client.list(), client.exec("web", process)):
                try:
                    await call
                except runc_async.SpawnError as error:
                    print(error)
        asyncio.run(main())
    """
    first, second = python(script).stdout.decode().splitlines()
    assert first.startswith("EFBIG: RLIMIT_FSIZE is 1000 bytes, and the file in memory for stdout needs")
    assert second.startswith("EFBIG: RLIMIT_FSIZE is 1000 bytes, and the file in memory for process.json needs 2")


TOO_LONG: dict[str, tuple[str, Callable[[Runc], Awaitable[object]]]] = {
    "exec": ("argument 1", lambda client: client.exec("web", ["cat", LONG])),
    "exec of a document": ("argument 1", lambda client: client.exec("web", spec.Process(cwd="/", args=["cat", LONG]))),
    "a variable of a document": (
        "the variable HUSH",
        lambda client: client.exec("web", spec.Process(cwd="/", args=["cat"], env=[f"HUSH={LONG}"])),
    ),
    "many bytes in few characters": ("argument 0", lambda client: client.exec("web", ["\U0001f600" * 40_000])),
}


@pytest.mark.parametrize("case", TOO_LONG)
async def test_an_argument_that_is_too_long(case: str) -> None:
    """More than 128 KiB in one argument is an error of ours that names E2BIG and `input=`, before anything starts."""
    what, call = TOO_LONG[case]
    runner = FakeRunner()
    with pytest.raises(ArgumentsTooLong) as caught:
        await call(Runc(runner=runner))
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(f"E2BIG: {what} has ")
    assert "input=" in str(caught.value)
    assert "xxx" not in str(caught.value)
    assert runner.invocations == []


@pytest.mark.any_loop
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"env": {"HUSH": LONG}}, "the variable HUSH has"),
        ({"extra_args": [LONG]}, "argument 5 has"),
        ({"extra_args": ["y" * 100_000] * 100}, "the arguments and the environment have"),
    ],
)
async def test_a_command_line_that_is_too_long(options: dict[str, Any], said: str) -> None:
    """What execve(2) refuses with E2BIG is named, on each kind of loop: one argument, one variable, or all together."""
    with pytest.raises(ArgumentsTooLong, match="input=") as caught:
        await Runc("/bin/true", **options).list()
    assert said in str(caught.value)
    assert "xxx" not in str(caught.value)


async def test_the_longest_argument_arrives() -> None:
    """The limit is the kernel's own."""
    text = "x" * LONGEST_ARGUMENT
    completed = await ProcessRunner().run(shell('test ${#1} = "$2"', text, str(len(text))))
    assert completed.returncode == 0


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """With absolute paths everything works in a directory that was removed."""
    script = f"""
        import asyncio, os, runc_async
        from runc_async.testing import FakeRunner
        async def main():
            os.makedirs({str(tmp_path / "b/rootfs")!r})
            bundle = await runc_async.Bundle.create({str(tmp_path / "bundle")!r}, rootfs={str(tmp_path / "b/rootfs")!r})
            os.mkdir({str(tmp_path / "gone")!r})
            os.chdir({str(tmp_path / "gone")!r})
            os.rmdir({str(tmp_path / "gone")!r})
            runner = FakeRunner()
            await runc_async.Runc(runner=runner).create("web", bundle)
            print(runner.invocations[0].argv)
            print((await runc_async.Runc("/bin/true").create("web", bundle)).exit_code)
        asyncio.run(main())
    """
    printed = python(script).stdout.decode()
    assert str(tmp_path / "bundle") in printed
    assert printed.endswith("0\n")


async def test_no_container_is_made_that_could_not_be_deleted(tmp_path: Path) -> None:
    """A creation that would leave too few descriptors for its deletion starts no runtime process."""
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "config.json").write_text("{}")
    mark = tmp_path / "started"
    program = f'#!/bin/sh\ncase "$*" in *create*) echo >{mark} ;; esac\n'
    client = Runc(write_program(tmp_path / "runc", program), root=tmp_path / "root")
    for count in range(DELETION_DESCRIPTORS):
        with spare(count), pytest.raises(OSError, match="Too many open files"):
            await client.create("web", tmp_path, io=NullIO())
    assert not mark.exists()
