"""Words of an attacker are no options, his texts no commands to a terminal, and he sees no secret: docs, "Security"."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import os
import re
import signal
import socket
import stat
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from calls import CALLS
from children import write_program
from fuzz_targets import chain, sound
from rich.console import Console

from runc_async import Bundle, Runc, spec
from runc_async._answers.criu_log import with_criu_log
from runc_async._containers.workload import Workload
from runc_async._linux.fdsocket import FDSocket
from runc_async._linux.scratch import scratch_directory
from runc_async.errors import CheckpointError, CleanupWarning, CommandError, DecodeError, RuncError, RuncTimeout
from runc_async.runner import Setting
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from proof import Tried

# words that are no options

SWITCHES = {
    "--debug",
    "--systemd-cgroup",
    "--force",
    "--all",
    "--detach",
    "--tty",
    "--no-new-privs",
    "--stats",
    "--version",
}

WORDS = (
    *("-", "--", "---", "-h", "-v", "--help", "--version", "-f", "--force", "--all", "-b", "--bundle=/x", "-d"),
    *("--root=/x", "--root", "--log=/x", "--criu=/x", "--debug", "-1", "-9", "--preserve-fds=100", "-e", "-t"),
    *(
        "$(id)",
        "`id`",
        ";id",
        "|id",
        "&",
        "> /x",
        "*",
        "~",
        "a b",
        "a\nb",
        "'",
        '"',
        "\\",
        "%s",
        "#",
        "\x1b[2J",
        "\udcff",
    ),
)

IDS = ("-", "--", "-h", "--help", "--version", "-f", "--force", "-b", "-1", "--debug", "--all", "--root", "+", "..a")

NO_IDS = (
    *(
        "",
        ".",
        "..",
        "../x",
        "/",
        "a/b",
        "a b",
        "a\n",
        "\n",
        "a\0",
        "\x1b[2J",
        "--root=/x",
        "$(id)",
        "a;id",
        "\u0661",
        "\udcff",
    ),
)

AT: dict[str, Callable[[Runc, str], Awaitable[object]]] = {
    "args": lambda client, word: client.exec("web", [word, word]),
    "env": lambda client, word: client.exec("web", ["id"], env={"A": word}),
    "cwd": lambda client, word: client.exec("web", ["id"], cwd=word),
    "label": lambda client, word: client.exec("web", ["id"], process_label=word, apparmor=word),
    "caps": lambda client, word: client.exec("web", ["id"], caps=[word, word]),
    "cgroup": lambda client, word: client.exec("web", ["id"], cgroup=[word]),
    "exec pid file": lambda client, word: client.exec("web", ["id"], pid_file=word),
    "exec sockets": lambda client, word: client.exec("web", ["id"], detach=True, console_socket=word),
    "bundle": lambda client, word: client.create("web", f"/no/such/{word}"),
    "relative bundle": lambda client, word: client.run("web", word),
    "pid file": lambda client, word: client.create("web", "/no/such", pid_file=word, console_socket=word),
    "schema": lambda client, word: client.update(
        "web", spec.LinuxResources(), l3_cache_schema=word, mem_bw_schema=word
    ),
    "ps options": lambda client, word: client.top("web", word, word),
    "images": lambda client, word: client.checkpoint("web", word, work_path=word, parent_path=word),
    "restored": lambda client, word: client.restore("web", "/no/such", word, work_path=word, lsm_profile=word),
}


async def entered(client: Runc, name: str) -> None:
    """Begin to watch a container."""
    async with client.events(name):
        pass


async def opened(client: Runc, name: str) -> None:
    """Open a container."""
    async with client.open_container(name, "/no/such"):
        pass


async def executed(client: Runc, name: str) -> None:
    """Open a process."""
    async with client.open_exec(name, ["id"]):
        pass


BY_ID: dict[str, Callable[[Runc, str], Awaitable[object]]] = {
    "create": lambda client, name: client.create(name, "/no/such"),
    "start": lambda client, name: client.start(name),
    "run": lambda client, name: client.run(name, "/no/such"),
    "exec": lambda client, name: client.exec(name, ["id"]),
    "kill": lambda client, name: client.kill(name, all=True),
    "delete": lambda client, name: client.delete(name, force=True),
    "pause": lambda client, name: client.pause(name),
    "resume": lambda client, name: client.resume(name),
    "update": lambda client, name: client.update(name, spec.LinuxResources()),
    "state": lambda client, name: client.state(name),
    "ps": lambda client, name: client.ps(name),
    "top": lambda client, name: client.top(name),
    "stats": lambda client, name: client.stats(name),
    "checkpoint": lambda client, name: client.checkpoint(name, "/no/such"),
    "restore": lambda client, name: client.restore(name, "/no/such", "/no/such"),
    "events": entered,
    "open_container": opened,
    "open_exec": executed,
    "container": lambda client, name: client.container(name).pause(),
}


class Parsed(NamedTuple):
    """A command line as runc's parser, and crun's, reads it.

    Attributes:
        options: The names of the options.
        values: Their values.
        rest: What is no option, the command and the container's id among it.
    """

    options: list[str]
    values: list[str]
    rest: list[str]


def parsed(argv: tuple[str, ...]) -> Parsed:
    """Read a command line: an option is what begins with a hyphen before `--`, unless it is the value of another."""
    found = Parsed([], [], [])
    words = iter(argv[1:])
    for word in words:
        if word == "--":
            found.rest.extend(words)
        elif word.startswith("-"):
            found.options.append(word)
            if word not in SWITCHES:
                found.values.append(next(words))
        else:
            found.rest.append(word)
    return found


IN_JSON = {"args", "env", "cwd", "label", "caps", "bundle", "relative bundle", "schema"}
"""Where the runtime passes a word on in a document, which has no bytes but UTF-8."""


async def command_lines(call: Callable[[Runc, str], Awaitable[object]], word: str) -> list[Parsed]:
    """Tell what is started by a call, whether or not the fake's answer can be understood."""
    runner = FakeRunner()
    runner.reply("version", stdout=b"runc version 1.3.6\n")
    client = Runc(root="/r", runner=runner)
    with contextlib.suppress(DecodeError, CommandError):
        await call(client, word)
    return [parsed(invocation.args) for invocation in runner.invocations]


