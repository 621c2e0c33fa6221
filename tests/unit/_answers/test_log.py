"""runc's log and crun's: see runc_async/_answers/log.py."""

from __future__ import annotations

import datetime as dt
import logging
import re

import pytest
import recorded
from hypothesis import example, given, strategies as st

from runc_async._answers.log import LogRecord, forward_log, parse_log

NOON = dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)
RUNC = b'{"level":"error","msg":"no \\"x\\"\\nat all","time":"2026-01-02T12:00:00Z"}\n'
CRUN = b'{\n  "msg": "open `\\/x`",\n  "level": "error",\n  "time": "2026-01-02T12:00:00.000000Z"\n}\n'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (RUNC, LogRecord("error", 'no "x"\nat all', NOON)),
        (CRUN, LogRecord("error", "open `/x`", NOON)),
        (b'{"file":"utils.go:62","func":"main.fatal","level":"debug","msg":"m"}', LogRecord("debug", "m")),
        (b'{"error":"EIO","level":"warning","msg":"m"}', LogRecord("warning", "m", None, "EIO")),
        (b'{"error":{"code":5},"level":"warning","msg":"m"}', LogRecord("warning", "m", None, "{'code': 5}")),
        (b'{"level":"error"}', LogRecord("error", "")),
        (b'{"level":"error","msg":"m","time":"noon"}', LogRecord("error", "m")),
        (b'{"level":"error","msg":"m","time":"2026-01-02T12:00:00"}', LogRecord("error", "m")),
        (b'time="2026-01-02T12:00:00Z" level=error msg=EOF\n', LogRecord("error", "EOF", NOON)),
        (b'time="2026-01-02T13:00:00+01:00" level=info msg="a \\"b\\"\\n\\tc"', LogRecord("info", 'a "b"\n\tc', NOON)),
        (
            b'level=error msg="\\x1b\\u00e9\\U0001f600\\a\\\\" error="E x"',
            LogRecord("error", "\x1b\xe9😀\a\\", None, "E x"),
        ),
        (b'level=error msg="\\UFFFFFFFF"', LogRecord("error", "\\UFFFFFFFF")),
        (b'level=error msg="x" level=info', LogRecord("error", "x")),
        (b"ERRO[0000] it failed  \r\n", LogRecord("error", "it failed")),
        (b"\x1b[31mERRO\x1b[0m[0012] it failed\r\n", LogRecord("error", "it failed")),
        (b"WARN[0003] careful", LogRecord("warning", "careful")),
        (b"\0\0\0" + RUNC, LogRecord("error", 'no "x"\nat all', NOON)),
        # no records
        (b"container does not exist\n", LogRecord(None, "container does not exist")),
        (b'{"msg":"no level"}', LogRecord(None, '{"msg":"no level"}')),
        (b'{"level":1,"msg":"m"}', LogRecord(None, '{"level":1,"msg":"m"}')),
        (b'{"level":"error","msg":"cut', LogRecord(None, '{"level":"error","msg":"cut')),
        (b'{"level":"\\ud800","msg":"m"}', LogRecord(None, '{"level":"\\ud800","msg":"m"}')),
        (b'time="2026-01-02T12:00:00Z" msg=m', LogRecord(None, 'time="2026-01-02T12:00:00Z" msg=m')),
        (b"\xff\xfe", LogRecord(None, "\ufffd\ufffd")),
    ],
)
def test_each_shape_of_a_line_is_read(data: bytes, expected: LogRecord) -> None:
    """JSON on one line or on several, text for a file or a terminal; the rest is a line without a level."""
    assert parse_log(data) == (expected,)


@pytest.mark.parametrize("data", [b"", b"\n\n", b" \r\n", b"\0\0\0"])
def test_an_empty_log_has_no_records(data: bytes) -> None:
    """Blank lines and the zero bytes of a hole in a file are nothing."""
    assert parse_log(data) == ()


def test_all_shapes_can_come_mixed() -> None:
    """Records are found between other lines, in order."""
    data = b"a line\n" + RUNC + CRUN + b"level=warning msg=w\nanother\n" + CRUN
    assert [record.level for record in parse_log(data)] == [None, "error", "error", "warning", None, "error"]


