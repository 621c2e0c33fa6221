"""What runtimes have: the table, and when the runtime is asked."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import feature_table
import pytest
from children import post, write_program

from runc_async import Bundle, Ignored, spec
from runc_async._commands import support
from runc_async._runtimes.crun import AFTER_DEBIAN_12, CRUN as CRUN_DIALECT
from runc_async._runtimes.dialect import Part
from runc_async._runtimes.known import FEATURES
from runc_async._runtimes.runc import PARTS, RUNC
from runc_async.client import Runc
from runc_async.errors import RuncNotFound, UnsupportedError
from runc_async.features import Version
from runc_async.spec import LinuxCPU, LinuxMemory, LinuxResources
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

RUNC_1_1 = b"runc version 1.1.5+ds1\nspec: 1.0.2\n"
RUNC_1_3 = b"runc version 1.3.6\nspec: 1.2.1\n"
CRUN = b"crun version 1.28\nspec: 1.0.0\n"


@pytest.fixture
def runner() -> FakeRunner:
    """Return a runner that starts nothing."""
    return FakeRunner()


@pytest.fixture
def client(runner: FakeRunner) -> Runc:
    """Return a client of that runner."""
    return Runc(runner=runner)


@pytest.mark.parametrize(
    ("runtime", "version", "feature", "expected"),
    [
        ("runc", "1.1.15", "create --pidfd-socket", False),
        ("runc", "1.2.0", "create --pidfd-socket", True),
        ("runc", "1.2.0-rc.1", "create --pidfd-socket", True),
        ("runc", "1.0.3", "exec --cgroup", False),
        ("runc", "1.1.5+ds1", "exec --cgroup", True),
        ("runc", "1.10.0", "checkpoint --link-remap", True),
        ("runc", "1.1.5", "checkpoint --lazy-pages", True),
        ("runc", "unknown", "create --pidfd-socket", True),
        ("crun", "1.28", "events", False),
        ("crun", "unknown", "events", False),
        ("crun", "1.8.1", "run --keep", False),
        ("crun", "1.21", "run --keep", True),
        ("crun", "1.28", "exec --cgroup", True),
        ("youki", "0.1.0", "events", True),
    ],
)
def test_the_table(runtime: str, version: str, feature: str, expected: object) -> None:
    """Versions are compared by their numbers; what isn't known is taken to be there."""
    assert support.supported(feature, Version(runtime=runtime, version=version)) is expected


TRIED: dict[tuple[int, ...] | None, tuple[int, ...] | None] = {None: None, (): (), AFTER_DEBIAN_12: (1, 21)}
"""For crun, what the table of the library has, and the first version of those tried that the page names."""


@pytest.mark.parametrize(
    "feature", [name for name in FEATURES if name in RUNC.features or name in CRUN_DIALECT.features]
)
def test_the_page_tells_what_the_table_has(feature: str) -> None:
    """docs/topics/runtimes.md has each feature of the library's table, with the same versions."""
    told, known = feature_table.read()[feature], CRUN_DIALECT.features
    assert feature_table.since(told["runc"]) == RUNC.features.get(feature, ())
    if told["crun"].endswith("`Runc.update` can"):  # which writes a document
        assert feature not in known
    else:
        assert feature_table.since(told["crun"]) == TRIED[known.get(feature, ())]


def test_the_page_tells_which_fields_of_a_configuration_are_ignored() -> None:
    """docs/topics/runtimes.md has each part of the library's table, and no others, with the same versions."""
    page = feature_table.PAGE.read_text().partition("\n## Fields of config.json\n")[2].partition("\n## ")[0]
    found = {row[0]: row[1:] for row in re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)}
    assert list(found) == list(PARTS)
    for path, part in PARTS.items():
        runc, crun, elsewhere = found[path]
        if part.until:
            assert runc == "until " + ".".join(map(str, part.until))
        else:
            assert feature_table.since(runc) == part.since
        assert feature_table.since(crun) == CRUN_DIALECT.parts.get(path, Part()).since
        assert elsewhere == ("refused" if part.refused else "ignored")


