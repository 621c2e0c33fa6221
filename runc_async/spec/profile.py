"""A seccomp profile for untrusted programs.

The profile denies calls that ordinary programs don't make and that reach into the kernel beyond the container; all
other calls pass, calls of future kernels too. It is a second fence: the first fence is the namespaces, the missing
capabilities and ``no_new_privileges``, and most of the calls here need a capability as well.

The names come from the kernel's own tables of system calls (arch/*/entry/syscalls, include/uapi/asm-generic), the
reasons from their manual pages and capabilities(7).
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from .seccomp import Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSyscall

DENIED_SYSCALLS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        # The kernel is one for all: its code, and what boots next.
        "modules": ("init_module", "finit_module", "delete_module", "create_module", "query_module"),
        "boot": ("kexec_load", "kexec_file_load", "reboot"),
        # The wall clock is in no namespace.
        "clock": ("settimeofday", "stime", "clock_settime", "clock_settime64"),
        # Keys of the kernel are in no namespace but the user's.
        "keys": ("add_key", "request_key", "keyctl"),
        # In a user namespace these need no privilege outside, and have been the way in to many kernel bugs.
        "mounts": (
            "mount",
            "umount",
            "umount2",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "open_tree_attr",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "pivot_root",
        ),
        "namespaces": ("unshare", "setns"),
        # Other processes' memory and descriptors.
        "tracing": ("ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"),
        # Programs inside the kernel, and counters that see the whole host.
        "bpf": ("bpf", "perf_event_open"),
        # Lets a program hold the kernel still in the middle of a copy, which makes races easy to win.
        "userfaultfd": ("userfaultfd",),
        # Does what other calls do without making them, past every filter here.
        "io_uring": ("io_uring_setup", "io_uring_enter", "io_uring_register"),
        # The host's swap, accounting, quotas and log.
        "host": ("swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog", "lookup_dcookie", "nfsservctl"),
        # Opens any file of a filesystem by its number, whatever directory the container is shut in.
        "handles": ("open_by_handle_at",),
        "fanotify": ("fanotify_init",),
        # Direct access to hardware.
        "ports": ("ioperm", "iopl"),
        # Left from long ago; nothing needs them.
        "obsolete": ("uselib", "ustat", "sysfs", "_sysctl", "vm86", "vm86old", "get_kernel_syms"),
    }
)
"""System calls that `default_seccomp` refuses, by group."""

# Flags of clone(2) that make namespaces: mount, cgroup, uts, ipc, user, pid, network.
_CLONE_NAMESPACES: Final = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)

# Besides its own calls a 64 bit kernel takes those of these; without an entry here their programs would be killed.
_ALSO: Final[Mapping[str, tuple[Arch, ...]]] = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}


def default_seccomp(*, allow: Iterable[str] = ()) -> LinuxSeccomp:
    """Make a moderate filter: calls of `DENIED_SYSCALLS` fail with EPERM, and all other calls pass.

    clone(2) can't make new namespaces either. clone3(2) fails with ENOSYS, because filters can't read its flags; C
    libraries then fall back on clone(2). Debuggers, nested containers and the sandboxes of browsers need
    ``allow=["tracing"]`` or ``allow=["namespaces", "mounts"]``.

    Args:
        allow: Groups of `DENIED_SYSCALLS` to let pass, or single calls.

    Raises:
        ValueError: If an item is neither a group nor a call of the list.
    """
    allowed = set(allow)
    groups = {group: [name for name in names if name not in allowed] for group, names in DENIED_SYSCALLS.items()}
    unknown = allowed - DENIED_SYSCALLS.keys() - {name for names in DENIED_SYSCALLS.values() for name in names}
    if unknown:
        raise ValueError(f"not in the list of denied calls: {', '.join(sorted(unknown))}")
    denied = [name for group, names in groups.items() if group not in allowed for name in names]
    rules = [LinuxSyscall(names=denied, action="SCMP_ACT_ERRNO", errno_ret=errno.EPERM)] if denied else []
    if "namespaces" not in allowed:
        rules += [_deny_clone(flag) for flag in _CLONE_NAMESPACES]
        rules.append(LinuxSyscall(names=["clone3"], action="SCMP_ACT_ERRNO", errno_ret=errno.ENOSYS))
    architectures = _ALSO.get(platform.machine())
    return LinuxSeccomp(
        default_action="SCMP_ACT_ALLOW",
        architectures=list(architectures) if architectures else None,
        syscalls=rules,
    )


def _deny_clone(flag: int) -> LinuxSyscall:
    condition = LinuxSeccompArg(index=_clone_flags(), value=flag, value_two=flag, op="SCMP_CMP_MASKED_EQ")
    return LinuxSyscall(names=["clone"], action="SCMP_ACT_ERRNO", errno_ret=errno.EPERM, args=[condition])


def _clone_flags() -> int:
    # clone(2): s390 takes the stack first.
    return 1 if platform.machine().startswith("s390") else 0