@pytest.mark.parametrize("place", AT)
async def test_no_word_is_read_as_an_option(place: str, tried: Tried) -> None:
    """Wherever a caller's word goes, the options are the same as with a harmless word, and so is their number."""
    tame = await command_lines(AT[place], "tame")
    assert tame
    for word in WORDS:
        if word == "\udcff" and place in IN_JSON:
            with pytest.raises(ValueError, match="must be UTF-8"):
                await command_lines(AT[place], word)
            continue
        for expected, found in zip(tame, await command_lines(AT[place], word), strict=True):
            assert found.options == expected.options
            assert found.rest == [word if each == "tame" else each for each in expected.rest]
            assert len(found.values) == len(expected.values)
            if word != "tame" and any("tame" in value for value in expected.values) and place != "env":
                assert any(word.rpartition("/")[2] in value for value in found.values)
    tried("hostile words", len(WORDS))


@pytest.mark.parametrize("command", BY_ID)
async def test_no_id_is_read_as_an_option(command: str, tried: Tried) -> None:
    """An id that runc takes stands behind `--` in every command; any other is refused before anything is started."""
    tame = await command_lines(BY_ID[command], "tame")
    for name in IDS:
        for expected, found in zip(tame, await command_lines(BY_ID[command], name), strict=True):
            assert found.options == expected.options
            assert found.rest == [name if each == "tame" else each for each in expected.rest]
    for name in NO_IDS:
        runner = FakeRunner()
        with pytest.raises(ValueError, match="container") as caught:
            await BY_ID[command](Runc(runner=runner), name)
        sound(RuncError(str(caught.value)))
        assert runner.invocations == []
    tried("hostile words", len(IDS) + len(NO_IDS))


def test_an_injected_option_would_be_seen() -> None:
    """The parser of these tests reads an option where one is."""
    assert parsed(("runc", "delete", "--force", "web")).options == ["--force"]
    assert parsed(("runc", "delete", "--", "--force")) == Parsed([], [], ["delete", "--force"])


async def test_no_shell_reads_anything(tmp_path: Path, tried: Tried) -> None:
    """The words arrive one by one and unchanged, whatever a shell would make of them."""
    told = tmp_path / "told"
    program = write_program(tmp_path / "runc", '#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done > "$TOLD"\n')
    client = Runc(program, env={"TOLD": str(told)})
    with contextlib.suppress(DecodeError):
        await client.top("web", *WORDS, "last")
    assert told.read_bytes().split(b"\0")[-len(WORDS) - 2 : -1] == [*map(os.fsencode, WORDS), b"last"]
    tried("hostile words", len(WORDS))


