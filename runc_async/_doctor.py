"""The report of `python -m runc_async` about this host.

The survey changes nothing. It runs the runtime; two short processes, one to see whether the kernel keeps exit statuses,
one to see how soon process 1 reaps; and, without other problems, one container: only a container shows whether
containers work here for this user.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ._bundles.init import find_init
from ._host.owners import count_dead
from ._linux.delegation import Limits, limits
from ._linux.files import read_words
from ._linux.inotify import has_instance
from ._linux.pidfd import kept_status
from ._linux.prerequisites import check_process
from ._linux.reaping import Reaping, measure_reaping
from ._linux.runtime_directory import can_write
from ._linux.user_namespaces import forbidding, subordinate_ids
from ._runtimes.known import DIALECTS
from ._runtimes.runc import RUNC
from ._survey import Surveyed, survey
from .bundle import Bundle
from .client import Runc
from .errors import RuncError, SpawnError, UnsupportedError
from .features import Features, Version

CAPABILITIES = {
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
"""Capabilities that a runtime needs as root, with their bits (capabilities(7))."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A missing feature of this host.

    Attributes:
        missing: The feature.
        remedy: The way to get the feature.
        blocking: Whether no container can run without the feature.
    """

    missing: str
    remedy: str
    blocking: bool


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime.

    Attributes:
        command: The command.
        path: The path of the command; None if not in $PATH.
        version: The version; None if the runtime couldn't be started.
        features: The supported features; None without such a command (runc 1.0), or if the runtime couldn't be started.
        error: The reason why the runtime couldn't be started.
        root: The directory for containers.
        root_writable: Whether this process can create or write to the directory.
    """

    command: str
    path: str | None
    version: Version | None = None
    features: Features | None = None
    error: str | None = None
    root: str
    root_writable: bool


class Cgroups(msgspec.Struct, frozen=True, kw_only=True):
    """The control groups of this host.

    Attributes:
        mode: "v1", "hybrid" (v1 with an additional v2 hierarchy), "v2", or "none".
        controllers: The controllers for limits of containers, in alphabetical order.
    """

    mode: str
    controllers: tuple[str, ...]


class Privileges(msgspec.Struct, frozen=True, kw_only=True):
    """The privileges of this process.

    Attributes:
        uid: The effective user id.
        missing_capabilities: Capabilities that a runtime needs, and this process lacks.
    """

    uid: int
    missing_capabilities: tuple[str, ...]

    @property
    def sufficient(self) -> bool:
        """Return whether containers can run as root."""
        return self.uid == 0 and not self.missing_capabilities


class Rootless(msgspec.Struct, frozen=True, kw_only=True):
    """Prerequisites of containers without root; the first one suffices for a container with a single user.

    Attributes:
        user_namespaces: Whether users other than root may create user namespaces.
        forbidden_by: The kernel's setting that forbids user namespaces, as `name = value`.
        newuidmap: Path of the program that maps several users; None if not in $PATH.
        subordinate_ids: Number of user ids reserved for this user in /etc/subuid.
    """

    user_namespaces: bool
    forbidden_by: str | None
    newuidmap: str | None
    subordinate_ids: int


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The features of this host.

    Attributes:
        runtime: The runtime.
        cgroups: Control groups.
        privileges: The privileges of this process.
        rootless: Prerequisites of containers without root.
        kernel: The kernel's release.
        no_children: The reason why this process can't have children, and the remedy; None if it can.
        keeps_exit_status: Whether a pidfd reports the exit status to processes other than the parent (Linux 6.15), so
            that a detached container's status can be known; None if the test needs children and this process can't have
            any.
        reaping: The delay with which process 1 reaps; None if it couldn't be measured.
        inotify: Whether this user has an unused inotify instance; a client uses one for each event loop.
        criu: Path of the program for checkpoints; None if not in $PATH.
        busybox: Path of the program for `Bundle.busybox`; None if not in $PATH.
        init: Path of the program for `init=True`; None if there is none.
        limits: Obstacles to limits for containers.
        left: Number of leftovers of killed processes of this user, which `Runc.sweep` removes.
        failure: The reason why the test container didn't run; None if it ran, or there was no test.
        tried: Whether there was a test container: with a busybox, and without other problems.
        others: The other runtimes in $PATH, if there was a test container.
    """

    runtime: Runtime
    cgroups: Cgroups
    privileges: Privileges
    rootless: Rootless
    kernel: str
    no_children: tuple[str, str] | None = None
    keeps_exit_status: bool | None
    reaping: Reaping | None
    inotify: bool
    criu: str | None
    busybox: str | None
    init: str | None
    limits: Limits = Limits()
    left: int = 0
    failure: str | None = None
    tried: bool = True
    others: tuple[Surveyed, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The missing features with their remedies, blocking ones first."""
        return tuple(sorted(_problems(self), key=lambda problem: not problem.blocking))

    @property
    def ready(self) -> bool:
        """Return whether containers can run here: the test container did."""
        return self.tried and not any(problem.blocking for problem in self.problems)


