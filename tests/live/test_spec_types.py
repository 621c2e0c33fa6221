"""What a real runtime refuses of a document is `InvalidSpec`, wherever in the document it stands."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from runtime import has_controller
from spec_documents import places

from runc_async import Bundle, spec
from runc_async.errors import InvalidSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from containers import MakeContainer
    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = pytest.mark.runc


@pytest.fixture
async def bundle() -> AsyncIterator[Bundle]:
    """Make a bundle that a user namespace of its own can enter."""
    async with Bundle.busybox(["true"]) as bundle:
        bundle.path.chmod(0o711)
        yield bundle


def rich() -> spec.Spec:
    """Make a configuration with a value of each kind, in each of the structs that runc reads."""
    config = spec.Spec.default().set_args("true").set_terminal(enabled=False, rows=1, cols=1).set_env({"A": "1"})
    config.set_hostname("h").tmpfs("/t", size="1M").set_user(0, 0, additional_gids=[1], umask=0o22)
    config.limit_memory("64M").limit_cpu(1).limit_pids(100).map_uids(0, 0).map_gids(0, 0)
    config.set_seccomp(spec.default_seccomp())
    config.annotations = {"a": "b"}
    config.hooks = spec.Hooks(poststop=[spec.Hook(path="/bin/true", args=["true"], env=["A=1"], timeout=5)])
    assert config.linux
    config.linux.sysctl = {"net.ipv4.ip_forward": "1"}
    config.linux.devices = [spec.LinuxDevice(type="c", path="/dev/x", major=1, minor=3, file_mode=0o666, uid=0, gid=0)]
    return config


def wrong(value: object) -> object:
    """Give a value that Go's decoder takes for none of the type of `value`."""
    return 5 if isinstance(value, str | bool) else "x"


async def test_each_value_of_a_wrong_type(client: Runc, runtime: Runtime, bundle: Bundle) -> None:
    """A value of a wrong type is InvalidSpec, in each of the structs of a configuration."""
    if runtime.is_crun:
        pytest.skip("crun takes some values of another type")
    document = rich().to_builtins()
    tried = 0
    for place in places(document):
        if not place or any(isinstance(key, int) and key > 0 for key in place):
            continue
        changed: Any = copy.deepcopy(document)
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = wrong(inner[place[-1]])
        (bundle.path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InvalidSpec):
            await client.create("mistyped", bundle.path)
        tried += 1
    assert tried > 100


REFUSED: dict[str, Callable[[spec.Spec], object]] = {
    "rlimit": lambda s: setattr(s.process, "rlimits", [spec.POSIXRlimit(type="RLIMIT_CORE", soft=-1, hard=-1)]),
    "uid": lambda s: s.set_user(-1, 0),
    "fraction": lambda s: setattr(s.linux, "resources", spec.LinuxResources(pids=spec.LinuxPids(limit=1.5))),  # type: ignore[arg-type]
    "two namespaces": lambda s: setattr(
        s.linux, "namespaces", [*((s.linux and s.linux.namespaces) or []), spec.LinuxNamespace(type="pid")]
    ),
    "no mapping": lambda s: s.set_namespace("user"),
    "unmapped user": lambda s: s.map_uids(0, 0, 6).map_gids(0, 0, 6).set_user(9, 0),
    "unmapped group": lambda s: s.map_uids(0, 0, 6).map_gids(0, 0, 6).set_user(0, 9),
    "unmapped groups": lambda s: s.map_uids(0, 0, 6).map_gids(0, 0, 6).set_user(0, 0, additional_gids=[9]),
    "host name": lambda s: s.remove_namespace("uts"),
    "device": lambda s: setattr(s.linux, "devices", [spec.LinuxDevice(type="x", path="/x")]),
    "root": lambda s: setattr(s, "root", None),
    "architecture": lambda s: s.set_seccomp(
        spec.LinuxSeccomp(default_action="SCMP_ACT_ALLOW", architectures=["x"])  # type: ignore[list-item]
    ),
    "sysctl": lambda s: setattr(s.linux, "sysctl", {"net.ipv4.ip_forward": "x"}),
}


SEEN_BY_RUNSC = {"rlimit", "uid", "fraction", "root"}
"""What runsc refuses too; the others it takes, or its own kernel has nothing of the kind."""


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, id=name, marks=() if name in SEEN_BY_RUNSC else pytest.mark.needs("host kernel"))
        for name, edit in REFUSED.items()
    ],
)
async def test_what_cannot_be_had(
    client: Runc, runtime: Runtime, bundle: Bundle, edit: Callable[[spec.Spec], object]
) -> None:
    """What a runtime refuses of a configuration's meaning is InvalidSpec too."""
    if runtime.is_crun:
        pytest.skip("crun has wordings of its own")
    edit(bundle.spec)
    await bundle.save()
    with pytest.raises(InvalidSpec):
        await client.run("refused", bundle.path)


PROCESSES: dict[str, Any] = {
    "args": spec.Process(cwd="/", args="sh"),  # type: ignore[arg-type]
    "cwd": spec.Process(cwd=1, args=["sh"]),  # type: ignore[arg-type]
    "uid": spec.Process(cwd="/", args=["sh"], user=spec.User(uid=-1)),
    "capabilities": spec.Process(cwd="/", args=["sh"], capabilities=[]),  # type: ignore[arg-type]
}


async def test_processes_and_limits_of_a_wrong_type(
    client: Runc, runtime: Runtime, make_container: MakeContainer
) -> None:
    """The document of an `exec` or `update` with a value of a wrong type is InvalidSpec: it isn't the state's fault."""
    if runtime.is_crun:
        pytest.skip("crun takes some values of another type")
    name = await make_container()
    for process in PROCESSES.values():
        with pytest.raises(InvalidSpec):
            await client.exec(name, process)
    if has_controller("memory"):
        with pytest.raises(InvalidSpec):
            await client.update(name, spec.LinuxResources(memory=spec.LinuxMemory(limit="x")))  # type: ignore[arg-type]
