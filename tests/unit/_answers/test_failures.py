"""From a failed runtime's words to a class: see runc_async/_answers/failures.py and _wording.py."""

from __future__ import annotations

import errno
import os.path
import shlex
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

import pytest
import recorded
from hypothesis import example, given, strategies as st

from runc_async import errors
from runc_async._answers.failures import failed, failure
from runc_async._answers.log import parse_log
from runc_async.errors import CommandError, LogRecord

if TYPE_CHECKING:
    from runc_async.runner import Fate

# The family of each recorded failure: runtimes, class, names (fnmatch patterns, without the group "fail/"). The last
# row that matches decides, so exceptions stand below the rule.
FAMILIES: tuple[tuple[str, type[CommandError], str], ...] = (
    ("runc-*", errors.InvalidContainerID, "invalid-id-*"),
    ("crun-*", errors.InvalidContainerID, "invalid-id-*"),
    ("runc-*", errors.ContainerNotFound, "unknown-* events-*unknown invalid-id-plus-* noroot-state state-debug"),
    ("runc-*", errors.ContainerNotFound, "delete-created perm-ownroot-state emptystatedir-*"),
    ("runc-*", errors.ContainerNotFound, "state-after-oom events-oom-init-killed"),
    ("crun-*", errors.ContainerNotFound, "unknown-* invalid-id-plus-* noroot-state state-debug"),
    ("crun-*", errors.ContainerNotFound, "delete-created perm-ownroot-state emptystatedir-*"),
    ("*", errors.ContainerExists, "*-existing* dash-id-after-dashdash-create"),
    ("*", errors.ContainerNotRunning, "exec-stopped start-stopped pause-stopped kill-stopped*"),
    ("runc-*", errors.ContainerNotRunning, "events-*stopped pause-paused update-stopped"),
    ("crun-*", errors.ContainerNotRunning, "resume-stopped"),
    ("*", errors.ContainerRunning, "start-running delete-running"),
    ("*", errors.ContainerPaused, "exec-paused"),
    ("runc-*", errors.ContainerPaused, "start-paused delete-paused"),
    ("crun-*", errors.ContainerRunning, "start-paused delete-paused"),  # its words are those for a running one
    ("runc-*", errors.ContainerNotPaused, "resume-*"),
    ("*", errors.CorruptState, "corrupt-*"),
    ("crun-*", errors.ContainerNotFound, "corrupt-*-delete corrupt-*-start corrupt-*-exec corrupt-*-pause"),
    ("runc-1.3.6-*", errors.RuncCrashed, "corrupt-emptyobj-*"),
    ("*", errors.BundleNotFound, "bundle-missing* config-missing*"),
    ("runc-*", errors.BundleNotFound, "rootfs-missing-* config-noversion"),
    ("*", errors.InvalidSpec, "config-garbage config-empty* config-wrongtype config-array config-truncated"),
    ("*", errors.InvalidSpec, "args-empty-* mount-src-missing-* bad-ns-create bad-seccomp-create selinux-create"),
    ("*", errors.InvalidSpec, "ns-path-missing-create rlimit-bogus-create uid-unmapped-create idmap-mount-create"),
    ("*", errors.InvalidSpec, "hostns-sysctl-create timens-offset-create exec-cwd-missing exec-process-emptyobj"),
    ("runc-*", errors.InvalidSpec, "cwd-relative-* apparmor-missing-create exec-env-bad update-res-wrongtype"),
    ("crun-*", errors.InvalidSpec, "config-noversion perm-ownroot-create perm-ownroot-run-rootless"),
    ("*", errors.ExecutableNotFound, "exe-missing-* exec-missing-bin*"),
    ("*", errors.ExecutableDenied, "exe-noexec-* exe-dir-* exec-noexec exec-dir"),
    ("*", errors.ExecFormatError, "exe-badformat-run exec-badformat"),
    ("*", errors.HookError, "hook-*"),
    ("*", errors.TerminalError, "terminal-no-socket-* console-socket-missing run-detach-tty exec-*tty*"),
    ("runc-*", errors.TerminalError, "console-socket-noterm"),
    ("*", errors.InvalidSignal, "kill-badsig-* sig/*"),
    ("*", errors.ResourceError, "rdt-create cpuset-bad-create exec-cgroup-missing update-cp* update-blkio-bad"),
    ("*", errors.ResourceError, "update-ok-* update-unknown-key update-swap"),
    ("runc-*", errors.ResourceError, "update-rdt update-mbw"),
    ("runc-*-v2", errors.ResourceError, "events-*ms events-*1s events-container-*"),  # no memory controller there
    ("crun-*", errors.ResourceError, "update-kernel-memory* update-rt update-stopped update-mem-neg cgroupspath-*"),
    ("*", errors.MemoryLimitTooLow, "memory-low-* update-mem-low"),
    ("crun-*-v1", errors.MemoryLimitTooLow, "update-mem-abc update-ok-memhuman"),  # it takes "abc" for 0
    ("*-v2", errors.ResourceError, "memory-low-* update-mem-low"),
    ("crun-*-v2", errors.ResourceError, "update-mem-abc"),
    ("runc-1.2.9-v2full", errors.ContainerNotRunning, "update-mem-low"),  # the one before it was killed for memory
    ("runc-*", errors.CheckpointError, "checkpoint-nocriu restore-nocriu"),
    ("crun-*", errors.CheckpointError, "checkpoint-nocriu"),
    ("crun-1.28-v2full", errors.ContainerNotRunning, "checkpoint-nocriu"),
    ("*", errors.PermissionDenied, "perm-state perm-list perm-kill perm-create perm-exec perm-delete"),
    ("*", errors.PermissionDenied, "perm-default-root-*"),
    ("runc-*", errors.PermissionDenied, "perm-ownroot-create perm-ownroot-run-rootless"),
    ("runc-1.2.9-v2full", errors.ContainerNotFound, "perm-default-root-state"),
    ("*", errors.InvalidUsage, "no-args-* extra-args-state list-bad-format bad-log-format exec-user-missing"),
    ("runc-*", errors.InvalidUsage, "events-interval-0s events-interval--1s events-interval-1 events-interval-abc"),
    (
        "runc-*",
        errors.InvalidUsage,
        "update-mem-abc update-mem-neg update-pids-bad update-share-bad update-*riod-bad",
    ),
    ("crun-*", errors.InvalidUsage, "ps-* sig/kill-all-trailing"),
    ("*", errors.UnsupportedUsage, "unknown-command unknown-flag unknown-global invalid-id-dash*"),
    ("*", errors.UnsupportedUsage, "update-cpu-idle* update-cpu-burst"),
    ("runc-1.1.15-*", errors.UnsupportedUsage, "kill-badsig--1"),
    ("runc-1.3.6-v2", errors.ResourceError, "update-cpu-idle* update-cpu-burst"),
    ("crun-*", errors.UnsupportedUsage, "events-* criu-global"),
    # 1.8.1 doesn't check an id, says less, and has neither features, nor criu, nor these options
    ("crun-1.8.1-*", errors.ContainerNotFound, "invalid-id-dotdot-state invalid-id-empty-state invalid-id-space-*"),
    ("crun-1.8.1-*", errors.ContainerNotFound, "invalid-id-slash-state invalid-id-slash-delete invalid-id-dot-state"),
    ("crun-1.8.1-*", errors.ContainerNotFound, "invalid-id-dd-state invalid-id-unicode-* invalid-id-colon-*"),
    ("crun-1.8.1-*", errors.ContainerNotFound, "bad-rootless state-after-run-keep"),
    ("crun-1.8.1-*", errors.ExecutableNotFound, "exec-env-bad"),
    ("crun-1.8.1-*", errors.InvalidContainerID, "invalid-id-long-create"),
    ("crun-1.8.1-*", errors.BundleNotFound, "rootfs-missing-create rootfs-missing-run"),
    ("crun-1.8.1-*", errors.InvalidSpec, "config-missing apparmor-missing-create"),
    ("crun-1.8.1-*", errors.TerminalError, "console-socket-noterm"),
    ("crun-1.8.1-*", errors.UnsupportedUsage, "features *checkpoint* restore-nocriu update-rdt update-mbw"),
    ("crun-1.8.1-v2full", errors.ContainerNotRunning, "sig/* kill-badsig-9_sp kill-badsig-KILL_sp"),
    ("crun-1.8.1-v2full", errors.InvalidUsage, "sig/kill-all-trailing"),
    # its own options for limits, which the library doesn't use, become a document that is then parsed
    ("crun-1.8.1-*", errors.CorruptState, "update-mem-abc update-pids-bad update-*riod-bad"),
    ("crun-1.8.1-*", errors.CorruptState, "update-share-bad update-ok-memhuman"),
)

