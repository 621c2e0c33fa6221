"""Options in, words out: the command line of each command."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from runc_async import Runc, spec
from runc_async._commands import argv, words
from runc_async._commands.argv import Creation, Execution, Overrides
from runc_async.errors import InvalidContainerID, InvalidSignal
from runc_async.runner import Document, PidFile, Setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from runc_async._commands.argv import Command
    from runc_async._commands.words import User

PIDS = ("--pid-file", PidFile())

COMMANDS = {
    "create": (
        argv.create("web", "/b", Creation()),
        ("create", "--bundle", "/b", "--", "web"),
    ),
    "create with everything": (
        argv.create(
            "web",
            Path("/b/../c"),
            Creation(
                pid_file="/p",
                console_socket="/s",
                pidfd_socket="/d",
                no_pivot=True,
                no_new_keyring=True,
                preserve_fds=2,
                extra_args=("--foo", "bar"),
            ),
        ),
        (
            *("create", "--bundle", "/c", "--pid-file", "/p", "--console-socket", "/s", "--pidfd-socket", "/d"),
            *("--no-pivot", "--no-new-keyring", "--preserve-fds", "2", "--foo", "bar", "--", "web"),
        ),
    ),
    "run": (
        argv.run("web", "/b", Creation(), detach=False, keep=False, no_subreaper=False),
        ("run", "--bundle", "/b", "--", "web"),
    ),
    "run with everything": (
        argv.run("web", "/b", Creation(no_pivot=True), detach=True, keep=True, no_subreaper=True),
        ("run", "--bundle", "/b", "--detach", "--keep", "--no-subreaper", "--no-pivot", "--", "web"),
    ),
    "start": (argv.start("web"), ("start", "--", "web")),
    "exec of arguments": (
        argv.exec_arguments("web", ["sh", "-c", "--", "-x"], Execution(own_pid_file=True), Overrides()),
        ("exec", *PIDS, "--", "web", "sh", "-c", "--", "-x"),
    ),
    "exec with everything": (
        argv.exec_arguments(
            "web",
            ("id",),
            Execution(
                detach=True,
                cgroup=("cpu:a", "b"),
                ignore_paused=True,
                pid_file="/p",
                console_socket="/s",
                pidfd_socket="/d",
                preserve_fds=1,
                extra_args=["--foo"],
            ),
            Overrides(
                tty=True,
                cwd=Path("/w"),
                env={"A": "1", "B": ""},
                user=(1000, 100),
                additional_gids=(7, 8),
                caps=("CAP_CHOWN",),
                no_new_privs=True,
                process_label="label",
                apparmor="profile",
            ),
        ),
        (
            *("exec", "--tty", "--no-new-privs", "--cwd", "/w", "--env", Setting("A", "1"), "--env", Setting("B", "")),
            *("--user", "1000:100", "--additional-gids", "7", "--additional-gids", "8", "--cap", "CAP_CHOWN"),
            *("--process-label", "label", "--apparmor", "profile", "--detach", "--ignore-paused"),
            *("--cgroup", "cpu:a", "--cgroup", "b", "--pid-file", "/p", "--console-socket", "/s"),
            *("--pidfd-socket", "/d", "--preserve-fds", "1", "--foo", "--", "web", "id"),
        ),
    ),
    "exec with one cgroup": (
        argv.exec_arguments("web", ("id",), Execution(detach=True, cgroup="sub"), Overrides()),
        ("exec", "--detach", "--cgroup", "sub", "--", "web", "id"),
    ),
    "exec with a pid file": (
        argv.exec_arguments("web", ("id",), Execution(pid_file="/p", own_pid_file=True), Overrides()),
        ("exec", "--pid-file", PidFile("/p"), "--", "web", "id"),
    ),
    "exec with capabilities by their short names": (
        argv.exec_arguments("web", ("id",), Execution(), Overrides(caps=("NET_RAW", "chown", "cap_kill"))),
        ("exec", *("--cap", "CAP_NET_RAW", "--cap", "CAP_CHOWN", "--cap", "CAP_KILL"), "--", "web", "id"),
    ),
    "exec of a document": (
        argv.exec_document("web", b"{}", Execution(detach=True)),
        ("exec", "--process", Document("process.json", b"{}"), "--detach", "--", "web"),
    ),
    "kill": (argv.kill("web", "term", to_all=False), ("kill", "--", "web", "15")),
    "kill all": (argv.kill("web", 9, to_all=True), ("kill", "--all", "--", "web", "9")),
    "delete": (argv.delete("web", force=False), ("delete", "--", "web")),
    "delete by force": (argv.delete("web", force=True), ("delete", "--force", "--", "web")),
    "pause": (argv.pause("web"), ("pause", "--", "web")),
    "resume": (argv.resume("web"), ("resume", "--", "web")),
    "state": (argv.state("web"), ("state", "--", "web")),
    "list": (argv.list_(), ("list", "--format", "json")),
    "ps": (argv.ps("web"), ("ps", "--format", "json", "--", "web")),
    "top": (argv.top("web", ()), ("ps", "--format", "table", "--", "web")),
    "top with options": (
        argv.top("web", ("-o", "pid")),
        ("ps", "--format", "table", "--", "web", "-o", "pid"),
    ),
    "stats": (argv.stats("web"), ("events", "--stats", "--", "web")),
    "events": (argv.events("web", 1500), ("events", "--interval", "1500ms", "--", "web")),
    "update": (
        argv.update("web", b"{}", l3_cache_schema=None, mem_bw_schema=None),
        ("update", "--resources", Document("resources.json", b"{}"), "--", "web"),
    ),
    "update with schemas": (
        argv.update("web", b"{}", l3_cache_schema="L3:0=f", mem_bw_schema="MB:0=20"),
        (
            *("update", "--resources", Document("resources.json", b"{}")),
            *("--l3-cache-schema", "L3:0=f", "--mem-bw-schema", "MB:0=20", "--", "web"),
        ),
    ),
    "spec": (argv.spec("/d", rootless=False), ("spec", "--bundle", "/d")),
    "spec without root": (argv.spec("/d", rootless=True), ("spec", "--bundle", "/d", "--rootless")),
    "features": (argv.features(), ("features",)),
    "version": (argv.version(), ("--version",)),
}

# One call for each command that takes a container's id.
TAKES_ID: dict[str, Callable[[str], Command]] = {
    "create": lambda name: argv.create(name, "/b", Creation()),
    "run": lambda name: argv.run(name, "/b", Creation(), detach=False, keep=False, no_subreaper=False),
    "start": argv.start,
    "exec": lambda name: argv.exec_arguments(name, ["id"], Execution(), Overrides()),
    "exec of a document": lambda name: argv.exec_document(name, b"{}", Execution()),
    "kill": lambda name: argv.kill(name, 15, to_all=True),
    "delete": lambda name: argv.delete(name, force=True),
    "pause": argv.pause,
    "resume": argv.resume,
    "state": argv.state,
    "ps": argv.ps,
    "top": lambda name: argv.top(name, ("-ef",)),
    "stats": argv.stats,
    "events": lambda name: argv.events(name, 1000),
    "update": lambda name: argv.update(name, b"{}", l3_cache_schema=None, mem_bw_schema=None),
}

any_id = pytest.mark.parametrize("command", TAKES_ID.values(), ids=TAKES_ID)


@pytest.mark.parametrize(("command", "words"), COMMANDS.values(), ids=COMMANDS)
def test_words(command: Command, words: tuple[object, ...]) -> None:
    """Each option becomes runc's own flag, and nothing is said of what wasn't asked for."""
    assert command.words == words


@any_id
@pytest.mark.parametrize("name", ["-x", "--help", "--root.x", "a..b", "A_1+.-", "--"])
def test_an_id_is_never_an_option(command: Callable[[str], Command], name: str) -> None:
    """An id that looks like an option stands behind `--`, directly."""
    made = command(name)
    assert made.container_id == name
    assert made.words[made.words.index("--") + 1] == name


@pytest.mark.proof(every=5)
@any_id
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "a\0", "a\n", "ä", "\u0661", "web\n"])
def test_an_id_that_runc_refuses(command: Callable[[str], Command], name: str) -> None:
    """An id that runc wouldn't take is refused before anything is started, by an error that names it."""
    with pytest.raises(InvalidContainerID) as caught:
        command(name)
    assert caught.value.container_id == name
    assert caught.value.args == ()


