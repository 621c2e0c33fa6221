"""What this host can do: the values that `python -m runc_async` shows, and how they are found out.

Everything is looked at, nothing is changed, and only the runtime itself is run, beside one child that tells whether the
kernel keeps exit statuses.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ._pidfd import kept_status
from .client import Runc
from .errors import RuncError, UnsupportedError
from .features import Features, Version

CAPABILITIES = {
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
"""What a runtime that runs as root can't do without, and the bit of each (capabilities(7))."""

USER_NAMESPACE_SETTINGS: tuple[tuple[str, Callable[[int], bool]], ...] = (
    ("user.max_user_namespaces", lambda number: number == 0),
    ("kernel.unprivileged_userns_clone", lambda number: number == 0),
    ("kernel.apparmor_restrict_unprivileged_userns", lambda number: number != 0),
)
"""What may keep users from making user namespaces, and when: the kernel's (namespaces(7)), Debian's, Ubuntu's."""

ROOT_DIRECTORIES = {"crun": "crun"}
"""The last part of a runtime's default root directory, where it isn't `runc`."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that this host lacks.

    Attributes:
        missing: What.
        remedy: How to get it.
        blocking: Whether no container can run here without it.
    """

    missing: str
    remedy: str
    blocking: bool


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime that was asked.

    Attributes:
        command: What it was looked up by.
        path: Where it is; None if it isn't in $PATH.
        version: What it says about itself; None if it could not be asked.
        features: What it supports; None if it has no such command (runc 1.0) or could not be asked.
        error: Why it could not be asked.
        root: Its root directory, where it keeps its containers.
        root_writable: Whether this process may make it, or write to it.
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
        mode: "v1", "hybrid" (v1, and a v2 hierarchy beside it), "v2", or "none".
        controllers: The controllers that containers can be limited by, in alphabetical order.
    """

    mode: str
    controllers: tuple[str, ...]


class Privileges(msgspec.Struct, frozen=True, kw_only=True):
    """What this process may do.

    Attributes:
        uid: Its effective user id.
        missing_capabilities: Of those that a runtime needs, the ones that this process doesn't have.
    """

    uid: int
    missing_capabilities: tuple[str, ...]

    @property
    def sufficient(self) -> bool:
        """Say whether containers can run as root."""
        return self.uid == 0 and not self.missing_capabilities


class Rootless(msgspec.Struct, frozen=True, kw_only=True):
    """What containers without root need; the first is enough for a container with one user.

    Attributes:
        user_namespaces: Whether a user who isn't root may make them.
        forbidden_by: The kernel's setting that says no, as `name = value`.
        newuidmap: Path of the program that maps more users than one; None if it isn't in $PATH.
        subordinate_ids: How many user ids /etc/subuid sets aside for this user.
    """

    user_namespaces: bool
    forbidden_by: str | None
    newuidmap: str | None
    subordinate_ids: int


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What this host can do.

    Attributes:
        runtime: The runtime.
        cgroups: Control groups.
        privileges: This process's privileges.
        rootless: Prerequisites of containers without root.
        kernel: The kernel's release.
        keeps_exit_status: Whether the kernel tells a pidfd's exit status to those who aren't the parent
            (Linux 6.15), so that a detached container's status can be known.
        criu: Path of the program that checkpoints need; None if it isn't in $PATH.
        busybox: Path of the program that `Bundle.busybox` copies; None if it isn't in $PATH.
    """

    runtime: Runtime
    cgroups: Cgroups
    privileges: Privileges
    rootless: Rootless
    kernel: str
    keeps_exit_status: bool
    criu: str | None
    busybox: str | None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Name what is missing and how to get it, what blocks first."""
        return tuple(sorted(_problems(self), key=lambda problem: not problem.blocking))

    @property
    def ready(self) -> bool:
        """Say whether containers can run here."""
        return not any(problem.blocking for problem in self.problems)


async def probe(command: str = "runc") -> Host:
    """Find out what this host can do with the runtime `command`."""
    keeps_exit_status = kernel_keeps_exit_status()
    return Host(
        runtime=await probe_runtime(command, Runc(command, timeout=10)),
        cgroups=cgroups(),
        privileges=privileges(),
        rootless=rootless(),
        kernel=os.uname().release,
        keeps_exit_status=keeps_exit_status,
        criu=shutil.which("criu"),
        busybox=shutil.which("busybox"),
    )


async def probe_runtime(command: str, client: Runc) -> Runtime:
    """Ask a runtime for its version and its features."""
    path = shutil.which(command)
    root = root_directory(os.path.basename(command), os.geteuid(), os.environ.get("XDG_RUNTIME_DIR"))
    found = Runtime(command=command, path=path, root=root, root_writable=_can_write(root))
    try:
        found = msgspec.structs.replace(found, version=await client.version())
        return msgspec.structs.replace(found, features=await client.features())
    except UnsupportedError:
        return found
    except RuncError as error:
        return msgspec.structs.replace(found, error=str(error))


def root_directory(runtime: str, uid: int, runtime_directory: str | None) -> str:
    """Return a runtime's default root directory: runc(8), crun(1).

    Args:
        runtime: The program's name.
        uid: The user it runs as.
        runtime_directory: $XDG_RUNTIME_DIR, which counts for users other than root.
    """
    parent = runtime_directory if uid and runtime_directory else "/run"
    return f"{parent}/{ROOT_DIRECTORIES.get(runtime, 'runc')}"


def cgroups(mounts: str = "/proc/self/mounts", own: str = "/proc/self/cgroup") -> Cgroups:
    """Tell the mode and the controllers, from what is mounted."""
    # A v1 mount has its controllers among other options; the process's own list has nothing but controllers and names.
    known = {name for line in _words(own) for name in line.split(":")[1].split(",")}
    v1: set[str] = set()
    v2: set[str] | None = None
    for _, directory, kind, options, *_ in map(str.split, Path(mounts).read_text().splitlines()):
        if kind == "cgroup":
            v1 |= known & set(options.split(","))
        elif kind == "cgroup2":
            v2 = set(_words(f"{directory}/cgroup.controllers"))
    names = {name for name in v1 | (v2 or set()) if "=" not in name}
    modes = {(True, False): "v1", (True, True): "hybrid", (False, True): "v2", (False, False): "none"}
    return Cgroups(mode=modes[bool(v1), v2 is not None], controllers=tuple(sorted(names)))


def privileges(status: str = "/proc/self/status") -> Privileges:
    """Tell the user and the capabilities of this process."""
    lines = dict(line.split(":", 1) for line in Path(status).read_text().splitlines() if ":" in line)
    effective = int(lines["CapEff"], 16)
    missing = tuple(name for name, bit in CAPABILITIES.items() if not effective >> bit & 1)
    return Privileges(uid=int(lines["Uid"].split()[1]), missing_capabilities=missing)


def rootless(sysctl: str = "/proc/sys", subuid: str = "/etc/subuid") -> Rootless:
    """Tell what containers without root would find here."""
    forbidden = next(_forbidding(sysctl), None)
    return Rootless(
        user_namespaces=forbidden is None,
        forbidden_by=forbidden,
        newuidmap=shutil.which("newuidmap"),
        subordinate_ids=_subordinate_ids(subuid, os.geteuid()),
    )


def kernel_keeps_exit_status() -> bool:
    """Tell whether the kernel keeps the exit status of a process that was reaped, by trying it with a child."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", ""], os.environ)
    try:
        pidfd = os.pidfd_open(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        return keeps_status(pidfd)
    finally:
        os.close(pidfd)


def keeps_status(pidfd: int) -> bool:
    """Say whether the kernel has the exit status of a pidfd's process."""
    try:
        return kept_status(pidfd) is not None
    except OSError:
        return False


def _problems(host: Host) -> Iterator[Problem]:
    """Yield what a host lacks."""
    yield from _runtime_problems(host.runtime)
    yield from _cgroup_problems(host)
    yield from _root_problems(host.privileges) if host.privileges.uid == 0 else _user_problems(host.rootless)
    if not host.runtime.root_writable:
        yield Problem(
            missing=f"a root directory: {host.runtime.root} can't be written to",
            remedy="give the client another, Runc(root=...); users other than root set XDG_RUNTIME_DIR",
            blocking=False,
        )
    if not host.keeps_exit_status:
        yield Problem(
            missing=f"exit statuses of detached containers: Linux {host.kernel} does not keep them",
            remedy="Linux 6.15 or later; or be the containers' reaper, runc_async.subreaper()",
            blocking=False,
        )
    if host.criu is None:
        yield Problem(missing="checkpoints: no criu in $PATH", remedy="install criu", blocking=False)
    if host.busybox is None:
        remedy = "install busybox-static, or bring a root filesystem of your own"
        yield Problem(missing="a root filesystem to try things in: no busybox in $PATH", remedy=remedy, blocking=False)


def _runtime_problems(runtime: Runtime) -> Iterator[Problem]:
    """Yield what keeps the runtime from being used."""
    if runtime.path is None:
        remedy = "install it (Debian: apt-get install runc), add /usr/sbin to $PATH, or name another with --runtime"
        yield Problem(missing=f"a runtime: no {runtime.command} in $PATH", remedy=remedy, blocking=True)
    elif runtime.error is not None:
        remedy = f"see what {runtime.path} --version says, or name another with --runtime"
        yield Problem(missing=f"a runtime that answers: {runtime.error}", remedy=remedy, blocking=True)


def _cgroup_problems(host: Host) -> Iterator[Problem]:
    """Yield what is wrong with the control groups; crun refuses hybrid ones."""
    if host.cgroups.mode == "none":
        yield Problem(
            missing="control groups: no cgroup file system is mounted",
            remedy="mount -t cgroup2 cgroup2 /sys/fs/cgroup; in a container, start it privileged",
            blocking=True,
        )
    elif host.cgroups.mode == "hybrid" and host.runtime.version and host.runtime.version.runtime == "crun":
        yield Problem(
            missing="control groups for crun, which refuses hybrid ones",
            remedy="use runc; or boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
            blocking=True,
        )


def _root_problems(privileges: Privileges) -> Iterator[Problem]:
    """Yield what keeps root from running containers."""
    if privileges.missing_capabilities:
        yield Problem(
            missing=f"capabilities: {', '.join(privileges.missing_capabilities)}",
            remedy="keep them when root is entered; in a container, start it privileged",
            blocking=True,
        )


def _user_problems(rootless: Rootless) -> Iterator[Problem]:
    """Yield what keeps users other than root from running containers."""
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


def _forbidding(sysctl: str) -> Iterator[str]:
    """Yield each setting that keeps users from making user namespaces, as `name = value`."""
    for name, forbids in USER_NAMESPACE_SETTINGS:
        for value in _words(f"{sysctl}/{name.replace('.', '/')}"):
            if forbids(int(value)):
                yield f"{name} = {value}"


def _subordinate_ids(subuid: str, uid: int) -> int:
    """Count the user ids that a file like /etc/subuid gives to a user, by number or by name: subuid(5)."""
    names = {str(uid)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    entries = (word.split(":") for word in _words(subuid))
    return sum(int(entry[2]) for entry in entries if len(entry) == 3 and entry[0] in names)  # noqa: PLR2004 - owner:first:count


def _words(path: str) -> list[str]:
    """Return the words of a small file, or none if it can't be read."""
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


def _can_write(path: str) -> bool:
    """Say whether a directory can be written to, or can be made."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK | os.X_OK)
