"""Messages between a service and its keeper: values, encoded as MessagePack by msgspec.

Each connection has one request and one answer; the connection of an `Attach` continues until the streams go back.
Descriptors travel beside a message, which names them in order.

An older keeper refuses unknown messages and fields, so fields with default values aren't sent. A client ignores unknown
fields of an answer.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from runc_async import __version__
from runc_async.errors import UnsupportedError
from runc_async.exitstatus import ExitStatus

from .errors import KeeperError

PROTOCOL = 1
"""The protocol version: changes only if an older client or keeper would misunderstand a newer one."""

MESSAGE_LIMIT = 1 << 17
"""Maximal bytes of a message. The kernel keeps each message whole, and buffers it in the sender's 208 KiB."""

DESCRIPTOR_LIMIT = 250
"""Maximal descriptors of a message; the kernel's limit is 253 (SCM_MAX_FD)."""

PAGE = 250
"""Containers in one `Listing`: with the longest ids they fill three quarters of a message."""

M = TypeVar("M")

ContainerID: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=254)]
Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=DESCRIPTOR_LIMIT)]
StreamName: TypeAlias = Literal["stdin", "stdout", "stderr", "pty"]
Target: TypeAlias = bool | Index | bytes | None
"""A stream: whether a pipe; the index of a descriptor; an absolute path, or `stdout`; None for `/dev/null`."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a request. Text of the caller is bytes, since a path may not be decodable."""


class Client(Value, frozen=True):
    """The options of a `Runc`, from which the keeper, and a service on attaching, create an equal client."""

    command: bytes
    root: bytes | None = None
    debug: bool = False
    log: bytes | None = None
    log_format: Literal["text", "json"] | None = None
    systemd_cgroup: bool = False
    rootless: bool | Literal["auto"] | None = None
    extra_args: tuple[bytes, ...] = ()
    env: dict[bytes, bytes] = {}
    cwd: bytes | None = None
    timeout: float | None = None
    pdeathsig: int | None = None
    process_group: int | None = None
    restore_signals: bool = True
    max_concurrency: int | None = None


class Streams(Value, frozen=True):
    """The streams of a new container: the fields of the `PipedIO`, `RedirectIO` or `PtyIO` named by `kind`."""

    kind: Literal["null", "piped", "redirect", "pty"] = "null"
    stdin: Target = None
    stdout: Target = None
    stderr: Target = None
    uid: int | None = None
    gid: int | None = None
    rows: int = 24
    cols: int = 80
    pipe_size: int | None = None


class Options(Value, frozen=True):
    """The options of `create`; `preserve_fds` has indices of descriptors beside the message."""

    pid_file: bytes | None = None
    pidfd_socket: bytes | None = None
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: tuple[Index, ...] = ()
    extra_args: tuple[bytes, ...] = ()
    timeout: float | msgspec.UnsetType | None = msgspec.UNSET


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """A message in either direction."""


class Request(Message, frozen=True, forbid_unknown_fields=True):
    """A message from a client."""


class Hello(Request, frozen=True):
    """Requests the keeper's identity."""

    protocol: int = PROTOCOL


class Start(Request, frozen=True):
    """Creates a container and starts it. Closing the connection before the answer undoes the start."""

    id: ContainerID
    bundle: bytes
    client: Client
    streams: Streams = Streams()
    options: Options = Options()


class Attach(Request, frozen=True):
    """Requests a container, with its streams unless `streams` is false."""

    id: ContainerID
    streams: bool = True


class Close(Request, frozen=True):
    """Closes the keeper's end of a stream, in the connection of an `Attach`. No answer."""

    stream: StreamName


class Detach(Request, frozen=True):
    """Gives the streams back, with a memory file for each stream whose bytes were read and not consumed."""

    ahead: tuple[StreamName, ...] = ()


class List(Request, frozen=True):
    """Requests the containers with ids greater than `after`, sorted by id."""

    after: str = ""


class Wait(Request, frozen=True):
    """Requests the exit status; answered after the end of the container's first process."""

    id: ContainerID


class Delete(Request, frozen=True):
    """Deletes a container, including the keeper's record and streams."""

    id: ContainerID
    force: bool = False


class Answer(Message, frozen=True):
    """A message from the keeper."""


class Welcome(Answer, frozen=True):
    """The answer to `Hello`: the keeper's protocol, release and pid, and the types of known requests."""

    protocol: int
    release: str
    pid: int
    requests: tuple[str, ...]


class Done(Answer, frozen=True):
    """The answer to `Start`, `Detach` and `Delete`."""


