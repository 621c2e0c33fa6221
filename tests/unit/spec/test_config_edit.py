"""The methods of `Spec` that change what is changed most often."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Callable
from typing import Any

import pytest

from runc_async import spec


def empty() -> spec.Spec:
    """Give a configuration with nothing in it."""
    return spec.Spec(oci_version="1.0.2")


def written(config: spec.Spec) -> dict[str, Any]:
    """Give what is in a configuration besides its version, after seeing that it is a good one."""
    assert spec.validate(config) == []
    document: dict[str, Any] = json.loads(config.encode())
    del document["ociVersion"]
    return document


def test_calls_chain_and_change_in_place() -> None:
    """Every method returns the very object that it changed."""
    config = empty()
    assert config.set_args("sh").set_cwd("/tmp").set_env({"A": "1"}).set_user(1, 2) is config
    assert config.set_terminal().set_rlimit("CORE", 0).add_capabilities("KILL").drop_capabilities("KILL") is config
    assert config.set_root("r").bind("/a", "/b").tmpfs("/c").remove_mounts("/b").set_hostname("h") is config
    assert config.limit_memory(1).limit_cpu(1).limit_pids(1).set_namespace("ipc").remove_namespace("ipc") is config
    assert config.map_uids(0, 1).map_gids(0, 1).set_seccomp(None) is config
    assert spec.validate(config) == []


def test_set_args() -> None:
    """The program replaces the one before, in a process that is made if there is none."""
    assert written(empty().set_args("a").set_args("ls", "-l")) == {"process": {"cwd": "/", "args": ["ls", "-l"]}}
    with pytest.raises(ValueError, match="needs a program"):
        empty().set_args()


def test_set_env() -> None:
    """Variables replace those of the same name, None takes them out, others stay."""
    config = empty().set_env({"A": "1", "B": "2", "AB": ""}).set_env({"A": "x=y", "B": None})
    assert written(config)["process"]["env"] == ["AB=", "A=x=y"]
    for name in ("", "A=B"):
        with pytest.raises(ValueError, match="not the name of a variable"):
            empty().set_env({name: "1"})


def test_set_user() -> None:
    """User and group are set, other fields of the user stay unless given."""
    config = empty().set_user(1000, 100, additional_gids=[5], umask=0o22).set_user(0, 0)
    assert written(config)["process"]["user"] == {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5]}


def test_set_cwd() -> None:
    """The working directory is absolute."""
    assert written(empty().set_cwd("/srv")) == {"process": {"cwd": "/srv"}}
    with pytest.raises(ValueError, match="not an absolute path: 'srv'"):
        empty().set_cwd("srv")


def test_set_terminal() -> None:
    """A terminal has a size or keeps the one that it had, and can be taken away."""
    config = empty().set_terminal(rows=24, cols=80)
    size = {"height": 24, "width": 80}
    assert written(config) == {"process": {"cwd": "/", "terminal": True, "consoleSize": size}}
    assert written(config.set_terminal(enabled=False))["process"]["terminal"] is False
    for rows, cols in ((1, None), (None, 1)):
        with pytest.raises(ValueError, match="both rows and cols"):
            empty().set_terminal(rows=rows, cols=cols)


def test_set_rlimit() -> None:
    """A limit replaces the one of its type; without a hard limit both are the same."""
    config = empty().set_rlimit("NOFILE", 1, 2).set_rlimit("RLIMIT_CORE", 0).set_rlimit("RLIMIT_NOFILE", 3)
    assert written(config)["process"]["rlimits"] == [
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3},
    ]


def test_add_capabilities() -> None:
    """Capabilities go to the sets that count for root, once each, and on demand to those for other users."""
    config = empty().add_capabilities("net_admin", "CAP_KILL").add_capabilities("KILL")
    held = ["CAP_NET_ADMIN", "CAP_KILL"]
    assert written(config)["process"]["capabilities"] == {"bounding": held, "effective": held, "permitted": held}
    config.add_capabilities("CAP_CHOWN", ambient=True)
    capabilities = written(config)["process"]["capabilities"]
    assert capabilities["bounding"] == [*held, "CAP_CHOWN"]
    assert capabilities["ambient"] == capabilities["inheritable"] == ["CAP_CHOWN"]


def test_drop_capabilities() -> None:
    """Capabilities leave all sets; ALL leaves none; sets that are absent stay so."""
    config = empty().add_capabilities("KILL", "CHOWN").drop_capabilities("cap_kill", "SYSLOG")
    held = ["CAP_CHOWN"]
    assert written(config)["process"]["capabilities"] == {"bounding": held, "effective": held, "permitted": held}
    left = written(config.drop_capabilities("ALL"))["process"]["capabilities"]
    assert left == {"bounding": [], "effective": [], "permitted": []}


def test_set_root() -> None:
    """The root is made or changed; whether it is read-only stays unless told."""
    config = empty().set_root("rootfs")
    assert written(config) == {"root": {"path": "rootfs"}}
    assert written(config.set_root("r", readonly=True)) == {"root": {"path": "r", "readonly": True}}
    assert written(config.set_root("s")) == {"root": {"path": "s", "readonly": True}}
    assert written(config.set_root("s", readonly=False)) == {"root": {"path": "s", "readonly": False}}


def test_mounts() -> None:
    """Mounts are added in order, and all on one place are removed together."""
    config = (
        empty()
        .bind("/a", "/b")
        .bind("/c", "/d", readonly=True, recursive=True, options=["nosuid"])
        .tmpfs("/b", size="1M", mode=0o700, options=["noexec"])
        .tmpfs("/e")
    )
    first, second, third, fourth = written(config)["mounts"]
    assert first == {"destination": "/b", "type": "none", "source": "/a", "options": ["bind"]}
    assert second["options"] == ["rbind", "ro", "nosuid"]
    assert third["options"] == ["nosuid", "nodev", "mode=700", "size=1048576", "noexec"]
    assert fourth["options"] == ["nosuid", "nodev", "mode=1777"]
    assert written(config.remove_mounts("/b"))["mounts"] == [second, fourth]
    assert written(empty().remove_mounts("/b"))["mounts"] == []
    with pytest.raises(ValueError, match="not an absolute path"):
        empty().bind("/a", "b")
    with pytest.raises(ValueError, match="not an absolute path"):
        empty().tmpfs("b")


def test_set_hostname() -> None:
    """A host name comes with the namespace that it needs, once."""
    config = empty().set_hostname("a").set_hostname("b")
    assert written(config) == {"hostname": "b", "linux": {"namespaces": [{"type": "uts"}]}}
    joined = empty().set_namespace("uts", "/run/x").set_hostname("a")
    assert written(joined)["linux"]["namespaces"] == [{"type": "uts", "path": "/run/x"}]


@pytest.mark.parametrize(
    ("size", "amount"),
    [
        (-1, -1),
        (2**63 - 1, 2**63 - 1),
        ("65536", 65536),
        ("9223372036854775807", 2**63 - 1),
        ("64M", 64 << 20),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("64 MiB", 64 << 20),
        ("64Mi", 64 << 20),
        ("1Gi", 1 << 30),
        ("1.5 ki", 1536),
        ("1.5g", 3 << 29),
        (" 512K ", 512 << 10),
        ("2T", 2 << 40),
        ("10b", 10),
        ("-1", -1),
    ],
)
def test_sizes(size: int | str, amount: int) -> None:
    """Sizes are bytes or have a unit that is a power of 1024."""
    assert written(empty().limit_memory(size)) == {"linux": {"resources": {"memory": {"limit": amount}}}}


NO_SIZES: Any = [-2, "", "M", "64X", "1.M", "-64M", "1e3", "64MM", "64i", "ib", 64e6, float("nan"), True]
NO_LIMITS: Any = [0, "0", "0M", "0.1"]


@pytest.mark.parametrize("size", [*NO_SIZES, *NO_LIMITS])
def test_what_is_no_size_is_refused(size: Any) -> None:
    """Anything else is a ValueError that names it; and so is zero, which runtimes take for no limit."""
    edits: tuple[Callable[[], object], ...] = (
        lambda: empty().limit_memory(size),
        lambda: empty().limit_memory("64M", swap=size),
        lambda: empty().limit_memory("64M", reservation=size),
        lambda: empty().tmpfs("/t", size=size),
    )
    for refused in edits:
        with pytest.raises(ValueError, match=re.escape(f"not a size: {size!r}")):
            refused()


def test_a_tmpfs_is_not_unlimited_by_a_number() -> None:
    """A tmpfs has no -1, which the kernel refuses: None is its size without a limit."""
    with pytest.raises(ValueError, match="not a size: -1"):
        empty().tmpfs("/t", size=-1)


def test_limits_leave_the_rest() -> None:
    """Limits change what they name and leave the other fields."""
    config = empty().limit_memory("64M", swap="128M", reservation=-1).limit_memory("32M")
    config.limit_cpu(1.5).limit_cpu(0.25, period=50_000).limit_pids(100).limit_pids(-1)
    assert written(config)["linux"]["resources"] == {
        "memory": {"limit": 32 << 20, "swap": 128 << 20, "reservation": -1},
        "cpu": {"quota": 12_500, "period": 50_000},
        "pids": {"limit": -1},
    }


@pytest.mark.parametrize("cpus", [0, -1, 0.009, float("nan"), float("inf")])
def test_too_little_cpu_is_refused(cpus: float) -> None:
    """The kernel takes no quota under a millisecond, so neither do we, nor what is no number."""
    with pytest.raises(ValueError, match="not a millisecond or more"):
        empty().limit_cpu(cpus)


@pytest.mark.parametrize("period", [0, -100_000, 999, 1_000_001, 100_000.0, True])
def test_a_period_that_the_kernel_refuses_is_refused(period: Any) -> None:
    """The kernel's periods are a millisecond to a second; two negative numbers don't make a quota."""
    for cpus in (2, -2):
        with pytest.raises(ValueError, match="not a period from a millisecond to a second"):
            empty().limit_cpu(cpus, period=period)


@pytest.mark.parametrize(("limit", "text"), [(-2, "-2"), (2**64, str(2**64)), (1.0, r"1\.0"), (True, "True")])
def test_what_is_no_resource_limit_is_refused(limit: Any, text: str) -> None:
    """A resource limit is a number of 64 bits, or -1; the hard one too."""
    edits: tuple[Callable[[], object], ...] = (
        lambda: empty().set_rlimit("CORE", limit),
        lambda: empty().set_rlimit("CORE", 0, limit),
    )
    for refused in edits:
        with pytest.raises(ValueError, match=f"not a resource limit: {text}"):
            refused()


def test_an_infinite_resource_limit() -> None:
    """Python's RLIM_INFINITY is written as the specification has it: 2^64-1."""
    config = empty().set_rlimit("CORE", resource.RLIM_INFINITY).set_rlimit("NOFILE", 10, resource.RLIM_INFINITY)
    assert written(config)["process"]["rlimits"] == [
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2**64 - 1},
    ]


