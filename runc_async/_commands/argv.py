"""Command lines of runc, from checked options: one pure function for each command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from .._linux.prerequisites import check_lengths
from .._text import capability_name, one_line
from .._unicode import is_unicode, require_unicode
from ..runner import Argument, Document, PidfdSocket, PidFile, Setting
from .words import (
    StrPath,
    User,
    absolute,
    argument,
    check_container_id,
    non_negative,
    numeric_user,
    option,
    path_option,
    setting,
    signal_number,
    strings,
    switches,
    unchecked,
)


class Command(msgspec.Struct, frozen=True):
    """A runc command with its options, without the program and the global options.

    Attributes:
        name: The command's name.
        words: The name and all arguments.
        container_id: The container's id, if any.
        needs: Features needed beside the command and its options: see `Dialect.features`.
    """

    name: str
    words: tuple[Argument, ...]
    container_id: str | None = None
    needs: tuple[str, ...] = ()


def unicode_option(flag: str, value: str | None) -> tuple[str, ...]:
    """Return an option whose value becomes part of a JSON document; nothing for None."""
    return () if value is None else (flag, require_unicode(flag, argument(flag, value)))


def _words(name: str, options: Iterable[Argument], container_id: str, *behind: Argument) -> Command:
    """Return a command for a container."""
    # Options come before `--`, and the id right behind, so that no id, path or argument is read as an option. All
    # runtimes accept this, including crun.
    return Command(name, (name, *options, "--", check_container_id(container_id), *behind), container_id)


class Creation(msgspec.Struct, frozen=True, kw_only=True):
    """The common options of `create`, `run` and `restore`. Attributes as in `Runc.create`."""

    pid_file: StrPath | None = None
    console_socket: StrPath | None = None
    pidfd_socket: StrPath | PidfdSocket | None = None
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: int = 0
    extra_args: Sequence[str] = ()
    own_pid_file: bool = False

    def words(self) -> tuple[Argument, ...]:
        """Return the options as words."""
        return (
            *_pid_file(self.pid_file, own_pid_file=self.own_pid_file),
            *path_option("--console-socket", self.console_socket),
            *_pidfd_socket(self.pidfd_socket),
            *switches(no_pivot=self.no_pivot, no_new_keyring=self.no_new_keyring),
            *_preserved(self.preserve_fds),
            *unchecked(self.extra_args),
        )


def _pid_file(path: StrPath | None, *, own_pid_file: bool) -> tuple[Argument, ...]:
    """Return `--pid-file`; in any case if the runner waits for the file."""
    if not own_pid_file:
        return path_option("--pid-file", path)
    # The runner chooses the path, and copies the pid to the caller's file if there is one.
    return ("--pid-file", PidFile(None if path is None else absolute(path)))


def has_own_pid_file(words: Sequence[Argument]) -> bool:
    """Return whether the pid goes to a file chosen by the caller."""
    return any(
        name == "--pid-file" and not (isinstance(value, PidFile) and value.path is None)
        for name, value in pairwise(words)
    )


def _pidfd_socket(socket: StrPath | PidfdSocket | None) -> tuple[Argument, ...]:
    """Return `--pidfd-socket`; nothing for None."""
    return ("--pidfd-socket", socket) if isinstance(socket, PidfdSocket) else path_option("--pidfd-socket", socket)


def _preserved(count: int) -> tuple[str, ...]:
    """Return `--preserve-fds`; nothing for zero."""
    return ("--preserve-fds", str(count)) if count else ()


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
    """The options of `exec` that are also valid with a process document. Attributes as in `Runc.exec`."""

    detach: bool = False
    own_pid_file: bool = False
    cgroup: str | Sequence[str] = ()
    ignore_paused: bool = False
    pid_file: StrPath | None = None
    console_socket: StrPath | None = None
    pidfd_socket: StrPath | PidfdSocket | None = None
    preserve_fds: int = 0
    extra_args: Sequence[str] = ()

    def words(self) -> tuple[Argument, ...]:
        """Return the options as words."""
        cgroups = (self.cgroup,) if isinstance(self.cgroup, str) else self.cgroup
        return (
            *switches(detach=self.detach, ignore_paused=self.ignore_paused),
            *(word for path in cgroups for word in option("--cgroup", path)),
            *_pid_file(self.pid_file, own_pid_file=self.own_pid_file),
            *path_option("--console-socket", self.console_socket),
            *_pidfd_socket(self.pidfd_socket),
            *_preserved(self.preserve_fds),
            *unchecked(self.extra_args),
        )


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `exec` that change the container's own process. Attributes as in `Runc.exec`."""

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
        """Return the options as words."""
        return (
            *switches(tty=self.tty, no_new_privs=self.no_new_privs),
            *unicode_option("--cwd", None if self.cwd is None else os.fspath(self.cwd)),
            *(word for name, value in (self.env or {}).items() for word in ("--env", unicode_setting(name, value))),
            *option("--user", None if self.user is None else numeric_user(self.user)),
            *(word for gid in self.additional_gids for word in ("--additional-gids", str(non_negative("gid", gid)))),
            *(word for cap in strings("caps", self.caps) for word in unicode_option("--cap", capability_name(cap))),
            *unicode_option("--process-label", self.process_label),
            *unicode_option("--apparmor", self.apparmor),
        )