# ... and the recorded failures that stay a plain `CommandError`: paths of the caller's and ps(1), mostly.
PLAIN: tuple[tuple[str, str], ...] = (
    ("*", "spec-exists bad-log-path pidfile-unwritable exec-process-missing update-res-missing"),
    ("*", "root-is-file-state root-is-file-list root-is-file-create"),
    # which of two documents is broken isn't said
    ("*", "exec-process-badjson update-res-badjson update-res-stdin-badjson"),
    ("runc-*", "preserve-fds-missing exec-preserve-fds-missing list-root-missing relroot-list"),
    ("runc-*", "ps-table ps-default ps-table-stopped ps-table-opt-ef ps-table-opt-aux ps-table-opt-no-pid-col"),
    ("runc-*", "ps-table-dashdash ps-table-bad-opt"),
    ("runc-1.2.9-v2full", "perm-default-root-list"),
    ("crun-1.28-*", "rootfs-missing-create rootfs-missing-run"),
    ("crun-*", "root-empty-string"),
    ("crun-*", "list-stray-file"),
    # it doesn't say why
    ("crun-1.8.1-*", "invalid-id-slash-create perm-create perm-ownroot-run-rootless"),
    # its standard input could not be opened in the recording
    ("crun-*-v2full", "update-ok-stdin update-ok-stdin-mem update-ok-stdin-unified update-unknown-key update-empty"),
    ("crun-*-v2full", "update-res-wrongtype"),
)
ROWS: tuple[tuple[str, type[CommandError], str], ...] = (
    *FAMILIES,
    *((runtime, CommandError, names) for runtime, names in PLAIN),
    ("crun-1.28-v2", errors.ContainerNotFound, "list-stray-file"),  # it complained of another one as well
)

