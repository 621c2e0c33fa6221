"""The shape of the facts about one runtime. Each runtime has a module of its own; no other code asks for its name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec

from .._linux.procfs import ProcessIdentity
from ..errors import CommandError, LogRecord
from ..runner import Argument
from ..state import State, Status

Numbers: TypeAlias = tuple[int, ...]
"""The numbers of a version: see `Version.number`."""

Moment: TypeAlias = Annotated[dt.datetime, msgspec.Meta(tz=True)]

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Exceptions of msgspec for a document: the last two for bytes in a string that aren't UTF-8, and for deep nesting."""


Wordings: TypeAlias = Mapping[type[CommandError], tuple[str, ...]]
"""For each class of error, patterns of its messages."""


class Part(NamedTuple):
    """A part of a configuration that was added later, or belongs to another platform.

    Attributes:
        since: The numbers of the first version that knows the part; empty if all do; None if no version does.
        refused: Whether an older version fails because of the part.
        until: The numbers of the first version that ignores the part again.
    """

    since: Numbers | None = ()
    refused: bool = False
    until: Numbers | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime's record of a container; two containers with the same id never have equal records.

    Attributes:
        id: The container's id.
        runtime: The name of the runtime that has written the record.
        process: The first process, with start time 0 if not recorded.
        created: The time of the creation.
        bundle: Absolute path of the bundle.
        config: Path of the config.json from which `exec` takes the container's own process.
        rootfs: Path of the root filesystem.
        oci_version: Version of the runtime-spec; empty if not recorded.
        owner: Name of the owner.
        annotations: Annotations of the config.json, if recorded.
        systemd_scope: Name of the systemd scope, if recorded.
        cgroups: The directory of the cgroup by controller; with cgroup v2 a single one, under the empty name.
        helpers: Processes of the runtime that live as long as the container.
    """

    id: str
    runtime: str
    process: ProcessIdentity
    created: dt.datetime | None = None
    bundle: str = ""
    config: str = ""
    rootfs: str = ""
    oci_version: str = ""
    owner: str = ""
    annotations: Mapping[str, str] = {}
    systemd_scope: str = ""
    cgroups: Mapping[str, str] = {}
    helpers: tuple[int, ...] = ()

    def state(self, status: Status) -> State:
        """Return the container's state in the form of the runtime's `list`."""
        return State(
            id=self.id,
            status=status,
            bundle=self.bundle,
            pid=0 if status == Status.STOPPED else self.process.pid,
            oci_version=self.oci_version,
            rootfs=self.rootfs,
            created=self.created,
            owner=self.owner,
            annotations=dict(self.annotations),
            systemd_scope=self.systemd_scope,
        )

    def complete(self, state: State) -> State:
        """Return a state with what the runtime has left out of it."""
        return msgspec.structs.replace(
            state,
            rootfs=state.rootfs or self.rootfs,
            created=state.created or self.created,
            owner=state.owner or self.owner,
            annotations=state.annotations or dict(self.annotations),
        )

    @property
    def unified(self) -> str | None:
        """The directory of the cgroup on cgroup v2; None on v1, where runc also records the hybrid hierarchy."""
        return self.cgroups.get("") if len(self.cgroups) == 1 else None


class RecordFile(NamedTuple):
    """The file of a record.

    Attributes:
        root: The runtime's root directory.
        container_id: The container's id.
        owner: The owner of the file.
        data: The contents.
    """

    root: str
    container_id: str
    owner: int
    data: bytes


class ProcessChanges(NamedTuple):
    """Options of `exec` that change the container's own process, with different rules in each runtime.

    Attributes:
        uid: The user; None for the container's own.
        gid: The group, if given.
        additional_gids: Additional groups.
        caps: Capabilities to add.
    """

    uid: int | None = None
    gid: int | None = None
    additional_gids: Sequence[int] = ()
    caps: Sequence[str] = ()


class InsideProcess(NamedTuple):
    """A process in a sandbox, with pids of the sandbox's kernel.

    Attributes:
        pid: The process id.
        parent: The parent's pid, 0 for a process started from outside.
        session: The session.
    """

    pid: int
    parent: int
    session: int


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """Commands to find and kill processes that have no pids on the host.

    Attributes:
        kill: Returns the words of a command that sends a signal, from the id, the pid and the signal.
        processes: Returns the words of a command that lists the processes of a container, without zombies.
        decode_processes: Decodes the output of this command.
        follow: Returns the words of a command that makes a container report each fork, from the id and the path of a
            document: `follow_document` with the path of a listening socket (SOCK_SEQPACKET).
        follow_document: Returns this document.
        decode_fork: Decodes a message from the socket: the process and its new child, or the ended process and 0; None
            for other messages.
    """

    kill: Callable[[str, int, int], tuple[str, ...]]
    processes: Callable[[str], tuple[str, ...]]
    decode_processes: Callable[[bytes], list[InsideProcess]]
    follow: Callable[[str, str], tuple[str, ...]]
    follow_document: Callable[[str], bytes]
    decode_fork: Callable[[bytes], tuple[int, int] | None]


MakeProcess: TypeAlias = Callable[[Mapping[str, Any], ProcessChanges, Numbers], dict[str, Any]]
"""Returns the process of an `exec`, from the container's own process, the changes, and the runtime's version."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about one runtime.

    Attributes:
        name: The name, as printed by `--version`.
        features: Missing features, and features added in a version: a command, `files`, or a command with an option. ()
            means present in all versions, None in no version. Other features are present in all versions.
        parts: Parts of a configuration that not all versions know, by path: `[]` is each item of an array, `=` a value.
        root: Name of the default root directory in /run, or in $XDG_RUNTIME_DIR.
        prefixes: Patterns of the text before the cause in an error message.
        wordings: For each class of error, patterns of its messages. A pattern has to match from the start of the cause,
            so that a name or output quoted further on can't choose the class.
        without_cgroup: Patterns of messages about missing files, for a container without a cgroup, or without a
            controller.
        without_terminal: Patterns of messages about a process with `terminal` that gets no terminal.
        unlogged: Patterns of messages printed while the log isn't open: before it was opened, or after it was closed.
        unlogged_codes: Exit codes with such messages.
        state_keys: Keys of the record: a value of a wrong type below one of these is in the record, and in no document
            of the caller.
        trace: Prefix of the lines of a Go trace with function names; empty if the runtime isn't written in Go.
        read_line: Parses a line of the log or of stderr that isn't JSON; returns None if the line is no record.
        criu_logs: Names of criu's log files.
        record: Path of the record, relative to the root directory, with `{id}` for the id.
        decode_record: Decodes the record; raises one of `UNDECODABLE`.
        fifo: The file beside the record that exists until the container is started.
        make_process: Returns the process of an `exec`, by the runtime's rules.
        document_always: Whether `exec` gets a process document wherever one can be made.
        numbers: Returns version numbers for comparing; None for the numbers at the start of the version.
        spell: Converts the words of a command to the runtime's spelling, from the command's name and the words.
        rootless: Returns the global option for "true", "false" or "auto".
        root_always: Whether `--root` is always given, since the default depends on more than the user.
        inside: Commands to find and kill processes without pids on the host; None if processes have pids.
        forks: Containers that can be copied while running: "any", or only with a "read-only root", because changed
            files aren't in a checkpoint; None for none.
        trial_options: Global options for a test container on any host.
        spoils_taken: Whether a `create` with an id in use deletes the record of the existing container.
        bare_states: Whether `state` and `list` leave out the root filesystem, the time of the creation, the owner and
            the annotations, which are in the record.
        user_needs_group: Whether an `exec` with a user and no group runs as root in some versions.
        leftovers: Files of a container that a killed runtime leaves without a record, as `record`.
        alone: The record and the lock of a container, as `record`, for a runtime that takes the beginning of an id for
            the id: a command gets a root directory with no other container. Empty if whole ids are compared.
        cgroups_at_root: Whether cgroups are by default at the root of each hierarchy, not below the runtime's own.
        dashed_ids: Whether an id may begin with a dash.
        leaves_cgroups: Whether a `create` or `run` that fails leaves the container's cgroups behind.
        copies: Prefix of the names of runtime copies that become a container's process; empty for none.
        leaves: Name of runtime processes left behind by a detached `run`, or at a container's end; empty for none.
        enters_own_cgroups: Whether `exec --cgroup` accepts hierarchies by name; in the other hierarchies the process
            enters the container's cgroup.
        keeps_checkpointed: Whether a container is stopped, and not deleted, after a `checkpoint`.
        refuses_images: Whether a `checkpoint` refuses a directory with images of an earlier one.
        copies_streams: Whether an attached `run` or `exec` copies stdout and stderr separately, without their order.
        refuses_hybrid: Whether the runtime refuses hosts with both cgroup v1 and v2 mounted.
    """

    name: str
    features: Mapping[str, Numbers | None]
    parts: Mapping[str, Part]
    root: str
    prefixes: tuple[str, ...]
    wordings: Wordings
    without_cgroup: tuple[str, ...] = ()
    without_terminal: tuple[str, ...] = ()
    unlogged: tuple[str, ...] = ()
    unlogged_codes: frozenset[int] = frozenset()
    state_keys: frozenset[str] = frozenset()
    trace: str = ""
    read_line: Callable[[str], LogRecord | None] | None = None
    criu_logs: frozenset[str] = frozenset()
    record: str
    decode_record: Callable[[RecordFile], Record]
    fifo: str = ""
    make_process: MakeProcess
    document_always: bool = False
    numbers: Callable[[str], Numbers] | None = None
    spell: Callable[[str, tuple[Argument, ...]], tuple[Argument, ...]] | None = None
    rootless: Callable[[str], tuple[str, ...]] = lambda value: ("--rootless", value)
    root_always: bool = False
    inside: Inside | None = None
    forks: Literal["any", "read-only root"] | None = None
    spoils_taken: bool = False
    bare_states: bool = False
    leftovers: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    cgroups_at_root: bool = False
    dashed_ids: bool = True
    leaves_cgroups: bool = False
    user_needs_group: bool = False
    trial_options: tuple[str, ...] = ()
    copies: bytes = b""
    leaves: bytes = b""
    enters_own_cgroups: bool = False
    keeps_checkpointed: bool = False
    refuses_images: bool = False
    copies_streams: bool = False
    refuses_hybrid: bool = False


def log_time(text: str | None) -> dt.datetime | None:
    """Parse a time in RFC 3339, with or without fractions of a second; None if invalid or without a zone."""
    try:
        time = dt.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else None
