"""What is known of gVisor's runsc: the page, its records, and how commands are spelt."""

from __future__ import annotations

import re

import feature_table
import pytest

from runc_async._answers.log import parse_log
from runc_async._runtimes import runsc
from runc_async.runner import InsidePidFile, PidFile


def test_the_page_tells_what_runsc_lacks() -> None:
    """docs/topics/runtimes.md has each feature that it lacks, and no others."""
    page = feature_table.PAGE.read_text().partition("\n## runsc\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(.+?)` \| (.+?) \|$", page, re.MULTILINE))
    assert told == {name: "none" if first is None else "after 2024-07-29" for name, first in runsc.FEATURES.items()}


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
    assert runsc.decode_fork(clone) == (14, 15)
    assert runsc.decode_fork(bytes.fromhex("0800040000000000" + "0a022010")) == (16, 0)
    assert runsc.decode_fork(bytes.fromhex("0800040000000000" + "0a0410112010")) is None
    for data in (b"", b"\x08", clone[:8], clone[:12], bytes(40), b"\xff" * 40):
        assert runsc.decode_fork(data) is None


def test_records_that_stand_in_one_line() -> None:
    """Runsc writes no line ends between its records; what follows the last one isn't lost."""
    line = b'{"msg":"a","level":"warning"}{"msg":"b {}{","level":"error"}rest'
    assert [(record.level, record.msg) for record in parse_log(line)] == [
        ("warning", "a"),
        ("error", "b {}{"),
        (None, "rest"),
    ]