# The one failure whose four runs did not fail alike: the first left a container behind.
UNLIKE = {"restore-nocriu": {errors.CheckpointError, errors.ResourceError, errors.ContainerExists, CommandError}}

# A container's process that ended with such a code; nothing failed.
EXITS = {"run-exit1", "run-exit7", "run-exit255", "run-keep", "run-killed-KILL", "run-killed-TERM"} | {
    "exec-exit7",
    "exec-killed",
    "exec-term",
}


def was_exit(run: recorded.Case) -> bool:
    """Whether a container's process ended with the code: crun 1.8.1 knows no `run --keep`, and refuses it."""
    return run.name in EXITS and not (run.name == "run-keep" and run.runtime.startswith("crun-1.8.1"))


def short(run: recorded.Case) -> str:
    """Return the name of a run without its group."""
    return run.name.removeprefix("fail/")


def code(run: recorded.Case) -> int:
    """Return the exit code of a run that ended by itself."""
    assert isinstance(run.rc, int)
    return run.rc


def row(run: recorded.Case) -> tuple[str, type[CommandError], str] | None:
    """Return the row of the table above that a run belongs to."""
    name = short(run)
    matching = (
        each
        for each in reversed(ROWS)
        if fnmatchcase(run.runtime, each[0]) and any(fnmatchcase(name, pattern) for pattern in each[2].split())
    )
    return next(matching, None)


@cache
def judge(run: recorded.Case) -> CommandError:
    """Make the error for a run."""
    args = tuple(shlex.split(run.cmd))
    return failure(args, code(run), recorded.raw(run.stdout), recorded.raw(run.stderr), parse_log(run.logged), "web")


ENDED = [run for run in recorded.cases() if isinstance(run.rc, int) and run.rc > 0]
FAILURES = [run for run in ENDED if run.name not in EXITS]
FOREGROUND = [
    run for run in ENDED if run.name in EXITS or fnmatchcase(short(run), "exec-*") or short(run).endswith("-run")
]


@pytest.mark.parametrize("runtime", recorded.RUNTIMES)
def test_each_recorded_failure_has_the_class_of_its_family_in_all_forms(runtime: str) -> None:
    """The same failure gives the same class, told by the log or by stderr, as text or as JSON, and none is left out."""
    wrong: list[tuple[str, str, str]] = []
    for run in FAILURES:
        if run.runtime == runtime and not (runtime.startswith("crun") and run.name.endswith("restore-nocriu")):
            family, error = row(run), judge(run)
            if family is None or type(error) is not family[1]:
                wrong.append((run.id, type(error).__name__, str(error)))
    assert wrong == []


def test_forms_that_failed_in_different_ways_have_the_class_of_their_own_words() -> None:
    """A first restore by crun fails in criu or before it, the following ones because of what it left behind."""
    for run in FAILURES:
        if run.runtime.startswith("crun-1.28") and short(run) in UNLIKE:
            assert type(judge(run)) in UNLIKE[short(run)], run.id
    later = [type(judge(run)) for run in recorded.cases("crun-1.28*", "fail/restore-nocriu", form="logjson")]
    assert later == [errors.ContainerExists] * 3


def test_each_row_of_the_table_decides_a_case() -> None:
    """No family stands there for nothing."""
    deciding = {row(run) for run in FAILURES}
    assert [each for each in ROWS if each not in deciding] == []


def test_the_runs_that_stay_plain_are_exactly_those_listed() -> None:
    """A recorded failure without a class of its own is written down by its full name."""
    plain = {short(run) for run in FAILURES if type(judge(run)) is CommandError} - set(UNLIKE)
    assert plain == {name for _, names in PLAIN for name in names.split()}


@pytest.mark.parametrize("form", ["text", "json", "logtext", "logjson"])
def test_the_sentence_of_each_recorded_failure_is_one_line_that_names_the_container(form: recorded.Form) -> None:
    """Nothing that a real runtime said breaks the line, in any form."""
    for run in FAILURES:
        if run.form == form:
            sentence = str(judge(run))
            assert sentence.startswith("container 'web': "), run.id
            assert sentence.isprintable(), run.id
            assert "no error message" not in sentence, run.id


@pytest.mark.parametrize("runtime", recorded.RUNTIMES)
def test_a_runtime_that_failed_is_told_from_a_process_that_ended_with_a_code(runtime: str) -> None:
    """For each recorded `run` and `exec` with the private log, it is known who failed."""
    runs = [run for run in FOREGROUND if run.runtime == runtime and (run.form == "logjson" or run.name in EXITS)]
    for run in runs:
        assert failed(parse_log(run.logged), code(run), recorded.raw(run.stderr)) is (not was_exit(run)), run.id
    assert len(runs) > len(EXITS)


ERROR = (LogRecord("error", "exec failed: container does not exist"),)
WARNING = (LogRecord("warning", "can't raise ambient capability"),)
TRACE = b"panic: nil pointer\n\ngoroutine 1 [running]:\ngithub.com/opencontainers/runc/libcontainer.loadState(0x1)\n"


