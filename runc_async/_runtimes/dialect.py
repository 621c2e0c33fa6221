"""The shape of what is known of one runtime. Each has a module of its own; no other asks for a runtime's name."""

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
"""What msgspec raises for a document: the last two for bytes in a string that are no UTF-8, and for deep nesting."""


Wordings: TypeAlias = Mapping[type[CommandError], tuple[str, ...]]
"""For each class of error the patterns of its messages."""


class Part(NamedTuple):
    """A part of a configuration that came late, or is another platform's.

    Attributes:
        since: The numbers of the first version that knows it; none of them: all do; None: no version does.
        refused: Whether an older version fails because of it.
        until: The numbers of the first version that ignores it again.
    """

    since: Numbers | None = ()
    refused: bool = False
    until: Numbers | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The record that a runtime keeps of a container; two containers of one id never have equal records.

    Attributes:
        id: The container's id.
        runtime: The name of the runtime that has written it.
        process: Its first process, with start time 0 if the runtime hasn't recorded that.
        created: When it was created.
        bundle: Absolute path of its bundle.
        config: Path of the config.json from which `exec` takes the container's own process.
        rootfs: Path of its root filesystem.
        oci_version: Version of the runtime-spec; empty if it isn't recorded.
        owner: Name of the user who owns it.
        annotations: Those of its config.json, if they are recorded.
        systemd_scope: Name of its systemd scope, if it is recorded.
        cgroups: The directory of its cgroup by controller; with cgroup v2 one, under the empty name.
        helpers: Processes of the runtime's own that live as long as the container.
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
        """Return the container's state, as the runtime's `list` prints it."""
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

    @property
    def unified(self) -> str | None:
        """The directory of its cgroup with cgroup v2; None with v1, where runc records the hybrid's hierarchy too."""
        return self.cgroups.get("") if len(self.cgroups) == 1 else None


class RecordFile(NamedTuple):
    """A record as it was found.

    Attributes:
        root: The runtime's root directory.
        container_id: The container's id.
        owner: The user who owns the file.
        data: Its content.
    """

    root: str
    container_id: str
    owner: int
    data: bytes


class ProcessChanges(NamedTuple):
    """The options of `exec` that change the container's own process, and in which runtimes differ.

    Attributes:
        uid: The user; None: the container's own.
        gid: Its group, if one is given.
        additional_gids: More groups.
        caps: Capabilities to add.
    """

    uid: int | None = None
    gid: int | None = None
    additional_gids: Sequence[int] = ()
    caps: Sequence[str] = ()


class InsideProcess(NamedTuple):
    """A process of a sandbox, by the numbers of the sandbox's kernel.

    Attributes:
        pid: Its process id.
        parent: That of its parent, 0 for one that was started from outside.
        session: Its session.
    """

    pid: int
    parent: int
    session: int


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """How processes are found and killed that have no numbers on the host.

    Attributes:
        kill: Gives the words of a command that sends a signal to a process: of the id, the pid and the signal.
        processes: Gives the words of a command that lists the processes of a container, without zombies.
        decode_processes: Decodes what that prints.
        follow: Gives the words of a command that makes a container report each fork: of the id, and of the path of a
            document, which is `follow_document` of the path of a listening socket (SOCK_SEQPACKET).
        follow_document: Makes that document.
        decode_fork: Decodes a message that comes through the socket: the process and its new child, or the process that
            has ended and 0; None for any other message.
    """

    kill: Callable[[str, int, int], tuple[str, ...]]
    processes: Callable[[str], tuple[str, ...]]
    decode_processes: Callable[[bytes], list[InsideProcess]]
    follow: Callable[[str, str], tuple[str, ...]]
    follow_document: Callable[[str], bytes]
    decode_fork: Callable[[bytes], tuple[int, int] | None]


MakeProcess: TypeAlias = Callable[[Mapping[str, Any], ProcessChanges, Numbers], dict[str, Any]]
"""Makes the process of an `exec` of the container's own one, the changes, and the numbers of the runtime's version."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one runtime.

    Attributes:
        name: Its name, as `--version` prints it.
        features: What it lacks, or has since a version: a command, `files`, or a command with an option. () for all
            versions, None for none. It has in all versions what isn't named here.
        parts: Parts of a configuration that it doesn't know in all versions, by path: `[]` is each item of an array,
            `=` a value.
        root: Name of its default root directory in /run, or in $XDG_RUNTIME_DIR.
        prefixes: Patterns of what it puts in front of the cause of a failure.
        wordings: For each class of error the patterns of its messages. A pattern has to match from the start of the
            cause, so that a name or an output which is quoted further on can't choose the class.
        without_cgroup: Patterns of messages that name files, where a container has no cgroup, or none with the
            controller.
        unlogged: Patterns of what it prints when it fails before it has opened its log, or after it has closed that.
        unlogged_codes: What it exits with then.
        state_keys: Keys of its record: a value of a wrong type below one of them is in the record, and in no document
            of the caller's.
        trace: What the lines of a Go trace begin with that name its functions; empty if it isn't written in Go.
        read_line: Reads a line of its log, or of stderr, that isn't JSON; returns None for one that is no record.
        criu_logs: How it lets criu call its log.
        record: Where its record of a container is, below the root directory, with the id for `{id}`.
        decode_record: Decodes its record; raises one of `UNDECODABLE`.
        fifo: The file beside the record that is there until the container is started.
        make_process: Makes the process of an `exec`, by its own rules.
        document_always: Arguments of an `exec` are sent as a process document wherever that can be made.
        numbers: Returns the numbers of its version, for comparing; None: those that the version begins with.
        spell: Spells the words of a command as it takes them: of the command's name and the words.
        rootless: Writes the global option for "true", "false" or "auto".
        root_always: It is always given a root directory, since its own default depends on more than the user.
        inside: How processes of a container are found and killed that have no numbers on the host; None: they have.
        forks: Of which containers copies can be made while they run: of "any", or of those with a "read-only root", as
            the files that others have changed aren't in a checkpoint; None for none.
        trial_options: Global options with which it runs a container on any host that can.
        spoils_taken: A `create` of an id that is taken deletes the record of the container that has it.
        copies: What the names of the copies of itself begin with that become a container's process; empty for none.
        leaves: The name of processes of its own that a detached `run`, or a container's end, leaves behind; empty for
            none.
        enters_own_cgroups: Its `exec --cgroup` takes the names of hierarchies; in all others the process enters the
            container's cgroup.
        refuses_hybrid: It doesn't run where cgroup v1 and v2 are both mounted.
    """

    name: str
    features: Mapping[str, Numbers | None]
    parts: Mapping[str, Part]
    root: str
    prefixes: tuple[str, ...]
    wordings: Wordings
    without_cgroup: tuple[str, ...] = ()
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
    trial_options: tuple[str, ...] = ()
    copies: bytes = b""
    leaves: bytes = b""
    enters_own_cgroups: bool = False
    refuses_hybrid: bool = False


def log_time(text: str | None) -> dt.datetime | None:
    """Read a time in RFC 3339, with or without fractions of a second; None if it isn't one with a zone."""
    try:
        time = dt.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else None