async def probe(command: str = "runc") -> Host:
    """Survey this host with the runtime `command`."""
    no_children = probe_children()
    keeps_exit_status = kernel_keeps_exit_status() if no_children is None else None
    # A short timeout: a broken runtime must not block the report.
    client = Runc(command, timeout=10)
    hierarchies = cgroups()
    host = Host(
        runtime=await probe_runtime(command, client if no_children is None else None),
        cgroups=hierarchies,
        privileges=privileges(),
        rootless=rootless(),
        kernel=os.uname().release,
        no_children=no_children,
        keeps_exit_status=keeps_exit_status,
        reaping=await measure_reaping(),
        inotify=has_instance(),
        criu=shutil.which("criu"),
        busybox=shutil.which("busybox"),
        limits=limits(hierarchies.controllers),
        init=find_init(),
        left=count_dead(),
    )
    # A test container needs busybox, and would fail anyway with a blocking problem.
    if host.busybox is None or not host.ready:
        return msgspec.structs.replace(host, tried=False)
    failure = await try_container(client)
    return msgspec.structs.replace(host, failure=failure, others=await survey(command, try_container))


async def try_container(client: Runc) -> str | None:
    """Run a container that does nothing; return the reason for a failure, or None."""
    # Unique, because several reports may be made at once.
    container_id = f"runc_async-doctor-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        async with Bundle.busybox(["true"]) as bundle:
            response = await client.run(container_id, bundle)
    except (RuncError, OSError) as error:
        return str(error)
    return None if response.exit_code == 0 else f"its program ended with code {response.exit_code}"


def probe_children() -> tuple[str, str] | None:
    """Return the reason why this process can't have children, and the remedy; None if it can."""
    try:
        check_process()
    except SpawnError as error:
        return error.reason, error.remedy
    return None


async def probe_runtime(command: str, client: Runc | None) -> Runtime:
    """Return version and features of a runtime; without a client, only its path."""
    path = shutil.which(command)
    root = root_directory(os.path.basename(command), os.geteuid(), os.environ.get("XDG_RUNTIME_DIR"))
    found = Runtime(command=command, path=path, root=root, root_writable=can_write(root))
    if client is None:
        return found
    try:
        found = msgspec.structs.replace(found, version=await client.version())
        return msgspec.structs.replace(found, features=await client.features())
    except UnsupportedError:
        return found
    except RuncError as error:
        return msgspec.structs.replace(found, error=str(error))


def root_directory(runtime: str, uid: int, runtime_directory: str | None) -> str:
    """Return a runtime's default directory for containers.

    Args:
        runtime: The program's name.
        uid: The user of the runtime.
        runtime_directory: $XDG_RUNTIME_DIR, which matters for users other than root.
    """
    parent = runtime_directory if uid and runtime_directory else "/run"
    return f"{parent}/{DIALECTS.get(runtime, RUNC).root}"


