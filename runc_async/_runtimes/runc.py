"""runc, 1.0 and later."""

from __future__ import annotations

import functools
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .. import errors
from .._linux.procfs import ProcessIdentity
from ..errors import LogRecord
from .dialect import Dialect, Moment, Numbers, Part, ProcessChanges, Record, RecordFile, Wordings, log_time

CONFIG: Final = "config.json"

FEATURES: Final[Mapping[str, Numbers | None]] = {
    "features": (1, 1),
    "create --pidfd-socket": (1, 2),
    "run --pidfd-socket": (1, 2),
    "run --keep": (1, 1),
    "exec --pidfd-socket": (1, 2),
    "exec --cgroup": (1, 1),
    "exec --ignore-paused": (1, 1),
    "update --cpu-burst": (1, 2),
    "update --cpu-idle": (1, 2),
    "checkpoint --tcp-skip-in-flight": (1, 3),
    "checkpoint --link-remap": (1, 3),
    "checkpoint --manage-cgroups-mode ignore": (1, 2),
    "restore --lsm-mount-context": (1, 1),
    "restore --manage-cgroups-mode ignore": (1, 2),
}

_FROM_1_1: Final = Part((1, 1))
_FROM_1_2: Final = Part((1, 2))
_FROM_1_4: Final = Part((1, 4))
_NONE: Final = Part(None)

PARTS: Final[Mapping[str, Part]] = {
    "domainname": _FROM_1_2,
    "process.commandLine": _NONE,
    "process.execCPUAffinity": Part((1, 3)),
    "process.ioPriority": _FROM_1_2,
    "process.scheduler": _FROM_1_2,
    "process.user.username": _NONE,
    "mounts[].uidMappings": _FROM_1_2,
    "mounts[].gidMappings": _FROM_1_2,
    "linux.namespaces[].type=time": Part((1, 2), refused=True),
    "linux.timeOffsets": _FROM_1_2,
    "linux.personality": _FROM_1_2,
    "linux.netDevices": _FROM_1_4,
    "linux.memoryPolicy": _FROM_1_4,
    "linux.intelRdt.schemata": _FROM_1_4,
    "linux.intelRdt.enableMonitoring": _FROM_1_4,
    "linux.resources.cpu.burst": _FROM_1_2,
    "linux.resources.cpu.idle": _FROM_1_2,
    "linux.resources.memory.checkBeforeUpdate": _FROM_1_2,
    "linux.resources.memory.kernel": Part(until=(1, 1)),
    "linux.resources.memory.kernelTCP": Part(until=(1, 1)),
    "linux.resources.rdma": _FROM_1_1,
    "linux.seccomp.defaultErrnoRet": _FROM_1_1,
    "linux.seccomp.listenerPath": _FROM_1_1,
    "linux.seccomp.flags": Part((1, 2), refused=True),
    "linux.seccomp.flags[]=SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": Part((1, 5), refused=True),
    "freebsd": _NONE,
    "solaris": _NONE,
    "vm": _NONE,
    "windows": _NONE,
    "zos": _NONE,
}

# 1.1 and later put the first four in front of a cause, 1.0 the others.
PREFIXES: Final = (
    r"runc (?:create|run|restore) failed: ",
    r"exec failed: ",
    r"unable to start container process: ",
    r"error during container init: ",
    r"\w+_linux\.go:\d+: ",
    r"starting container process caused: ",
    r"container init caused: ",
)

