"""What runc and crun say when they fail, and which class of error each wording calls for: one table."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from .. import errors
from ..errors import CommandError

# What runc puts before a cause: 1.1 and later the first four, 1.0 the others.
_PREFIXES = re.compile(
    r"(?:runc (?:create|run|restore) failed: |exec failed: |unable to start container process: "
    r"|error during container init: |\w+_linux\.go:\d+: |starting container process caused: |container init caused: )*"
)

# What execve(2) fails with, as Go's runtime (runc), glibc and musl (crun) write it, in lower case.
_NO_FILE = ("no such file or directory",)
_DENIED = ("permission denied", "operation not permitted")
_FORMAT = ("exec format error",)
_USED_UP = (
    "resource temporarily unavailable",
    "cannot allocate memory",
    "out of memory",
    "too many open files in system",
    "too many open files",
    "no file descriptors available",
)
EXECVE_ERRORS = (
    *_NO_FILE,
    *_DENIED,
    *_FORMAT,
    *_USED_UP,
    "accessing a corrupted shared library",
    "argument list too long",
    "bad address",
    "file ?name too long",
    "function not implemented",  # a seccomp profile's word
    "i/o error",
    "input/output error",
    "invalid argument",
    "is a directory",
    "not a directory",
    "symbolic link loop",
    "text file busy",
    "too many levels of symbolic links",
)
"""Patterns of all errors that execve(2) lists: what a runtime says when the program of a process can't be executed."""

