"""The table of a container's processes."""

from __future__ import annotations

import pytest

from runc_async._answers.decode import decode_top
from runc_async.errors import DecodeError
from runc_async.top import Top

DEFAULT = b"""UID        PID  PPID  C STIME TTY          TIME CMD
root      8350     1  1 12:36 ?        00:00:00 sleep 600
nobody    8743     1 14 12:36 pts/0    00:00:00 sh -c 'a   b'
"""


def test_a_table_is_header_and_rows() -> None:
    """The header is the first line, and each other line has a value for each column."""
    assert decode_top(DEFAULT) == Top(
        header=("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"),
        rows=(
            ("root", "8350", "1", "1", "12:36", "?", "00:00:00", "sleep 600"),
            ("nobody", "8743", "1", "14", "12:36", "pts/0", "00:00:00", "sh -c 'a   b'"),
        ),
    )


def test_a_process_is_found_by_column() -> None:
    """Each process is a dictionary by name of column, too."""
    first, second = decode_top(DEFAULT).processes
    assert (first["UID"], first["PID"], first["CMD"]) == ("root", "8350", "sleep 600")
    assert second["CMD"] == "sh -c 'a   b'"


@pytest.mark.parametrize("table", [b"PID\n", b"PID", b"\n  PID\n\n"])
def test_a_stopped_container_has_a_header_only(table: bytes) -> None:
    """A table without processes has no rows."""
    assert decode_top(table) == Top(header=("PID",), rows=())


def test_cruns_table_has_one_column() -> None:
    """The list of process ids that crun prints is a table as well."""
    assert decode_top(b"PID\n24618\n24790\n").rows == (("24618",), ("24790",))


def test_a_line_that_ends_early_is_filled_up() -> None:
    """A process without a command line has an empty one."""
    top = decode_top(b"  PID CMD\n    1\n    2 sh\n")
    assert top.rows == (("1", ""), ("2", "sh"))
    assert top.processes[0] == {"PID": "1", "CMD": ""}


def test_two_columns_may_have_one_name() -> None:
    """`ps -o pid,comm,args` has COMMAND twice: a row has both, a dictionary the last."""
    top = decode_top(b"  PID COMMAND         COMMAND\n    1 sleep           sleep 600\n")
    assert top.rows == (("1", "sleep", "sleep 600"),)
    assert top.processes == [{"PID": "1", "COMMAND": "sleep 600"}]


def test_only_a_line_feed_ends_a_line() -> None:
    """A command line with a form feed or a Unicode line separator in it stays one row."""
    (row,) = decode_top("PID CMD\n1 a\x0cb\u2028c\n".encode()).rows
    assert row == ("1", "a\x0cb\u2028c")


def test_bytes_that_are_no_text_are_shown() -> None:
    """A command line that isn't UTF-8 can be read all the same."""
    assert decode_top(b"PID CMD\n1 caf\xe9\n").rows == (("1", "caf\\xe9"),)


def test_a_table_of_nothing_is_an_error() -> None:
    """Output without a header is no table."""
    with pytest.raises(DecodeError, match="can't decode the output of ps: it is empty"):
        decode_top(b"\n \n")