@pytest.mark.parametrize(
    ("log", "exit_code", "stderr", "expected"),
    [
        (ERROR, 1, b"", True),
        (ERROR, 0, b"", False),
        (ERROR, None, b"", True),
        (WARNING, 7, b"", False),
        (WARNING, -9, b"", True),
        ((), None, b"", False),
        ((), 255, b"", False),
        ((), 2, TRACE, True),
        ((), 2, b"panic: nil pointer\n\ngoroutine 1 [running]:\nmain.main()\n", False),
        ((), 3, TRACE, False),
        (
            (),
            2,
            b"runtime: failed to create new OS thread\nruntime: may need\n" + TRACE,
            True,
        ),
        ((), 2, b"runtime: failed to create new OS thread\nfatal error: newosproc\n", False),
        ((), 2, b"working\n" + TRACE, False),
        ((), 255, b"exec /script: no such file or directory\n", True),
        ((), 1, b"exec /bin/x: exec format error", True),
        ((), 1, b"standard_init_linux.go:228: exec user process caused: exec format error\n", True),
        ((), 1, b"exec container process `/x`: Exec format error\n", True),
        ((), 127, b"exec /script: no such file or directory\n", False),
        ((), 1, b"working\nexec /script: no such file or directory\n", False),
        ((), 1, b"exec /script: out of cheese\n", False),
        ((), 1, b"exec /bin/x: exec format error\n" + b" " * 70_000, False),
        ((), 1, b'time="2026-01-01T00:00:00Z" level=error msg="flag provided but not defined: -x"\n', True),
        ((), 1, b'time="2026-01-01T00:00:00Z" level=error msg="the workload logs like runc"\n', False),
    ],
)
def test_who_failed_is_decided_by_the_log_then_by_a_stderr_that_says_only_one_thing(
    log: tuple[LogRecord, ...], exit_code: int | None, stderr: bytes, *, expected: bool
) -> None:
    """An error record decides, a warning doesn't; stderr counts only where it is exactly what a runtime prints."""
    assert failed(log, exit_code, stderr) is expected


def test_the_last_error_is_the_message_and_those_before_it_may_choose_the_class() -> None:
    """A general last word keeps the class that an error before it called for."""
    known, general = LogRecord("error", "container not running"), LogRecord("error", "it all went wrong")
    error = failure(("runc", "pause", "web"), 1, log=(known, general), container_id="web")
    assert (type(error), error.message) == (errors.ContainerNotRunning, "it all went wrong")


def test_the_log_counts_before_stderr() -> None:
    """What a container prints can't choose the class while the log has an error."""
    error = failure(("runc", "run", "web"), 1, stderr=b"container does not exist", log=(LogRecord("error", "odd"),))
    assert (type(error), error.message, error.stderr) == (CommandError, "odd", b"container does not exist")


def test_a_host_without_ps_is_named() -> None:
    """A missing ps(1) of the host is no missing program of the container."""
    own = LogRecord("error", 'exec: "ps": executable file not found in $PATH: ')
    error = failure(("runc", "ps", "web"), 1, log=(own,), container_id="web")
    assert (type(error), "no ps(1)" in str(error)) == (CommandError, True)
    inside = LogRecord(
        "error", 'exec failed: unable to start container process: exec: "ps": executable file not found in $PATH'
    )
    error = failure(("runc", "exec", "web", "ps"), 1, log=(inside,), container_id="web")
    assert type(error) is errors.ExecutableNotFound


def test_a_warning_is_no_reason() -> None:
    """Records below error neither choose the class nor become the message."""
    error = failure((), 1, log=(LogRecord("warning", "container does not exist"),))
    assert (type(error), error.message) == (CommandError, "exit code 1, and no error message")


def test_a_name_that_is_quoted_in_a_message_does_not_choose_the_class() -> None:
    """A program that is called like an error is a program."""
    text = 'runc run failed: unable to start container process: exec: "container does not exist": permission denied'
    assert type(failure((), 1, log=(LogRecord("error", text),))) is errors.ExecutableDenied


def test_the_output_of_a_hook_does_not_choose_the_class() -> None:
    """A hook that was refused something has failed as a hook."""
    text = "error running hook #0: error running hook: exit status 1, stdout: , stderr: open x: permission denied"
    assert type(failure((), 1, log=(LogRecord("error", f"runc create failed: {text}"),))) is errors.HookError


def test_the_cause_that_a_record_keeps_apart_is_part_of_the_message() -> None:
    """Nothing that the runtime said of the reason is lost."""
    error = failure((), 1, log=(LogRecord("error", "can't do it", None, "disk full"),))
    assert error.message == "can't do it: disk full"


@pytest.mark.parametrize(
    "text",
    [
        "runc create failed: cannot allocate tty if runc will detach without setting console socket",
        "runc run failed: open /dev/tty: no such device or address\n",
        "use --console-socket with --detach when a terminal is used",
    ],
)
def test_a_missing_terminal_comes_with_the_remedy(text: str) -> None:
    """A process with `terminal` and no terminal is refused in words that name both ways out."""
    error = failure((), 1, log=(LogRecord("error", text),))
    assert isinstance(error, errors.TerminalError)
    assert error.message is not None
    assert error.message.startswith(text.rstrip() + "; ")
    assert "set_terminal(enabled=False)" in error.message
    assert "io=PtyIO()" in error.message