# "1.0" marks messages of the old version only.
WORDINGS: Final[Wordings] = {
    errors.HookError: (
        r"error running (?:\w+ )?hook",
        r"running hook #\d",  # 1.0
    ),
    errors.ContainerNotFound: (r"container (?:\"[^\"]*\" )?does not exist$",),
    errors.ContainerExists: (
        r"container with given ID already exists$",
        r"container with id exists: ",  # 1.0
    ),
    errors.InvalidContainerID: (
        r"invalid container ID",
        r"invalid id format: ",  # 1.0
        r"container id cannot be empty$",
        r"(?:lstat|mkdir) .*: file name too long$",
    ),
    errors.ContainerNotPaused: (r"container not paused$",),
    errors.ContainerPaused: (
        r"cannot exec in a paused container",
        r"cannot start a container in the paused state$",
        r"cannot delete container \S+ that is not stopped: paused$",
    ),
    errors.ContainerNotRunning: (
        r"container not running",
        r"container with id \S+ is not running$",
        r"cannot exec (?:in a stopped container|a container that has stopped)$",
        r"cannot start a container that has stopped$",
        r"Container cannot be checkpointed in (?:stopped|created) state$",
    ),
    errors.ContainerRunning: (
        r"cannot start an already running container$",
        r"cannot delete container \S+ that is not stopped: ",
        r"container (?:init )?still running$",
    ),
    errors.InvalidSignal: (
        r"unknown signal \"",
        r"unable to signal init: invalid argument$",
        r"signaling init process caused: invalid argument$",  # 1.0
    ),
    errors.CorruptState: (
        r"json: .*(?:\blibcontainer\.State$| struct field State\.)",
        r"cgroups/manager\.New: config must not be nil$",
    ),
    errors.CheckpointError: (
        r"criu failed: ",
        r"(?:failed to \S+ )?(?:criu|CRIU)\b",
        r"open .*/descriptors\.json: no such file or directory$",
    ),
    errors.ExecutableNotFound: (
        r"exec: \".*\": (?:executable file not found in \$PATH|stat .*: no such file or directory)$",
    ),
    errors.ExecutableDenied: (r"exec: \".*\": (?:(?:stat .*: )?permission denied|is a directory)$",),
    errors.ExecutableError: (r"exec: \"",),
    errors.TerminalError: (
        r"cannot allocate tty if runc will detach",
        r"cannot use console socket if runc will not detach",
        r"open /dev/tty: ",
        r"dial unix .*: connect: ",
    ),
    errors.MemoryLimitTooLow: (
        r"(?:error setting cgroup config for procHooks process: )?unable to set memory limit to \d+",
        r"container init was OOM-killed",
    ),
    errors.ResourceError: (
        r"error setting cgroup config ",
        r"unable to apply cgroup configuration: ",
        r"error adding pid \d+ to cgroups: ",
        r"(?:failed to write .*: )?(?:write|openat2|open) /sys/fs/cgroup/",
        r"unable to set swap limit ",
        r"invalid configuration: cannot use unified ",
        r"unified resource ",
        r"Intel RDT/|intelRdt(?:\.| is specified in config, but )",
        r"can't open cgroup",
        r"unable to add inotify watch: ",
        r"(?:unable to get all container pids: )?lstat (?:/sys/fs/cgroup/.*)?: no such file or directory$",
        r"cannot toggle freezer: ",
        r"freezer not supported: ",
        r"memory controller missing$",
        r"cannot set .*: container could not join or create cgroup$",
    ),
    errors.BundleNotFound: (
        r"chdir /.*: no such file or directory$",
        r"JSON specification file \S+ not found$",
        r"invalid rootfs: ",
        r"rootfs \(.*\) does not exist$",  # 1.0
    ),
    errors.InvalidSpec: (
        r"json: .*\bspecs\.",
        r"json: .*\bLinux\w+\.",
        r"args must not be empty$",
        r"process property must not be empty$",
        r"Cwd (?:must be|property must)",
        r"chdir to cwd ",
        r"namespace \{.*\} does not exist$",
        r"user namespaces enabled, but|User namespaces enabled, but",
        r"failed to cache mappings for userns: ",
        r"time namespace ",
        r"unable to create new parent process: namespace path: ",
        r"sysctl \"",
        r"string \S* is not a valid (?:action|arch|operator) for seccomp$",
        r"wrong rlimit value:",
        r"error setting rlimits for ready process: error setting rlimit type \d+: invalid argument$",
        r"malformed spec file: ",
        r"unable to setup user: (?:cannot set ?[ug]id to unmapped |setgroups: invalid argument$)",
        r"unable to set \w+ without a private ",
        r"root must be specified$",
        r"invalid device type \"",
        r"device access at \d+ field cannot be empty$",
        r"(?:configuring container /dev: )?error creating device nodes: cannot mkdev\(\) device with wildcards",
        r"write /proc/sys/.*: invalid argument$",
        r"failed to write sysctl .*: invalid argument$",
        r"unable to apply apparmor profile: ",
        r"selinux label is specified ",
        r"error mounting \"",
        r"failed to fulfil mount request: ",
        r"invalid environment variable: ",
    ),
    errors.UnsupportedUsage: (
        r"flag provided but not defined: (?P<what>\S+)$",
        r"No help topic for '(?P<what>[^']*)'$",
    ),
    errors.InvalidUsage: (
        r"Incorrect Usage",
        r"invalid value (?:\"|for )",
        r"\S+: \"\S+\" requires ",
        r"(?:exec|process) args cannot be empty$",
        r"(?:bad uid|parsing \S+ as int for uid failed): ",
        r"duration interval must be ",
        r"invalid (?:format option$|log-format: )",
    ),
    errors.PermissionDenied: (r"rootless container requires user namespaces$",),
}

