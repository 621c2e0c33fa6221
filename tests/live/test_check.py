"""`Runc.check` says of a real runtime what that does: a part that it returns has no effect, and any other has."""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest
from runtime import has_controller

from runc_async import Bundle, spec
from runc_async.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = pytest.mark.runc


class Effect(NamedTuple):
    """A part of a configuration whose effect a program can see.

    Attributes:
        edit: Sets the part.
        script: Prints what it has an effect on.
        seen: What that is with the effect.
    """

    edit: Callable[[spec.Spec], object]
    script: str
    seen: str


def offset(config: spec.Spec) -> None:
    """Set a clock of a time namespace of its own."""
    config.set_namespace("time")
    assert config.linux
    config.linux.time_offsets = {"boottime": spec.LinuxTimeOffset(secs=1_000_000)}


def mapped(config: spec.Spec) -> None:
    """Mount /etc with other owners."""
    ids = [spec.LinuxIDMapping(container_id=0, host_id=5, size=10)]
    options = ["bind", "ro"]
    config.add_mount(
        spec.Mount(
            destination="/m", type="none", source="/etc", options=options, uid_mappings=ids, gid_mappings=list(ids)
        )
    )


def filtered(config: spec.Spec) -> None:
    """Install a filter with a flag."""
    denied = [spec.LinuxSyscall(names=["acct"], action="SCMP_ACT_ERRNO")]
    config.set_seccomp(
        spec.LinuxSeccomp(default_action="SCMP_ACT_ALLOW", flags=["SECCOMP_FILTER_FLAG_LOG"], syscalls=denied)
    )


def limited(config: spec.Spec, cpu: spec.LinuxCPU) -> None:
    """Set limits on CPU time."""
    assert config.linux
    config.linux.resources = spec.LinuxResources(cpu=cpu)


EFFECTS: dict[str, Effect] = {
    "domainname": Effect(lambda s: setattr(s, "domainname", "dom"), "cat /proc/sys/kernel/domainname", "dom"),
    "process.scheduler": Effect(
        lambda s: setattr(s.process, "scheduler", spec.Scheduler(policy="SCHED_BATCH", nice=5)),
        "cut -d' ' -f41 /proc/self/stat",
        "3",
    ),
    "process.ioPriority": Effect(
        lambda s: setattr(s.process, "io_priority", spec.LinuxIOPriority(class_="IOPRIO_CLASS_BE", priority=7)),
        "ionice -p 1",
        "best-effort: prio 7",
    ),
    "mounts[].uidMappings": Effect(mapped, "stat -c %u /m/passwd", "5"),
    "linux.timeOffsets": Effect(offset, "awk '$1 == \"boottime\" { print $2 }' /proc/self/timens_offsets", "1000000"),
    "linux.personality": Effect(
        lambda s: setattr(s.linux, "personality", spec.LinuxPersonality(domain="LINUX32")),
        "uname -m | grep -c 64",
        "0",
    ),
    "linux.resources.cpu.burst": Effect(
        lambda s: limited(s, spec.LinuxCPU(quota=50_000, period=100_000, burst=20_000)),
        "cat /sys/fs/cgroup/cpu/cpu.cfs_burst_us",
        "20000",
    ),
    "linux.resources.cpu.idle": Effect(
        lambda s: limited(s, spec.LinuxCPU(idle=1)), "cat /sys/fs/cgroup/cpu/cpu.idle", "1"
    ),
    "linux.seccomp.flags": Effect(filtered, "awk '$1 == \"Seccomp:\" { print $2 }' /proc/self/status", "2"),
}


@pytest.mark.parametrize("part", EFFECTS)
async def test_what_check_returns_has_no_effect(client: Runc, runtime: Runtime, part: str) -> None:
    """A part that `check` returns is refused, or has no effect; one that it doesn't return has its effect."""
    if runtime.is_crun:
        pytest.skip("of crun nothing is known to be ignored")
    if "cpu" in part and not (has_controller("cpu") and os.path.exists("/sys/fs/cgroup/cpu")):
        pytest.skip("needs the cpu controller of cgroup v1")
    effect = EFFECTS[part]
    async with Bundle.busybox(["sh", "-c", effect.script]) as bundle:
        effect.edit(bundle.spec)
        ignored = await client.check(bundle.spec)
        if any(each.refused for each in ignored):
            with pytest.raises(CommandError):
                await client.run("checked", bundle)
            return
        found = (await client.run("checked", bundle)).output.strip()
    assert (found == effect.seen) is not bool(ignored), (found, ignored)
