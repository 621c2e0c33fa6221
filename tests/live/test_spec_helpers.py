"""What the editing methods of `Spec` do to a real container."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING, Protocol

import containers
import pytest

from runc_async import spec

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from runtime import Runtime

pytestmark = pytest.mark.runc

# Capabilities by their bit in /proc/PID/status; linux/capability.h.
CAP_CHOWN, CAP_KILL, CAP_NET_ADMIN = 1 << 0, 1 << 5, 1 << 12


# 128 and the number of the signal, as shells have it.
SIGKILLED = 137


class Run(Protocol):
    """What the fixture `run` gives."""

    def __call__(self, config: spec.Spec) -> subprocess.CompletedProcess[str]:
        """Run a container of this configuration to its end."""
        ...


@pytest.fixture
def run(tmp_path: Path, root: Path, runtime: Runtime, container_id: Callable[[], str]) -> Run:
    """Return a function that runs a container to its end."""

    def run_(config: spec.Spec) -> subprocess.CompletedProcess[str]:
        assert spec.validate(config) == []
        (tmp_path / "config.json").write_bytes(config.encode())
        where = ("--root", root, "run", "--bundle", tmp_path)
        return containers.runc(*where, container_id(), command=runtime.command)

    return run_


@pytest.fixture
def config(rootfs: Path) -> spec.Spec:
    """Return the default configuration on a root filesystem of busybox, without a terminal."""
    return spec.Spec.default().set_terminal(enabled=False).set_root(str(rootfs))


def shell(config: spec.Spec, script: str) -> spec.Spec:
    """Have a container run a shell script."""
    return config.set_args("sh", "-c", script)


def output(ended: subprocess.CompletedProcess[str]) -> str:
    """Give what a container printed, after seeing that it succeeded."""
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.needs("host kernel")
def test_process(run: Run, config: spec.Spec) -> None:
    """Arguments, environment, directory, user, groups, umask and limits are what the process sees."""
    config.set_env({"GREETING": "a=b c", "TERM": None}).set_cwd("/etc").set_rlimit("NOFILE", 77, 88)
    config.set_user(1234, 567, additional_gids=[89], umask=0o027)
    shell(config, 'echo "$GREETING" "[$TERM]"; pwd; id -u; id -G; umask; ulimit -Sn; ulimit -Hn')
    assert output(run(config)).splitlines() == ["a=b c []", "/etc", "1234", "567 89", "0027", "77", "88"]


def test_hostname(run: Run, config: spec.Spec) -> None:
    """The host name is the container's own."""
    assert output(run(config.set_hostname("some-name").set_args("hostname"))) == "some-name"


def test_capabilities(run: Run, config: spec.Spec) -> None:
    """What is added is effective, what is dropped is gone from the bounding set too."""
    shell(config.add_capabilities("NET_ADMIN").drop_capabilities("KILL"), "grep Cap /proc/self/status")
    sets = dict(line.split(":\t") for line in output(run(config)).splitlines())
    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert int(sets[kind], 16) & (CAP_NET_ADMIN | CAP_KILL) == CAP_NET_ADMIN
    shell(config.drop_capabilities("ALL"), "grep Cap /proc/self/status")
    assert {line.split(":\t")[1].strip("0") for line in output(run(config)).splitlines()} == {""}


@pytest.mark.parametrize(("ambient", "effective"), [(True, CAP_CHOWN), (False, 0)])
@pytest.mark.needs("host kernel")
def test_ambient_capabilities(
    ambient: bool,  # noqa: FBT001 - a parameter
    effective: int,
    run: Run,
    config: spec.Spec,
) -> None:
    """A process that is not root has the capabilities that are ambient, and no others."""
    config.set_user(1000, 1000).drop_capabilities("ALL").add_capabilities("CHOWN", ambient=ambient)
    shown = output(run(shell(config, "grep CapEff /proc/self/status")))
    assert int(shown.split()[1], 16) == effective


def test_root_is_readonly_or_not(run: Run, config: spec.Spec) -> None:
    """The root can be written to as the configuration says."""
    script = "touch /root/x && rm /root/x"
    assert "Read-only file system" in run(shell(config, script)).stderr
    config.set_root(str(config.root.path if config.root else ""), readonly=False)
    assert output(run(shell(config, script))) == ""


