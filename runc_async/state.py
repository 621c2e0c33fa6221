"""`State`: the state of a container, from `state` and `list`."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated

import msgspec


class Status(enum.StrEnum):
    """The status of a container (runtime-spec runtime.md, "State").

    A `Status` is a string, and compares and prints as a string. Runtimes may have other words: `Status("frozen")` is no
    error but a status with this word and `known` false. It is equal to the string and to other statuses with the same
    word, and unequal to all members below.

    Attributes:
        CREATING: Being created; runc never reports this status.
        CREATED: Created, with the program not started.
        RUNNING: The program was started and has not ended.
        PAUSED: The processes are frozen; a word of runc and crun, not of the runtime-spec.
        STOPPED: The program has ended.
    """

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"

    @property
    def known(self) -> bool:
        """Return whether the word is one of the members."""
        return self.value in Status._value2member_map_

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        """Create a status from a word of a newer runtime."""
        if not isinstance(value, str) or not value:
            return None
        # Not added to the members: `Status("frozen")` from two calls are equal strings, but no new member appears.
        status = str.__new__(cls, value)
        status._name_ = ascii(value.upper())[1:-1]  # reprs show it, and a word may hold anything
        status._value_ = value
        return status


class State(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of one container, as printed by `runc state` and `runc list` (runc-state(8), runc-list(8)).

    A text left out by the runtime is `""`: paths, versions and user names are never empty, so it means "unknown".

    Attributes:
        id: The container's id.
        status: The status.
        bundle: Absolute path of the bundle's directory.
        pid: Process id of the first process in the runtime's pid namespace; 0 once stopped.
        oci_version: Version of the runtime-spec: the runtime's own, not the bundle's. Missing in crun's `list`.
        rootfs: Path of the root filesystem: absolute with runc, as in config.json with crun. Missing in crun's `list`.
        created: Time of the creation, with time zone (UTC in both runtimes); None if unknown. runc prints up to nine
            digits of a second. A datetime holds six: the time is rounded to the nearest microsecond.
        owner: Name of the owner. Empty in runc's `state`; set in runc's `list` and by crun.
        annotations: Annotations of the config.json. Missing in crun's `list`.
        systemd_scope: Name of the systemd scope; only from crun.
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
