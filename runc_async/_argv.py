"""One pure function for each runc command: checked options in, the words of the command line out.

Two rules hold for every command and are kept in one place (`_words`): options come before `--`, and the container's id
right behind it, so that no id, path or argument is ever read as an option. All runtimes take that, crun included.
"""

from __future__ import annotations

import os
import re
import signal as signals
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import msgspec

from ._call import Argument, Document, PidfdSocket, Setting, WatchedPidFile
from ._one_line import capability_name, one_line
from ._prerequisites import check_lengths
from ._unicode import is_unicode, require_unicode
from .errors import InvalidContainerID, InvalidSignal

StrPath: TypeAlias = str | os.PathLike[str]
User: TypeAlias = int | str | tuple[int, int]

_CONTAINER_ID = re.compile(r"[A-Za-z0-9_+.-]+")
_DECIMAL = re.compile(r"[0-9]{1,3}", re.ASCII)
_REAL_TIME = re.compile(r"(RTMIN|RTMAX)([+-][0-9]{1,2})")
_NUMERIC_USER = re.compile(r"[0-9]+(:[0-9]+)?")
_ID_RULE = "invalid container id: it takes letters, digits and '_+.-', and must not be empty, '.' or '..'"
_LAST_SIGNAL = 64


class Command(msgspec.Struct, frozen=True):
    """One command of runc's with its options, without the program and the global options.

    Attributes:
        name: The command's name.
        words: The name and everything behind it.
        container_id: The container that it acts on, if any.
    """

    name: str
    words: tuple[Argument, ...]
    container_id: str | None = None


def check_container_id(container_id: str) -> str:
    """Return a container id that runc takes.

    crun up to 1.21 checks less: there `..` deletes the directory above its root.

    Raises:
        InvalidContainerID: If runc wouldn't take it: it takes letters, digits and `_+.-`, but not `.` and `..`.
        TypeError: If it isn't a str.
    """
    if not isinstance(container_id, str):
        raise TypeError(f"container_id must be a str: {container_id!r}")
    if not _CONTAINER_ID.fullmatch(container_id) or container_id in {".", ".."}:
        raise InvalidContainerID((), None, container_id=container_id, message=_ID_RULE)
    return container_id


def absolute(path: StrPath) -> str:
    """Make a path absolute: runc resolves some against the bundle, and crun others than runc does.

    Raises:
        TypeError: If it isn't a path.
        ValueError: If it is empty or has a NUL byte.
    """
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"path must be a str or a path of str: {path!r}")
    if not text or "\0" in text:
        raise ValueError(f"path must not be empty or have a NUL byte: {path!r}")
    return os.path.abspath(text)


def text(what: str, value: str) -> str:
    """Return an argument that exec(2) can pass on. What it is stays out of the sentence: it may be a secret.

    Raises:
        TypeError: If it isn't a str.
        ValueError: If it has a NUL byte, or half of a surrogate pair that stands for no byte.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{what} must not have a NUL byte")
    if not _is_encodable(value):
        raise ValueError(f"{what} must not have half of a surrogate pair")
    return value


def _is_encodable(value: str) -> bool:
    """Tell whether a text can be passed on; the error that the spawn would raise shows the whole of it in its repr."""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def signal_number(signal: int | str) -> int:
    """Turn a signal into its number: names differ between runtimes, and crun takes some for others.

    Args:
        signal: A number from 0 to 64, or a name with or without SIG, in any case; also `RTMIN+n` and `RTMAX-n`.

    Raises:
        InvalidSignal: If there is no such signal.
        TypeError: If it is neither a number nor a name.
    """
    if isinstance(signal, bool) or not isinstance(signal, int | str):
        raise TypeError(f"signal must be a number or a name: {signal!r}")
    number = signal if isinstance(signal, int) else _signal_by_name(signal)
    if not 0 <= number <= _LAST_SIGNAL:
        raise InvalidSignal((), None, message=f"no such signal: {signal!r}")
    return int(number)


def _signal_by_name(name: str) -> int:
    """Look a signal's name up; -1 if there is none."""
    if _DECIMAL.fullmatch(name):
        return int(name)
    upper = name.upper().removeprefix("SIG")
    if real_time := _REAL_TIME.fullmatch(upper):
        number = signals.Signals[f"SIG{real_time[1]}"] + int(real_time[2])
        return number if signals.SIGRTMIN <= number <= signals.SIGRTMAX else -1
    return signals.Signals.__members__.get(f"SIG{upper}", -1)


