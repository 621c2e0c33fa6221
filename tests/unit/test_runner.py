"""The values that go through the seam."""

from __future__ import annotations

import msgspec
import pytest

from runc_async import ProcessRunner, Runner
from runc_async.runner import Completed, Document, Invocation, OwnCgroup, PidFile, PrivateLog, Setting
from runc_async.testing import FakeRunner


def test_what_is_shown_of_arguments() -> None:
    """Documents show their name, values of the environment nothing, and files of ours what they are."""
    argv = ("runc", Document("process.json", b"secret"), PrivateLog(), Setting("PASSWORD", "secret"))
    invocation = Invocation(command="exec", argv=(*argv, PidFile(), PidFile("/p")))
    assert invocation.args == ("runc", "<process.json>", "<log>", "PASSWORD=***", "<pid file>", "/p")


def test_the_words_of_an_own_cgroup() -> None:
    """An own cgroup is one option for each hierarchy, and is shown without its name."""
    own = OwnCgroup("leaf", (("pids", "/a"), ("cpu,cpuacct", "/b")))
    assert own.words() == ["--cgroup=pids:leaf", "--cgroup=cpu,cpuacct:leaf"]
    assert OwnCgroup("leaf", (("", "/c"),)).words() == ["--cgroup=leaf"]
    assert str(own) == "--cgroup=<own cgroup>"


@pytest.mark.parametrize("show", [repr, str])
def test_what_is_not_shown(show: type[str]) -> None:
    """Neither environment nor input nor documents nor settings appear where an invocation is printed."""
    invocation = Invocation(
        command="exec",
        argv=("runc", Document("process.json", b"secret"), Setting("PASSWORD", "secret")),
        input=b"secret",
        env={"TOKEN": "secret"},
    )
    assert show(invocation) == "<Invocation runc <process.json> PASSWORD=***>"
    assert "secret" not in show(invocation.argv)


def test_they_are_values() -> None:
    """Invocations and results are equal to their like, and changed by making another."""
    invocation = Invocation(command="state", argv=("runc", "state"))
    assert invocation == Invocation(command="state", argv=("runc", "state"))
    changed = msgspec.structs.replace(invocation, argv=("nice", *invocation.argv))
    assert changed.args == ("nice", "runc", "state")
    assert Completed(pid=1, returncode=0) == Completed(pid=1, returncode=0)
    with pytest.raises(AttributeError):
        invocation.command = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - what is tested


def test_both_runners_fit_the_seam() -> None:
    """The real runner and the fake one are runners for the type checker."""
    runners: list[Runner] = [ProcessRunner(), FakeRunner()]
    assert len(runners) == 2