def test_a_refused_limit_changes_nothing() -> None:
    """Where one amount is wrong, none is set."""
    config = empty()
    with pytest.raises(ValueError, match="not a size: 'much'"):
        config.limit_memory("64M", swap="much")
    assert written(config) == {}


@pytest.mark.parametrize("limit", [0, -2, 1.0, float("nan"), True])
def test_unclear_limit_on_processes_is_refused(limit: Any) -> None:
    """0 means different things to different runtimes, less than -1 nothing."""
    with pytest.raises(ValueError, match=f"not a limit on processes: {limit}"):
        empty().limit_pids(limit)


def test_namespaces() -> None:
    """A namespace replaces the one of its kind, and can be taken out."""
    config = empty().set_namespace("pid").set_namespace("network").set_namespace("pid", "/proc/1/ns/pid")
    assert written(config)["linux"]["namespaces"] == [{"type": "network"}, {"type": "pid", "path": "/proc/1/ns/pid"}]
    assert written(config.remove_namespace("network").remove_namespace("pid"))["linux"]["namespaces"] == []


def test_id_mappings() -> None:
    """Mappings add up, and bring the user namespace."""
    config = empty().map_uids(0, 1000).map_uids(1, 100_000, 65_535).map_gids(0, 1000)
    assert written(config)["linux"] == {
        "namespaces": [{"type": "user"}],
        "uidMappings": [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100_000, "size": 65_535},
        ],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
    }


