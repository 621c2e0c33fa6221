"""What a container is right now: the answer of `state`, and of `list` once for each container."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated

import msgspec


class Status(enum.StrEnum):
    """The word for where a container stands in its life (runtime-spec runtime.md, "State").

    A `Status` is its word, so that it compares with and prints as a plain string. Runtimes may have words of
    their own: `Status("frozen")` is no error but a status with that word, whose `known` is false. It is equal to
    the string and to other statuses of the same word; all members below are unequal to it.

    Attributes:
        CREATING: It is being made; runc never reports it.
        CREATED: It is made and its program not started.
        RUNNING: Its program was started and has not ended.
        PAUSED: Its processes are frozen; a word of runc and crun, not of the runtime-spec.
        STOPPED: Its program has ended.
    """

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"

    @property
    def known(self) -> bool:
        """Return whether the word is one of those above."""
        return self.value in Status._value2member_map_

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        """Make a status of a word that only a newer runtime knows."""
        if not isinstance(value, str) or not value:
            return None
        status = str.__new__(cls, value)
        status._name_ = ascii(value.upper())[1:-1]  # reprs show it, and a word may hold anything
        status._value_ = value
        return status


class State(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of one container, as `runc state` and `runc list` print it (runc-state(8), runc-list(8)).

    A text that the runtime left out is `""`: no path, version or user name is empty, so it means "not told".

    Attributes:
        id: The container's id.
        status: Where it stands in its life.
        bundle: Absolute path of its bundle directory.
        pid: Process id of its init in the pid namespace of the runtime; 0 once stopped.
        oci_version: Version of the runtime-spec: the runtime's own, not the bundle's. crun's `list` leaves it
            out.
        rootfs: Path of its root filesystem: absolute by runc, as in config.json by crun. crun's `list` leaves
            it out.
        created: When it was created, with time zone (UTC by both runtimes); None if the runtime doesn't tell.
            runc prints up to nine digits of a second. A datetime holds six: the time is rounded to the
            nearest microsecond.
        owner: Name of the user who owns it. runc's `state` leaves it empty, its `list` and crun fill it.
        annotations: The annotations of its config.json. crun's `list` leaves them out.
        systemd_scope: Name of its systemd scope; crun alone has it.
    """

    id: str
    status: Status
    bundle: str
    pid: int = 0
    oci_version: str = ""
    rootfs: str = ""
    created: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None
    owner: str = ""
    annotations: dict[str, str] = {}
    systemd_scope: str = msgspec.field(default="", name="systemd-scope")
