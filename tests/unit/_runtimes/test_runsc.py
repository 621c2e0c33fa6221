"""What is known of gVisor's runsc: the page, its records, and how commands are spelt."""

from __future__ import annotations

import re

import feature_table
import pytest

from runc_async import errors
from runc_async._answers.log import parse_log
from runc_async._answers.wording import meaning
from runc_async._runtimes import runsc, trace
from runc_async.runner import InsidePidFile, PidFile


def test_the_page_tells_what_runsc_lacks() -> None:
    """docs/topics/runtimes.md has each feature that it lacks, and no others."""
    page = feature_table.PAGE.read_text().partition("\n## runsc\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(.+?)` \| (.+?) \|$", page, re.MULTILINE))
    assert told == {name: "none" if first is None else "after 2024-07-29" for name, first in runsc.FEATURES.items()}


def test_the_page_tells_which_fields_runsc_ignores() -> None:
    """docs/topics/runtimes.md has each field of a configuration that it ignores, and no others."""
    page = feature_table.PAGE.read_text().partition("\n## runsc\n")[2].partition("\n## ")[0]
    told = page.partition("returns them:")[2].partition(".\n")[0]
    assert re.findall(r"`([^`]+)`", told) == list(runsc.PARTS)


MESSAGES = {
    'failure executing hook "/bin/false", err: exit status 1\nstdout: \nstderr: ': errors.HookError,
    "fork/exec /nonesuch: no such file or directory": errors.HookError,
    "cannot set up cgroup for root: configuring cgroup: write /sys/fs/cgroup/cpuset/web/cpuset.cpus: numerical result "
    "out of range": errors.ResourceError,
    'cannot set up cgroup for root: configuring cgroup: mandatory cgroup controller "cpu" is missing for '
    '"/sys/fs/cgroup/web"': errors.ResourceError,
    'failed to stat mount "/b/missing" to see if it were a directory: stat /b/missing: no such file or '
    "directory": errors.BundleNotFound,
    'Error setting up root FS: mounting root on root ("/proc/fs/root") err: no such file or '
    "directory": errors.BundleNotFound,
    'error setting up FS: mounting {Destination:/tmp Type:bind Source:/nonesuch Options:[bind]}: stat("/nonesuch") '
    "failed: stat /nonesuch: no such file or directory": errors.InvalidSpec,
    "creating loader: creating init process for root container: creating limits: unknown resource "
    '"RLIMIT_BOGUS"': errors.InvalidSpec,
}
"""What runsc logged in tests/live/test_live_errors.py, behind its prefixes."""


@pytest.mark.parametrize("message", MESSAGES)
def test_what_a_creation_failed_of(message: str) -> None:
    """Each message has its class, with a prefix and without."""
    for prefix in ("", "creating container: ", "running container: creating container: "):
        found = meaning(prefix + message)
        assert found is not None
        assert found.cls is MESSAGES[message]


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.0~20240729.0", (20240729,)), ("release-20260928.0", (20260928,)), ("1.2.3", ()), ("", ())],
)
def test_versions_are_dates(version: str, expected: tuple[int, ...]) -> None:
    """Debian's and gVisor's own have the date in another place; what has none isn't known."""
    assert runsc.numbers(version) == expected


def test_how_commands_are_spelt() -> None:
    """Descriptors one by one, whole seconds, and the pid inside; what stands behind `--` is left alone."""
    assert runsc.spell("run", ("run", "--preserve-fds", "2", "--", "web")) == (
        *("run", "--pass-fd", "3:3", "--pass-fd", "4:4", "--", "web"),
    )
    assert runsc.spell("events", ("events", "--interval", "1200ms", "--", "web"))[:3] == ("events", "--interval", "2")
    file = PidFile()
    assert runsc.spell("exec", ("exec", "--pid-file", file, "--", "web", "--interval")) == (
        *("exec", "--pid-file", file, "--internal-pid-file", InsidePidFile(), "--", "web", "--interval"),
    )
    detached = runsc.spell("exec", ("exec", "--detach", "--", "web", "true"))
    assert detached == ("exec", "--detach", "--pid-file", PidFile(), "--", "web", "true")


def test_reports_of_forks() -> None:
    """A recorded clone, and a recorded exit; a thread's end, and anything else, is no report."""
    clone = bytes.fromhex("0800020000000000" + "0a02200e180f200f28e6bfb7eab59695f6183080808009")
    assert trace.decode_fork(clone) == (14, 15)
    assert trace.decode_fork(bytes.fromhex("0800040000000000" + "0a022010")) == (16, 0)
    assert trace.decode_fork(bytes.fromhex("0800040000000000" + "0a0410112010")) is None
    for data in (b"", b"\x08", clone[:8], clone[:12], bytes(40), b"\xff" * 40):
        assert trace.decode_fork(data) is None


def test_records_that_stand_in_one_line() -> None:
    """Runsc writes no line ends between its records; what follows the last one isn't lost."""
    line = b'{"msg":"a","level":"warning"}{"msg":"b {}{","level":"error"}rest'
    assert [(record.level, record.msg) for record in parse_log(line)] == [
        ("warning", "a"),
        ("error", "b {}{"),
        (None, "rest"),
    ]
