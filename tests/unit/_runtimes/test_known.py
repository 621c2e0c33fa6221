"""What a runtime keeps of a container, and that all runtimes have the same shape."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from runc_async._answers import wording
from runc_async._linux.procfs import ProcessIdentity
from runc_async._runtimes.known import DIALECTS, FEATURES, FIFOS, RECORDS, read_record

if TYPE_CHECKING:
    from pathlib import Path

    from runc_async._runtimes.dialect import Dialect

CREATED = "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_each_runtime_has_the_same_shape(dialect: Dialect) -> None:
    """Features name a command first, wordings are patterns of classes that are looked up, and parts are paths."""
    assert all(re.fullmatch(r"[a-z]+(?: (?:--)?[a-z0-9-]+(?: [a-z]+)?)?", feature) for feature in dialect.features)
    assert set(dialect.wordings) <= {step.cls for step in wording.STEPS if step.own}
    for pattern in (
        *dialect.prefixes,
        *dialect.unlogged,
        *dialect.without_cgroup,
        *dialect.without_terminal,
        *sum(dialect.wordings.values(), ()),
    ):
        re.compile(pattern)
    assert DIALECTS[dialect.name] is dialect
    assert set(dialect.features) <= set(FEATURES)


def write(root: Path, name: str, content: object) -> None:
    """Write a file that a runtime keeps of the container `web`."""
    (root / "web").mkdir(exist_ok=True)
    (root / "web" / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_runc(tmp_path: Path) -> None:
    """Runc's record: the first process, where the bundle is, and the cgroup of each controller."""
    config = {"rootfs": "/b/rootfs", "version": "1.0.2", "labels": ["bundle=/b", "a=1=2", "noise"]}
    record = {"init_process_pid": 7, "init_process_start": 9, "created": CREATED, "config": config}
    write(tmp_path, "state.json", record | {"cgroup_paths": {"cpu": "/c", "": ""}})
    found = read_record(str(tmp_path), "web")
    assert found is not None
    assert (found.runtime, found.process, found.bundle) == ("runc", ProcessIdentity(7, 9), "/b")
    assert (found.config, found.rootfs, found.oci_version) == ("/b/config.json", "/b/rootfs", "1.0.2")
    assert (found.annotations, found.cgroups, found.unified) == ({"a": "1=2"}, {"cpu": "/c"}, None)
    assert found.created
    assert found.owner


def test_crun(tmp_path: Path) -> None:
    """Crun's record: the same, with a copy of config.json of its own."""
    record = {"pid": 7, "process-start-time": 9, "created": CREATED, "bundle": "/b", "rootfs": "r", "owner": "root"}
    write(tmp_path, "status", record | {"scope": "s", "cgroup-path": "/g"})
    found = read_record(str(tmp_path), "web")
    assert found is not None
    assert (found.runtime, found.process, found.bundle) == ("crun", ProcessIdentity(7, 9), "/b")
    assert (found.config, found.rootfs) == (str(tmp_path / "web" / "config.json"), "r")
    assert (found.owner, found.systemd_scope) == ("root", "s")
    assert found.cgroups
    assert all(path.endswith("/g") for path in found.cgroups.values())


@pytest.mark.parametrize("name", sorted(RECORDS))
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"pid": 0, "init_process_pid": 0}', '{"pid": "x"}', "\ufffd"]
)
def test_what_is_no_record(name: str, content: str, tmp_path: Path) -> None:
    """A record that isn't finished, or can't be understood, is none; nor is there one of no container."""
    assert read_record(str(tmp_path), "web") is None
    write(tmp_path, name, content)
    assert read_record(str(tmp_path), "web") is None
    assert read_record(str(tmp_path / "web" / name), "web") is None


def test_files_beside_a_record() -> None:
    """The names that a watch of all containers looks for."""
    assert {"state.json", "status"} <= RECORDS
    assert {"exec.fifo"} <= FIFOS
