"""crun, as it was tried in 1.8.1, 1.21 and 1.28: quoted names stand in backticks, causes of the C library behind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .. import errors
from .._linux.procfs import ProcessIdentity
from .dialect import Dialect, Moment, Numbers, Part, ProcessChanges, Record, RecordFile, Wordings

# What only 1.8.1 lacks counts as there from 1.8.2 on; a version that still lacks it says so itself.
AFTER_DEBIAN_12: Final = (1, 8, 2)

FEATURES: Final[Mapping[str, Numbers | None]] = {
    "features": AFTER_DEBIAN_12,
    "events": None,
    "checkpoint": AFTER_DEBIAN_12,
    "restore": AFTER_DEBIAN_12,
    "create --pidfd-socket": None,
    "run --pidfd-socket": None,
    "run --keep": AFTER_DEBIAN_12,
    "exec --pidfd-socket": None,
    "exec --ignore-paused": None,
    "exec --additional-gids": None,
    "update --l3-cache-schema": AFTER_DEBIAN_12,
    "update --mem-bw-schema": AFTER_DEBIAN_12,
    "checkpoint --lazy-pages": None,
    "checkpoint --status-fd": None,
    "checkpoint --page-server": None,
    "checkpoint --empty-ns": None,
    "checkpoint --auto-dedup": None,
    "checkpoint --tcp-skip-in-flight": None,
    "checkpoint --link-remap": None,
    "restore --lazy-pages": None,
    "restore --empty-ns": None,
    "restore --auto-dedup": None,
    "restore --no-pivot": None,
    "restore --no-subreaper": None,
    "restore --lsm-mount-context": AFTER_DEBIAN_12,
}

# Only what belongs to other platforms is known to be ignored.
PARTS: Final[Mapping[str, Part]] = {
    "process.commandLine": Part(None),
    "process.user.username": Part(None),
    "freebsd": Part(None),
    "solaris": Part(None),
    "windows": Part(None),
    "zos": Part(None),
}

WORDINGS: Final[Wordings] = {
    errors.HookError: (r"error executing hook `",),
    errors.ContainerNotFound: (
        r"container `[^`]*` does not exist",
        r"(?:error opening file|open) `[^`]*/status`: No such file",
        r"cannot open directory `[^`]*`: No such file",
    ),
    errors.ContainerExists: (r"container `[^`]*` already exists$",),
    errors.InvalidContainerID: (
        r"empty container ID$",
        r"invalid character `[^`]*` in the container ID",
        r"(?:access|open|cannot open directory) `[^`]*`: File name too long$",
    ),
    errors.ContainerPaused: (r"the container `[^`]*` is paused$",),
    errors.ContainerNotRunning: (
        r"(?:the )?container `[^`]*` is not running",
        r"process not running: ",
        r"(?:open pidfd|kill container): No such process$",
    ),
    errors.ContainerRunning: (
        r"the container `[^`]*` is not in `created` or `stopped` state$",
        r"cannot open `[^`]*/exec\.fifo`: No such file",
    ),
    errors.InvalidSignal: (
        r"unknown signal `",
        r"send signal to pidfd: Invalid argument$",
    ),
    errors.CorruptState: (r"`pid` missing in `[^`]*/status`$",),
    errors.ExecutableNotFound: (r"executable file `[^`]*` not found",),
    errors.ExecutableDenied: (r"the path `[^`]*` (?:exists but it is not executable|is not a regular file)",),
    errors.ExecutableError: (r"exec (?:container process )?`",),
    errors.TerminalError: (
        r"use --console-socket with ",
        r"tcgetattr: ",
        r"(?:open console socket: )?connect socket to `",
    ),
    errors.MemoryLimitTooLow: (
        r"(?:OOM: )?the memory limit could be too low: (?!open `)",
        r"write to `memory\.(?:limit_in_bytes|max)`: Device or resource busy$",
    ),
    errors.ResourceError: (
        r"the memory limit could be too low: open `",
        r"cannot set (?:swap limit|kernel) ",
        r"realtime \S+ not supported on cgroupv2",
        r"controller `[^`]*` is not available",
        r"creating cgroup directory `",
        r"(?:write to|open) `(?:cpu|cpuset|memory|blkio|io|pids|hugetlb|devices)\.",
        r"open `/sys/fs/cgroup/",
        r"statfs `/sys/fs/resctrl`",
    ),
    errors.BundleNotFound: (
        r"chdir `[^`]*` failed: No such file",
        r"load `config\.json`: cannot read the file",
        r"error loading config\.json.*No such file",
        r"readlink ``: No such file",
    ),
    errors.InvalidSpec: (
        r"the sysctl `",
        r"load `config\.json`: ",
        r"error loading config\.json",
        r"invalid config file",
        r"cannot parse process file: ",
        r"cannot find `` in \$PATH",
        r"chdir to `",
        r"invalid (?:namespace type|rlimit)\b",
        r"seccomp get action ",
        r"open(?:at)? `/proc/\d+/ns/",
        r"(?:openat|write) `/proc/self/timens_offsets`: ",
        r"write to `/proc/self/attr/",
        r"mount(?:_setattr)? `",
        r"cannot stat `",
    ),
    errors.UnsupportedUsage: (
        r"unknown command (?P<what>\S+)$",
        r"\S+: unrecognized option '(?P<what>[^']*)'$",
        r"\S+: invalid option -- '(?P<what>[^']*)'$",
    ),
    errors.InvalidUsage: (
        r"\S+: `\S+` requires a ",
        r"unknown log format type `",
        r"\S+: invalid format `",
        r"please specify a ID for the container$",
        r"invalid UID specified$",
    ),
}

# Of the bundle's directory, before the log is opened; and of the command line.
UNLOGGED: Final = (
    r"chdir `[^`\n]*` failed: [^\n]+",
    r"unknown command \S+",
    r"\S+: (?:unrecognized option|invalid option --) '[^'\n]*'\nTry [^\n]+",
)

_CGROUPS: Final = "/sys/fs/cgroup"
_CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "freezer")


class _Record(msgspec.Struct, rename="kebab"):
    """crun's record, which has the path of the cgroup within its hierarchies."""

    pid: int = 0
    created: Moment | None = None
    process_start_time: int = 0
    bundle: str = ""
    rootfs: str = ""
    owner: str = ""
    scope: str = ""
    cgroup_path: str | None = None