def test_an_unwanted_console_socket_has_no_such_remedy() -> None:
    """The opposite mistake is a `TerminalError` as well, and keeps the runtime's message."""
    text = "runc run failed: cannot use console socket if runc will not detach or allocate tty"
    assert failure((), 1, log=(LogRecord("error", text),)).message == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('container "web" does not exist', errors.ContainerNotFound),
        ("container with id exists: web", errors.ContainerExists),
        ("invalid id format: a b", errors.InvalidContainerID),
        ("cannot delete container web that is not stopped: running\n", errors.ContainerRunning),
        ("container not running or created: paused", errors.ContainerNotRunning),
        ("cannot exec a container that has stopped", errors.ContainerNotRunning),
        ("container_linux.go:419: signaling init process caused: invalid argument", errors.InvalidSignal),
        (
            'container_linux.go:380: starting container process caused: exec: "x": executable file not found in $PATH',
            errors.ExecutableNotFound,
        ),
        (
            "process_linux.go:545: container init caused: running hook #0:: error running hook: exit status 1",
            errors.HookError,
        ),
        ("rootfs (/b/rootfs) does not exist", errors.BundleNotFound),
    ],
)
def test_runc_1_0_is_understood(text: str, expected: type[CommandError]) -> None:
    """The old wordings and prefixes lead to the same classes."""
    assert type(failure(("runc",), 1, log=(LogRecord("error", text),))) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "runc run failed: unable to create new parent process: namespace path: lstat /x: no such file or directory",
            errors.InvalidSpec,
        ),
        ("json: cannot unmarshal number into Go struct field State.id of type string", errors.CorruptState),
        ("json: cannot unmarshal number into Go struct field State.BaseState.id of type string", errors.CorruptState),
        ("json: cannot unmarshal number into Go struct field Config.config.rootfs of type string", errors.CorruptState),
        ("kill container: No such process", errors.ContainerNotRunning),
        ("connect socket to `/x`: No such file or directory", errors.TerminalError),
        ("readlink ``: No such file or directory", errors.BundleNotFound),
        ("unknown version specified", errors.InvalidSpec),
        (
            "runc create failed: intelRdt is specified in config, but Intel RDT is not enabled",
            errors.ResourceError,
        ),
        (
            "exec failed: can't open cgroup: open /sys/fs/cgroup/pids/web: no such file or directory",
            errors.ResourceError,
        ),
    ],
)
def test_what_was_met_beside_the_recorded_cases_is_understood(text: str, expected: type[CommandError]) -> None:
    """Wordings of today's runtimes, for failures that were not recorded, lead to the class of their kind."""
    assert type(failure(("runc", "state"), 1, log=(LogRecord("error", text),))) is expected


@pytest.mark.parametrize(
    "text",
    [
        "unable to get all container pids: lstat /sys/fs/cgroup/devices/web: no such file or directory",
        "lstat : no such file or directory",
        "cannot toggle freezer: cgroups not configured for container",
        "freezer not supported: openat2 /sys/fs/cgroup/web/cgroup.freeze: no such file or directory",
        "memory controller missing",
        "cannot set pids limit: container could not join or create cgroup",
        "openat2 /sys/fs/cgroup/web/memory.max: no such file or directory",
    ],
)
def test_a_missing_cgroup_is_named(text: str) -> None:
    """What runc says of the files that it has not found is a ResourceError that says what is missing, and the words."""
    error = failure(("runc", "events"), 1, log=(LogRecord("error", text),))
    assert type(error) is errors.ResourceError
    assert error.message == f"no cgroup of the container's own, or none with the controller: {text}"


STARTING = "runc run failed: unable to start container process: "


@pytest.mark.parametrize(
    "text",
    [
        'runc run failed: malformed spec file: duplicated ns {"pid" ""}',
        f"{STARTING}unable to setup user: cannot set uid to unmapped user in user namespace",
        f"{STARTING}unable to setup user: cannot setgid to unmapped gid 9 in user namespace",
        f"{STARTING}unable to setup user: setgroups: invalid argument",
        "runc create failed: unable to set hostname without a private UTS namespace",
        "runc create failed: string  is not a valid arch for seccomp",
        "runc create failed: root must be specified",
        'runc create failed: invalid device type "x"',
        "runc create failed: device access at 0 field cannot be empty",
        "runc create failed: wrong rlimit value:",
        f"{STARTING}configuring container /dev: error creating device nodes: cannot mkdev() device with wildcards",
        f"{STARTING}error during container init: write /proc/sys/net/ipv4/ip_forward: invalid argument",
        f'{STARTING}failed to write sysctl a = "x": write fsmount:fscontext:proc/sys/net/a: invalid argument',
        f"{STARTING}error setting rlimits for ready process: error setting rlimit type 7: invalid argument",
    ],
)
def test_what_a_document_asks_for_in_vain_is_its_own_fault(text: str) -> None:
    """What runc refuses of a document's meaning is InvalidSpec, in each of its wordings."""
    assert type(failure(("runc", "run"), 1, log=(LogRecord("error", text),))) is errors.InvalidSpec


