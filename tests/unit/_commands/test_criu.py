"""Options for criu in, words out; and criu's log, as an error has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from runc_async._answers.criu_log import TAIL, tail, with_criu_log
from runc_async._commands.criu import Dump, Restoration, status_descriptor
from runc_async.errors import CheckpointError, ContainerNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMON: dict[str, Any] = {
    "image_path": Path("/i/../images"),
    "work_path": "/work",
    "tcp_established": True,
    "ext_unix_sk": True,
    "shell_job": True,
    "file_locks": True,
    "lazy_pages": True,
    "auto_dedup": True,
    "manage_cgroups_mode": "full",
    "empty_ns": ["network"],
}
COMMON_WORDS = (
    *("--image-path", "/images", "--work-path", "/work", "--tcp-established", "--ext-unix-sk", "--shell-job"),
    *("--file-locks", "--lazy-pages", "--auto-dedup", "--manage-cgroups-mode", "full", "--empty-ns", "network"),
)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe's reading and writing end."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_nothing_but_the_images() -> None:
    """Without options there is only the path of the images."""
    assert Dump(image_path="/images").words() == ("--image-path", "/images")
    assert Restoration(image_path="/images").words() == ("--image-path", "/images")


def test_all_options_of_a_dump() -> None:
    """Each option stands behind its own name."""
    dump = Dump(
        **COMMON,
        parent_path="/before",
        leave_running=True,
        pre_dump=True,
        tcp_skip_in_flight=True,
        link_remap=True,
        page_server="10.0.0.1:27",
        status_fd=5,
    )
    assert dump.words() == (
        *COMMON_WORDS,
        *("--parent-path", "../before", "--leave-running", "--pre-dump", "--tcp-skip-in-flight", "--link-remap"),
        *("--page-server", "10.0.0.1:27", "--status-fd", "5"),
    )


def test_all_options_of_a_restoration() -> None:
    """Each option stands behind its own name."""
    restoration = Restoration(**COMMON, lsm_profile="apparmor:web", lsm_mount_context="system_u:x")
    assert restoration.words() == (
        *COMMON_WORDS,
        *("--lsm-profile", "apparmor:web", "--lsm-mount-context", "system_u:x"),
    )


def test_paths_are_the_callers_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative paths start from the working directory, but for the parent's, which starts from the images."""
    monkeypatch.chdir(tmp_path)
    dump = Dump(image_path="2", work_path="w", parent_path="../1")
    assert dump.words()[1::2] == (f"{tmp_path}/2", f"{tmp_path}/w", "../1")
    assert Dump(image_path="2", parent_path=tmp_path / "1").words()[-1] == "../1"
    assert dump.log_directory == f"{tmp_path}/w"
    assert Restoration(image_path="2").log_directory == f"{tmp_path}/2"


def dump(*, image_path: Any = "/images", **options: Any) -> tuple[str, ...]:
    """Write options that the types don't admit."""
    return Dump(image_path=image_path, **options).words()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"manage_cgroups_mode": "hard"}, ValueError),
        ({"manage_cgroups_mode": ""}, ValueError),
        ({"empty_ns": ["pid"]}, ValueError),
        ({"empty_ns": "network"}, TypeError),
        ({"page_server": "nowhere"}, ValueError),
        ({"page_server": ":27"}, ValueError),
        ({"page_server": "host:"}, ValueError),
        ({"page_server": "host:0"}, ValueError),
        ({"page_server": "host:65536"}, ValueError),
        ({"page_server": "::1:27"}, ValueError),
        ({"page_server": "host:port"}, ValueError),
        ({"page_server": 27}, TypeError),
        ({"image_path": ""}, ValueError),
        ({"work_path": "\0"}, ValueError),
        ({"parent_path": ""}, ValueError),
        ({"parent_path": b"/before"}, TypeError),
    ],
)
def test_what_can_not_be_right(options: dict[str, Any], error: type[Exception]) -> None:
    """A bad value is an error that names the option or the value."""
    with pytest.raises(error, match="|".join(options) + "|path"):
        dump(**options)