_RECORD = msgspec.json.Decoder(_Record)


def decode_record(file: RecordFile) -> Record:
    """Decode crun's record."""
    found = _RECORD.decode(file.data)
    return Record(
        id=file.container_id,
        runtime=CRUN.name,
        process=ProcessIdentity(found.pid, found.process_start_time),
        created=found.created,
        bundle=found.bundle,
        config=os.path.join(file.root, file.container_id, "config.json"),  # a copy that it keeps
        rootfs=found.rootfs,
        owner=found.owner,
        systemd_scope=found.scope,
        cgroups=_cgroups((found.cgroup_path or "").strip("/")),
    )


def _cgroups(path: str) -> dict[str, str]:
    """Return the directories of a cgroup by controller."""
    if not path:
        return {}
    if os.path.exists(os.path.join(_CGROUPS, "cgroup.controllers")):
        return {"": os.path.join(_CGROUPS, path)}
    return {name: os.path.join(_CGROUPS, name, path) for name in _CONTROLLERS}


def make_process(own: Mapping[str, Any], changes: ProcessChanges, _version: Numbers) -> dict[str, Any]:
    """Take nothing of the container's process but what crun takes for any document: its user, labels, capabilities.

    Its working directory and no_new_privs aren't taken over, nor its limits: `crun_command_exec` of crun's exec.c.
    """
    process: dict[str, Any] = {"cwd": "/"}
    user = own.get("user")
    if changes.uid is not None:
        process["user"] = {"uid": changes.uid, "gid": changes.gid or 0}
    elif user is not None:
        process["user"] = user
    if changes.caps:
        process["capabilities"] = {
            kind: list(changes.caps) for kind in ("bounding", "effective", "permitted", "ambient")
        }
    return process


CRUN: Final = Dialect(
    name="crun",
    features=FEATURES,
    parts=PARTS,
    root="crun",
    prefixes=(),
    wordings=WORDINGS,
    unlogged=UNLOGGED,
    unlogged_codes=frozenset({1, 64, 255}),
    criu_logs=frozenset({"dump.log", "restore.log"}),
    record="{id}/status",
    decode_record=decode_record,
    fifo="exec.fifo",
    make_process=make_process,
    leaves=b"crun",
    refuses_hybrid=True,
)
