"""The messages between a service and its keeper: values, encoded as MessagePack by msgspec.

Each connection carries one request and its answer; the connection of an `Attach` carries on until the streams go back.
Descriptors travel beside a message, and the message names them in their order.

An older keeper refuses a message or a field that it doesn't know, so a field that has its default isn't sent. A client
ignores the fields of an answer that it doesn't know.
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
"""The version of the protocol: it changes only if an older client or keeper would misunderstand the newer one."""

MESSAGE_LIMIT = 1 << 17
"""Bytes of a message. The kernel keeps each message whole, and takes it from the sender's buffer of 208 KiB."""

DESCRIPTOR_LIMIT = 250
"""Descriptors beside a message; the kernel takes 253 (SCM_MAX_FD)."""

PAGE = 250
"""Containers in one `Listing`: with the longest ids they fill three quarters of a message."""

M = TypeVar("M")

ContainerID: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=254)]
Index: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=DESCRIPTOR_LIMIT)]
StreamName: TypeAlias = Literal["stdin", "stdout", "stderr", "pty"]
Target: TypeAlias = bool | Index | bytes | None
"""A stream: a pipe or not; the index of a descriptor beside the message; an absolute path, or `stdout`; `/dev/null`."""


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A part of a request. Text of the caller's is bytes, since a path may be no text."""


class Client(Value, frozen=True):
    """The options of a `Runc`, by which the keeper makes its own and a service makes another one when it attaches."""

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
    """The streams of a new container: the fields of the `PipedIO`, `RedirectIO` or `PtyIO` that `kind` names."""

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
    """The options of `create`; `preserve_fds` are indices of descriptors beside the message."""

    pid_file: bytes | None = None
    pidfd_socket: bytes | None = None
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: tuple[Index, ...] = ()
    extra_args: tuple[bytes, ...] = ()
    timeout: float | msgspec.UnsetType | None = msgspec.UNSET


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=str.lower):
    """What one side sends to the other."""


class Request(Message, frozen=True, forbid_unknown_fields=True):
    """What a client sends."""


class Hello(Request, frozen=True):
    """Asks the keeper who it is."""

    protocol: int = PROTOCOL


class Start(Request, frozen=True):
    """Creates a container and starts it. Closing the connection before the answer undoes that."""

    id: ContainerID
    bundle: bytes
    client: Client
    streams: Streams = Streams()
    options: Options = Options()


class Attach(Request, frozen=True):
    """Asks for a container, with its streams unless `streams` is false."""

    id: ContainerID
    streams: bool = True


class Close(Request, frozen=True):
    """Closes the keeper's own end of a stream, in the connection of an `Attach`. There is no answer."""

    stream: StreamName


class Detach(Request, frozen=True):
    """Gives the streams back; beside it a memory file for each stream of which bytes were read and not consumed."""

    ahead: tuple[StreamName, ...] = ()


class List(Request, frozen=True):
    """Asks for the containers whose id is greater than `after`, in the order of their ids."""

    after: str = ""


class Wait(Request, frozen=True):
    """Asks for the exit status; the answer comes when the container's first process has ended."""

    id: ContainerID


class Delete(Request, frozen=True):
    """Deletes a container and all that the keeper has of it."""

    id: ContainerID
    force: bool = False


class Answer(Message, frozen=True):
    """What the keeper sends."""


class Welcome(Answer, frozen=True):
    """The answer to `Hello`: the keeper's protocol, release and pid, and the types of the requests that it knows."""

    protocol: int
    release: str
    pid: int
    requests: tuple[str, ...]


class Done(Answer, frozen=True):
    """The answer to `Start`, `Detach` and `Delete`."""


class Attached(Answer, frozen=True):
    """The answer to `Attach`.

    Beside it are the descriptors that `descriptors` names: `pidfd`, the streams, and `stdout.ahead` and the like for
    the memory files with bytes that the last service had read and not consumed.
    """

    id: str
    pid: int
    client: Client
    descriptors: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True):
    """One container of a keeper's: an item of `Keeper.list`.

    Attributes:
        id: The container's id.
        pid: The process id that its first process has, or had.
        status: How that process ended; None while it runs. A status that can't be known has neither code nor signal.
        attached: Whether a connection has the streams.
    """

    id: str
    pid: int
    status: ExitStatus | None = None
    attached: bool = False


class Listing(Answer, frozen=True):
    """The answer to `List`: containers, and whether there are more behind the last one."""

    containers: tuple[Kept, ...] = ()
    more: bool = False


class Ended(Answer, frozen=True):
    """The answer to `Wait`."""

    status: ExitStatus


class Failed(Answer, frozen=True):
    """The answer to a request that failed: the name of an exception, and its plain data."""

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

_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
_NEWER = re.compile(r"(?:Invalid value '([^']{1,80})' - at `\$\.type`|Object contains unknown field `([^`]{1,80})`)")

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_answers: msgspec.msgpack.Decoder[AnyAnswer] = msgspec.msgpack.Decoder(AnyAnswer)


class Record(Value, frozen=True):
    """What the keeper writes about a container into a file, to find it again when it is started anew.

    Attributes:
        id: The container's id.
        client: What made it.
        begun: When it was asked for.
        pid: The process id of its first process; 0 until it was started.
        start_time: The start time of that process, which tells it from a later one: see proc_pid_stat(5).
        streams: The streams that the keeper holds.
        status: How the process ended; None as far as is known.
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
        ValueError: If it is longer than a message can be.
    """
    try:
        data = _encoder.encode(message)
    except UnicodeEncodeError as exc:
        raise ValueError(f"no text for the keeper: {exc.object!r}") from None
    if len(data) > MESSAGE_LIMIT:
        raise ValueError(f"a request to the keeper has at most {MESSAGE_LIMIT} bytes, and this one {len(data)}")
    return data


def decode_request(data: bytes) -> AnyRequest:
    """Decode what a client has sent.

    Raises:
        UnsupportedError: If a request, or a field of one, isn't known here: a newer client has sent it.
        KeeperError: If it is no request at all.
    """
    try:
        return _requests.decode(data)
    except msgspec.ValidationError as exc:
        if match := _NEWER.match(str(exc)):
            what = f"request {match[1]}" if match[1] else f"field {match[2]} in a request"
            raise UnsupportedError(what, f"the keeper (runc_async {__version__})") from None
        raise _nonsense(exc) from None
    except _UNDECODABLE as exc:
        raise _nonsense(exc) from None


def decode_answer(data: bytes) -> AnyAnswer:
    """Decode what a keeper has sent.

    Raises:
        KeeperError: If it is no answer that is known here.
    """
    return _decode(_answers, data)


def decode_record(data: bytes) -> Record:
    """Decode the record of a container.

    Raises:
        KeeperError: If it is none.
    """
    return _decode(msgspec.msgpack.Decoder(Record), data)


def _decode(decoder: msgspec.msgpack.Decoder[M], data: bytes) -> M:
    """Decode a message; all that can be wrong with it is one kind of error."""
    try:
        return decoder.decode(data)
    except _UNDECODABLE as exc:
        raise _nonsense(exc) from None


def _nonsense(exc: Exception) -> KeeperError:
    """Make the error for what can't be understood."""
    return KeeperError(f"a message that can't be understood: {exc}")