def test_a_missing_right_is_not_the_document_s_fault() -> None:
    """A user that the kernel doesn't let runc become is PermissionDenied."""
    text = f"{STARTING}unable to setup user: setgroups: operation not permitted"
    assert type(failure(("runc", "run"), 1, log=(LogRecord("error", text),))) is errors.PermissionDenied


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("error opening file `/run/crun/web/status`: No such file or directory", errors.ContainerNotFound),
        ("open pidfd: No such process", errors.ContainerNotRunning),
        ("error loading config.json: No such file or directory", errors.BundleNotFound),
        ("error loading config.json: unexpected end", errors.InvalidSpec),
    ],
)
def test_older_crun_is_understood(text: str, expected: type[CommandError]) -> None:
    """Wordings that crun no longer uses lead to the same classes."""
    assert type(failure(("crun",), 1, stderr=text.encode())) is expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("runc", "create", "-b", "/b", "web"), errors.InvalidSpec),
        (("runc", "--root", "create", "state", "web"), errors.CorruptState),
        (("runc", "--log=x", "kill", "web"), errors.CorruptState),
        (("runc", "exec", "--process", "<process.json>", "web"), errors.CorruptState),
        (("runc", "exec", "--process", "/my/process.json", "web"), CommandError),
        (("runc", "update", "-r", "-", "web"), CommandError),
        (("runc",), CommandError),
        ((), CommandError),
    ],
)
def test_a_json_error_is_about_the_document_that_the_command_reads(
    args: tuple[str, ...], expected: type[CommandError]
) -> None:
    """`EOF` is a broken config.json for create, a broken state for state, and unknown where it could be either."""
    assert type(failure(args, 1, log=(LogRecord("error", "EOF"),))) is expected


@pytest.mark.parametrize(
    ("args", "field", "expected"),
    [
        (("runc", "create", "web"), "POSIXRlimit.process.rlimits.soft", errors.InvalidSpec),
        (("runc", "run", "web"), "Hook.hooks.poststop.timeout", errors.InvalidSpec),
        (("runc", "restore", "web"), "Linux.linux.sysctl", errors.InvalidSpec),
        (("runc", "create", "web"), ".process", errors.InvalidSpec),
        (("runc", "exec", "--process", "<process.json>", "web"), "User.user.uid", errors.InvalidSpec),
        (("runc", "exec", "--process", "/p.json", "web"), "Process.args", errors.InvalidSpec),
        (("runc", "exec", "--process", "<process.json>", "web"), "Config.config.rootfs", errors.CorruptState),
        (("runc", "exec", "web", "sh"), "State.cgroup_paths", errors.CorruptState),
        (("runc", "update", "--resources", "<resources.json>", "web"), "Weight.blockIO.weight", errors.InvalidSpec),
        (("runc", "kill", "web"), "Config.config.rootfs", errors.CorruptState),
        (("runc",), "Process.args", CommandError),
    ],
)
def test_a_wrong_type_is_about_the_document_that_has_the_key(
    args: tuple[str, ...], field: str, expected: type[CommandError]
) -> None:
    """A value of a wrong type is the document's fault whose key stands at the root, whatever struct Go names."""
    text = f"exec failed: json: cannot unmarshal string into Go struct field {field} of type int"
    assert type(failure(args, 1, log=(LogRecord("error", text),))) is expected


def test_criu_s_log_file_is_found_in_what_the_runtime_says() -> None:
    """Each runtime names the file in its own way, relative to the work path or absolute."""
    paths: set[str] = set()
    for run in recorded.cases(case="fail/*-nocriu"):
        error = judge(run)
        if isinstance(error, errors.CheckpointError):
            assert error.log_path is not None or run.form == "logtext", run.id
            paths |= {os.path.basename(error.log_path or "dump.log")}
    assert paths == {"dump.log", "restore.log"}


def test_a_checkpoint_without_a_log_file_has_no_path() -> None:
    """A criu that isn't there has written nothing."""
    text = 'CRIU version check failed: exec: "criu": executable file not found in $PATH'
    error = failure(("runc", "checkpoint", "web"), 1, log=(LogRecord("error", text),))
    assert isinstance(error, errors.CheckpointError)
    assert (error.log_path, error.log_tail) == (None, b"")


@pytest.mark.parametrize(
    ("args", "text", "what", "runtime"),
    [
        (("/usr/bin/runc", "x"), "flag provided but not defined: -pidfd-socket", "-pidfd-socket", "runc"),
        (("runc", "x"), "No help topic for 'x'\n", "x", "runc"),
        (("crun", "events"), "unknown command events", "events", "crun"),
        ((), "crun: unrecognized option '--x'", "--x", "the runtime"),
    ],
)
def test_an_unknown_option_or_command_is_named(args: tuple[str, ...], text: str, what: str, runtime: str) -> None:
    """What the runtime doesn't have is an attribute, and the error an `UnsupportedError` as well."""
    error = failure(args, 1, stderr=text.encode())
    assert isinstance(error, errors.UnsupportedError)
    assert (error.what, error.runtime) == (what, runtime)


def test_wrong_usage_that_is_told_on_stdout_only_is_found() -> None:
    """With stderr given away, runc's help on stdout still says that the command line was wrong."""
    error = failure(("runc", "state"), 1, stdout=b"Incorrect Usage.\n\nNAME:\n   runc state\n")
    assert (type(error), error.message) == (errors.InvalidUsage, "Incorrect Usage.")