# Any command, one line for each wording. A pattern has to match from the start of the cause, so that a name or an
# output which is quoted further on can't choose the class. `...` in backticks is crun, the rest is runc; "1.0" stands
# beside what only the old one says. The order matters in four places:
# - a hook's output stands in the message and may say anything: HookError is first;
# - a program, a console or a resource that is "not found" or "denied" comes before PermissionDenied, which looks at
#   the end of any message;
# - MemoryLimitTooLow is a special case of ResourceError;
# - a missing bundle is a special case of InvalidSpec.
# The last two lines look at the end of any message, whatever it is about.
_TABLE: tuple[tuple[type[CommandError], tuple[str, ...]], ...] = (
    (
        errors.HookError,
        (
            r"error running (?:\w+ )?hook",
            r"running hook #\d",  # 1.0
            r"error executing hook `",
        ),
    ),
    (
        errors.ContainerNotFound,
        (
            r"container (?:\"[^\"]*\" )?does not exist$",
            r"container `[^`]*` does not exist",
            r"(?:error opening file|open) `[^`]*/status`: No such file",
            r"cannot open directory `[^`]*`: No such file",
        ),
    ),
    (
        errors.ContainerExists,
        (
            r"container with given ID already exists$",
            r"container with id exists: ",  # 1.0
            r"container `[^`]*` already exists$",
        ),
    ),
    (
        errors.InvalidContainerID,
        (
            r"invalid container ID",
            r"invalid id format: ",  # 1.0
            r"container id cannot be empty$",
            r"empty container ID$",
            r"invalid character `[^`]*` in the container ID",
            r"(?:lstat|mkdir) .*: file name too long$",
            r"(?:access|open|cannot open directory) `[^`]*`: File name too long$",
        ),
    ),
    (
        errors.ContainerNotPaused,
        (r"container not paused$",),
    ),
    (
        errors.ContainerPaused,
        (
            r"cannot exec in a paused container",
            r"cannot start a container in the paused state$",
            r"cannot delete container \S+ that is not stopped: paused$",
            r"the container `[^`]*` is paused$",
        ),
    ),
    (
        errors.ContainerNotRunning,
        (
            r"container not running",
            r"container with id \S+ is not running$",
            r"cannot exec (?:in a stopped container|a container that has stopped)$",
            r"cannot start a container that has stopped$",
            r"Container cannot be checkpointed in (?:stopped|created) state$",
            r"(?:the )?container `[^`]*` is not running",
            r"process not running: ",
            r"(?:open pidfd|kill container): No such process$",
        ),
    ),
    (
        errors.ContainerRunning,
        (
            r"cannot start an already running container$",
            r"cannot delete container \S+ that is not stopped: ",
            r"container (?:init )?still running$",
            r"the container `[^`]*` is not in `created` or `stopped` state$",
            r"cannot open `[^`]*/exec\.fifo`: No such file",
        ),
    ),
    (
        errors.InvalidSignal,
        (
            r"unknown signal [\"`]",
            r"unable to signal init: invalid argument$",
            r"signaling init process caused: invalid argument$",  # 1.0
            r"send signal to pidfd: Invalid argument$",
        ),
    ),
    (
        errors.CorruptState,
        (
            r"json: .*(?:\blibcontainer\.State$| struct field State\.)",
            r"cgroups/manager\.New: config must not be nil$",
            r"`pid` missing in `[^`]*/status`$",
        ),
    ),
    (
        errors.CheckpointError,
        (
            r"criu failed: ",
            r"(?:failed to \S+ )?(?:criu|CRIU)\b",
            r"open .*/descriptors\.json: no such file or directory$",
        ),
    ),
    (
        errors.ExecutableNotFound,
        (
            r"exec: \".*\": (?:executable file not found in \$PATH|stat .*: no such file or directory)$",
            r"executable file `[^`]*` not found",
            rf"exec .*: (?i:{'|'.join(_NO_FILE)})$",
        ),
    ),
    (
        errors.ExecutableDenied,
        (
            r"exec: \".*\": (?:(?:stat .*: )?permission denied|is a directory)$",
            rf"exec .*: (?i:{'|'.join(_DENIED)})$",
            r"the path `[^`]*` (?:exists but it is not executable|is not a regular file)",
        ),
    ),
    (
        errors.ExecFormatError,
        (rf"(?:exec .*: )?(?i:{'|'.join(_FORMAT)})$",),
    ),
    (
        errors.ResourceError,
        (rf"exec .*: (?i:{'|'.join(_USED_UP)})$",),
    ),
    (
        errors.ExecutableError,
        (r"exec: \"", r"exec (?:container process )?`", rf"exec .*: (?i:{'|'.join(EXECVE_ERRORS)})$"),
    ),
    (
        errors.TerminalError,
        (
            r"cannot allocate tty if runc will detach",
            r"cannot use console socket if runc will not detach",
            r"open /dev/tty: ",
            r"dial unix .*: connect: ",
            r"use --console-socket with ",
            r"tcgetattr: ",
            r"(?:open console socket: )?connect socket to `",
        ),
    ),
    (
        errors.MemoryLimitTooLow,
        (
            r"(?:error setting cgroup config for procHooks process: )?unable to set memory limit to \d+",
            r"container init was OOM-killed",
            r"(?:OOM: )?the memory limit could be too low: (?!open `)",
            r"write to `memory\.(?:limit_in_bytes|max)`: Device or resource busy$",
        ),
    ),
    (
        errors.ResourceError,
        (
            r"error setting cgroup config ",
            r"unable to apply cgroup configuration: ",
            r"error adding pid \d+ to cgroups: ",
            r"(?:failed to write .*: )?(?:write|openat2|open) /sys/fs/cgroup/",
            r"unable to set swap limit ",
            r"invalid configuration: cannot use unified ",
            r"unified resource ",
            r"Intel RDT/|intelRdt\.",
            r"unable to add inotify watch: ",
            r"(?:unable to get all container pids: )?lstat (?:/sys/fs/cgroup/.*)?: no such file or directory$",
            r"cannot toggle freezer: ",
            r"freezer not supported: ",
            r"memory controller missing$",
            r"cannot set .*: container could not join or create cgroup$",
            r"the memory limit could be too low: open `",
            r"cannot set (?:swap limit|kernel) ",
            r"realtime \S+ not supported on cgroupv2",
            r"controller `[^`]*` is not available",
            r"creating cgroup directory `",
            r"(?:write to|open) `(?:cpu|cpuset|memory|blkio|io|pids|hugetlb|devices)\.",
            r"open `/sys/fs/cgroup/",
            r"statfs `/sys/fs/resctrl`",
        ),
    ),
    (
        errors.BundleNotFound,
        (
            r"chdir /.*: no such file or directory$",
            r"JSON specification file \S+ not found$",
            r"invalid rootfs: ",
            r"rootfs \(.*\) does not exist$",  # 1.0
            r"chdir `[^`]*` failed: No such file",
            r"load `config\.json`: cannot read the file",
            r"error loading config\.json.*No such file",
            r"readlink ``: No such file",
        ),
    ),
    (
        errors.InvalidSpec,
        (
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
            r"the sysctl `",
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
    ),
    (
        errors.UnsupportedUsage,
        (
            r"flag provided but not defined: (?P<what>\S+)$",
            r"No help topic for '(?P<what>[^']*)'$",
            r"unknown command (?P<what>\S+)$",
            r"\S+: unrecognized option '(?P<what>[^']*)'$",
            r"\S+: invalid option -- '(?P<what>[^']*)'$",
        ),
    ),
    (
        errors.InvalidUsage,
        (
            r"Incorrect Usage",
            r"invalid value (?:\"|for )",
            r"\S+: \"\S+\" requires ",
            r"(?:exec|process) args cannot be empty$",
            r"(?:bad uid|parsing \S+ as int for uid failed): ",
            r"duration interval must be ",
            r"invalid (?:format option$|log-format: )",
            r"\S+: `\S+` requires a ",
            r"unknown log format type `",
            r"\S+: invalid format `",
            r"please specify a ID for the container$",
            r"invalid UID specified$",
        ),
    ),
    (
        errors.PermissionDenied,
        (
            r"rootless container requires user namespaces$",
            r".*: (?:permission denied|operation not permitted)$",
            r".*: (?:Permission denied|Operation not permitted)$",
        ),
    ),
    (
        errors.ResourceError,
        (rf".*: (?i:{'|'.join(_USED_UP)}|no space left on device|disk quota exceeded)$",),
    ),
)


# What runc says where a container has no cgroup, as without root, or where that has not the controller. It names files
# at best, and never what is missing.
_NO_CGROUP = re.compile(
    r"(?:unable to get all container pids: )?lstat (?:/sys/fs/cgroup/.*)?: no such file or directory$"
    r"|cannot toggle freezer: cgroups not configured"
    r"|freezer not supported: .*: no such file or directory$"
    r"|memory controller missing$"
    r"|cannot set .*: container could not join or create cgroup$"
    r"|unable to add inotify watch: no such file or directory$"
    r"|openat2 /sys/fs/cgroup/.*: no such file or directory$"
)


def explained(message: str) -> str:
    """Say what is missing where a message doesn't."""
    if _NO_CGROUP.match(message):
        return f"no cgroup of the container's own, or none with the controller: {message}"
    return message


class Meaning(NamedTuple):
    """What a message means.

    Attributes:
        cls: The class of the error.
        what: What the runtime doesn't have, for `UnsupportedUsage`.
    """

    cls: type[CommandError]
    what: str | None = None


def meaning(message: str) -> Meaning | None:
    """Look a message up; None if its wording isn't in the table."""
    prefixes = _PREFIXES.match(message)
    start = prefixes.end() if prefixes else 0
    for cls, patterns in _compiled():
        for pattern in patterns:
            if match := pattern.match(message, start):
                return Meaning(cls, match.groupdict().get("what"))
    return None


@cache
def _compiled() -> tuple[tuple[type[CommandError], tuple[re.Pattern[str], ...]], ...]:
    """Compile the table when the first error comes: that takes longer than the import of all the rest."""
    return tuple((cls, tuple(re.compile(each, re.DOTALL) for each in patterns)) for cls, patterns in _TABLE)