# texts that no terminal acts on

TEXTS = (
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0=\x07",
        "\x9b31m",
        "\x9d0;t\x9c",
        "\r",
        "\b\b",
        "\x7f",
        "\0",
        "\v\f",
        "\x85",
    ),
    *("\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\ufeff", "\ud800", "\U000e0041", "%s%n", "{0}", "x" * 100_000),
    *("a\n" * 5000, "\x1b" * 5000),
)

LOGGED = '{"level":"error","msg":%s,"time":"2026-01-01T00:00:00Z"}\n'

ANSWERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "stderr": lambda text: {"exit_code": 1, "stderr": encoded(text)},
    "stdout": lambda text: {"exit_code": 1, "stdout": b"Incorrect Usage: " + encoded(text)},
    "log": lambda text: {"exit_code": 1, "log": (LOGGED % quoted(text)).encode()},
    "raw log": lambda text: {"exit_code": 1, "log": b'level=error msg="' + encoded(text) + b'"'},
    "unsupported": lambda text: {"exit_code": 1, "stderr": b"unknown command " + encoded(text)},
    "criu": lambda text: {"exit_code": 1, "stderr": b"criu failed: log file: " + encoded(text)},
    "answer": lambda text: {"stdout": encoded(text)},
    "document": lambda text: {"stdout": f'{{"id":{quoted(text)},"status":{quoted(text)},"bundle":7}}'.encode()},
    "signal": lambda text: {"exit_code": -9, "stderr": encoded(text)},
}


def encoded(text: str) -> bytes:
    """Write a text as a hostile program would."""
    return text.encode(errors="surrogatepass")


def quoted(text: str) -> str:
    """Write a text as JSON."""
    return json.dumps(text)


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_text_of_a_runtime_reaches_a_terminal(
    answer: str, caplog: pytest.LogCaptureFixture, tried: Tried
) -> None:
    """Sentences, reprs, notes, causes, warnings and log records are printable lines of bounded length."""
    caplog.set_level(logging.DEBUG)
    failures = 0
    for (command, call), text in itertools.product(CALLS.items(), TEXTS):
        runner = FakeRunner()
        runner.reply(command.partition(" ")[0], **ANSWERS[answer](text))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                found = await call(Runc(runner=runner))
            except RuncError as error:
                failures += 1
                sound(error)
            else:
                assert repr(found).isprintable()
        for told in (*(str(each.message) for each in warned), *(record.getMessage() for record in caplog.records)):
            assert told.isprintable()
        caplog.clear()
    assert failures
    tried("hostile strings", len(CALLS) * len(TEXTS))


def test_an_escape_would_be_seen() -> None:
    """An error with an escape in its sentence, or in its cause, is found out."""
    error = RuncError("\x1b[2J")
    with pytest.raises(AssertionError):
        sound(error)
    error = RuncError("fine")
    error.__cause__ = ValueError("\x1b[2J")
    with pytest.raises(AssertionError):
        sound(error)


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_of_a_caller_reaches_a_terminal(text: str, tried: Tried) -> None:
    """What refuses a caller's words, and the reprs of what holds them, is printable too."""
    wrong: list[Callable[[], object]] = [
        lambda: Runc(env={"A=" + text: ""}),
        lambda: Runc(env={"A" + text: "\0"}),
        lambda: Runc(log_format=text),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Runc(root="/" + text + "\0"),
        lambda: Runc().container(text + "/"),
        lambda: spec.Spec.decode(text),
        lambda: Runc(pdeathsig=text),
    ]
    for make in wrong:
        with pytest.raises((ValueError, TypeError)) as caught:
            make()
        for error in chain(caught.value):
            assert str(error).isprintable()
            assert repr(error).isprintable()
    if "\0" not in text and "\ud800" not in text:
        for good in (Runc(text, root=text), Setting("A" + text, "x"), Runc().events("web"), Bundle("/" + text, SPEC)):
            assert repr(good).isprintable()
    tried("hostile strings", len(wrong))


# secrets

SPEC = spec.Spec(oci_version="1.0.0")
SECRET = "hush-4711"  # noqa: S105 - nobody's
PROCESS = spec.Process(cwd="/", args=["true"], env=[f"TOKEN={SECRET}"])