def test_the_status_descriptor(pipe: tuple[int, int], tmp_path: Path) -> None:
    """A descriptor has to be open for writing only, and keeps its number."""
    reading, writing = pipe
    assert status_descriptor(None) is None
    assert status_descriptor(writing) == writing
    with (tmp_path / "status").open("w") as file:
        assert status_descriptor(file) == file.fileno()
    for bad in (reading, 1 << 20, -1, 1 << 40, 1):
        with pytest.raises(ValueError, match="status_fd"):
            status_descriptor(bad)


# the log

ERROR = b"(00.04) Error (criu/config.c:1131): Tracking memory is not available.\n"
HARMLESS = b"(00.05) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self\n"
LINE = b"(00.01) something that is done\n"


def test_a_short_log_is_kept_whole() -> None:
    """What fits isn't cut."""
    assert tail(LINE + ERROR + LINE) == LINE + ERROR + LINE


def test_errors_are_kept_however_far_up_they_stand() -> None:
    """Of a long log the end is kept, and the errors before it."""
    kept = tail(HARMLESS + ERROR + LINE * 10_000)
    assert kept.startswith(ERROR + LINE)
    assert kept.endswith(LINE)
    assert kept.count(ERROR) == 1
    assert len(kept) <= TAIL


def test_a_long_log_without_errors_is_cut_at_a_line() -> None:
    """Only whole lines are kept, if there are any."""
    for limit in range(1000, 1100):
        assert set(tail(LINE * 10_000, limit).splitlines(keepends=True)) == {LINE}
    assert tail(b"x" * 10_000) == b"x" * TAIL


@given(st.lists(st.sampled_from([ERROR, HARMLESS, LINE, b"\n", b"\xff" * 300 + b"\n"])), st.integers(200, 2000))
def test_any_log_is_cut_to_its_limit(lines: list[bytes], limit: int) -> None:
    """However the log looks, the tail is no longer than the limit, and has the log's last byte."""
    log = b"".join(lines)
    kept = tail(log, limit)
    assert len(kept) <= limit
    assert kept[-1:] == log[-1:]


def test_an_error_with_criu_s_log(tmp_path: Path) -> None:
    """The error gets the absolute path, the end of the log and a note with the reason, escaped."""
    (tmp_path / "dump.log").write_bytes(LINE + HARMLESS + b"Error (x): \x1b[31mred\n" + ERROR)
    error = CheckpointError((), 1, container_id="web")
    error.log_path = "dump.log"
    with pytest.raises(CheckpointError), with_criu_log(str(tmp_path)):
        raise error
    assert error.log_path == str(tmp_path / "dump.log")
    assert error.log_tail.endswith(ERROR)
    assert error.__notes__ == ["criu: Error (x): \\x1b[31mred"]


def test_an_error_with_a_log_that_says_nothing(tmp_path: Path) -> None:
    """A log without an error gives no note."""
    (tmp_path / "restore.log").write_bytes(LINE)
    error = CheckpointError((), 1)
    error.log_path = str(tmp_path / "restore.log")  # as crun names it
    with pytest.raises(CheckpointError), with_criu_log("/elsewhere"):
        raise error
    assert error.log_tail == LINE
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("path", [None, "dump.log"])
def test_an_error_without_criu_s_log(tmp_path: Path, path: str | None) -> None:
    """A log that was never written, or is out of reach, is no further error."""
    error = CheckpointError((), 1)
    error.log_path = path
    with pytest.raises(CheckpointError), with_criu_log(str(tmp_path)):
        raise error
    assert error.log_tail == b""


def test_other_errors_pass(tmp_path: Path) -> None:
    """What isn't criu's matter stays as it is."""
    with pytest.raises(ContainerNotFound), with_criu_log(str(tmp_path)):
        raise ContainerNotFound((), 1)