@pytest.mark.parametrize("name", [None, 5, b"web", Path("web")])
def test_an_id_of_another_type(name: Any) -> None:
    """An id that isn't a str is a TypeError."""
    with pytest.raises(TypeError, match="container_id must be a str"):
        words.check_container_id(name)


@given(st.text())
def test_ids_follow_one_rule(name: str) -> None:
    """What is accepted as an id holds letters, digits and `_+.-` only, and names no directory but its own."""
    try:
        words.check_container_id(name)
    except InvalidContainerID:
        return
    assert name not in {"", ".", ".."}
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")


@pytest.mark.parametrize("path", ["-b", "--bundle", "b c", "~", "b"])
def test_a_path_is_never_an_option(path: str) -> None:
    """A path becomes absolute, so that it neither looks like an option nor is resolved by runc."""
    assert words.absolute(path) == f"{Path.cwd()}/{path}"


@pytest.mark.parametrize(
    ("path", "error"), [("", ValueError), ("a\0b", ValueError), (b"/b", TypeError), (5, TypeError), (None, TypeError)]
)
def test_what_is_no_path(path: Any, error: type[Exception]) -> None:
    """An empty path, one with a NUL byte and one of another type are refused."""
    with pytest.raises(error, match=r"[Pp]ath"):
        words.absolute(path)


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (0, 0),
        (64, 64),
        (signal.SIGTERM, 15),
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("kill", 9),
        ("9", 9),
        ("URG", signal.SIGURG),
        ("RTMIN", signal.SIGRTMIN),
        ("RTMIN+1", signal.SIGRTMIN + 1),
        ("SIGRTMAX-2", signal.SIGRTMAX - 2),
    ],
)
def test_signals(given: int | str, number: int) -> None:
    """A signal is a number, or a name with or without SIG in any case; runc gets the number."""
    assert words.signal_number(given) == number
    assert type(words.signal_number(given)) is int