# Such messages name files at best, and never the missing cgroup.
WITHOUT_CGROUP: Final = (
    r"(?:unable to get all container pids: )?lstat (?:/sys/fs/cgroup/.*)?: no such file or directory$",
    r"cannot toggle freezer: cgroups not configured",
    r"freezer not supported: .*: no such file or directory$",
    r"memory controller missing$",
    r"cannot set .*: container could not join or create cgroup$",
    r"unable to add inotify watch: no such file or directory$",
    r"openat2 /sys/fs/cgroup/.*: no such file or directory$",
)

STATE_KEYS: Final = frozenset(
    {
        "BaseState",
        "cgroup_paths",
        "config",
        "created",
        "external_descriptors",
        "id",
        "init_process_pid",
        "init_process_start",
        "intel_rdt_path",
        "namespace_paths",
        "rootless",
    }
)

# logrus writes these to a file or a pipe: `time="..." level=error msg="..."`; a plain word stands there unquoted
_TEXT_START = re.compile(r"(?:time|level)=")
_TEXT_FIELD = re.compile(r'(?<!\S)(time|level|msg|error)=("(?:[^"\\]|\\.)*"|\S*)')

# ... and these to a terminal, perhaps in colour: `ERRO[0000] ...`, filled up to 44 characters
_TERMINAL = re.compile(r"(?:\x1b\[\d+m)?(TRAC|DEBU|INFO|WARN|ERRO|FATA|PANI)(?:\x1b\[0m)?\[\d+\] ?(.*)", re.DOTALL)
_LEVELS = {
    "TRAC": "trace",
    "DEBU": "debug",
    "INFO": "info",
    "WARN": "warning",
    "ERRO": "error",
    "FATA": "fatal",
    "PANI": "panic",
}

_GO_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_GO_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_UNICODE_END = 0x110000


def read_line(line: str) -> LogRecord | None:
    """Parse a text record of logrus."""
    if _TEXT_START.match(line):
        # Reversed, so that the first of several equal keys wins.
        fields = {name: _unquote(value) for name, value in reversed(_TEXT_FIELD.findall(line))}
        if "level" in fields:
            return LogRecord(fields["level"], fields.get("msg", ""), log_time(fields.get("time")), fields.get("error"))
    elif terminal := _TERMINAL.match(line):
        return LogRecord(_LEVELS[terminal[1]], terminal[2])
    return None


def _unquote(value: str) -> str:
    """Undo Go's quoting of a string."""
    return _GO_ESCAPE.sub(_unescape, value[1:-1]) if value.startswith('"') else value