def option(flag: str, value: str | None) -> tuple[str, ...]:
    """Write an option with its value; nothing for None."""
    return () if value is None else (flag, text(flag, value))


def unicode_option(flag: str, value: str | None) -> tuple[str, ...]:
    """Write an option with a value that goes into a JSON document; nothing for None."""
    return () if value is None else (flag, require_unicode(flag, text(flag, value)))


def path_option(flag: str, path: StrPath | None) -> tuple[str, ...]:
    """Write an option whose value is a path; nothing for None."""
    return () if path is None else (flag, absolute(path))


def switches(**given: bool) -> tuple[str, ...]:
    """Write the switches that are on: `no_pivot=True` is `--no-pivot`."""
    return tuple("--" + name.replace("_", "-") for name, on in given.items() if on)


def _words(name: str, options: Iterable[Argument], container_id: str, *behind: Argument) -> Command:
    """Put a command together that acts on a container."""
    return Command(name, (name, *options, "--", check_container_id(container_id), *behind), container_id)


class Creation(msgspec.Struct, frozen=True, kw_only=True):
    """The options that `create`, `run` and `restore` have in common.

    Attributes are those of `Runc.create`.
    """

    pid_file: StrPath | None = None
    console_socket: StrPath | None = None
    pidfd_socket: StrPath | PidfdSocket | None = None
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: int = 0
    extra_args: Sequence[str] = ()
    watched: bool = False

    def words(self) -> tuple[Argument, ...]:
        """Write them."""
        return (
            *_pid_file(self.pid_file, watched=self.watched),
            *path_option("--console-socket", self.console_socket),
            *_pidfd_socket(self.pidfd_socket),
            *switches(no_pivot=self.no_pivot, no_new_keyring=self.no_new_keyring),
            *_preserved(self.preserve_fds),
            *unchecked(self.extra_args),
        )


def _pid_file(path: StrPath | None, *, watched: bool) -> tuple[Argument, ...]:
    """Write `--pid-file`; always, if the runner is to look out for it."""
    if not watched:
        return path_option("--pid-file", path)
    return ("--pid-file", WatchedPidFile(None if path is None else absolute(path)))


def has_own_pid_file(words: Sequence[Argument]) -> bool:
    """Tell whether the pid of the process is written where the caller has said."""
    return any(
        name == "--pid-file" and not (isinstance(value, WatchedPidFile) and value.path is None)
        for name, value in pairwise(words)
    )


def _pidfd_socket(socket: StrPath | PidfdSocket | None) -> tuple[Argument, ...]:
    """Write `--pidfd-socket`; nothing for None."""
    return ("--pidfd-socket", socket) if isinstance(socket, PidfdSocket) else path_option("--pidfd-socket", socket)


def _preserved(count: int) -> tuple[str, ...]:
    """Write `--preserve-fds`; nothing for none."""
    return ("--preserve-fds", str(count)) if count else ()


def unchecked(words: Sequence[str]) -> tuple[str, ...]:
    """Check the caller's own words, which go in unchanged.

    Raises:
        TypeError: If it is one str instead of a sequence of them.
        ValueError: If one has a NUL byte.
    """
    return several("extra_args", words)