def everything() -> spec.Spec:
    """Make a configuration with each part of the table."""
    mapping = [spec.LinuxIDMapping(container_id=0, host_id=0, size=1)]
    return spec.Spec(
        oci_version="1.3.0",
        domainname="d",
        process=spec.Process(
            cwd="/",
            command_line="x",
            exec_cpu_affinity=spec.ExecCPUAffinity(),
            io_priority=spec.LinuxIOPriority(class_="IOPRIO_CLASS_BE"),
            scheduler=spec.Scheduler(policy="SCHED_BATCH"),
            user=spec.User(username="x"),
        ),
        mounts=[
            spec.Mount(destination="/a"),
            spec.Mount(destination="/b", uid_mappings=mapping, gid_mappings=mapping),
        ],
        linux=spec.Linux(
            namespaces=[spec.LinuxNamespace(type="pid"), spec.LinuxNamespace(type="time")],
            time_offsets={},
            personality=spec.LinuxPersonality(),
            net_devices={},
            memory_policy=spec.LinuxMemoryPolicy(),
            intel_rdt=spec.LinuxIntelRdt(schemata=[], enable_monitoring=False),
            resources=spec.LinuxResources(
                cpu=spec.LinuxCPU(burst=0, idle=0),
                memory=spec.LinuxMemory(check_before_update=True, kernel=1, kernel_tcp=1),
                rdma={},
            ),
            seccomp=spec.LinuxSeccomp(
                default_action="SCMP_ACT_ALLOW",
                default_errno_ret=1,
                listener_path="/x",
                flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            ),
        ),
        freebsd={},
        solaris={},
        vm=spec.VM(kernel=spec.VMKernel(path="/k")),
        windows={},
        zos={},
    )


async def checked(version: bytes, config: spec.Spec) -> list[Ignored]:
    """Check a configuration with a client whose runtime says that it has a version."""
    runner = FakeRunner()
    runner.reply("version", stdout=version)
    return await Runc(runner=runner).check(config)


async def test_check_returns_what_a_version_does_not_know() -> None:
    """Each part of the table is found with its path, since when it is known, and whether it is refused."""
    found = await checked(b"runc version 1.0.3\n", everything())
    places = {
        "mounts[]": "mounts[1]",
        "namespaces[].type=time": "namespaces[1].type",
        "flags[]=SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": "flags[1]",
    }
    expected = [path for path in PARTS if not path.endswith((".kernel", ".kernelTCP"))]
    for pattern, place in places.items():
        expected = [path.replace(pattern, place) for path in expected]
    assert [part.path for part in found] == [f"$.{path}" for path in expected]
    by_path = {part.path: part for part in found}
    assert by_path["$.process.scheduler"] == Ignored(path="$.process.scheduler", since="1.2", refused=False)
    assert by_path["$.linux.namespaces[1].type"].refused
    assert by_path["$.windows"] == Ignored(path="$.windows", since=None, refused=False)
    assert str(by_path["$.windows"]) == "$.windows"
    newer = await checked(b"runc version 1.5.0\n", everything())
    assert {part.path.rpartition(".")[2] for part in newer} == {
        *("commandLine", "username", "kernel", "kernelTCP", "freebsd", "solaris", "vm", "windows", "zos")
    }


@pytest.mark.parametrize("version", [b"runc version 1.1.5\n", b"runc version 1.3.6\n", b"crun version 1.28\n"])
async def test_check_finds_nothing_in_what_all_know(version: bytes) -> None:
    """Of what `runc spec` proposes nothing is ignored; of an unknown runtime nothing is known to be."""
    assert await checked(version, spec.Spec.default().limit_memory("64M").limit_cpu(1).limit_pids(9)) == []
    assert await checked(b"other version 1\n", everything()) == []


@pytest.mark.parametrize("kind", ["bundle", "path"])
async def test_strict_refuses_what_check_returns(kind: str) -> None:
    """With strict=True, `create`, `run` and `open_container` start nothing that the runtime would pass over in part."""
    runner = FakeRunner()
    runner.reply("version", stdout=b"runc version 1.1.5\n")
    client = Runc(runner=runner)
    async with Bundle.busybox(["true"]) as made:
        made.spec.domainname = "example.org"
        await made.save()
        bundle = made if kind == "bundle" else made.path
        for call in (client.create, client.run):
            with pytest.raises(UnsupportedError, match=re.escape("runc 1.1.5 has no $.domainname (since 1.2)")):
                await call("web", bundle, strict=True)
        with pytest.raises(UnsupportedError, match="domainname"):
            async with client.open_container("web", bundle, strict=True):
                raise AssertionError
        assert {invocation.command for invocation in runner.invocations} == {"version"}
        await client.run("web", bundle)
        made.spec.domainname = None
        await made.save()
        await client.run("web", bundle, strict=True)