@pytest.mark.parametrize(
    "given", [-1, 65, "", "SIG", "NOPE", "SIG_DFL", "SIGSIGTERM", "-9", "65", "RTMIN-1", "RTMAX+1", "\u0669", "TERM\n"]
)
def test_signals_that_there_are_not(given: int | str) -> None:
    """A signal that doesn't exist is refused before anything is started."""
    with pytest.raises(InvalidSignal, match="no such signal"):
        words.signal_number(given)


@pytest.mark.parametrize("given", [True, None, 9.0, b"TERM"])
def test_signals_of_another_type(given: Any) -> None:
    """A bool is no signal, and neither is anything but an int or a str."""
    with pytest.raises(TypeError, match="signal must be a number or a name"):
        words.signal_number(given)


@pytest.mark.parametrize(
    ("user", "written"), [(0, "0"), ("1000", "1000"), ("1000:100", "1000:100"), ((1000, 100), "1000:100")]
)
def test_users(user: User, written: str) -> None:
    """A user is a number, or a number with that of a group."""
    assert words.numeric_user(user) == written


@pytest.mark.parametrize("user", ["root", "", "1:", ":1", -1, True, (1, 2, 3), (True, 1), "1:2:3", "\u0661", 1.0])
def test_users_by_name(user: Any) -> None:
    """A runtime takes no names, so they are refused with a sentence that says so."""
    with pytest.raises(ValueError, match="user must be a number"):
        words.numeric_user(user)


@pytest.mark.parametrize("name", ["", "A=B", "A\0", "="])
def test_names_of_variables(name: str) -> None:
    """A variable's name isn't empty and has neither `=` nor NUL."""
    with pytest.raises(ValueError, match="name of a variable"):
        words.setting(name, "x")


@pytest.mark.parametrize(("value", "error"), [("se\0cret", ValueError), (b"secret", TypeError)])
def test_values_of_variables(value: Any, error: type[Exception]) -> None:
    """A bad value is refused by a sentence that names the variable and not the value."""
    with pytest.raises(error, match="the value of A must be a str") as caught:
        words.setting("A", value)
    assert "cret" not in str(caught.value)