CALLED: dict[str, Callable[[Runc], Awaitable[object]]] = {
    "env of a client": lambda client: client.state("web"),
    "env of an exec": lambda client: client.exec(
        "web", ["true"], env={"TOKEN": SECRET}, check=True, timeout=0.3, grace=0
    ),
    "a document": lambda client: client.exec("web", PROCESS, check=True, timeout=0.3, grace=0),
    "input": lambda client: client.exec("web", ["true"], input=SECRET.encode(), check=True, timeout=0.3, grace=0),
    "a detached exec": lambda client: client.exec("web", PROCESS, detach=True),
}

PROGRAMS = {
    "fails": "exit 1",
    "fails in words": 'echo "exec failed: unable to start container process: exec: \\"true\\": no" >&2; exit 255',
    "panics": "echo 'panic: boom' >&2; exit 2",
    "is killed": "kill -9 $$",
    "succeeds": "exit 0",
    "hangs": "exec sleep 600",
    "isn't there": "",
}


def leaks(texts: Iterator[str]) -> list[str]:
    """Return the texts that have the secret."""
    return [text for text in texts if SECRET in text]


def said(error: BaseException) -> Iterator[str]:
    """Yield all that is shown of an error."""
    yield "".join(traceback.format_exception(error))
    for each in chain(error):
        yield from (
            str(each),
            repr(each),
            pretty(each),
            *map(repr, vars(each).values()),
            *getattr(each, "__notes__", ()),
        )


def pretty(value: object) -> str:
    """Show a value as rich does."""
    shown = io.StringIO()
    Console(file=shown).print(value)
    return shown.getvalue()


