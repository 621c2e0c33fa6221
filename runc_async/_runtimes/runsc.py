"""runsc, gVisor's runtime, as tried in Debian 13's version of 2024-07-29: each container is a sandbox.

Processes of a container have pids only in the sandbox's kernel. The host has one process for all of them, which ends
with the container's exit code, one that serves files, and one for each attached `exec`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from .. import errors
from .._linux.procfs import ProcessIdentity
from ..errors import UnsupportedError
from ..runner import Argument, InsidePidFile, PidFile
from . import runc
from .dialect import Dialect, Inside, InsideProcess, Moment, Numbers, Part, ProcessChanges, Record, RecordFile, Wordings
from .trace import decode_fork, follow_document

# Features missing only in the tried version count as present from the next day on; a version that still lacks one
# reports the error itself.
AFTER_DEBIAN_13: Final = (20240730,)

FEATURES: Final[Mapping[str, Numbers | None]] = {
    "features": AFTER_DEBIAN_13,
    "update": AFTER_DEBIAN_13,
    "files": None,
    "top with options": None,
    **dict.fromkeys(
        (
            "create --pidfd-socket",
            "create --preserve-fds",
            "create --no-pivot",
            "create --no-new-keyring",
            "run --pidfd-socket",
            "run --keep",
            "run --no-pivot",
            "run --no-new-keyring",
            "run --no-subreaper",
            "exec --pidfd-socket",
            "exec --tty",
            "exec --no-new-privs",
            "exec --process-label",
            "exec --apparmor",
            "exec --cgroup",
            "exec --ignore-paused",
            "kill 0",
            "spec --rootless",
            "checkpoint --parent-path",
            "checkpoint --page-server",
            "checkpoint --pre-dump",
            "checkpoint --tcp-established",
            "checkpoint --tcp-skip-in-flight",
            "checkpoint --ext-unix-sk",
            "checkpoint --shell-job",
            "checkpoint --file-locks",
            "checkpoint --link-remap",
            "checkpoint --lazy-pages",
            "checkpoint --status-fd",
            "checkpoint --manage-cgroups-mode",
            "checkpoint --empty-ns",
            "checkpoint --auto-dedup",
            "restore --no-pivot",
            "restore --tcp-established",
            "restore --ext-unix-sk",
            "restore --shell-job",
            "restore --file-locks",
            "restore --lazy-pages",
            "restore --manage-cgroups-mode",
            "restore --empty-ns",
            "restore --auto-dedup",
            "restore --lsm-profile",
            "restore --lsm-mount-context",
        )
    ),
}

# Parts for other platforms, parts unknown to gVisor's kernel, and parts that runsc doesn't read. Filters of seccomp are
# read with the global option --oci-seccomp only.
PARTS: Final[Mapping[str, Part]] = {
    path: Part(None)
    for path in (
        "domainname",
        "process.apparmorProfile",
        "process.selinuxLabel",
        "process.scheduler",
        "process.ioPriority",
        "process.execCPUAffinity",
        "process.commandLine",
        "process.user.username",
        "mounts[].uidMappings",
        "mounts[].gidMappings",
        "linux.namespaces[].type=time",
        "linux.timeOffsets",
        "linux.personality",
        "linux.sysctl",
        "linux.seccomp",
        "linux.intelRdt",
        "linux.resources.cpu.burst",
        "linux.resources.cpu.idle",
        "freebsd",
        "solaris",
        "vm",
        "windows",
        "zos",
    )
}

PREFIXES: Final = (
    r"(?:running|creating|starting) (?:root )?(?:container|sandbox): ",
    r"executing processes for container: ",
    r"getting processes for container: ",
    r"cannot create sandbox: ",
    r"(?:pause|resume) failed: ",
    r"creating process: ",
    r"executing command \".*?\" in sandbox: ",
    r"failed to signal pid \d+: ",
    r"signaling container \"[^\"]*\"(?: PID \d+)?: ",
)

WORDINGS: Final[Wordings] = {
    errors.HookError: (r"failure executing hook \"", r"fork/exec (?!/proc/)[^:]+: "),
    errors.ContainerNotFound: (
        r"loading (?:container|sandbox)(?: \"[^\"]*\")?: file does not exist$",
        r"loading (?:container|sandbox)(?: \"[^\"]*\")?: open [^\n]*\.state: no such file or directory$",
    ),
    errors.ContainerExists: (r"cannot lock container metadata file: container already exists$",),
    errors.InvalidContainerID: (
        r"invalid container id ",
        r"cannot lock container metadata file: [^\n]*: file name too long$",
    ),
    errors.ContainerPaused: (r"cannot [\w ]+ container \"[^\"]*\" in state paused$",),
    errors.ContainerNotPaused: (r"cannot resume container \"[^\"]*\" in state (?:running|created|stopped)$",),
    errors.ContainerNotRunning: (
        r"cannot [\w ]+ container \"[^\"]*\" in state (?:stopped|created|creating)$",
        r"(?:\w+ )?container \"[^\"]*\" not started",
        r"(?:[\w ]+: )*sandbox (?:\"[^\"]*\" )?is not running",
        r"(?:[^:]+: )*connecting to control server at PID \d+: ",
        r"(?:[^:]+: )*no such process with PID \d+$",
        r"(?:[^:]+: )*urpc method \"[^\"]*\" failed: EOF$",  # the sandbox has ended meanwhile
    ),
    errors.ContainerRunning: (
        r"cannot start container \"[^\"]*\" in state running$",
        r"cannot delete container that is not stopped without --force flag",
    ),
    errors.InvalidSignal: (r"unknown signal \"",),
    errors.TerminalError: (r"setting up console with socket ",),
    errors.CheckpointError: (
        r"opening state file \"[^\"]*\" failed: ",
        r"(?:checkpoint|restore) failed: ",
        r"restoring (?:container|sandbox)[^:]*: ",
    ),
    errors.ExecutableNotFound: (
        r"failed to load [^\n]*: no such file or directory$",
        r"error finding executable \"[^\"]*\" in PATH [^\n]*: no such file or directory$",
    ),
    errors.ExecutableDenied: (r"failed to load [^\n]*: (?:permission denied|is a directory|operation not permitted)$",),
    errors.ExecFormatError: (r"failed to load [^\n]*: exec format error$",),
    errors.ExecutableError: (r"failed to load ",),
    errors.BundleNotFound: (
        r"reading spec: error opening spec file .*: no such file or directory$",
        r"Error setting up root FS: mounting root on root .*: no such file or directory$",
        r"failed to stat mount \"[^\"]*\" to see if it were a directory: .*: no such file or directory$",
    ),
    errors.InvalidSpec: (
        r"reading spec: ",
        r"parsing process spec: ",
        r"error setting up FS: mounting ",
        r"creating loader: creating init process for [\w ]+: creating limits: unknown resource ",
    ),
    errors.ResourceError: (r"cannot set up cgroup for root: ",),
    errors.UnsupportedUsage: (
        r"Subcommand (?P<what>\S+) not understood",
        r"flag provided but not defined: (?P<what>-\S+)",
    ),
    errors.InvalidUsage: (r"flag needs an argument: ", r"Usage: "),
}

# Errors in the command line are printed only to stderr, followed by the usage.
UNLOGGED: Final = (
    r"(?s:(?:flag (?:provided but not defined|needs an argument): |Subcommand \S+ not understood|Usage: ).*)",
)


class _Spec(msgspec.Struct, rename="camel"):
    """The used fields of a configuration."""

    oci_version: str = ""
    annotations: dict[str, str] | None = None
    linux: _Linux | None = None
    root: _Root | None = None


class _Linux(msgspec.Struct, rename="camel"):
    """The place of the cgroup."""

    cgroups_path: str = ""


class _Root(msgspec.Struct):
    """The root filesystem."""

    path: str = ""


class _Sandbox(msgspec.Struct):
    """The sandbox of a container."""

    pid: int = 0


class _Record(msgspec.Struct, rename="camel"):
    """runsc's record, rewritten for each change of the status."""

    bundle_dir: str = ""
    created_at: Moment | None = None
    owner: str = ""
    status: str = ""
    gofer_pid: int = 0
    sandbox: _Sandbox | None = None
    spec: _Spec | None = None