def cgroups(mounts: str = "/proc/self/mounts", own: str = "/proc/self/cgroup") -> Cgroups:
    """Return mode and controllers, from the mount table."""
    # A v1 mount has its controllers among other options; the process's own list has only controllers and names.
    known = {name for line in read_words(own) for name in line.split(":")[1].split(",")}
    v1: set[str] = set()
    v2: set[str] | None = None
    for _, directory, kind, options, *_ in map(str.split, Path(mounts).read_text().splitlines()):
        if kind == "cgroup":
            v1 |= known & set(options.split(","))
        elif kind == "cgroup2":
            v2 = set(read_words(f"{directory}/cgroup.controllers"))
    # `name=systemd` and the like are hierarchies without a controller.
    names = {name for name in v1 | (v2 or set()) if "=" not in name}
    modes = {(True, False): "v1", (True, True): "hybrid", (False, True): "v2", (False, False): "none"}
    return Cgroups(mode=modes[bool(v1), v2 is not None], controllers=tuple(sorted(names)))


def privileges(status: str = "/proc/self/status") -> Privileges:
    """Return the user and the capabilities of this process."""
    lines = dict(line.split(":", 1) for line in Path(status).read_text().splitlines() if ":" in line)
    effective = int(lines["CapEff"], 16)
    missing = tuple(name for name, bit in CAPABILITIES.items() if not effective >> bit & 1)
    # The line has the real, effective, saved and filesystem ids, in this order.
    return Privileges(uid=int(lines["Uid"].split()[1]), missing_capabilities=missing)


def rootless(sysctl: str = "/proc/sys", subuid: str = "/etc/subuid") -> Rootless:
    """Return the prerequisites of containers without root."""
    forbidden = next(forbidding(sysctl), None)
    return Rootless(
        user_namespaces=forbidden is None,
        forbidden_by=forbidden,
        newuidmap=shutil.which("newuidmap"),
        subordinate_ids=subordinate_ids(subuid, os.geteuid()),
    )


def kernel_keeps_exit_status() -> bool:
    """Return whether the kernel keeps the exit status of a reaped process, by a test with a child."""
    # posix_spawn and not fork: the program may have threads, and a fork copies locks held by them.
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", ""], os.environ)
    try:
        pidfd = os.pidfd_open(pid)
    finally:
        # SIGKILL in any case: the child ends at once, and the test takes milliseconds however slow Python starts.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        return keeps_status(pidfd)
    finally:
        os.close(pidfd)


def keeps_status(pidfd: int) -> bool:
    """Return whether the kernel has the exit status of a pidfd's process."""
    try:
        return kept_status(pidfd) is not None
    except OSError:
        return False


def _problems(host: Host) -> Iterator[Problem]:
    """Yield the missing features of a host."""
    if host.no_children is not None:
        missing, remedy = host.no_children
        yield Problem(missing=f"children of this process: {missing}", remedy=remedy, blocking=True)
    yield from _runtime_problems(host.runtime)
    yield from _cgroup_problems(host)
    yield from _root_problems(host.privileges) if host.privileges.uid == 0 else _user_problems(host.rootless)
    yield from _limit_problems(host.limits)
    if host.failure is not None:
        remedy = "see the error; docs/howto/rootless.md tells what users other than root need"
        yield Problem(missing=f"a container that runs: {host.failure}", remedy=remedy, blocking=True)
    if not host.runtime.root_writable:
        yield Problem(
            missing=f"a root directory: {host.runtime.root} can't be written to",
            remedy="give the client another, Runc(root=...); users other than root set XDG_RUNTIME_DIR",
            blocking=False,
        )
    if host.keeps_exit_status is False:
        yield Problem(
            missing=f"exit statuses of detached containers: Linux {host.kernel} does not keep them",
            remedy="Linux 6.15 or later; or be the containers' reaper, runc_async.subreaper()",
            blocking=False,
        )
    if host.reaping is not None and host.reaping.seconds is None:
        yield Problem(
            missing=f"a parent that reaps: process {host.reaping.reaper} leaves containers that have ended as zombies",
            remedy="start an init as process 1, such as tini (docker run --init); or use runc_async.subreaper()",
            blocking=False,
        )
    if not host.inotify:
        yield Problem(
            missing="inotify instances: this user has none left, so pid files are looked at by a timer",
            remedy="raise the limit: sysctl fs.inotify.max_user_instances=1024",
            blocking=False,
        )
    if host.criu is None:
        yield Problem(missing="checkpoints: no criu in $PATH", remedy="install criu", blocking=False)
    if host.busybox is None:
        remedy = "install busybox-static, or bring a root filesystem of your own"
        yield Problem(missing="a root filesystem to try things in: no busybox in $PATH", remedy=remedy, blocking=False)
    if host.init is None:
        remedy = "install tini; init= of a bundle takes the path of another"
        missing = "a first process for init=True: no static tini-static, catatonit or dumb-init in $PATH"
        yield Problem(missing=missing, remedy=remedy, blocking=False)


