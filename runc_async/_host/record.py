"""The record that a runtime keeps of each container in its root directory: runc's `ID/state.json`, crun's `ID/status`.

Reading one takes some ten microseconds, and `runc state` some milliseconds and a process.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import pwd
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from runc_async.state import State, Status

from .._answers.decode import UNDECODABLE
from .._linux.procfs import ProcessIdentity

NAMES: Final = frozenset({"state.json", "status"})
"""How the files are named. A container exists, for its runtime too, as long as it has one."""

FIFO: Final = "exec.fifo"
"""The file beside it that is there until the container is started, in runc and in crun."""

_CGROUPS: Final = "/sys/fs/cgroup"
_CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "freezer")
_Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime has recorded of a container; two containers of one id never have equal records.

    Attributes:
        id: The container's id.
        process: Its first process.
        created: When it was created.
        bundle: Absolute path of its bundle.
        rootfs: Path of its root filesystem.
        oci_version: Version of the runtime-spec; empty in crun's.
        owner: Name of the user who owns it.
        annotations: Those of its config.json; empty in crun's.
        systemd_scope: Name of its systemd scope; crun's alone.
        cgroups: The directory of its cgroup by controller; with cgroup v2 one, under the empty name.
    """

    id: str
    process: ProcessIdentity
    created: dt.datetime
    bundle: str
    rootfs: str
    oci_version: str = ""
    owner: str = ""
    annotations: Mapping[str, str] = {}
    systemd_scope: str = ""
    cgroups: Mapping[str, str] = {}

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


class _RuncConfig(msgspec.Struct):
    """What the configuration in runc's record says of the container."""

    rootfs: str = ""
    version: str = ""
    labels: list[str] | None = None


class _RuncRecord(msgspec.Struct):
    """runc's record; the same from runc 1.0 on."""

    init_process_pid: int
    init_process_start: int
    created: _Moment
    config: _RuncConfig
    cgroup_paths: dict[str, str] | None = None


class _CrunRecord(msgspec.Struct, rename="kebab"):
    """crun's record."""

    pid: int
    created: _Moment
    process_start_time: int = 0
    bundle: str = ""
    rootfs: str = ""
    owner: str = ""
    scope: str = ""
    cgroup_path: str | None = None


_RUNC = msgspec.json.Decoder(_RuncRecord)
_CRUN = msgspec.json.Decoder(_CrunRecord)


def read_record(root: str, container_id: str) -> Record | None:
    """Read the record of a container; None if there is none, or one that can't be understood.

    Raises:
        PermissionError: If it may not be read.
        OSError: If no descriptor is left.
    """
    directory = os.path.join(root, container_id)
    for name, convert in (("state.json", _from_runc), ("status", _from_crun)):
        try:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                owner, data = os.fstat(file.fileno()).st_uid, file.read()
            return convert(container_id, owner, data)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except UNDECODABLE:
            return None
    return None


def _from_runc(container_id: str, owner: int, data: bytes) -> Record:
    """Decode runc's record."""
    found = _RUNC.decode(data)
    labels = dict(label.split("=", 1) for label in found.config.labels or () if "=" in label)
    return Record(
        id=container_id,
        process=ProcessIdentity(found.init_process_pid, found.init_process_start),
        created=found.created,
        bundle=labels.pop("bundle", ""),
        rootfs=found.config.rootfs,
        oci_version=found.config.version,
        owner=_user(owner),
        annotations=labels,
        cgroups={name: path for name, path in (found.cgroup_paths or {}).items() if path},
    )


def _from_crun(container_id: str, _owner: int, data: bytes) -> Record:
    """Decode crun's record, which has the path of the cgroup within its hierarchies."""
    found = _CRUN.decode(data)
    cgroups: dict[str, str] = {}
    if path := (found.cgroup_path or "").strip("/"):
        if os.path.exists(os.path.join(_CGROUPS, "cgroup.controllers")):
            cgroups[""] = os.path.join(_CGROUPS, path)
        else:
            cgroups = {name: os.path.join(_CGROUPS, name, path) for name in _CONTROLLERS}
    return Record(
        id=container_id,
        process=ProcessIdentity(found.pid, found.process_start_time),
        created=found.created,
        bundle=found.bundle,
        rootfs=found.rootfs,
        owner=found.owner,
        systemd_scope=found.scope,
        cgroups=cgroups,
    )


@functools.lru_cache
def _user(uid: int) -> str:
    """Return the name of a user; its number as runc prints it where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
