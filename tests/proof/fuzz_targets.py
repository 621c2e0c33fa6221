"""What reads bytes that others have written, as functions that take any bytes: one table for all ways of fuzzing.

A target does nothing if it is given what it can read, or what it refuses as documented, and raises otherwise: whatever
the reader raised, or `AssertionError` if bytes were lost, or if a sentence could upset a terminal.
"""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import functools
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast
from unittest import mock

import archives
import keeper_targets
from recorded import cases, raw
from spec_documents import BAD, DATA, GOOD

from runc_async import spec
from runc_async._answers import criu_log as criu_log_module, decode as decode_module, failures as failures_module
from runc_async._answers.log import parse_log
from runc_async._bundles import unpack
from runc_async._containers import adoption
from runc_async._containers.workload import pid_in
from runc_async._events.lines import LineFramer
from runc_async._linux import cgroup, procfs
from runc_async._runtimes.known import read_record
from runc_async.errors import CheckpointError, DecodeError, RootfsError, RuncError
from runc_async.rootfs import Tar

LIMIT = 5000
"""Characters of a sentence: a message, an excerpt, an id, and their escapes."""

SEPARATOR = b"\n%%\n"
"""Between the files, or streams, of a target that reads several."""

Seeds: TypeAlias = Callable[[], Iterable[bytes]]


class Target(NamedTuple):
    """Something that reads bytes.

    Attributes:
        check: Reads any bytes whatever.
        seeds: Gives bytes that it should find good, or nearly so.
    """

    check: Callable[[bytes], None]
    seeds: Seeds


def harmless(text: str) -> None:
    """See that a sentence is one line of bounded length that no terminal acts on."""
    assert text.isprintable(), ascii(text[:LIMIT])
    assert len(text) <= LIMIT, f"{len(text)} characters"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that a traceback shows above it."""
    while True:
        yield error
        above = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if above is None:
            return
        error = above


def sound(error: RuncError) -> None:
    """See that nothing of what a traceback says of an error upsets a terminal."""
    for each in chain(error):
        harmless(str(each))
        harmless(repr(each))
        for note in getattr(each, "__notes__", ()):
            harmless(note)


def refused(error: DecodeError, data: bytes) -> None:
    """See that an error has all the bytes that were refused, and is sound."""
    assert error.data == data
    sound(error)


def decoder(decode: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """Make a target of a decoder: a value whose repr is harmless, or a DecodeError that has all the bytes."""

    def check(data: bytes) -> None:
        try:
            value = decode(data)
        except DecodeError as error:
            refused(error, data)
        else:
            shown = repr(value)
            assert shown.isprintable(), ascii(shown[:LIMIT])

    return check


def reader(read: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Make a target of what raises no other than sound errors."""

    def check(data: bytes) -> None:
        try:
            read(data)
        except RuncError as error:
            sound(error)

    return check


def version(data: bytes) -> object:
    """Decode a version, and its numbers."""
    found = decode_module.decode_version(data)
    return found, found.number


def top(data: bytes) -> object:
    """Decode a table of processes; every row has a value for each column."""
    found = decode_module.decode_top(data)
    assert all(len(row) == len(found.header) for row in found.rows)
    return found, found.processes


def framing(data: bytes) -> None:
    """Frame bytes that come in pieces: no line is lost or cut that isn't longer than the limit, and those only there.

    The first byte is the limit of a line, the second the length of the pieces.
    """
    limit, length, rest = data[:1], data[1:2], data[2:]
    most, step = 1 + sum(limit), 1 + sum(length)
    framer = LineFramer(most)
    found = b"".join(framer.feed(rest[at : at + step]) for at in range(0, len(rest), step)) + framer.end()
    lines = rest.split(b"\n")
    kept = [line if len(line) <= most else line[: most + 1] for line in lines]
    assert found.rstrip(b"\n") == b"\n".join(kept).rstrip(b"\n")


def document(cls: type[spec.SpecObject]) -> Callable[[bytes], None]:
    """Make a target of a document of the runtime-spec: what is read is written again, and found good if it was."""

    def check(data: bytes) -> None:
        try:
            found = cls.decode(data)
        except DecodeError as error:
            refused(error, data)
        else:
            assert cls.decode(found.encode()) == found
            assert spec.validate(found) == []
        with contextlib.suppress(DecodeError):
            cls.decode(data, strict=False).encode()

    return check