def test_other_output_is_no_message() -> None:
    """What a container prints on stdout isn't taken for runc's words."""
    error = failure(("runc", "run"), 1, stdout=b"container does not exist\n")
    assert (type(error), error.message) == (CommandError, "exit code 1, and no error message")


NO_THREAD = b"runtime/cgo: pthread_create failed: Resource temporarily unavailable\nSIGABRT: abort\n"


@pytest.mark.parametrize(("process", "expected"), [("none", True), ("ended", False), (None, False)])
@pytest.mark.parametrize("stderr", [NO_THREAD, b""])
def test_a_runc_that_gets_no_thread(*, stderr: bytes, process: Fate | None, expected: bool) -> None:
    """It dies as a Go program in the container might; whether there was a process in the container tells them apart."""
    assert failed((), 2, stderr, process=process) is expected
    assert failed((), 3, stderr, process=process) is expected
    assert type(failure(("runc", "exec", "web", "cat"), 2, stderr=stderr, process=process)) is errors.RuncCrashed


def test_a_runc_that_has_no_process_says_why_on_stderr() -> None:
    """The words can only be its own then."""
    error = failure(("runc", "run", "web"), 2, stderr=b"container does not exist\n", process="none")
    assert type(error) is errors.ContainerNotFound
    error = failure(("runc", "run", "web"), 2, stderr=b"something else\n", process="none")
    assert (type(error), error.message) == (errors.RuncCrashed, "something else")


@pytest.mark.parametrize("exit_code", [1, 2, 137])
def test_a_runc_that_loses_its_process(exit_code: int) -> None:
    """No exit code is that of a process that goes on, or ended with another; what that has printed means nothing."""
    assert not failed((), 0, process="lost")
    assert failed((), exit_code, b"container does not exist\n", process="lost")
    error = failure(("runc", "run", "web"), exit_code, stderr=b"container does not exist\n", process="lost")
    assert type(error) is errors.RuncCrashed
    log = parse_log(b'{"level":"error","msg":"container does not exist"}\n')
    assert type(failure(("runc", "run", "web"), exit_code, log=log, process="lost")) is errors.ContainerNotFound


def test_a_panic_is_a_crash_and_its_first_line_the_message() -> None:
    """The trace stays in stderr."""
    error = failure(("runc", "state", "web"), 2, stderr=b"\n" + TRACE)
    assert (type(error), error.message) == (errors.RuncCrashed, "panic: nil pointer")


def test_a_2_without_a_word_is_a_crash() -> None:
    """The trace may have gone where it isn't captured; a runtime that fails in order says why, and ends with 1."""
    assert type(failure(("runc", "create", "web"), 2)) is errors.RuncCrashed
    assert type(failure(("runc", "create", "web"), 1)) is CommandError
    assert type(failure(("runc", "create", "web"), 2, stderr=b"out of cheese")) is CommandError


def test_a_runtime_that_was_killed_has_crashed_unless_it_said_why_it_failed() -> None:
    """A signal alone is `RuncCrashed`, whatever is on stderr."""
    killed = failure(("runc", "run", "web"), -9)
    assert (type(killed), killed.message) == (errors.RuncCrashed, "killed by signal 9")
    assert type(failure(("runc", "run", "web"), -9, stderr=b"half a line")) is errors.RuncCrashed
    assert type(failure(("runc", "run", "web"), -9, log=ERROR)) is errors.ContainerNotFound


@given(st.binary(max_size=300), st.binary(max_size=300), st.none() | st.integers(-64, 255), st.text(max_size=20))
@example(b'{"level":"error","msg":"\\u001b]0;x\\u0007\\u202e"}', b"", 1, "\x1b[2J")
@example(b"", b"\x1b[31mERRO\x1b[0m[0000] \x1b]52;c;x\x07", 1, "web")
@example(b"", b"\xff\x00\x9b31m", -11, "\ud800")
def test_any_bytes_give_a_command_error_of_one_harmless_line(
    log: bytes, stderr: bytes, exit_code: int | None, container_id: str
) -> None:
    """Whatever comes, there is an error with one printable line, and the bytes stay with it."""
    error = failure(("runc", "state"), exit_code, b"", stderr, parse_log(log), container_id)
    assert str(error).isprintable()
    assert error.message
    assert error.stderr == stderr
    assert isinstance(failed(parse_log(log), exit_code, stderr), bool)


HOSTILE: tuple[Callable[[int], str], ...] = (
    lambda size: 'exec: "' + '": stat ' * size,
    lambda size: "exec " + ": " * size,
    lambda size: "json: " + "specs" * size,
    lambda size: "runc run failed: " * size,
    lambda size: " " * size + "permission denied",
)


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.timeout(10)
def test_a_huge_message_is_judged_in_bounded_time(hostile: Callable[[int], str]) -> None:
    """The table looks at a bounded part of the message."""
    text = hostile(1 << 20)
    assert len(str(failure((), 1, log=(LogRecord("error", text),)))) < 2000
    assert not failed((), 3, text.encode())


@pytest.mark.timeout(10)
def test_only_the_last_lines_are_judged() -> None:
    """A container that prints without end neither costs time nor hides what the runtime said in the end."""
    flood = b"x\n" * 100_000
    assert type(failure((), 1, stderr=flood + b"container not running\n")) is errors.ContainerNotRunning
    assert type(failure((), 1, stderr=b"container not running\n" + b"x\n" * 100)) is CommandError


