"""What a host can do is read from its files and its runtime, and each thing it lacks comes with a remedy."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest
from hosts import HOST, USER, change

from runc_async import _doctor
from runc_async._doctor import Cgroups, Host, Privileges
from runc_async.client import Runc
from runc_async.errors import RuncNotFound
from runc_async.features import Version
from runc_async.testing import FakeRunner

V1_MOUNTS = """\
proc /proc proc rw,relatime 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd,release_agent=/bin/agent 0 0
"""
V1_OWN = "9:name=systemd:/\n8:pids:/\n2:cpu,cpuacct:/\n0::/\n"


@pytest.mark.parametrize("host", [HOST, USER], ids=["root", "user"])
def test_a_host_that_lacks_nothing_is_ready(host: Host) -> None:
    """Nothing is reported, and containers can run, as root and as another user."""
    assert host.problems == ()
    assert host.ready


BLOCKING = {
    "a runtime: no runc in $PATH": change(HOST, runtime={"path": None, "version": None, "error": "not found"}),
    "a runtime that answers: no such": change(HOST, runtime={"version": None, "error": "no such"}),
    "control groups: no": change(HOST, cgroups={"mode": "none"}),
    "control groups for crun": change(
        HOST, cgroups={"mode": "hybrid"}, runtime={"version": Version(runtime="crun", version="1.8.1")}
    ),
    "capabilities: CAP_MKNOD": change(HOST, privileges={"missing_capabilities": ("CAP_MKNOD",)}),
    "user namespaces for users other than root: user.max_user_namespaces = 0": change(
        USER, rootless={"user_namespaces": False, "forbidden_by": "user.max_user_namespaces = 0"}
    ),
}


@pytest.mark.parametrize("missing", BLOCKING)
def test_what_containers_need_blocks(missing: str) -> None:
    """Without it containers can't run here, and there is a remedy."""
    (problem,) = BLOCKING[missing].problems
    assert problem.missing.startswith(missing)
    assert problem.remedy
    assert not BLOCKING[missing].ready


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS])
async def test_a_process_that_may_not_have_pidfds_is_named(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Under a seccomp profile without pidfd_open(2) a whole probe ends, and says what blocks and what helps."""
    monkeypatch.setattr(os, "pidfd_open", Mock(side_effect=OSError(code, os.strerror(code))))
    host = await _doctor.probe("/bin/sh")
    assert not host.ready
    assert host.keeps_exit_status is None
    assert f"children of this process: pidfd_open(2) fails: {os.strerror(code)}" in host.problems[0].missing
    assert "seccomp" in host.problems[0].missing
    assert "pidfd_open" in host.problems[0].remedy
    assert not any(problem.missing.startswith(("exit statuses", "a runtime")) for problem in host.problems)


async def test_a_process_that_ignores_sigchld_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that could not reap its children says so, and starts none."""
    monkeypatch.setattr(signal, "getsignal", Mock(return_value=signal.SIG_IGN))
    host = await _doctor.probe("/bin/sh")
    assert "SIGCHLD is ignored" in host.problems[0].missing
    assert "SIG_DFL" in host.problems[0].remedy


OPTIONAL = {
    "a root directory: /run/runc": change(HOST, runtime={"root_writable": False}),
    "exit statuses of detached containers: Linux 6.18.0": msgspec.structs.replace(HOST, keeps_exit_status=False),
    "a parent that reaps: process 1": change(HOST, reaping={"seconds": None}),
    "inotify instances": msgspec.structs.replace(HOST, inotify=False),
    "checkpoints: no criu": msgspec.structs.replace(HOST, criu=None),
    "a root filesystem to try things in: no busybox": msgspec.structs.replace(HOST, busybox=None),
    "a first process for init=True: no": msgspec.structs.replace(HOST, init=None),
    "limits and resource usage by memory, pids: no such controller": change(
        HOST, limits={"absent": ("memory", "pids")}
    ),
    "limits and resource usage by memory: this user can't make a cgroup": change(
        USER, limits={"unwritable": ("memory",)}
    ),
    "systemd, for systemd_cgroup": change(HOST, limits={"systemd": False}),
    "more users than one": change(USER, rootless={"newuidmap": None}),
    "more users than one in": change(USER, rootless={"subordinate_ids": 0}),
}


@pytest.mark.parametrize("missing", OPTIONAL)
def test_what_containers_can_do_without_is_named(missing: str) -> None:
    """Without it containers run all the same, and there is a remedy."""
    (problem,) = OPTIONAL[missing].problems
    assert problem.missing.startswith(missing)
    assert problem.remedy
    assert OPTIONAL[missing].ready


def test_what_blocks_comes_first() -> None:
    """A reader sees first why no container can run."""
    host = msgspec.structs.replace(change(HOST, privileges={"missing_capabilities": ("CAP_MKNOD",)}), criu=None)
    assert [problem.blocking for problem in host.problems] == [True, False]


def test_hybrid_control_groups_are_good_enough_for_runc() -> None:
    """Only crun refuses them."""
    assert change(HOST, cgroups={"mode": "hybrid"}).problems == ()


@pytest.mark.parametrize(
    ("mounted", "expected"),
    [
        ("proc /proc proc rw 0 0\n", Cgroups(mode="none", controllers=())),
        (V1_MOUNTS, Cgroups(mode="v1", controllers=("cpu", "cpuacct"))),
        ("cgroup2 {unified} cgroup2 rw 0 0\n", Cgroups(mode="v2", controllers=("hugetlb", "io"))),
        (
            V1_MOUNTS + "cgroup2 {unified} cgroup2 rw 0 0\n",
            Cgroups(mode="hybrid", controllers=("cpu", "cpuacct", "hugetlb", "io")),
        ),
    ],
    ids=["none", "v1", "v2", "hybrid"],
)
def test_control_groups_are_read_from_the_mounts(mounted: str, expected: Cgroups, tmp_path: Path) -> None:
    """The mode follows from the kinds that are mounted; controllers come from v1's options and v2's own list."""
    (tmp_path / "cgroup.controllers").write_text("io hugetlb\n")
    (tmp_path / "mounts").write_text(mounted.replace("{unified}", str(tmp_path)))
    (tmp_path / "own").write_text(V1_OWN)
    assert _doctor.cgroups(str(tmp_path / "mounts"), str(tmp_path / "own")) == expected


def test_a_v2_hierarchy_without_a_list_has_no_controllers(tmp_path: Path) -> None:
    """A list that can't be read is an empty one."""
    (tmp_path / "mounts").write_text(f"cgroup2 {tmp_path} cgroup2 rw 0 0\n")
    assert _doctor.cgroups(str(tmp_path / "mounts")) == Cgroups(mode="v2", controllers=())


def test_privileges_are_read_from_the_status(tmp_path: Path) -> None:
    """The effective user id and the effective capabilities count."""
    status = tmp_path / "status"
    status.write_text("Name:\tx\nUid:\t1000\t0\t0\t0\nCapPrm:\tffff\nCapEff:\t00000000000401c0\n")
    read = _doctor.privileges(str(status))
    assert read == Privileges(uid=0, missing_capabilities=("CAP_SYS_ADMIN", "CAP_MKNOD"))
    assert not read.sufficient


def test_this_process_has_the_privileges_it_has() -> None:
    """The real file of this process can be read."""
    assert _doctor.privileges().uid == os.geteuid()


@pytest.mark.parametrize(
    ("name", "value", "forbidden_by"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces = 0"),
        ("user/max_user_namespaces", "100", None),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone = 0"),
        ("kernel/unprivileged_userns_clone", "1", None),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns = 1",
        ),
        ("kernel/apparmor_restrict_unprivileged_userns", "0", None),
    ],
)
def test_user_namespaces_are_read_from_the_settings(
    name: str, value: str, forbidden_by: str | None, tmp_path: Path
) -> None:
    """The setting that forbids them is named with its value; one that isn't there forbids nothing."""
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    read = _doctor.rootless(str(tmp_path), str(tmp_path / "no subuid"))
    assert read.forbidden_by == forbidden_by
    assert read.user_namespaces == (forbidden_by is None)
    assert read.subordinate_ids == 0


