"""The configuration that ``runc spec`` writes, piece by piece."""

from __future__ import annotations

import os
from typing import Final

from .linux import Linux, LinuxIDMapping, LinuxNamespace, LinuxNamespaceType
from .mount import Mount
from .process import LinuxCapabilities, POSIXRlimit, Process, User
from .resources import LinuxDeviceCgroup, LinuxResources

_CAPABILITIES: Final = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAMESPACES: Final[tuple[LinuxNamespaceType, ...]] = ("pid", "network", "ipc", "uts", "mount")
_ROOTLESS_NAMESPACES: Final[tuple[LinuxNamespaceType, ...]] = ("pid", "ipc", "uts", "mount")
_MASKED: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)
_READONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_CGROUP2_MARK: Final = "/sys/fs/cgroup/cgroup.controllers"


def default_process() -> Process:
    """Give the process: a shell on a terminal, as root with three capabilities."""
    # runc up to 1.1 puts them in the ambient set too; 1.2 and later don't.
    return Process(
        terminal=True,
        user=User(uid=0, gid=0),
        args=["sh"],
        env=[f"PATH={_PATH}", "TERM=xterm"],
        cwd="/",
        capabilities=LinuxCapabilities(
            bounding=list(_CAPABILITIES), effective=list(_CAPABILITIES), permitted=list(_CAPABILITIES)
        ),
        rlimits=[POSIXRlimit(type="RLIMIT_NOFILE", hard=1024, soft=1024)],
        no_new_privileges=True,
    )


def _mount(destination: str, type_: str, source: str, options: str = "") -> Mount:
    return Mount(destination=destination, type=type_, source=source, options=options.split(",") if options else None)


def default_mounts(*, rootless: bool) -> list[Mount]:
    """Give the mounts: the usual pseudo filesystems.

    Args:
        rootless: Without group 5 for terminals, which is not mapped, and with the host's /sys, as only the owner
            of a network namespace may mount one.
    """
    terminals = "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"
    return [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", terminals if rootless else f"{terminals},gid=5"),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),  # noqa: S108  # inside
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        _mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro")
        if rootless
        else _mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ]


def default_linux(*, rootless: bool, cgroup_namespace: bool | None) -> Linux:
    """Give the Linux part: namespaces, hidden paths, and no access to devices.

    Args:
        rootless: With a user namespace that maps the caller to root, without network namespace and limits.
        cgroup_namespace: Whether there is one; None asks whether this host has cgroup v2.
    """
    if cgroup_namespace is None:
        cgroup_namespace = os.path.exists(_CGROUP2_MARK)
    kinds: list[LinuxNamespaceType] = list(_ROOTLESS_NAMESPACES if rootless else _NAMESPACES)
    if cgroup_namespace:
        kinds.append("cgroup")
    if rootless:
        kinds.append("user")
    linux = Linux(
        namespaces=[LinuxNamespace(type=kind) for kind in kinds],
        masked_paths=list(_MASKED),
        readonly_paths=list(_READONLY),
    )
    if rootless:
        linux.uid_mappings = [LinuxIDMapping(container_id=0, host_id=os.geteuid(), size=1)]
        linux.gid_mappings = [LinuxIDMapping(container_id=0, host_id=os.getegid(), size=1)]
    else:
        linux.resources = LinuxResources(devices=[LinuxDeviceCgroup(allow=False, access="rwm")])
    return linux