def test_name_of_a_variable_of_another_type() -> None:
    """A variable's name is a str."""
    with pytest.raises(TypeError, match="name of a variable"):
        words.setting(5, "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - what is tested


BAD_SEQUENCES: dict[str, Callable[[Any], Command]] = {
    "extra_args of create": lambda words: argv.create("web", "/b", Creation(extra_args=words)),
    "extra_args of exec": lambda words: argv.exec_arguments("web", ["id"], Execution(extra_args=words), Overrides()),
    "caps": lambda words: argv.exec_arguments("web", ["id"], Execution(), Overrides(caps=words)),
    "process": lambda words: argv.exec_arguments("web", words, Execution(), Overrides()),
}


@pytest.mark.parametrize("build", BAD_SEQUENCES.values(), ids=BAD_SEQUENCES)
@pytest.mark.parametrize("words", ["--foo", b"--foo", {"args": ["id"]}, 5, [b"id"], [None]], ids=repr)
def test_one_string_is_no_sequence(build: Callable[[Any], Command], words: Any) -> None:
    """Where words are expected, one str (which would be taken apart), a dict and words of other types are refused."""
    with pytest.raises(TypeError, match="must be a s"):
        build(words)


@pytest.mark.parametrize("build", BAD_SEQUENCES.values(), ids=BAD_SEQUENCES)
def test_nul_in_words(build: Callable[[Any], Command]) -> None:
    """exec(2) can't pass on a NUL byte, so it is refused before."""
    with pytest.raises(ValueError, match="NUL"):
        build(["a\0b"])


@pytest.mark.parametrize("value", ["a\0b"])
def test_nul_in_options(value: str) -> None:
    """Neither can the value of an option have one."""
    with pytest.raises(ValueError, match="--apparmor must not have a NUL"):
        Overrides(apparmor=value).words()
    with pytest.raises(ValueError, match="ps_options must not have a NUL"):
        argv.top("web", (value,))
    with pytest.raises(ValueError, match="--cgroup must not have a NUL"):
        Execution(cgroup=value).words()


NOT_UTF8 = os.fsdecode(b"caf\xe9")
IN_JSON: dict[str, Callable[[str], object]] = {
    "argument": lambda word: argv.exec_arguments("web", ["id", word], Execution(), Overrides()),
    "name of a variable": lambda word: Overrides(env={word: "x"}).words(),
    "variable": lambda word: Overrides(env={"A": word}).words(),
    "cwd": lambda word: Overrides(cwd=f"/{word}").words(),
    "capability": lambda word: Overrides(caps=[word]).words(),
    "label": lambda word: Overrides(process_label=word).words(),
    "profile": lambda word: Overrides(apparmor=word).words(),
    "cache schema": lambda word: argv.update("web", b"{}", l3_cache_schema=word, mem_bw_schema=None),
    "bandwidth schema": lambda word: argv.update("web", b"{}", l3_cache_schema=None, mem_bw_schema=word),
    "process document": lambda word: spec.Process(cwd="/", args=[word]).encode(),
    "configuration": lambda word: spec.Spec.default().set_env({"A": word}).encode(),
}


@pytest.mark.parametrize("build", IN_JSON.values(), ids=IN_JSON)
def test_bytes_that_json_would_change(build: Callable[[str], object]) -> None:
    """What the runtime passes on as JSON has to be UTF-8: other bytes would arrive as U+FFFD. No value is told."""
    build("caf\u00e9")
    with pytest.raises(ValueError, match=r"must be UTF-8|not Unicode") as caught:
        build(NOT_UTF8)
    assert "caf" not in str(caught.value).replace("variable caf\\udce9", "")


def test_bytes_that_no_json_has_are_passed_on() -> None:
    """A path that the runtime only opens may have any bytes."""
    assert any(NOT_UTF8 in str(word) for word in Execution(pid_file=f"/tmp/{NOT_UTF8}").words())
    assert Runc(env={"A": NOT_UTF8}, root=f"/tmp/{NOT_UTF8}")


def test_option_of_another_type() -> None:
    """The value of an option is a str."""
    with pytest.raises(TypeError, match="--apparmor must be a str"):
        words.option("--apparmor", 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - what is tested


def test_exec_needs_an_argument() -> None:
    """A process without arguments can't be run."""
    with pytest.raises(ValueError, match="at least one argument"):
        argv.exec_arguments("web", [], Execution(), Overrides())


@pytest.mark.parametrize("gid", [-1, True, "5", 1.5])
def test_groups_are_numbers(gid: Any) -> None:
    """A group is a number, and not negative."""
    with pytest.raises(ValueError, match="gid must be a number"):
        Overrides(additional_gids=[gid]).words()