def test_subordinate_ids_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's ranges count, by number and by name; those of others and broken lines don't."""
    (tmp_path / "subuid").write_text("root:100000:65536\nother:1:7\n0:200000:1000\nbroken\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _doctor.rootless(subuid=str(tmp_path / "subuid")).subordinate_ids == 66536


def test_a_user_without_a_name_has_subordinate_ids_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id that is in no list of users is looked up as it is."""
    (tmp_path / "subuid").write_text("3999999999:100000:65536\n")
    monkeypatch.setattr(os, "geteuid", lambda: 3999999999)
    assert _doctor.rootless(subuid=str(tmp_path / "subuid")).subordinate_ids == 65536


@pytest.mark.parametrize(
    ("runtime", "uid", "expected"),
    [
        ("runc", 0, "/run/runc"),
        ("runc", 1000, "/run/user/1000/runc"),
        ("crun", 0, "/run/crun"),
        ("crun", 1000, "/run/user/1000/crun"),
        ("runc-1.3", 0, "/run/runc"),
    ],
)
def test_the_root_directory_is_the_runtimes_default(runtime: str, uid: int, expected: str) -> None:
    """Root's is below /run, and that of others below $XDG_RUNTIME_DIR."""
    assert _doctor.root_directory(runtime, uid, "/run/user/1000") == expected