@pytest.mark.proof(every=5)
@pytest.mark.parametrize("what", CALLED)
@pytest.mark.parametrize("program", PROGRAMS)
async def test_no_secret_is_told(
    what: str, program: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, tried: Tried
) -> None:
    """No error, result, log record, warning or task shows a value of an environment, a document, or the input."""
    caplog.set_level(logging.DEBUG)
    path = str(tmp_path / "runc")
    if PROGRAMS[program]:
        write_program(tmp_path / "runc", f"#!/bin/sh\n{PROGRAMS[program]}\n")
    told: list[str] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", CleanupWarning)
        env = {"TOKEN": SECRET} if what == "env of a client" else None
        task = asyncio.ensure_future(CALLED[what](Runc(path, env=env)))
        while not (await asyncio.wait((task,), timeout=0.05))[0]:
            told += map(repr, asyncio.all_tasks())
            if program == "hangs" and what in {"env of a client", "a detached exec"}:
                task.cancel()
                os.kill(child(), signal.SIGKILL)
    if task.cancelled():
        told.append(repr(task))
    elif error := task.exception():
        told += said(error)
    else:
        told += (repr(task.result()), pretty(task.result()))
    told += (f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    told += (str(each.message) for each in warned)
    assert told
    assert leaks(iter(told)) == []
    tried("places that could show a secret", len(told))


def child() -> int:
    """Tell the pid of our only child."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return int(file.read().split()[0])


WRONG: dict[str, Callable[[Runc], Awaitable[object]]] = {
    "a dict for a process": lambda client: client.exec("web", PROCESS.to_builtins()),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "a dict for resources": lambda client: client.update("web", {"x": SECRET}),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    "half of a character": lambda client: client.exec("web", spec.Process(cwd="/", env=[f"TOKEN={SECRET}\ud800"])),
    "half of one in a variable": lambda client: client.exec("web", ["id"], env={"TOKEN": f"{SECRET}\ud800"}),
    "half of one in an argument": lambda client: client.exec("web", [f"{SECRET}\ud800"]),
    "a NUL": lambda client: client.exec("web", ["id"], env={"TOKEN": f"{SECRET}\0"}),
    "a NUL in an argument": lambda client: client.exec("web", [f"{SECRET}\0"]),
    "a value for a name": lambda client: client.exec("web", ["id"], env={f"TOKEN={SECRET}": ""}),
    "one text for arguments": lambda client: client.exec("web", SECRET),
}


@pytest.mark.parametrize("what", WRONG)
async def test_no_secret_is_told_of_what_is_refused(what: str, tried: Tried) -> None:
    """What can't be passed on isn't shown by the error that says so."""
    with pytest.raises((ValueError, TypeError)) as caught:
        await WRONG[what](Runc(runner=FakeRunner()))
    assert leaks(text for each in chain(caught.value) for text in (str(each), repr(each))) == []
    tried("places that could show a secret", 1)


DOCUMENTS = (
    b'{"env":["TOKEN=hush-4711"]',
    b'{"env":["TOKEN=hush-4711"]}',
    b'{"env":"TOKEN=hush-4711","cwd":"/"}',
    b'{"env":{"TOKEN":"hush-4711"},"cwd":7}',
    b'{"args":"hush-4711","cwd":"/"}',
    b'{"commandLine":["hush-4711"],"cwd":"/"}',
    b'{"env":["TOKEN=hush-4711\\ud800"],"cwd":"/"}',
    b'{"env":["TOKEN=hush-4711\xff"],"cwd":"/"}',
    b'{"env":["TOKEN=hush-4711"],"env":[],"cwd":"/"}',
)


@pytest.mark.parametrize("data", DOCUMENTS)
@pytest.mark.parametrize("cls", [spec.Process, spec.Spec])
def test_no_secret_of_a_document_is_told(cls: type[spec.SpecObject], data: bytes, tried: Tried) -> None:
    """A document that can't be read isn't shown, whatever is wrong with it; its bytes are in the error."""
    with pytest.raises(DecodeError) as caught:
        cls.decode(data if cls is spec.Process else b'{"process":' + data + b"}")
    assert leaks(text for each in chain(caught.value) for text in (str(each), repr(each))) == []
    assert SECRET.encode() in caught.value.data
    tried("places that could show a secret", 1)


async def test_the_words_of_an_invocation_hide_values() -> None:
    """Reprs, and what rich makes of them, show neither values, documents, environments nor the input."""
    runner = FakeRunner()
    client = Runc(runner=runner, env={"TOKEN": SECRET})
    response = await client.exec("web", PROCESS, input=SECRET.encode())
    await client.exec("web", ["id"], env={"TOKEN": SECRET})
    shown = [response, client, *runner.invocations, *(word for each in runner.invocations for word in each.argv)]
    assert leaks(text for each in shown for text in (repr(each), str(each), pretty(each))) == []


def test_a_secret_would_be_seen() -> None:
    """An error that has one in a note, a cause or an attribute is found out."""
    error = RuncTimeout(("runc",), 1, stderr=SECRET.encode())
    assert leaks(said(error))
    noted = RuncError("no")
    noted.add_note(SECRET)
    assert leaks(said(noted))


# what others have put into a directory where everybody may write


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give temporary files a directory as /tmp is."""
    place = tmp_path / "public"
    place.mkdir()
    place.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    return place


UNFORESEEN = "ffffffff"


def guess(monkeypatch: pytest.MonkeyPatch, public: Path, prefix: str, victim: Path) -> list[str]:
    """Let an attacker know which names are tried first, and put something of his own in the place of each."""
    names = [f"{number:08x}" for number in range(4)]
    urandom, guessed = os.urandom, itertools.cycle([*names, UNFORESEEN])

    def known(size: int) -> bytes:
        return bytes.fromhex(next(guessed)) if size == len(UNFORESEEN) // 2 else urandom(size)

    monkeypatch.setattr(os, "urandom", known)
    (public / f"{prefix}{names[0]}").symlink_to(victim)
    (public / f"{prefix}{names[1]}").mkdir(mode=0o777)
    os.mkfifo(public / f"{prefix}{names[2]}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(public / f"{prefix}{names[3]}"))
    return names


async def test_guessed_names_are_stepped_over(public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories are new and private, even if their names were known and taken; nothing follows a link."""
    victim = tmp_path / "victim"
    victim.mkdir()
    for prefix in ("runc_async-", "runc-", "runc-async-"):
        guess(monkeypatch, public, prefix, victim)
    with scratch_directory("config.json") as directory:
        assert directory == str(public / f"runc_async-{UNFORESEEN}")
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    async with FDSocket() as sock:
        assert os.path.dirname(sock.path) == str(public / f"runc-{UNFORESEEN}")
        assert stat.S_IMODE(os.stat(os.path.dirname(sock.path)).st_mode) == 0o700
    async with Bundle.temporary(spec=SPEC_WITH_ROOT) as bundle:
        assert bundle.path == public / f"runc-async-{UNFORESEEN}"
        assert stat.S_IMODE(bundle.path.stat().st_mode) == 0o700
        assert stat.S_IMODE((bundle.path / "config.json").stat().st_mode) == 0o600
    assert list(victim.iterdir()) == []


SPEC_WITH_ROOT = spec.Spec(oci_version="1.0.0", root=spec.Root(path="/"))


async def test_a_configuration_goes_through_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving replaces a link by a file, and a temporary name that is taken is an error; nothing is written through."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    bundle = await Bundle.create(tmp_path / "bundle", spec=SPEC_WITH_ROOT)
    (bundle.path / "config.json").unlink()
    (bundle.path / "config.json").symlink_to(victim)
    await bundle.save()
    assert not (bundle.path / "config.json").is_symlink()
    monkeypatch.setattr(os, "urandom", bytes)
    (bundle.path / f".config.json.{bytes(8).hex()}").symlink_to(victim)
    with pytest.raises(FileExistsError):
        await bundle.save()
    assert victim.read_text() == "untouched"


async def test_no_bundle_is_made_through_a_link(tmp_path: Path) -> None:
    """A link in the place of the bundle's directory is an error."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "bundle").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        await Bundle.create(tmp_path / "bundle", spec=SPEC_WITH_ROOT)
    assert list((tmp_path / "victim").iterdir()) == []


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("planted", ["link", "fifo", "socket", "directory", "foreign file", "nonsense", "huge number"])
@pytest.mark.parametrize("name", ["pid", ".pid"])
async def test_a_planted_pid_file_is_not_believed(planted: str, name: str, tmp_path: Path) -> None:
    """What somebody else puts in the place of the caller's pid file names no process, and holds up nobody."""
    if planted == "foreign file" and os.geteuid() != 0:
        pytest.skip("only root can make another user's file")
    (tmp_path / "elsewhere").write_text(str(os.getpid()))
    place = tmp_path / "place"
    place.mkdir()
    workload = Workload(str(place / "pid"))
    workload.runc_pid = os.getpid()
    try:
        target = place / name
        match planted:
            case "link":
                target.symlink_to(tmp_path / "elsewhere")
            case "fifo":
                os.mkfifo(target)
            case "directory":
                target.mkdir()
            case "socket":
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(str(target))
            case "foreign file":
                (tmp_path / "elsewhere").rename(target)
                os.chown(target, 65534, 65534)
            case _:
                target.write_text("9" * (5 if planted == "nonsense" else 400) + "x" * (planted == "nonsense"))
        await asyncio.sleep(0)
        workload.look()
        workload.candidates(name)
        assert workload.pid == 0
        assert not workload.started.done()
        workload.check()
    finally:
        workload.close()


async def test_an_own_pid_file_is_believed(tmp_path: Path) -> None:
    """The same file, made by us, does name the process: the test above could fail."""
    workload = Workload(str(tmp_path / "pid"))
    try:
        (tmp_path / "pid").write_text(str(os.getpid()))
        workload.look()
        assert workload.pid == os.getpid()
    finally:
        workload.close()


@pytest.mark.parametrize("name", ["shadow", "restore.log", "dump.log"])
def test_no_file_is_read_that_a_container_has_named(name: str, tmp_path: Path) -> None:
    """A container can print words like criu's: they make us read no other file than a log of criu's, and no link."""
    (tmp_path / "private").write_text("Error (secret")
    if name == "shadow":
        (tmp_path / name).write_text("Error (secret")
    elif name == "restore.log":
        (tmp_path / name).symlink_to(tmp_path / "private")
    else:
        os.mkfifo(tmp_path / name)
    error = CheckpointError((), 1)
    error.log_path = str(tmp_path / name)
    with pytest.raises(CheckpointError), with_criu_log(str(tmp_path)):
        raise error
    assert error.log_tail == b""
    assert not hasattr(error, "__notes__")


def test_the_page_names_tests_that_there_are() -> None:
    """Each test that docs/topics/security.md names for a promise is there, in one of the files that it names."""
    project = Path(__file__).parents[2]
    page = (project / "docs" / "topics" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", page)
    paths = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    sources = "".join((project / path).read_text(encoding="utf-8") for path in paths)
    assert named
    assert [name for name in named if f"def {name}(" not in sources] == []