class Attached(Answer, frozen=True):
    """The answer to `Attach`.

    `descriptors` names the descriptors beside the message: `pidfd`, the streams, and `stdout.ahead` and the like for
    memory files with bytes that the last service had read and not consumed.
    """

    id: str
    pid: int
    client: Client
    descriptors: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True):
    """A container of a keeper: an item of `Keeper.list`.

    Attributes:
        id: The container's id.
        pid: The process id of the first process, also after its end.
        status: The exit status; None while the process runs. An unknown status has neither code nor signal.
        attached: Whether a connection has the streams.
    """

    id: str
    pid: int
    status: ExitStatus | None = None
    attached: bool = False


class Listing(Answer, frozen=True):
    """The answer to `List`: containers, and whether more follow."""

    containers: tuple[Kept, ...] = ()
    more: bool = False


class Ended(Answer, frozen=True):
    """The answer to `Wait`."""

    status: ExitStatus


class Failed(Answer, frozen=True):
    """The answer to a failed request: the name of an exception, and its plain data."""

    error: str
    text: str = ""
    container_id: str | None = None
    args: tuple[str, ...] = ()
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    timeout: float = 0.0
    errno: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)] | None = None
    filename: str | None = None


AnyRequest: TypeAlias = Hello | Start | Attach | Close | Detach | List | Wait | Delete
AnyAnswer: TypeAlias = Welcome | Done | Attached | Listing | Ended | Failed

REQUESTS = tuple(str(kind.__struct_config__.tag) for kind in (Hello, Start, Attach, Close, Detach, List, Wait, Delete))

# msgspec lets errors of Python pass, such as RecursionError for deep nesting. Messages can come from another release,
# so none of them is trusted to be well formed.
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
# msgspec has no attribute for the kind of a violation, only these texts. Names are bounded, since they are printed.
_NEWER = re.compile(r"(?:Invalid value '([^']{1,80})' - at `\$\.type`|Object contains unknown field `([^`]{1,80})`)")

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_answers: msgspec.msgpack.Decoder[AnyAnswer] = msgspec.msgpack.Decoder(AnyAnswer)


class Record(Value, frozen=True):
    """The keeper's file about a container, from which a restarted keeper finds the container again.

    Attributes:
        id: The container's id.
        client: The client's options.
        begun: The time of the request.
        pid: The process id of the first process; 0 before the start.
        start_time: The start time of the process, unlike that of a later process with the same pid: see
            proc_pid_stat(5).
        streams: The streams held by the keeper.
        status: The exit status; None if unknown so far.
    """

    id: ContainerID
    client: Client
    begun: dt.datetime
    pid: int = 0
    start_time: int = 0
    streams: tuple[StreamName, ...] = ()
    status: ExitStatus | None = None


def encode(message: msgspec.Struct) -> bytes:
    """Encode a message.

    Raises:
        ValueError: If the message is too long.
    """
    try:
        data = _encoder.encode(message)
    except UnicodeEncodeError as exc:
        raise ValueError(f"no text for the keeper: {exc.object!r}") from None
    if len(data) > MESSAGE_LIMIT:
        raise ValueError(f"a request to the keeper has at most {MESSAGE_LIMIT} bytes, and this one {len(data)}")
    return data


def decode_request(data: bytes) -> AnyRequest:
    """Decode a message from a client.

    Raises:
        UnsupportedError: If the request or a field is unknown, so that the client is newer.
        KeeperError: If the message isn't a request.
    """
    try:
        return _requests.decode(data)
    except msgspec.ValidationError as exc:
        # A separate error: the caller can do without the option, or restart the keeper with a newer release.
        if match := _NEWER.match(str(exc)):
            what = f"request {match[1]}" if match[1] else f"field {match[2]} in a request"
            raise UnsupportedError(what, f"the keeper (runc_async {__version__})") from None
        raise _nonsense(exc) from None
    except _UNDECODABLE as exc:
        raise _nonsense(exc) from None


def decode_answer(data: bytes) -> AnyAnswer:
    """Decode a message from a keeper.

    Raises:
        KeeperError: If the message isn't a known answer.
    """
    return _decode(_answers, data)


def decode_record(data: bytes) -> Record:
    """Decode the record of a container.

    Raises:
        KeeperError: If the data isn't a record.
    """
    return _decode(msgspec.msgpack.Decoder(Record), data)


def _decode(decoder: msgspec.msgpack.Decoder[M], data: bytes) -> M:
    """Decode a message, with one class for all errors."""
    try:
        return decoder.decode(data)
    except _UNDECODABLE as exc:
        raise _nonsense(exc) from None


def _nonsense(exc: Exception) -> KeeperError:
    """Return the error for an undecodable message."""
    return KeeperError(f"a message that can't be understood: {exc}")