def unicode_setting(name: str, value: str) -> Setting:
    """Return an environment variable for a container's process, which the runtime puts into a JSON document.

    Raises:
        ValueError: As in `setting`; or if name or value isn't UTF-8.
        TypeError: If name or value isn't a str.
    """
    # Go's JSON encoder replaces bytes that aren't UTF-8, so the program would get another value without an error.
    made = setting(name, value)
    if not is_unicode(name) or not is_unicode(value):
        raise ValueError(f"the variable {one_line(name)} must be UTF-8: the runtime passes it on as JSON")
    return made


def exec_document(container_id: str, process: bytes, execution: Execution) -> Command:
    """`runc exec` with a process document."""
    return _words("exec", ("--process", Document("process.json", process), *execution.words()), container_id)


def exec_arguments(container_id: str, args: Sequence[str], execution: Execution, overrides: Overrides) -> Command:
    """`runc exec` with arguments; the container's own process is the template.

    Raises:
        TypeError: If the arguments aren't a sequence of str. Neither a str nor a dict counts as a sequence here.
        ValueError: If there are none, or one has a NUL byte or isn't UTF-8.
        ArgumentsTooLong: If one is longer than the limit of execve(2).
    """
    words = tuple(
        require_unicode("an argument", word) for word in strings("process, if it isn't a spec.Process,", args)
    )
    if not words:
        raise ValueError("process must have at least one argument")
    # Checked here: the error of a runtime that fails with E2BIG inside the container would be hard to understand.
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
    # A number, because runtimes disagree about names; 0 isn't accepted by all.
    number = signal_number(signal)
    command = _words("kill", switches(all=to_all), container_id, str(number))
    return command if number else msgspec.structs.replace(command, needs=("kill 0",))


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
    # The default format is a table for people.
    return Command("list", ("list", "--format", "json"))


def ps(container_id: str) -> Command:
    """`runc ps`, as pids."""
    return _words("ps", ("--format", "json"), container_id)


def top(container_id: str, ps_options: Sequence[str]) -> Command:
    """`runc ps` as the table of ps(1), which gets the words after the id."""
    # Behind the id, where runc passes them on to ps(1).
    words = tuple(argument("ps_options", word) for word in ps_options)
    command = _words("ps", ("--format", "table"), container_id, *words)
    return msgspec.structs.replace(command, needs=("top with options",)) if words else command


def stats(container_id: str) -> Command:
    """`runc events --stats`."""
    return _words("events", ("--stats",), container_id)


def events(container_id: str, interval_ms: int) -> Command:
    """`runc events`."""
    return _words("events", ("--interval", f"{interval_ms}ms"), container_id)


def update(
    container_id: str,
    resources: bytes,
    *,
    l3_cache_schema: str | None,
    mem_bw_schema: str | None,
    needs: tuple[str, ...] = (),
) -> Command:
    """`runc update`; `needs` has the features that the document needs."""
    schemas = (
        *unicode_option("--l3-cache-schema", l3_cache_schema),
        *unicode_option("--mem-bw-schema", mem_bw_schema),
    )
    command = _words("update", ("--resources", Document("resources.json", resources), *schemas), container_id)
    return msgspec.structs.replace(command, needs=needs)


def spec(directory: StrPath, *, rootless: bool) -> Command:
    """`runc spec`, which writes `config.json` to `directory`."""
    return Command("spec", ("spec", "--bundle", absolute(directory), *switches(rootless=rootless)))


def features() -> Command:
    """`runc features`."""
    return Command("features", ("features",))


def version() -> Command:
    """`runc --version`."""
    return Command("version", ("--version",))
