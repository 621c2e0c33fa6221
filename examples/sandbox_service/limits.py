"""What a script may use, and the container that holds it to that."""

from __future__ import annotations

import msgspec

from runc_async import spec

MIB = 1 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one script may use.

    Attributes:
        memory: Bytes of memory, files in /tmp among them; there is no swap.
        scratch: Bytes of files in /tmp, the only place to write to.
        pids: Processes and threads.
        cpus: CPU cores' worth of time.
        seconds: Time until it is ended.
        output: Bytes of stdout and stderr together, at which it is ended.
        script: Bytes of the script itself; the kernel takes 128 KiB as an argument.
    """

    memory: int = 64 * MIB
    scratch: int = 40 * MIB
    pids: int = 32
    cpus: float = 0.5
    seconds: float = 10.0
    output: int = 1 * MIB
    script: int = 64 << 10


def confined(script: str, limits: Limits) -> spec.Spec:
    """Configure a container that runs a shell script and may do little else.

    It has no network, for the network namespace of runc's proposal has only a loopback interface.
    """
    return (
        spec.Spec.default()
        .set_args("sh", "-c", script)
        .set_terminal(enabled=False)
        .set_env({"HOME": "/tmp", "TERM": "dumb"})  # noqa: S108 - it is the container's own
        .set_cwd("/tmp")  # noqa: S108 - as above
        .set_hostname("sandbox")
        .set_user(65534, 65534)
        .drop_capabilities("ALL")
        .set_seccomp(spec.default_seccomp())
        .set_root("rootfs", readonly=True)
        .tmpfs("/tmp", size=limits.scratch)  # noqa: S108 - as above
        .limit_memory(limits.memory, swap=limits.memory)
        .limit_cpu(limits.cpus)
        .limit_pids(limits.pids)
        .set_rlimit("NOFILE", 256)
        .set_rlimit("CORE", 0)
    )
