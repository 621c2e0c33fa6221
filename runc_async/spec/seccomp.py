"""Filters on system calls: config-linux.md, section "Seccomp"."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ._base import SpecObject
from ._types import UInt32, UInt64

LinuxSeccompAction = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
]
"""What happens to a call; seccomp_rule_add(3)."""

LinuxSeccompFlag = Literal[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]
"""Flags for installing a filter; seccomp(2)."""

LinuxSeccompOperator = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]
"""How an argument is compared; seccomp_rule_add(3)."""

Arch = Literal[
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
]
"""Architectures that calls can be made in; seccomp_arch_add(3)."""


class LinuxSeccompArg(SpecObject, kw_only=True):
    """A condition on one argument of a call: config-linux.md, "Seccomp".

    Attributes:
        index: Number of the argument, from 0 to 5.
        value: The value to compare with; for SCMP_CMP_MASKED_EQ the mask.
        value_two: The value to compare the masked argument with.
        op: The comparison.
    """

    index: UInt32
    value: UInt64
    value_two: UInt64 | None = None
    op: LinuxSeccompOperator


class LinuxSyscall(SpecObject, kw_only=True):
    """A rule on system calls: config-linux.md, "Seccomp".

    Attributes:
        names: Names of the calls, at least one.
        action: The action on these calls.
        errno_ret: The error number for actions with an error; EPERM when absent. Since 1.1.0.
        args: Conditions on arguments, all of which have to hold; runtimes treat several conditions on the same argument
            as alternatives.
    """

    names: Annotated[list[str], Meta(min_length=1)]
    action: LinuxSeccompAction
    errno_ret: UInt32 | None = None
    args: list[LinuxSeccompArg] | None = None


class LinuxSeccomp(SpecObject, kw_only=True):
    """The filter on the container's system calls: config-linux.md, "Seccomp".

    Attributes:
        default_action: The action on calls without a rule.
        default_errno_ret: The error number if the default action has an error; EPERM when absent. Since 1.1.0.
        architectures: Architectures besides the host's own whose calls pass through the filter; calls of all other
            architectures are killed.
        flags: Flags for installing the filter. Since 1.0.2.
        listener_path: AF_UNIX socket that gets the descriptor for SCMP_ACT_NOTIFY. Since 1.1.0.
        listener_metadata: Text sent along to the socket. Since 1.1.0.
        syscalls: The rules.
    """

    default_action: LinuxSeccompAction
    default_errno_ret: UInt32 | None = None
    architectures: list[Arch] | None = None
    flags: list[LinuxSeccompFlag] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: list[LinuxSyscall] | None = None
