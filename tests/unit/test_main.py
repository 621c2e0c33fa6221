"""`python -m runc_async` shows what a host can do, on one screen or as JSON, and its status says if that suffices."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import pytest
from hosts import HOST, USER, change

from runc_async import __main__ as program, _doctor as _doctor_module
from runc_async._doctor import Host
from runc_async.features import CgroupFeatures, Feature, Features, LinuxFeatures, SeccompFeatures

FEATURES = Features(
    oci_version_min="1.0.0",
    oci_version_max="1.0.2",
    mount_options=["ro", "rw"],
    linux=LinuxFeatures(
        namespaces=["pid", "mount", "user"],
        cgroup=CgroupFeatures(v1=True),
        seccomp=SeccompFeatures(enabled=True),
        apparmor=Feature(enabled=True),
        selinux=Feature(enabled=False),
    ),
)


def shown(host: Host) -> dict[str, str]:
    """Return the first words of a screen's lines with what follows."""
    return dict(line.split(maxsplit=1) for line in program.lines(host) if line)


def test_a_screen_has_a_line_for_each_part() -> None:
    """All parts of a host without problems stand on twelve short lines, and the last one is the verdict."""
    lines = list(program.lines(change(HOST, runtime={"features": FEATURES})))
    assert lines == [
        "runtime   runc 1.1.5 at /usr/sbin/runc, runtime-spec unknown",
        "features  seccomp, apparmor, 3 namespaces, 2 mount options",
        "root      /run/runc",
        "cgroups   v2: cpu memory pids",
        "user      root, with all capabilities that a runtime needs",
        "rootless  user namespaces, newuidmap, 65536 subordinate user ids",
        "kernel    6.18.0, keeps exit statuses",
        "process 1 reaps at once",
        "criu      /usr/sbin/criu",
        "busybox   /usr/bin/busybox",
        "init      /usr/bin/tini-static",
        "left over nothing",
        "",
        "Containers can run here.",
    ]


@pytest.mark.parametrize(
    ("host", "name", "said"),
    [
        (change(HOST, runtime={"path": None}), "runtime", "runc: not found"),
        (change(HOST, runtime={"version": None}), "runtime", "runc: does not answer"),
        (HOST, "features", "not told"),
        (
            change(
                HOST,
                runtime={"features": Features(oci_version_min="1", oci_version_max="1", linux=LinuxFeatures())},
            ),
            "features",
            "none",
        ),
        (change(HOST, cgroups={"mode": "none", "controllers": ()}), "cgroups", "none: no controllers"),
        (USER, "user", "1000, lacking CAP_SYS_ADMIN"),
        (change(HOST, privileges={"missing_capabilities": ("CAP_MKNOD",)}), "user", "root, lacking CAP_MKNOD"),
        (change(USER, privileges={"missing_capabilities": ()}), "user", "1000, lacking nothing"),
        (
            change(HOST, rootless={"forbidden_by": "a = 0", "newuidmap": None, "subordinate_ids": 0}),
            "rootless",
            "no user namespaces (a = 0), no newuidmap, 0 subordinate user ids",
        ),
        (
            msgspec.structs.replace(HOST, keeps_exit_status=None),
            "kernel",
            "6.18.0, unknown whether it keeps exit statuses",
        ),
        (
            msgspec.structs.replace(HOST, keeps_exit_status=False),
            "kernel",
            "6.18.0, does not keep exit statuses",
        ),
        (msgspec.structs.replace(HOST, reaping=None), "process", "1 not measured"),
        (
            change(HOST, reaping={"seconds": 1.24}),
            "process",
            "1 reaps after 1.2 s: wait() reads the exit status from the zombie",
        ),
        (
            change(HOST, reaping={"seconds": None, "reaper": 7}),
            "process",
            "1 is not the reaper, but process 7, which does not reap in 3 s: wait() reads the exit status from the zombie",  # noqa: E501
        ),
        (
            change(HOST, reaping={"reaper": os.getpid()}),
            "process",
            "1 is this process, which reaps its containers itself",
        ),
        (msgspec.structs.replace(HOST, criu=None), "criu", "not found"),
        (msgspec.structs.replace(HOST, criu=None), "missing", "checkpoints: no criu in $PATH"),
        (msgspec.structs.replace(HOST, criu=None), "remedy", "install criu"),
        (change(HOST, cgroups={"mode": "none"}), "MISSING", "control groups: no cgroup file system is mounted"),
        (change(HOST, cgroups={"mode": "none"}), "Containers", "can't run here."),
    ],
)
def test_what_is_lacking_is_shown(host: Host, name: str, said: str) -> None:
    """A line says what isn't there, and a problem has a line for itself and one for its remedy."""
    assert shown(host)[name] == said


def test_json_has_all_that_was_found_out() -> None:
    """The document holds the host's parts, the verdict and the problems."""
    document = json.loads(program.as_json(msgspec.structs.replace(HOST, criu=None)))
    assert document["ready"] is True
    assert document["problems"] == [
        {"missing": "checkpoints: no criu in $PATH", "remedy": "install criu", "blocking": False}
    ]
    assert document["cgroups"] == {"mode": "v2", "controllers": ["cpu", "memory", "pids"]}
    assert document["runtime"]["version"]["version"] == "1.1.5"


@pytest.mark.parametrize(("arguments", "start"), [([], "runtime   "), (["--json"], "{\n")])
def test_the_status_of_a_host_that_is_ready_is_zero(
    arguments: list[str],
    start: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is printed is the screen, or JSON if asked for."""

    async def probe(command: str) -> Host:
        assert command == "runc"
        return HOST

    monkeypatch.setattr(_doctor_module, "probe", probe)
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.startswith(start)


def test_the_program_fails_where_containers_cannot_run() -> None:
    """As a program with a runtime that isn't there: status 1, and the remedy on the screen."""
    command = [sys.executable, "-m", "runc_async", "--runtime", "/nowhere/runc"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "MISSING   a runtime: no /nowhere/runc in $PATH\nremedy    install it" in ended.stdout
    assert ended.stderr == ""