_RECORD = msgspec.json.Decoder(_Record)
_CONTROLLERS: Final = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb")
_CGROUPS: Final = "/sys/fs/cgroup"


def decode_record(file: RecordFile) -> Record:
    """Decode runsc's record. The record lacks the start time of the sandbox, which is looked up."""
    found = _RECORD.decode(file.data)
    spec = found.spec or _Spec()
    path = "" if spec.linux is None else spec.linux.cgroups_path.strip("/")
    return Record(
        id=file.container_id,
        runtime=RUNSC.name,
        process=_process(0 if found.sandbox is None else found.sandbox.pid),
        created=found.created_at,
        bundle=found.bundle_dir,
        config=os.path.join(file.root, RECORD.format(id=file.container_id)),
        rootfs=os.path.join(found.bundle_dir, spec.root.path) if spec.root and spec.root.path else "",
        oci_version=spec.oci_version,
        owner=found.owner or runc.user_name(file.owner),
        annotations=spec.annotations or {},
        cgroups=_cgroups(path),
        helpers=(found.gofer_pid,) if found.gofer_pid else (),
    )


def _process(pid: int) -> ProcessIdentity:
    """Return the process of a sandbox, with start time 0 if it has ended."""
    try:
        return ProcessIdentity.of(pid)
    except OSError:
        return ProcessIdentity(pid, 0)


def _cgroups(path: str) -> dict[str, str]:
    """Return the directories of the sandbox's cgroup by controller."""
    if not path:
        return {}
    if os.path.exists(os.path.join(_CGROUPS, "cgroup.controllers")):
        return {"": os.path.join(_CGROUPS, path)}
    places = {name: os.path.join(_CGROUPS, name, path) for name in _CONTROLLERS}
    return {name: place for name, place in places.items() if os.path.isdir(place)}