# All that execve(2) lists under "ERRORS", with the class of each.
EXECVE: dict[int, type[CommandError]] = {
    errno.E2BIG: errors.ExecutableError,
    errno.EACCES: errors.ExecutableDenied,
    errno.EAGAIN: errors.ResourceError,
    errno.EFAULT: errors.ExecutableError,
    errno.EINVAL: errors.ExecutableError,
    errno.EIO: errors.ExecutableError,
    errno.EISDIR: errors.ExecutableError,
    errno.ELIBBAD: errors.ExecutableError,
    errno.ELOOP: errors.ExecutableError,
    errno.EMFILE: errors.ResourceError,
    errno.ENAMETOOLONG: errors.ExecutableError,
    errno.ENFILE: errors.ResourceError,
    errno.ENOENT: errors.ExecutableNotFound,
    errno.ENOEXEC: errors.ExecFormatError,
    errno.ENOMEM: errors.ResourceError,
    errno.ENOTDIR: errors.ExecutableError,
    errno.EPERM: errors.ExecutableDenied,
    errno.ETXTBSY: errors.ExecutableError,
}


@pytest.mark.parametrize("number", EXECVE, ids=errno.errorcode.get)
@pytest.mark.parametrize("exit_code", [1, 255])
def test_each_error_of_execve_is_a_failure_of_its_class(number: int, exit_code: int) -> None:
    """Whatever execve(2) lists is known, as runc prints it in lower case and as crun logs it."""
    text = os.strerror(number)
    printed = f"exec /bin/a b: {text.lower()}\n".encode()
    assert failed((), exit_code, printed, process="ended")
    assert type(failure(("runc", "exec"), exit_code, stderr=printed, process="ended")) is EXECVE[number]
    for message in (f"exec container process `/bin/a`: {text}", f"exec `/bin/a`: {text}"):
        assert type(failure(("crun", "exec"), 1, log=(LogRecord("error", message),))) is EXECVE[number]


# What glibc words otherwise: musl's words, with which a static crun is linked, and that of a seccomp profile.
OTHER_WORDS: dict[str, type[CommandError]] = {
    "Function not implemented": errors.ExecutableError,
    "I/O error": errors.ExecutableError,
    "Filename too long": errors.ExecutableError,
    "No file descriptors available": errors.ResourceError,
    "Out of memory": errors.ResourceError,
    "Symbolic link loop": errors.ExecutableError,
}


@pytest.mark.parametrize("text", OTHER_WORDS)
def test_an_error_of_execve_in_other_words_is_of_its_class(text: str) -> None:
    """The class is the same in the words of another C library."""
    printed = f"exec /bin/a: {text.lower()}\n".encode()
    assert failed((), 1, printed, process="ended")
    assert type(failure(("runc", "exec"), 1, stderr=printed, process="ended")) is OTHER_WORDS[text]
    log = (LogRecord("error", f"exec container process `/bin/a`: {text}"),)
    assert type(failure(("crun", "exec"), 1, log=log)) is OTHER_WORDS[text]


def test_an_error_of_execve_is_no_failure_with_other_output_or_code() -> None:
    """A program that prints more than that, or ends with another code, has run."""
    for exit_code, printed in ((1, b"hello\nexec /x: is a directory\n"), (3, b"exec /x: is a directory\n")):
        assert not failed((), exit_code, printed, process="ended")


@pytest.mark.parametrize(
    ("message", "printed"),
    [
        ("exec failed: unable to start container process: read init-p: connection reset by peer", NO_THREAD),
        ("exec failed: unable to start container process: procReady not received", NO_THREAD),
        (
            "exec failed: unable to start container process: EOF",
            b"runtime: failed to create new OS thread (have 5 already; errno=11)\nfatal error: newosproc\n",
        ),
    ],
)
def test_an_exec_that_gets_no_thread_in_the_container(message: str, printed: bytes) -> None:
    """Where `pids.limit` is reached runc says that its copy is gone, and what is on stderr says why."""
    log = (LogRecord("error", message),)
    error = failure(("runc", "exec", "web"), 255, stderr=printed, log=log, container_id="web", process="none")
    assert type(error) is errors.ResourceError
    assert message in error.message
    assert "thread" in error.message
    assert type(failure(("runc", "exec", "web"), 255, stderr=b"", log=log)) is not errors.ResourceError


@pytest.mark.parametrize("exit_code", [1, 3, 126, 127, 255])
def test_a_code_without_a_process_is_the_runtimes_own(exit_code: int) -> None:
    """Where no process was reported, no exit code is a program's, whatever is on stderr."""
    printed = b"nsenter: cannot open /proc/9/ns/mnt: No such file or directory\n"
    for stderr in (printed, b""):
        assert failed((), exit_code, stderr, process="none")
        assert not failed((), exit_code, stderr, process="ended")
    error = failure(("runc", "run"), exit_code, b"", printed, process="none")
    assert (type(error), error.message) == (CommandError, printed.decode().strip())
    assert failure(("runc", "run"), exit_code, printed, process="none").message == printed.decode().strip()
