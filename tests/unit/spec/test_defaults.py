"""`Spec.default` is what `runc spec` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import spec_documents

from runc_async import spec
from runc_async.spec import defaults

RECORDED = [json.loads(line) for line in (spec_documents.DATA / "spec-defaults.jsonl").read_text().splitlines()]
OF_RUNC = [case for case in RECORDED if case["runtime"].startswith("runc")]


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Give a configuration without what differs by version: its number, and the ambient set that runc 1.1 fills."""
    process = config["process"]
    kept = {kind: names for kind, names in process["capabilities"].items() if kind != "ambient"}
    return {**config, "ociVersion": None, "process": {**process, "capabilities": kept}}


@pytest.mark.parametrize("case", OF_RUNC, ids=lambda case: f"{case['cgroup']}-rootless-{case['rootless']}")
def test_default_is_what_runc_writes(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The default configuration is runc's, on both cgroup versions, rootless or not."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("os.getegid", lambda: 0)
    made = spec.Spec.default(case["rootless"], cgroup_namespace=case["cgroup"] == "v2")
    assert comparable(json.loads(made.encode())) == comparable(case["config"])


def test_all_cases_are_there() -> None:
    """Both runtimes, both cgroup versions, rootless and not are recorded."""
    kinds = {(case["runtime"].split()[0], case["cgroup"], case["rootless"]) for case in RECORDED}
    assert len(kinds) == len(RECORDED) == 8


@pytest.mark.parametrize("rootless", [False, True])
def test_default_is_good(rootless: bool) -> None:  # noqa: FBT001  # a parameter
    """The default configuration breaks no rule of the specification, and decodes to itself."""
    made = spec.Spec.default(rootless)
    assert spec.validate(made) == []
    assert spec.Spec.decode(made.encode()) == made


def test_default_has_no_ambient_capabilities() -> None:
    """As in runc 1.2 and later, no capability is ambient or inheritable; the version is that of the structs."""
    made = spec.Spec.default()
    assert made.oci_version == spec.OCI_VERSION == "1.3.0"
    assert made.process
    assert made.process.capabilities
    assert made.process.capabilities.ambient is None
    assert made.process.capabilities.inheritable is None


def test_rootless_default_maps_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rootless configuration maps root inside to whoever makes it."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.getegid", lambda: 1001)
    linux = spec.Spec.default(rootless=True).linux
    assert linux
    assert linux.uid_mappings == [spec.LinuxIDMapping(container_id=0, host_id=1000, size=1)]
    assert linux.gid_mappings == [spec.LinuxIDMapping(container_id=0, host_id=1001, size=1)]


@pytest.mark.parametrize("unified", [True, False])
def test_cgroup_namespace_follows_the_host(
    unified: bool,  # noqa: FBT001  # a parameter
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Unless told, there is a cgroup namespace where the host has cgroup v2."""
    mark = tmp_path / "cgroup.controllers"
    if unified:
        mark.touch()
    monkeypatch.setattr(defaults, "_CGROUP2_MARK", str(mark))
    linux = spec.Spec.default().linux
    assert linux
    assert ("cgroup" in [namespace.type for namespace in linux.namespaces or []]) is unified


def test_defaults_share_nothing() -> None:
    """Changing one default configuration in place leaves the next as it should be."""
    first = spec.Spec.default()
    assert first.linux
    assert first.linux.masked_paths
    first.linux.masked_paths.clear()
    assert spec.Spec.default() != first
