"""crun, as tried in 1.8.1, 1.21 and 1.28: names are quoted in backticks, followed by errors of the C library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .. import errors
from .._linux.procfs import ProcessIdentity
from .dialect import Dialect, Moment, Numbers, Part, ProcessChanges, Record, RecordFile, Wordings

# Features missing only in 1.8.1 count as present from 1.8.2 on; a version that still lacks one reports the error
# itself.
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

# Verbs, quotes and the words in between change from version to version. The action, the name and the error of the C
# library stay: `open`, `opening file`, `error opening file`, then the name in quotes, then the error.
_QUOTE: Final = "[`'\"]"
_NAME: Final = f"{_QUOTE}[^`'\"]*{_QUOTE}"
_TRY: Final = r"(?:(?:error|cannot|can't|could not|failed(?: to)?|unable to) )?"
_OF: Final = r"(?:(?:to|from|of|for|the|file|path|executable|run|state|cgroup) )*"
_OPEN: Final = rf"{_TRY}(?:open(?:ing|at2?|dir)?) {_OF}"
_WRITE: Final = rf"{_TRY}(?:writ(?:e|ing)|open(?:ing|at2?)?) {_OF}"
_STAT: Final = rf"{_TRY}(?:f?statx?(?:'?ing)?|lstat) {_OF}"
_MISSING: Final = "(?i:: no such file)"
_CONTROL: Final = (
    rf"{_QUOTE}(?:(?:cpu|cpuset|memory|blkio|io|pids|hugetlb|devices|freezer|cgroup)\.|/sys/fs/cgroup/)[^`'\"]*{_QUOTE}"
)

WORDINGS: Final[Wordings] = {
    errors.HookError: (rf"{_TRY}execut(?:e|ing) hook {_NAME}",),
    errors.ContainerNotFound: (
        rf"(?:the )?container {_NAME} does not exist",
        rf"{_OPEN}{_QUOTE}[^`'\"]*/status{_QUOTE}[^:]*{_MISSING}",
        rf"{_TRY}open(?:ing|dir)? (?:run |state )?directory {_NAME}[^:]*{_MISSING}",
    ),
    errors.ContainerExists: (rf"(?:the )?container {_NAME} already exists$",),
    errors.InvalidContainerID: (
        r"(?:the )?(?:empty|invalid) container ID",
        rf"invalid character {_NAME} in the container ID",
        rf"{_TRY}(?:access|mkdir|create|open(?:ing|at2?)?) {_OF}(?:directory )?{_NAME}[^:]*(?i:: file name too long)$",
        # 1.8.1 leaves out the error. A name of a file has at most 255 bytes.
        rf"cannot create state directory for {_QUOTE}[^`'\"]{{256,}}{_QUOTE}$",
    ),
    errors.ContainerPaused: (rf"(?:the )?container {_NAME} is paused$",),
    errors.ContainerNotRunning: (
        rf"(?:the )?container {_NAME} is not running",
        r"process not running(?:: |$)",
        r"(?:(?:open|send signal to) pidfd|kill(?:ing)? (?:the )?(?:container|process))[^:]*: (?i:no such process)$",
    ),
    errors.ContainerRunning: (
        rf"(?:the )?container {_NAME} is not in {_QUOTE}(?:created|stopped){_QUOTE}",
        rf"{_OPEN}{_QUOTE}[^`'\"]*/exec\.fifo{_QUOTE}[^:]*{_MISSING}",
    ),
    errors.InvalidSignal: (
        rf"(?:unknown|invalid) signal (?:{_QUOTE}|-?\d)",
        r"(?:send signal to pidfd|kill(?:ing)? (?:the )?(?:container|process))[^:]*: (?i:invalid argument)$",
    ),
    errors.CorruptState: (
        rf"{_QUOTE}[\w-]+{_QUOTE} missing in {_QUOTE}?[^`'\"]*/status{_QUOTE}?$",
        rf"{_TRY}pars(?:e|ing) {_OF}status file: ",
    ),
    errors.ExecutableNotFound: (
        rf"executable (?:file )?(?:path )?{_NAME} not found",
        rf"(?:{_TRY}open(?:ing)? executable|exec): (?i:no such file)",
    ),
    errors.ExecutableDenied: (
        rf"(?:the )?path {_NAME} (?:exists but it is not executable|is not a regular file)",
        rf"{_TRY}open(?:ing)? executable: (?i:permission denied|operation not permitted|is a directory)$",
    ),
    errors.ExecFormatError: (r"exec(?:v\w*)?(?: [^:]*)?: (?i:exec format error)$",),
    errors.ExecutableError: (rf"exec (?:container process )?{_QUOTE}",),
    errors.TerminalError: (
        r"use --console-socket with ",
        r"tcgetattr: ",
        rf"(?:{_TRY}open(?:ing)? console socket: )?{_TRY}connect(?:ing)? (?:to )?(?:socket )?(?:to )?{_QUOTE}",
    ),
    errors.MemoryLimitTooLow: (
        rf"(?:OOM: )?the memory limit could be too low: (?!open {_QUOTE})",
        rf"{_WRITE}{_QUOTE}memory\.(?:limit_in_bytes|max){_QUOTE}[^:]*(?i:: device or resource busy)$",
    ),
    errors.ResourceError: (
        rf"the memory limit could be too low: open {_QUOTE}",
        r"cannot set (?:swap limit|kernel) ",
        r"realtime \S+ not supported on cgroupv2",
        rf"(?:the )?(?:requested )?(?:cgroup )?controller {_NAME} is not available",
        rf"{_TRY}creat(?:e|ing) cgroup directory {_QUOTE}",
        rf"(?:{_WRITE}|{_TRY}read(?:ing)? {_OF}){_CONTROL}",
        rf"{_TRY}statfs(?:'?ing)? {_OF}{_QUOTE}/sys/fs/resctrl{_QUOTE}",
    ),
    errors.BundleNotFound: (
        rf"chdir (?:to )?{_NAME} failed{_MISSING}",
        rf"{_TRY}load(?:ing)? {_QUOTE}?config\.json{_QUOTE}?.*(?:cannot read the file|(?i:no such file))",
        rf"readlink ``{_MISSING}",
        rf"make {_NAME} private{_MISSING}",  # 1.8.1, of the root filesystem
    ),
    errors.InvalidSpec: (
        rf"the sysctl {_QUOTE}",
        rf"{_TRY}load(?:ing)? {_QUOTE}?config\.json",
        r"invalid config file",
        r"unknown version specified$",  # 1.8.1, of a runtime-spec after 1.1
        r"cannot parse process file: ",
        r"cannot find `` in \$PATH",
        rf"{_TRY}open(?:ing)? executable: (?i:invalid argument)$",
        rf"chdir (?:to )?{_NAME}: ",
        r"(?:invalid|unknown) (?:namespace type|rlimit)\b",
        r"(?:(?:invalid|unknown) )?seccomp (?:get )?(?:action|arch|operator|flag)",
        r"AppArmor is not ",
        rf"{_OPEN}{_QUOTE}/proc/\d+/ns/",
        rf"{_WRITE}{_QUOTE}/proc/self/(?:timens_offsets{_QUOTE}|attr/)",
        rf"{_TRY}mount(?:ing|_setattr)? {_OF}{_QUOTE}",
        rf"{_STAT}{_QUOTE}[^`'\"]",
    ),
    errors.UnsupportedUsage: (
        r"unknown command (?P<what>\S+)$",
        r"\S+: unrecognized option '(?P<what>[^']*)'$",
        r"\S+: invalid option -- '(?P<what>[^']*)'$",
    ),
    errors.InvalidUsage: (
        rf"\S+: {_NAME} requires a ",
        r"unknown log format type ",
        rf"\S+: invalid format {_QUOTE}",
        r"please specify a ID for the container$",
        r"invalid (?:UID|GID|USERSPEC) specified$",
    ),
    errors.PermissionDenied: (rf"cannot create state directory for {_NAME}: (?i:permission denied)$",),
}

# Of the bundle, before the log is opened; and of the command line.
UNLOGGED: Final = (
    r"chdir `[^`\n]*` failed: [^\n]+",
    r"load `config\.json`: cannot read the file: config\.json",
    r"unknown command \S+",
    r"\S+: (?:unrecognized option|invalid option --) '[^'\n]*'\nTry [^\n]+",
)

_CGROUPS: Final = "/sys/fs/cgroup"
_CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "freezer")


class _Record(msgspec.Struct, rename="kebab"):
    """crun's record, with the path of the cgroup inside its hierarchies."""

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
    # The file exists only in the root of a v2 hierarchy. crun refuses hybrid hosts.
    if os.path.exists(os.path.join(_CGROUPS, "cgroup.controllers")):
        return {"": os.path.join(_CGROUPS, path)}
    # On v1 crun uses the same path in each hierarchy; its record names it once.
    return {name: os.path.join(_CGROUPS, name, path) for name in _CONTROLLERS}


def make_process(own: Mapping[str, Any], changes: ProcessChanges, _version: Numbers) -> dict[str, Any]:
    """Return the process for an `exec` by crun's rules, with only user and capabilities of the container's process."""
    # The working directory, no_new_privs and limits aren't inherited: `crun_command_exec` in crun's exec.c.
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
    without_terminal=(r"use --console-socket with ", r"tcgetattr: "),
    unlogged=UNLOGGED,
    unlogged_codes=frozenset({1, 64, 255}),
    criu_logs=frozenset({"dump.log", "restore.log"}),
    record="{id}/status",
    decode_record=decode_record,
    fifo="exec.fifo",
    make_process=make_process,
    leaves=b"crun",
    refuses_hybrid=True,
    user_needs_group=True,  # 1.21 runs `exec --user 7` as root, and 7:0 as user 7
)