async def test_supports_asks_once(client: Runc, runner: FakeRunner) -> None:
    """The version is asked for by the first question only."""
    runner.reply("version", stdout=RUNC_1_1)
    assert await client.supports("features") is True
    assert await client.supports("create --pidfd-socket") is False
    assert [invocation.command for invocation in runner.invocations] == ["version"]


async def test_many_questions_at_once(tmp_path: Path) -> None:
    """Who asks while the version is being asked for waits for that answer; one that is cancelled lets others ask."""
    with post(tmp_path) as asked, post(tmp_path, "answer") as answer:
        script = f"echo asked >{asked.path}; read word <{answer.path}; echo runc version 1.3.6"
        client = Runc(write_program(tmp_path / "runc", f"#!/bin/sh\n{script}\n"))
        first, *others = [asyncio.create_task(client.supports("features")) for _ in range(5)]
        await asked.word()
        first.cancel()
        await asked.word()
        answer.tell("now")
        assert await asyncio.gather(*others) == [True] * 4
        assert first.cancelled()
        assert await client.supports("features") is True


@pytest.mark.parametrize(
    ("runtime", "version", "expected"),
    [
        ("runc", "1.2.0", True),
        ("runc", "1.1.15", False),
        ("runc", "unknown", False),
        ("crun", "1.28", False),
        ("youki", "9.9.9", False),
    ],
)
def test_who_sends_a_pidfd(runtime: str, version: str, expected: object) -> None:
    """Only a runtime that is known to send pidfds gets a socket for one."""
    assert support.sends_pidfd(Version(runtime=runtime, version=version)) is expected


async def test_an_unknown_feature(client: Runc, runner: FakeRunner) -> None:
    """Where no difference is known there is no answer either, and nothing is asked."""
    with pytest.raises(ValueError, match="teleport"):
        await client.supports("teleport")
    assert runner.invocations == []


async def test_a_runtime_without_an_understandable_version(client: Runc, runner: FakeRunner) -> None:
    """It is taken to have everything, and not asked again."""
    runner.reply("version", stdout=b"what?", exit_code=1)
    assert await client.supports("events") is True
    assert await client.supports("features") is True
    assert len(runner.invocations) == 1


async def test_no_runtime(client: Runc, runner: FakeRunner) -> None:
    """A runtime that isn't there has nothing."""
    runner.reply("version", error=RuncNotFound("runc", "/bin"))
    with pytest.raises(RuncNotFound):
        await client.supports("events")


LACKING: dict[str, tuple[bytes, Callable[[Runc], Awaitable[object]]]] = {
    "create --pidfd-socket": (RUNC_1_1, lambda client: client.create("web", "/b", pidfd_socket="/s")),
    "run --pidfd-socket": (RUNC_1_1, lambda client: client.run("web", "/b", pidfd_socket="/s")),
    "run --keep": (b"crun version 1.8.1\n", lambda client: client.run("web", "/b", keep=True)),
    "exec --pidfd-socket": (RUNC_1_1, lambda client: client.exec("web", ["id"], pidfd_socket="/s")),
    "exec --cgroup": (b"runc version 1.0.3\n", lambda client: client.exec("web", ["id"], cgroup="x")),
    "exec --ignore-paused": (CRUN, lambda client: client.exec("web", ["id"], ignore_paused=True)),
    "exec --additional-gids": (CRUN, lambda client: client.exec("web", ["id"], additional_gids=[7])),
    "update --cpu-burst": (
        RUNC_1_1,
        lambda client: client.update("web", LinuxResources(cpu=LinuxCPU(burst=1))),
    ),
    "update --cpu-idle": (
        RUNC_1_1,
        lambda client: client.update("web", LinuxResources(cpu=LinuxCPU(idle=0))),
    ),
    "update --l3-cache-schema": (
        b"crun version 1.8.1\n",
        lambda client: client.update("web", LinuxResources(), l3_cache_schema="L3:0=f"),
    ),
    "update --mem-bw-schema": (
        b"crun version 1.8.1\n",
        lambda client: client.update("web", LinuxResources(), mem_bw_schema="MB:0=20"),
    ),
    "checkpoint --lazy-pages": (CRUN, lambda client: client.checkpoint("web", "/i", lazy_pages=True)),
    "checkpoint --page-server": (CRUN, lambda client: client.checkpoint("web", "/i", page_server="h:1")),
    "checkpoint --empty-ns": (CRUN, lambda client: client.checkpoint("web", "/i", empty_ns=["network"])),
    "checkpoint --auto-dedup": (CRUN, lambda client: client.checkpoint("web", "/i", auto_dedup=True)),
    "restore --lazy-pages": (CRUN, lambda client: client.restore("web", "/b", "/i", lazy_pages=True)),
    "restore --empty-ns": (CRUN, lambda client: client.restore("web", "/b", "/i", empty_ns=["network"])),
    "restore --no-subreaper": (CRUN, lambda client: client.restore("web", "/b", "/i", no_subreaper=True)),
    "restore --lsm-mount-context": (
        b"runc version 1.0.3\n",
        lambda client: client.restore("web", "/b", "/i", lsm_mount_context="x"),
    ),
    "restore --auto-dedup": (CRUN, lambda client: client.restore("web", "/b", "/i", auto_dedup=True)),
    "restore --no-pivot": (CRUN, lambda client: client.restore("web", "/b", "/i", no_pivot=True)),
}