def _runtime_problems(runtime: Runtime) -> Iterator[Problem]:
    """Yield problems of the runtime."""
    if runtime.path is None:
        remedy = "install it (Debian: apt-get install runc), add /usr/sbin to $PATH, or name another with --runtime"
        yield Problem(missing=f"a runtime: no {runtime.command} in $PATH", remedy=remedy, blocking=True)
    elif runtime.error is not None:
        remedy = f"see what {runtime.path} --version says, or name another with --runtime"
        yield Problem(missing=f"a runtime that answers: {runtime.error}", remedy=remedy, blocking=True)


def _cgroup_problems(host: Host) -> Iterator[Problem]:
    """Yield problems of the control groups."""
    if host.cgroups.mode == "none":
        yield Problem(
            missing="control groups: no cgroup file system is mounted",
            remedy="mount -t cgroup2 cgroup2 /sys/fs/cgroup; in a container, start it privileged",
            blocking=True,
        )
    elif (
        host.cgroups.mode == "hybrid"
        and host.runtime.version
        and ((dialect := DIALECTS.get(host.runtime.version.runtime)) and dialect.refuses_hybrid)
    ):
        yield Problem(
            missing=f"control groups for {dialect.name}, which refuses hybrid ones",
            remedy="use runc; or boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
            blocking=True,
        )


def _limit_problems(limits: Limits) -> Iterator[Problem]:
    """Yield obstacles to limits for containers."""
    if limits.absent:
        yield Problem(
            missing=f"limits and resource usage by {', '.join(limits.absent)}: no such controller here",
            remedy="mount it, or boot with it: see cgroup_disable on the kernel's command line",
            blocking=False,
        )
    if limits.unwritable:
        yield Problem(
            missing=f"limits and resource usage by {', '.join(limits.unwritable)}: this user can't make a cgroup there",
            remedy="have a cgroup given to the user, and name it in cgroups_path: docs/howto/rootless.md",
            blocking=False,
        )
    if not limits.systemd:
        yield Problem(
            missing="systemd, for systemd_cgroup: it does not run here",
            remedy="leave systemd_cgroup out; runc makes cgroups by itself",
            blocking=False,
        )


def _root_problems(privileges: Privileges) -> Iterator[Problem]:
    """Yield obstacles to containers as root."""
    if privileges.missing_capabilities:
        yield Problem(
            missing=f"capabilities: {', '.join(privileges.missing_capabilities)}",
            remedy="keep them when root is entered; in a container, start it privileged",
            blocking=True,
        )


def _user_problems(rootless: Rootless) -> Iterator[Problem]:
    """Yield obstacles to containers for users other than root."""
    if rootless.forbidden_by is not None:
        yield Problem(
            missing=f"user namespaces for users other than root: {rootless.forbidden_by}",
            remedy="run as root, or change that setting with sysctl",
            blocking=True,
        )
    elif rootless.newuidmap is None or not rootless.subordinate_ids:
        yield Problem(
            missing="more users than one in a rootless container",
            remedy="install uidmap, and set user ids aside: usermod --add-subuids",
            blocking=False,
        )