def _unescape(escape: re.Match[str]) -> str:
    """Return the character of an escape sequence."""
    code = escape[1]
    if len(code) == 1:
        return _GO_LETTERS.get(code, code)
    number = int(code[1:], 16)
    # \U in Go's quoting has eight digits, more than Unicode has characters; the log may be damaged or forged.
    return chr(number) if number < _UNICODE_END else escape[0]


class _Config(msgspec.Struct):
    """The used fields of the configuration in runc's record."""

    rootfs: str = ""
    version: str = ""
    labels: list[str] | None = None


class _Record(msgspec.Struct):
    """runc's record, unchanged since runc 1.0."""

    init_process_pid: int = 0
    init_process_start: int = 0
    created: Moment | None = None
    config: _Config | None = None
    cgroup_paths: dict[str, str] | None = None


_RECORD = msgspec.json.Decoder(_Record)


def decode_record(file: RecordFile) -> Record:
    """Decode runc's record."""
    found = _RECORD.decode(file.data)
    config = found.config or _Config()
    labels = dict(label.split("=", 1) for label in config.labels or () if "=" in label)
    # runc keeps the annotations and the path of the bundle in one list of labels, as NAME=VALUE.
    bundle = labels.pop("bundle", "")
    return Record(
        id=file.container_id,
        runtime=RUNC.name,
        process=ProcessIdentity(found.init_process_pid, found.init_process_start),
        created=found.created,
        bundle=bundle,
        config=os.path.join(bundle, CONFIG) if bundle else "",  # read anew for each `exec`
        rootfs=config.rootfs,
        oci_version=config.version,
        owner=user_name(file.owner),
        annotations=labels,
        # The paths are absolute. On a host with v2 alone the name is empty.
        cgroups={name: path for name, path in (found.cgroup_paths or {}).items() if path},
    )


@functools.lru_cache
def user_name(uid: int) -> str:
    """Return the name of a user; for a user without a name, the number in runc's form."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def make_process(own: Mapping[str, Any], changes: ProcessChanges, version: Numbers) -> dict[str, Any]:
    """Return the process for an `exec` with changed user and capabilities: `getProcess` in runc's exec.go."""
    # A copy: `own` belongs to the caller.
    process = dict(own)
    user: dict[str, Any] = dict(process.get("user") or {})
    if changes.uid is not None:
        user["uid"] = changes.uid
        if changes.gid is not None:  # else the group stays that of the container's process
            user["gid"] = changes.gid
    if changes.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *changes.additional_gids]
    process["user"] = user
    if changes.caps:
        process["capabilities"] = _with_caps(process.get("capabilities") or {}, changes.caps, version)
    return process


def _with_caps(held: Mapping[str, Any], caps: Sequence[str], version: Numbers) -> dict[str, Any]:
    """Add capabilities to the same sets as this version of runc."""
    kinds = ["bounding", "effective", "permitted", "ambient"]
    if version and version < (1, 1, 2):  # that is the mending of CVE-2022-29162
        kinds.append("inheritable")
    elif (not version or version >= (1, 2)) and held.get("inheritable") is None:
        kinds.remove("ambient")
    return {**held, **{kind: [*(held.get(kind) or ()), *caps] for kind in kinds}}


RUNC: Final = Dialect(
    name="runc",
    features=FEATURES,
    parts=PARTS,
    root="runc",
    prefixes=PREFIXES,
    wordings=WORDINGS,
    without_cgroup=WITHOUT_CGROUP,
    without_terminal=(r"cannot allocate tty if runc will detach", r"open /dev/tty: "),
    unlogged=(r"time=\S+ level=error msg=\"(?:flag provided but not defined: |No help topic for )[^\n]+",),
    unlogged_codes=frozenset({1, 255}),
    state_keys=STATE_KEYS,
    trace="github.com/opencontainers/runc/",
    read_line=read_line,
    criu_logs=frozenset({"dump.log", "restore.log"}),
    record="{id}/state.json",
    decode_record=decode_record,
    fifo="exec.fifo",
    make_process=make_process,
    copies=b"runc:[",
    forks="read-only root",
    enters_own_cgroups=True,
    copies_streams=True,
)