def test_seccomp_is_set_and_taken_away() -> None:
    """A filter can be put in place and removed."""
    config = empty().set_seccomp(spec.LinuxSeccomp(default_action="SCMP_ACT_ALLOW"))
    assert written(config)["linux"] == {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}
    assert written(config.set_seccomp(None))["linux"] == {}


def denied(profile: spec.LinuxSeccomp) -> set[str]:
    """Give the calls that a profile refuses."""
    return {name for rule in profile.syscalls or [] for name in rule.names}


def test_default_seccomp_denies_its_list() -> None:
    """The profile allows everything but the groups of its list and new namespaces, and is a good one."""
    profile = spec.default_seccomp()
    assert spec.validate(profile) == []
    assert profile.default_action == "SCMP_ACT_ALLOW"
    listed = [name for names in spec.DENIED_SYSCALLS.values() for name in names]
    assert len(listed) == len(set(listed))
    assert denied(profile) == {*listed, "clone", "clone3"}
    assert {"read", "execve", "fork", "chroot"}.isdisjoint(listed)


def test_default_seccomp_can_allow_groups_and_calls() -> None:
    """Groups and single calls can be taken out of the list; what is not in it is a mistake."""
    profile = spec.default_seccomp(allow=["tracing", "namespaces", "mount"])
    assert denied(spec.default_seccomp()) - denied(profile) == {
        *spec.DENIED_SYSCALLS["tracing"],
        *("unshare", "setns", "clone", "clone3", "mount"),
    }
    assert not spec.default_seccomp(allow=spec.DENIED_SYSCALLS).syscalls
    with pytest.raises(ValueError, match="not in the list of denied calls: execve, read"):
        spec.default_seccomp(allow=["read", "execve", "boot"])


@pytest.mark.parametrize(
    ("machine", "index", "architectures"),
    [
        ("x86_64", 0, ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("aarch64", 0, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        ("s390x", 1, None),
    ],
)
def test_default_seccomp_follows_the_machine(
    machine: str, index: int, architectures: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else a machine runs is filtered too, and clone's flags are looked for where it has them."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    profile = spec.default_seccomp()
    assert profile.architectures == architectures
    rules = [rule for rule in profile.syscalls or [] if rule.names == ["clone"]]
    assert len(rules) == 7
    assert {arg.index for rule in rules for arg in rule.args or []} == {index}