def test_without_a_runtime_directory_a_user_has_roots_default() -> None:
    """Then the directory is one that the user can't write to, and that is reported."""
    assert _doctor.root_directory("runc", 1000, None) == "/run/runc"


def test_a_file_descriptor_of_another_kind_keeps_no_exit_status() -> None:
    """A kernel that doesn't know the request says so, and that is no failure of ours."""
    with Path("/dev/null").open("rb") as other:
        assert not _doctor.keeps_status(other.fileno())


def test_a_living_process_has_no_exit_status() -> None:
    """What the probe looks for is there only after the end."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        assert not _doctor.keeps_status(pidfd)
    finally:
        os.close(pidfd)


def test_the_kernel_is_asked_with_a_child() -> None:
    """The answer agrees with the kernel's release: such statuses are kept since Linux 6.15."""
    major, minor = map(int, os.uname().release.split(".")[:2])
    assert _doctor.kernel_keeps_exit_status() == ((major, minor) >= (6, 15))


async def test_the_runtime_is_asked_for_version_and_features() -> None:
    """Both answers are kept, with where the program is."""
    runner = FakeRunner()
    runner.reply("version", stdout=b"runc version 1.1.5+ds1\nspec: 1.0.2-dev\n")
    runner.reply("features", stdout=b'{"ociVersionMin": "1.0.0", "ociVersionMax": "1.0.2"}')
    runtime = await _doctor.probe_runtime("/bin/sh", Runc("/bin/sh", runner=runner))
    assert runtime.path == "/bin/sh"
    assert runtime.version
    assert runtime.version.version == "1.1.5+ds1"
    assert runtime.features
    assert runtime.features.oci_version_max == "1.0.2"
    assert runtime.error is None


async def test_a_runtime_without_features_is_no_failure() -> None:
    """The 1.0 line of runc has no such command."""
    runner = FakeRunner()
    runner.reply("version", stdout=b"runc version 1.0.3\n")
    runner.reply("features", exit_code=3, stderr=b"No help topic for 'features'\n")
    runtime = await _doctor.probe_runtime("runc", Runc(runner=runner))
    assert (runtime.features, runtime.error) == (None, None)


async def test_a_runtime_that_fails_is_an_error_with_its_reason() -> None:
    """What the runtime's start raised is said."""
    runner = FakeRunner()
    runner.reply("version", error=RuncNotFound("missing", "/nowhere"))
    runtime = await _doctor.probe_runtime("missing", Runc("missing", runner=runner))
    assert runtime.path is None
    assert runtime.error == "no runtime 'missing' in $PATH ('/nowhere')"


async def test_a_missing_runtime_is_found_out() -> None:
    """A whole probe without a runtime names it as what blocks."""
    host = await _doctor.probe("/nowhere/runc")
    assert not host.ready
    assert host.problems[0].missing == "a runtime: no /nowhere/runc in $PATH"


@pytest.mark.runc
async def test_this_host_is_ready() -> None:
    """On a host where live tests run, containers can run."""
    host = await _doctor.probe()
    assert host.ready
    assert host.runtime.version
    assert host.runtime.version.runtime == "runc"
    assert host.runtime.features


@pytest.mark.runc
async def test_a_host_on_which_no_container_runs_is_not_ready(tmp_path: Path) -> None:
    """A runtime that answers, and fails to run a container, blocks: the reason is what it has said."""
    runtime = tmp_path / "runc"
    runtime.write_text(
        '#!/bin/sh\ncase "$*" in *" run "*) echo "not on this host" >&2; exit 1;; esac\nexec runc "$@"\n'
    )
    runtime.chmod(0o755)
    host = await _doctor.probe(str(runtime))
    assert host.tried
    assert host.failure is not None
    assert "not on this host" in host.failure
    assert not host.ready
    assert any(problem.blocking and "not on this host" in str(problem) for problem in host.problems)