@pytest.mark.parametrize(
    ("data", "levels"),
    [
        (b'{\n  "msg": "cut",\n' + RUNC, [None, None, "error"]),
        (b'{\n  "msg": "cut",\n' + CRUN, [None, None, "error"]),
        (RUNC + b'{\n  "msg": "cut",', ["error", None, None]),
        (b"{\n}\n" + CRUN, [None, "error"]),
    ],
)
def test_a_record_that_was_cut_short_does_not_hide_the_next(data: bytes, levels: list[str | None]) -> None:
    """A runtime that was killed while it wrote costs its own record only."""
    assert [record.level for record in parse_log(data)] == levels


@pytest.mark.parametrize("runtime", recorded.RUNTIMES)
def test_every_record_of_a_real_json_log_is_read(runtime: str) -> None:
    """Nothing is left over in the JSON logs that were recorded, and each record has its time."""
    runs = [run for run in recorded.cases(runtime, form="logjson") if run.logged]
    records = [record for run in runs for record in parse_log(run.logged)]
    assert sum(run.logged.count(b'"level"') for run in runs) == len(records) > 0
    assert all(record.level and record.msg and record.time for record in records)


@pytest.mark.parametrize("runtime", [name for name in recorded.RUNTIMES if name.startswith("runc")])
def test_the_text_log_of_a_real_runc_says_the_same_as_its_json_log(runtime: str) -> None:
    """The two forms of each failure give the same levels and messages, but for figures that differ from run to run."""
    text = {run.name: parse_log(run.logged) for run in recorded.cases(runtime, form="logtext")}
    for run in recorded.cases(runtime, form="logjson"):
        if run.name in text and run.name != "fail/exec-cgroup-missing":  # which cgroup comes first is left to chance
            assert without_figures(text[run.name]) == without_figures(parse_log(run.logged)), run.id


def without_figures(records: tuple[LogRecord, ...]) -> list[tuple[str | None, str]]:
    """Return levels and messages, with addresses and amounts blotted out."""
    return [(record.level, re.sub(r"[0-9a-f]*\d[0-9a-f]*", "N", record.msg)) for record in records]


@given(st.binary(max_size=400))
@example(b"{\n{\n}\n}")
@example(b'{"level":' * 3)
@example(b'time="\\')
@example(b'level=x msg="\\U00110000')
def test_any_bytes_can_be_read(data: bytes) -> None:
    """No input raises, and no record is made of nothing."""
    assert all(record.level is not None or record.msg for record in parse_log(data))


@given(
    st.lists(
        st.sampled_from([RUNC, CRUN, b"{\n", b"}\n", b' "x": 1\n', b"level=error msg=m\n", b"plain\n"]), max_size=12
    )
)
def test_lines_in_any_order_can_be_read(parts: list[bytes]) -> None:
    """Fragments of records in any order neither raise nor get lost with a whole record on one line."""
    levels = [record.level for record in parse_log(b"".join(parts))]
    assert levels.count("error") >= parts.count(RUNC)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "data",
    [
        b"{\n" * 200_000,
        b'{\n  "' * 200_000,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"time=" + b'msg="' * 200_000,
        b"time=" + b'k="\\' * 200_000,
        b"level=" * 200_000,
        b"\x1b[31m" * 200_000,
        b"x" * 1_000_000,
    ],
    ids=lambda data: repr(data[:8]),
)
def test_huge_input_is_read_in_linear_time(data: bytes) -> None:
    """A megabyte of what is worst for each pattern takes no longer than the test may."""
    assert not any(record.is_error for record in parse_log(data))


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("trace", logging.DEBUG),
        ("debug", logging.DEBUG),
        ("info", logging.INFO),
        ("warning", logging.WARNING),
        ("error", logging.ERROR),
        ("fatal", logging.CRITICAL),
    ],
)
def test_a_record_is_passed_on_at_its_own_level(caplog: pytest.LogCaptureFixture, level: str, expected: int) -> None:
    """Each record is one line of the logger `runc_async` that names the container, and has its id as an attribute."""
    caplog.set_level(logging.DEBUG, "runc_async")
    forward_log(f'{{"level":"{level}","msg":"one\\ntwo","error":"EIO"}}\n'.encode(), "web", errors=True)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("runc_async", expected)
    assert record.getMessage() == "container 'web': one; two: EIO"
    assert record.__dict__["container_id"] == "web"


def test_what_an_exception_has_or_is_no_record_is_not_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    """The errors of a call that fails are in its exception, and a plain line may be output of the container."""
    caplog.set_level(logging.DEBUG, "runc_async")
    forward_log(RUNC + b"hello\n" + b'{"level":"warning","msg":"w"}\n', None, errors=False)
    assert [record.getMessage() for record in caplog.records] == ["runc: w"]