def written_well(found: spec.SpecObject) -> None:
    """See that what a lenient reading gives is read again as the same, and has no key in another spelling."""
    written = found.encode()
    assert type(found).decode(written, strict=False) == found
    assert not any("in no other spelling" in violation.expected for violation in spec.validate(written))


def lenient(data: bytes) -> None:
    """Read a configuration as a runtime does: what is read is written again, in the specification's spelling."""
    try:
        found = spec.Spec.decode(data, strict=False)
    except DecodeError as error:
        refused(error, data)
    else:
        written_well(found)


def folded(data: bytes) -> None:
    """Read a configuration with each of its keys in other spellings behind it: none of them has an effect."""
    try:
        found = spec.Spec.decode(data, strict=False)
    except DecodeError as error:
        refused(error, data)
    else:
        other = spec.Spec.decode(json.dumps(respelled(found)), strict=False)
        assert other == found
        written_well(other)


def respelled(value: Any) -> Any:
    """Give a document in which nonsense stands behind each key of the specification, under others that fold to it."""
    if isinstance(value, spec.SpecObject):
        fields = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        known = {key: getattr(value, name) for name, key in fields if name != "extra"}
        given = {key: respelled(item) for key, item in known.items() if item is not None}
        others: dict[str, list[Any]] = {
            key.swapcase().replace("S", "\u017f").replace("K", "\u212a"): [] for key in given
        }
        return given | {key.swapcase(): [] for key in given} | others | value.extra
    if isinstance(value, dict):
        return {key: respelled(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [respelled(item) for item in value]
    return value


def validation(data: bytes) -> None:
    """Validate a configuration: each violation is one harmless line, and there are some if it can't be decoded.

    If it can be decoded, they are of keys in another spelling, which are dropped.
    """
    violations = spec.validate(data)
    for violation in violations:
        harmless(str(violation))
    try:
        spec.Spec.decode(data)
    except DecodeError:
        assert violations
    else:
        assert all("in no other spelling" in violation.expected for violation in violations)


def log(data: bytes) -> None:
    """Read a log: nothing raises, there is no more than was in it, and reprs are harmless."""
    records = parse_log(data)
    assert sum(len(record.msg) for record in records) <= len(data)
    assert repr(records).isprintable()


def files(data: bytes) -> list[bytes]:
    """Cut an input into three; those that it hasn't are empty."""
    return [*data.split(SEPARATOR, 2), b"", b""][:3]


def failure(data: bytes) -> None:
    """Make the error of a runtime that failed; the first byte chooses the command and the exit code."""
    commands = ("create", "run", "exec", "state", "events", "checkpoint", "update", "nonsense")
    codes = (None, 1, 2, 3, 64, 255, -9, 127)
    choice = sum(data[:1])
    args = ("runc", "--root", "/r", commands[choice % 8], "--process", "<process.json>", "--", "web")
    code = codes[choice // 8 % 8]
    stdout, stderr, logged = files(data[1:])
    records = parse_log(logged)
    failures_module.failed(records, code, stderr)
    error = failures_module.failure(args, code, stdout, stderr, records, "web")
    assert (error.args, error.stdout, error.stderr, error.log) == (args, stdout, stderr, records)
    sound(error)


def criu_log(data: bytes) -> None:
    """Read criu's log: what an error keeps of it is bounded, and its note is harmless."""
    place("dump.log").write_bytes(data)
    error = CheckpointError((), 1, message="criu failed")
    error.log_path = "dump.log"
    with contextlib.suppress(CheckpointError), criu_log_module.with_criu_log(str(place())):
        raise error
    assert len(error.log_tail) <= criu_log_module.TAIL
    assert error.log_tail or not data
    sound(error)


def pid_file(data: bytes) -> None:
    """Read a pid file: a number that a process can have, and that stands there; or none."""
    pid = pid_in(data)
    assert pid is None or (0 < pid < 1 << 31 and str(pid).encode() in data)


def proc_stat(data: bytes) -> None:
    """Identify a process by what /proc says of it; one of which nothing can be read is gone."""
    place("7", "stat").write_bytes(data)
    with mock.patch.object(procfs, "PROC", place()):
        with contextlib.suppress(ProcessLookupError):
            assert procfs.ProcessIdentity.of(7).pid == 7
        procfs.descends_from(7, 8)


def memory_cgroup(data: bytes) -> None:
    """Look a process's cgroup up in what /proc says of both, and of the mounts: a directory, or None."""
    theirs, own, mounts = files(data)
    place("7", "cgroup").write_bytes(theirs)
    place("self", "cgroup").write_bytes(own)
    place("self", "mountinfo").write_bytes(mounts)
    found = cgroup.memory_cgroup(7, place())
    assert found is None or found.is_absolute()


def oom_kills(data: bytes) -> None:
    """Read the kernel's counter: a number, or None."""
    place("memory.events").write_bytes(data)
    found = cgroup.read_oom_kills(place())
    assert found is None or found >= 0


def state_record(data: bytes) -> None:
    """Read what a runtime keeps of a container's processes: any record is one, or none."""
    place("web", "state.json").write_bytes(data)
    read_record(str(place()), "web")
    with mock.patch.object(adoption, "adopting", return_value=True):
        adoption.adopt_processes(str(place()), "web")


def cgroup_procs(data: bytes) -> None:
    """Read which processes are in a cgroup."""
    place("cgroup.procs").write_bytes(data)
    record = {"cgroup_paths": {"pids": str(place())}}
    state_record(json.dumps(record).encode())


def archive(data: bytes) -> None:
    """Unpack an archive: whole or refused, and nothing beside the directory."""
    with tempfile.TemporaryDirectory(dir=place()) as directory:
        packed, rootfs = Path(directory, "a.tar"), Path(directory, "rootfs")
        packed.write_bytes(data)
        rootfs.mkdir()
        try:
            unpack.unpack(Tar(packed, max_size=1 << 20, max_entries=50), str(rootfs), lambda: None)
        except RootfsError as error:
            sound(error)
        except OSError as error:
            if error.errno is None:  # what the kernel says of a name or a number has one
                raise
        assert sorted(os.listdir(directory)) == ["a.tar", "rootfs"]


@contextlib.contextmanager
def workplace() -> Generator[None]:
    """Make a directory for the files of the targets, in memory, and remove it with them."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        PLACES.append(directory)
        try:
            yield
        finally:
            PLACES.remove(directory)


PLACES: list[str] = []


def place(*names: str) -> Path:
    """Return a path in the directory of the targets, whose parents are there."""
    path = Path(PLACES[-1], *names)
    path.parent.mkdir(exist_ok=True)
    return path


def outputs() -> Iterator[bytes]:
    """Yield what runtimes have printed, and each line of their events, once."""
    seen: set[bytes] = set()
    for case in cases():
        whole = raw(case.stdout)
        for each in (whole, *(whole.splitlines(keepends=True) if " events " in case.cmd else ())):
            if each and each not in seen:
                seen.add(each)
                yield each


def good(decode: Callable[[bytes], object], begin: bytes = b"") -> Seeds:
    """Give the recorded outputs that a decoder takes and that begin in a certain way; of each length one."""

    @functools.cache
    def seeds() -> list[bytes]:
        found: dict[int, bytes] = {}
        for each in outputs():
            if each.startswith(begin):
                with contextlib.suppress(DecodeError):
                    decode(each)
                    found.setdefault(len(each), each)
        return list(found.values())

    return seeds


@functools.cache
def configurations() -> list[bytes]:
    """Give the specification's own examples, and what runtimes propose."""
    lines = (DATA / "spec-defaults.jsonl").read_bytes().splitlines()
    proposed = [json.dumps(json.loads(line)["config"]).encode() for line in lines]
    return [*(path.read_bytes() for path in (*GOOD, *BAD)), *proposed]


@functools.cache
def processes() -> list[bytes]:
    """Give the processes in those."""
    found: list[bytes] = []
    for each in configurations():
        with contextlib.suppress(ValueError, LookupError):
            found.append(json.dumps(json.loads(each)["process"]).encode())
    return found


@functools.cache
def logs() -> list[bytes]:
    """Give what runtimes have logged, or printed on stderr; of each length one."""
    found = {len(each): each for case in cases() for each in (case.logged, raw(case.stderr))}
    return list(found.values())


@functools.cache
def failures() -> list[bytes]:
    """Give what runtimes wrote that failed, to each of the three; of each length one."""
    found: dict[int, bytes] = {}
    for number, case in enumerate(case for case in cases() if case.rc):
        written = SEPARATOR.join((raw(case.stdout), raw(case.stderr), case.logged))
        found.setdefault(len(written), bytes([number % 64]) + written)
    return list(found.values())


def given(*seeds: bytes) -> Seeds:
    """Give seeds that stand here."""
    return lambda: seeds


OWN_STAT = b"7 (a) b) S 8 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 1 18446744073709551615 1 1 1\n"
MOUNTS = (
    b"35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    b"41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"
)
RECORD = b'{"init_process_pid":7,"init_process_start":1,"cgroup_paths":{"pids":"/nowhere","":"/no/where"},"pid":7}'
ARCHIVES = (
    archives.tar(archives.directory("a"), archives.file("a/b"), archives.symlink("l", "/a")),
    archives.tar(archives.file("a"), archives.hardlink("b", "a")),
    archives.tar(archives.file("a" * 120), archives.symlink("../a", "b" * 200), form=tarfile.GNU_FORMAT),
    archives.tar(archives.file("a"), archives.file("a"), form=tarfile.USTAR_FORMAT),
)

TARGETS: dict[str, Target] = {
    "state": Target(decoder(decode_module.decode_state), good(decode_module.decode_state)),
    "list": Target(decoder(decode_module.decode_list), good(decode_module.decode_list)),
    "ps": Target(decoder(decode_module.decode_ps), good(decode_module.decode_ps)),
    "top": Target(decoder(top), lambda: [*good(top, b"UID")(), b" \v\na b\n"]),
    "stats": Target(decoder(decode_module.decode_stats), good(decode_module.decode_stats)),
    "events": Target(decoder(decode_module.decode_event), good(decode_module.decode_event)),
    "features": Target(decoder(decode_module.decode_features), good(decode_module.decode_features)),
    "version": Target(decoder(version), good(version)),
    "framing": Target(framing, given(b"\x05\x03{}\n{}\n", b"\x02\xff{}\n{\n12345678")),
    "spec": Target(document(spec.Spec), configurations),
    "process": Target(document(spec.Process), processes),
    "lenient": Target(lenient, configurations),
    "folded": Target(folded, configurations),
    "validate": Target(validation, configurations),
    "keeper-request": Target(reader(keeper_targets.request), keeper_targets.requests),
    "keeper-answer": Target(reader(keeper_targets.answer), keeper_targets.answers),
    "keeper-record": Target(reader(keeper_targets.record), keeper_targets.records),
    "log": Target(log, logs),
    "failure": Target(failure, failures),
    "criu-log": Target(criu_log, given(b"(00.000000) Version: 4.2\n(00.1) Error (criu/cr-dump.c:1): no\n(00.2) bye\n")),
    "pid-file": Target(pid_file, given(b"1234", b"7\n")),
    "proc-stat": Target(proc_stat, given(OWN_STAT, OWN_STAT.replace(b"S 8", b"S 7"))),
    "cgroup": Target(
        memory_cgroup,
        given(
            SEPARATOR.join((b"4:memory:/c\n0::/z\n", b"4:memory:/\n0::/\n", MOUNTS)),
            SEPARATOR.join((b"1:name=systemd:/x\n0::/a:b/c\n", b"0::/\n", MOUNTS)),
        ),
    ),
    "oom-kills": Target(oom_kills, given(b"low 0\nhigh 0\nmax 1\noom 1\noom_kill 12\n", b"oom_kill 1\nunder_oom 0\n")),
    "state-record": Target(state_record, given(RECORD)),
    "cgroup-procs": Target(cgroup_procs, given(b"1\n234\n")),
    "archive": Target(archive, lambda: ARCHIVES),
}
"""By name; `tools/fuzz.py` makes its corpus from the seeds, and names what it has found after the target."""


def planted(data: bytes) -> None:
    """Raise for one beginning in 2^32, which is found byte by byte: the bug that shows whether fuzzing finds any."""
    read = 0
    for expected, found in zip(b"bug!", data, strict=False):
        if expected != found:
            return
        read += 1
    if read == len(b"bug!"):
        raise ZeroDivisionError("the planted bug")


PLANTED: dict[str, Target] = {"planted": Target(planted, given(b""))}
"""Not among the others, for it fails."""