RECORD: Final = "{id}_sandbox:{id}.state"
LOCK: Final = "{id}_sandbox:{id}.lock"

_DATE = re.compile(r"(?:0\.0~|release-)(\d{8})")


def numbers(version: str) -> Numbers:
    """Return the date of a version: `0.0~20240729.0` is Debian's, `release-20260928.0` gVisor's own."""
    match = _DATE.match(version)
    return (int(match[1]),) if match else ()


def spell(command: str, words: tuple[Argument, ...]) -> tuple[Argument, ...]:
    """Return a command in runsc's spelling: whole seconds, single descriptors, and the pid in the sandbox."""
    if "--" in words:
        # Words behind `--` belong to the program, whatever they look like.
        end = words.index("--")
        return (*_spelled(command, words[:end]), *words[end:])
    return tuple(_spelled(command, words))


def _spelled(command: str, words: tuple[Argument, ...]) -> Iterator[Argument]:
    """Spell the options of a command."""
    rest = iter(words)
    for word in rest:
        if word == "--preserve-fds":
            for fd in range(3, 3 + int(str(next(rest)))):
                # HOST:GUEST, one option for each descriptor, whereas runc takes their number.
                yield from ("--pass-fd", f"{fd}:{fd}")
        elif word == "--interval":
            milliseconds = int(str(next(rest)).removesuffix("ms"))
            # runsc takes whole seconds: rounded up, at least one.
            yield from ("--interval", str(max(1, -(-milliseconds // 1000))))
        elif word == "--pid-file" and command == "exec":
            file = next(rest)
            yield from ("--pid-file", file)
            # The pid inside the sandbox is needed to signal and kill the process.
            if isinstance(file, PidFile) and "--detach" not in words:
                yield from ("--internal-pid-file", InsidePidFile())
        else:
            yield word
    if command == "exec" and "--detach" in words and "--pid-file" not in words:
        yield from ("--pid-file", PidFile())  # without one it writes a word of its own behind the arguments


def rootless(value: str) -> tuple[str, ...]:
    """Return `--rootless`, which takes no value."""
    if value == "auto":
        raise UnsupportedError("--rootless auto", RUNSC.name)
    return ("--rootless",) if value == "true" else ()


def make_process(own: Mapping[str, Any], changes: ProcessChanges, version: Numbers) -> dict[str, Any]:
    """Return the process for an `exec` by runc's rules."""
    # runsc itself would run an `exec` as root, whatever the user of the container's process is.
    process = runc.make_process(own, changes, version)
    for name in ("apparmorProfile", "selinuxLabel"):
        process.pop(name, None)
    return process


class _Status(msgspec.Struct):
    """The pids of a process."""

    pid: int
    ppid: int = 0


class _Stat(msgspec.Struct, frozen=True):
    """The session of a process."""

    sid: int = 0


class _Listed(msgspec.Struct):
    """A process as printed by `trace procfs`."""

    status: _Status
    stat: _Stat = _Stat()


_LISTED = msgspec.json.Decoder(_Listed)


def kill(container_id: str, pid: int, signum: int) -> tuple[str, ...]:
    """`kill --pid`."""
    return ("kill", "--pid", str(pid), "--", container_id, str(signum))


def list_processes(container_id: str) -> tuple[str, ...]:
    """`trace procfs`, which leaves out zombies; `ps` doesn't, and can't tell them apart."""
    return ("trace", "procfs", container_id)


def decode_processes(data: bytes) -> list[InsideProcess]:
    """Decode the output of `trace procfs`: a heading, and one JSON document per process and line."""
    found = [_LISTED.decode(line) for line in data.splitlines() if line.startswith(b"{")]
    return [InsideProcess(each.status.pid, each.status.ppid, each.stat.sid) for each in found]


def follow(container_id: str, path: str) -> tuple[str, ...]:
    """`trace create`."""
    # --force: there is at most one session, and an older one may belong to a service that is gone.
    return ("trace", "create", "--force", "--config", path, container_id)


RUNSC: Final = Dialect(
    name="runsc",
    features=FEATURES,
    parts=PARTS,
    root="runsc",
    numbers=numbers,
    spell=spell,
    rootless=rootless,
    prefixes=PREFIXES,
    wordings=WORDINGS,
    unlogged=UNLOGGED,
    unlogged_codes=frozenset({2, 128}),
    trace="gvisor.dev/gvisor/",
    record=RECORD,
    decode_record=decode_record,
    make_process=make_process,
    leaves=b"exe",
    document_always=True,
    root_always=True,
    inside=Inside(
        kill=kill,
        processes=list_processes,
        decode_processes=decode_processes,
        follow=follow,
        follow_document=follow_document,
        decode_fork=decode_fork,
    ),
    forks="any",
    trial_options=("--network=none",),
    spoils_taken=True,
    bare_states=True,
    leftovers=(LOCK, "runsc-{id}.sock"),
    alone=(RECORD, LOCK),
    cgroups_at_root=True,
    dashed_ids=False,  # its own processes get the id as an option
    leaves_cgroups=True,
    keeps_checkpointed=True,
    refuses_images=True,
)