def test_bind(run: Run, config: spec.Spec, tmp_path: Path) -> None:
    """A directory of the host is shown, and written to unless it is read-only."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "a").write_text("from the host")
    shell(config.bind(str(shared), "/tmp"), "cat /tmp/a; echo back >/tmp/b")
    assert output(run(config)) == "from the host"
    assert (shared / "b").read_text() == "back\n"
    config.remove_mounts("/tmp").bind(str(shared), "/tmp", readonly=True)
    assert "Read-only file system" in run(shell(config, "echo no >/tmp/c")).stderr


@pytest.mark.needs("host kernel")
def test_tmpfs(run: Run, config: spec.Spec) -> None:
    """A filesystem in memory has the size and permissions asked for."""
    place = "/dev/some"  # not there before: runc 1.1.5 keeps the permissions of a directory that is
    shell(
        config.tmpfs(place, size="2M", mode=0o750),
        f"df -k {place} | tail -n1; stat -c %a {place}; grep ' {place} ' /proc/mounts",
    )
    sizes, mode, mounted = output(run(config)).splitlines()
    assert sizes.split()[1] == "2048"
    assert mode == "750"
    assert {"nosuid", "nodev"} <= set(mounted.split()[3].split(","))


@pytest.mark.needs("memory controller")
@pytest.mark.needs("pids controller")
@pytest.mark.needs("cpu controller")
@pytest.mark.parametrize(
    ("v1", "v2", "limited"),
    [
        ("memory/memory.limit_in_bytes", "memory.max", ["67108864"]),
        ("pids/pids.max", "pids.max", ["30"]),
        ("cpu/cpu.cfs_quota_us", "cpu.max", ["25000", "25000 50000"]),
        ("cpu/cpu.cfs_period_us", "cpu.max", ["50000", "25000 50000"]),
    ],
)
@pytest.mark.needs("host kernel")
def test_limits(v1: str, v2: str, limited: list[str], run: Run, config: spec.Spec) -> None:
    """Limits on memory, processes and CPU time are those of the container's cgroup."""
    config.limit_memory("64M").limit_pids(30).limit_cpu(0.5, period=50_000)
    script = f"cd /sys/fs/cgroup; if [ -e {v1} ]; then cat {v1}; else cat {v2}; fi"
    assert output(run(shell(config, script))) in limited


@pytest.mark.needs("memory controller")
def test_memory_limit_holds(run: Run, config: spec.Spec) -> None:
    """A process that takes more memory than allowed is killed; one that takes less is not."""
    config.set_args("dd", "if=/dev/zero", "of=/dev/null", "bs=32M", "count=1")
    assert output(run(config.limit_memory("64M"))) == ""
    assert run(config.limit_memory("16M")).returncode == SIGKILLED


@pytest.mark.needs("pids controller")
@pytest.mark.needs("host kernel")
def test_pids_limit_holds(run: Run, config: spec.Spec) -> None:
    """No more processes can be started than allowed."""
    shell(config.limit_pids(5), "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done; kill $(jobs -p)")
    assert "fork" in run(config).stderr


@pytest.mark.needs("host kernel")
def test_namespaces(run: Run, config: spec.Spec) -> None:
    """A namespace can be new, shared with the host, or one that exists."""

    def seen() -> str:
        return output(run(config.set_args("readlink", "/proc/self/ns/ipc")))

    host = os.readlink("/proc/self/ns/ipc")
    assert seen() != host
    config.remove_namespace("ipc").remove_mounts("/dev/mqueue")
    assert seen() == host
    config.set_namespace("ipc", "/proc/self/ns/ipc")
    assert seen() == host


@pytest.mark.needs("user namespaces")
def test_id_mappings(run: Run, config: spec.Spec) -> None:
    """Mapped ids make a user namespace in which root is who the mapping says."""
    config.map_uids(0, 0, 100).map_uids(100, 500_100, 50).map_gids(0, 0, 100)
    shell(config, "cat /proc/self/uid_map /proc/self/gid_map")
    lines = [line.split() for line in output(run(config)).splitlines()]
    assert lines == [["0", "0", "100"], ["100", "500100", "50"], ["0", "0", "100"]]


MOUNT = "mount -t tmpfs none /tmp && echo mounted"


@pytest.mark.needs("host kernel")
def test_seccomp_refuses(run: Run, config: spec.Spec) -> None:
    """The default filter refuses what it lists, even to a process with the capability for it, and nothing else."""
    shell(config.add_capabilities("SYS_ADMIN"), MOUNT)
    assert output(run(config)) == "mounted"
    refused = run(config.set_seccomp(spec.default_seccomp()))
    assert refused.returncode != 0
    assert "denied" in refused.stderr or "not permitted" in refused.stderr
    assert output(run(config.set_seccomp(spec.default_seccomp(allow=["mounts"])))) == "mounted"


CLONE = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    pid = libc.syscall(number, *args)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
        return "made"
    return errno.errorcode[ctypes.get_errno()]
SIGCHLD, CLONE, CLONE3, UNSHARE = 17, 56, 435, 272
print(call(CLONE, SIGCHLD, 0, 0, 0, 0))
for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
    print(call(CLONE, SIGCHLD | flag | 0x10000000, 0, 0, 0, 0))
print(call(CLONE3, None, 0))
print(call(UNSHARE, 0x10000000))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the calls are those of x86_64")
@pytest.mark.needs("host kernel")
def test_seccomp_reads_the_flags_of_clone(run: Run, tmp_path: Path) -> None:
    """With the default filter processes can be made and threads started, but no namespaces, in any way."""
    rootfs = tmp_path / "rootfs"
    rootfs.mkdir()
    config = spec.Spec.default().set_terminal(enabled=False).set_root(str(rootfs))
    for directory in ("/usr", "/lib", "/lib64", sys.base_prefix):
        config.bind(directory, directory, readonly=True)
    config.set_args(f"{sys.base_prefix}/bin/python3", "-c", CLONE).set_seccomp(spec.default_seccomp())
    assert output(run(config)).splitlines() == ["made", *["EPERM"] * 7, "ENOSYS", "EPERM"]