def several(what: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return arguments of which there may be any number.

    Raises:
        TypeError: If it is one str instead of a sequence of them, or not all of them are str.
        ValueError: If one has a NUL byte.
    """
    if isinstance(words, str | bytes) or not isinstance(words, Sequence):
        raise TypeError(f"{what} must be a sequence of str, not {type(words).__name__}")
    return tuple(text(what, word) for word in words)


def create(container_id: str, bundle: StrPath, creation: Creation) -> Command:
    """`runc create`."""
    return _words("create", ("--bundle", absolute(bundle), *creation.words()), container_id)


def run(
    container_id: str, bundle: StrPath, creation: Creation, *, detach: bool, keep: bool, no_subreaper: bool
) -> Command:
    """`runc run`."""
    chosen = switches(detach=detach, keep=keep, no_subreaper=no_subreaper)
    return _words("run", ("--bundle", absolute(bundle), *chosen, *creation.words()), container_id)


def start(container_id: str) -> Command:
    """`runc start`."""
    return _words("start", (), container_id)


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `exec` that hold with a whole process document too. Attributes are those of `Runc.exec`."""

    detach: bool = False
    watched: bool = False
    cgroup: str | Sequence[str] = ()
    ignore_paused: bool = False
    pid_file: StrPath | None = None
    console_socket: StrPath | None = None
    pidfd_socket: StrPath | PidfdSocket | None = None
    preserve_fds: int = 0
    extra_args: Sequence[str] = ()

    def words(self) -> tuple[Argument, ...]:
        """Write them."""
        cgroups = (self.cgroup,) if isinstance(self.cgroup, str) else self.cgroup
        return (
            *switches(detach=self.detach, ignore_paused=self.ignore_paused),
            *(word for path in cgroups for word in option("--cgroup", path)),
            *_pid_file(self.pid_file, watched=self.watched),
            *path_option("--console-socket", self.console_socket),
            *_pidfd_socket(self.pidfd_socket),
            *_preserved(self.preserve_fds),
            *unchecked(self.extra_args),
        )


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `exec` that change the container's own process. Attributes are those of `Runc.exec`."""

    tty: bool = False
    cwd: StrPath | None = None
    env: Mapping[str, str] | None = None
    user: User | None = None
    additional_gids: Sequence[int] = ()
    caps: Sequence[str] = ()
    no_new_privs: bool = False
    process_label: str | None = None
    apparmor: str | None = None

    def words(self) -> tuple[Argument, ...]:
        """Write them."""
        return (
            *switches(tty=self.tty, no_new_privs=self.no_new_privs),
            *unicode_option("--cwd", None if self.cwd is None else os.fspath(self.cwd)),
            *(word for name, value in (self.env or {}).items() for word in ("--env", unicode_setting(name, value))),
            *option("--user", None if self.user is None else numeric_user(self.user)),
            *(word for gid in self.additional_gids for word in ("--additional-gids", str(number("gid", gid)))),
            *(word for cap in several("caps", self.caps) for word in unicode_option("--cap", capability_name(cap))),
            *unicode_option("--process-label", self.process_label),
            *unicode_option("--apparmor", self.apparmor),
        )


def setting(name: str, value: str) -> Setting:
    """Make a variable of the environment.

    Raises:
        ValueError: If the name is empty or has a `=`, or either has a NUL byte.
        TypeError: If either isn't a str.
    """
    if not text("the name of a variable", name) or "=" in name:
        raise ValueError(f"the name of a variable must not be empty or have a '=': {name.partition('=')[0]!r}...")
    if not isinstance(value, str) or "\0" in value or not _is_encodable(value):
        wrong = ValueError if isinstance(value, str) else TypeError
        raise wrong(f"the value of {one_line(name)} must be a str without NUL")  # the value itself stays out of it
    return Setting(name, value)


def unicode_setting(name: str, value: str) -> Setting:
    """Make a variable of the environment of a container's process, which the runtime passes on in a JSON document.

    Raises:
        ValueError: As `setting`; or if either isn't UTF-8.
        TypeError: If either isn't a str.
    """
    made = setting(name, value)
    if not is_unicode(name) or not is_unicode(value):
        raise ValueError(f"the variable {one_line(name)} must be UTF-8: the runtime passes it on as JSON")
    return made


def numeric_user(user: User) -> str:
    """Write a user as runc takes one: numbers only, since it doesn't look into the container's passwd.

    Raises:
        ValueError: If it isn't `uid` or `uid:gid` in numbers.
    """
    written = ":".join(map(str, user)) if isinstance(user, tuple) else str(user)
    if isinstance(user, bool) or not _NUMERIC_USER.fullmatch(written):
        raise ValueError(f"user must be a number, 'uid:gid', or (uid, gid): {user!r}")
    return written


def number(what: str, value: int) -> int:
    """Return a number that isn't negative.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{what} must be a number, and not negative: {value!r}")
    return value


def exec_document(container_id: str, process: bytes, execution: Execution) -> Command:
    """`runc exec` of a whole process document."""
    return _words("exec", ("--process", Document("process.json", process), *execution.words()), container_id)


def exec_arguments(container_id: str, args: Sequence[str], execution: Execution, overrides: Overrides) -> Command:
    """`runc exec` of arguments, with the container's own process as the template.

    Raises:
        TypeError: If the arguments are no sequence of str; one str is none, and neither is a dict.
        ValueError: If there are none, or one has a NUL byte or isn't UTF-8.
        ArgumentsTooLong: If one is longer than execve(2) takes.
    """
    words = tuple(
        require_unicode("an argument", word) for word in several("process, if it isn't a spec.Process,", args)
    )
    if not words:
        raise ValueError("process must have at least one argument")
    check_lengths(words)
    return _words("exec", (*overrides.words(), *execution.words()), container_id, *words)


def checkpoint(container_id: str, options: Iterable[Argument]) -> Command:
    """`runc checkpoint`."""
    return _words("checkpoint", options, container_id)


def restore(container_id: str, bundle: StrPath, creation: Creation, options: Iterable[Argument]) -> Command:
    """`runc restore`."""
    return _words("restore", ("--bundle", absolute(bundle), *options, *creation.words()), container_id)


def kill(container_id: str, signal: int | str, *, to_all: bool) -> Command:
    """`runc kill`."""
    return _words("kill", switches(all=to_all), container_id, str(signal_number(signal)))


def delete(container_id: str, *, force: bool) -> Command:
    """`runc delete`."""
    return _words("delete", switches(force=force), container_id)


def pause(container_id: str) -> Command:
    """`runc pause`."""
    return _words("pause", (), container_id)


def resume(container_id: str) -> Command:
    """`runc resume`."""
    return _words("resume", (), container_id)


def state(container_id: str) -> Command:
    """`runc state`."""
    return _words("state", (), container_id)


def list_() -> Command:
    """`runc list`."""
    return Command("list", ("list", "--format", "json"))


def ps(container_id: str) -> Command:
    """`runc ps`, as pids."""
    return _words("ps", ("--format", "json"), container_id)


def top(container_id: str, ps_options: Sequence[str]) -> Command:
    """`runc ps`, as the table of ps(1): what stands behind the id goes there."""
    return _words("ps", ("--format", "table"), container_id, *(text("ps_options", word) for word in ps_options))


def stats(container_id: str) -> Command:
    """`runc events --stats`."""
    return _words("events", ("--stats",), container_id)


def events(container_id: str, interval_ms: int) -> Command:
    """`runc events`."""
    return _words("events", ("--interval", f"{interval_ms}ms"), container_id)


def update(container_id: str, resources: bytes, *, l3_cache_schema: str | None, mem_bw_schema: str | None) -> Command:
    """`runc update`."""
    schemas = (
        *unicode_option("--l3-cache-schema", l3_cache_schema),
        *unicode_option("--mem-bw-schema", mem_bw_schema),
    )
    return _words("update", ("--resources", Document("resources.json", resources), *schemas), container_id)


def spec(directory: StrPath, *, rootless: bool) -> Command:
    """`runc spec`, which writes `config.json` into `directory`."""
    return Command("spec", ("spec", "--bundle", absolute(directory), *switches(rootless=rootless)))


def features() -> Command:
    """`runc features`."""
    return Command("features", ("features",))


def version() -> Command:
    """`runc --version`."""
    return Command("version", ("--version",))