@pytest.mark.parametrize("feature", LACKING)
async def test_what_a_runtime_lacks_is_not_tried(client: Runc, runner: FakeRunner, feature: str) -> None:
    """An option that the runtime lacks is refused before anything but its version is asked of it."""
    said, call = LACKING[feature]
    runner.reply("version", stdout=said)
    with pytest.raises(UnsupportedError, match=feature) as caught:
        await call(client)
    assert caught.value.what == feature
    assert [invocation.command for invocation in runner.invocations] == ["version"]


@pytest.mark.parametrize("feature", [feature for feature in LACKING if "crun" not in str(LACKING[feature][0])])
async def test_what_a_runtime_has_is_done(client: Runc, runner: FakeRunner, feature: str) -> None:
    """The same call goes through where the runtime has the option."""
    runner.reply("version", stdout=RUNC_1_3)
    await LACKING[feature][1](client)
    assert [invocation.command for invocation in runner.invocations] == ["version", feature.partition(" ")[0]]


async def _next_event(client: Runc) -> object:
    async with client.events("web") as events:
        return await anext(events)


COMMANDS: dict[str, Callable[[Runc], Awaitable[object]]] = {
    "events": _next_event,
    "events --stats": lambda client: client.stats("web"),
    "features": lambda client: client.features(),
    "checkpoint": lambda client: client.checkpoint("web", "/i"),
    "restore": lambda client: client.restore("web", "/b", "/i"),
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_that_is_known_to_be_lacking(client: Runc, runner: FakeRunner, command: str) -> None:
    """Once the client knows the runtime, a command that it lacks isn't started."""
    runner.reply("version", stdout=b"crun version 1.8.1\n")
    assert await client.supports("run --keep") is False
    with pytest.raises(UnsupportedError, match=command.partition(" ")[0]):
        await COMMANDS[command](client)
    assert [invocation.command for invocation in runner.invocations] == ["version"]


async def test_handles_ask_too(client: Runc, runner: FakeRunner) -> None:
    """What is opened has the same options, and the same rule."""
    runner.reply("version", stdout=RUNC_1_1)
    with pytest.raises(UnsupportedError):
        async with client.open_container("web", "/b", pidfd_socket="/s"):
            pytest.fail("there is nothing to open")
    with pytest.raises(UnsupportedError):
        async with client.open_exec("web", ["id"], pidfd_socket="/s"):
            pytest.fail("there is nothing to open")
    with pytest.raises(UnsupportedError):
        async with client.open_restored("web", "/b", "/i", manage_cgroups_mode="ignore"):
            pytest.fail("there is nothing to open")
    assert [invocation.command for invocation in runner.invocations] == ["version"]


async def test_nothing_is_asked_where_all_runtimes_are_alike(client: Runc, runner: FakeRunner) -> None:
    """Calls without such an option cost nothing more."""
    await client.create("web", "/b")
    await client.exec("web", ["id"])
    await client.update("web", LinuxResources(cpu=LinuxCPU(shares=2), memory=LinuxMemory(limit=1)))
    assert [invocation.command for invocation in runner.invocations] == ["create", "exec", "update"]
