"""What stands in the document that takes the place of options of `exec`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runc_async._commands.argv import Overrides
from runc_async._commands.exec_document import Template, exec_document, find_template
from runc_async._commands.words import User
from runc_async._runtimes.crun import CRUN
from runc_async._runtimes.dialect import Dialect
from runc_async._runtimes.runc import RUNC
from runc_async.client import Runc
from runc_async.errors import ContainerNotFound
from runc_async.runner import Document
from runc_async.runtimes import Crun
from runc_async.testing import FakeRunner

OWN: dict[str, Any] = {
    "terminal": True,
    "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 18},
    "args": ["sleep", "100"],
    "env": ["PATH=/bin", "A=old"],
    "cwd": "/tmp",
    "noNewPrivileges": True,
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 2**64 - 1}],
    "oomScoreAdj": 7,
    "x-unknown": [1],
}


def made(dialect: Dialect, overrides: Overrides, version: tuple[int, ...] = (), **changes: Any) -> dict[str, Any]:
    """Make a document and read it again."""
    found: dict[str, Any] = json.loads(exec_document(dialect, OWN | changes, ["id"], overrides, version).encode())
    return found


def test_the_template_stays() -> None:
    """What no option changes is the container's own, unknown keys and large numbers too; there is no terminal."""
    expected = OWN | {"args": ["id"], "terminal": False, "env": [*OWN["env"], "A=new", "B="]}
    assert made(RUNC, Overrides(env={"A": "new", "B": ""})) == expected


def test_each_option_has_its_place() -> None:
    """Options win over the template; a user without a group keeps the template's."""
    options = Overrides(
        env={"A": "1"}, tty=True, cwd="/x", user=5, additional_gids=[6], apparmor="a", process_label="l"
    )
    found = made(RUNC, options)
    assert found["user"] == {"uid": 5, "gid": 2, "additionalGids": [3, 6], "umask": 18}
    assert (found["terminal"], found["cwd"], found["apparmorProfile"], found["selinuxLabel"]) == (True, "/x", "a", "l")
    assert made(RUNC, Overrides(user=(5, 6)))["user"]["gid"] == 6
    assert made(RUNC, Overrides(no_new_privs=True), noNewPrivileges=False)["noNewPrivileges"] is True


@pytest.mark.parametrize(
    ("version", "inheritable", "expected"),
    [
        ((1, 1, 1), None, {"bounding", "effective", "permitted", "ambient", "inheritable"}),
        ((1, 1, 5), None, {"bounding", "effective", "permitted", "ambient"}),
        ((1, 3, 6), None, {"bounding", "effective", "permitted"}),
        ((1, 3, 6), [], {"bounding", "effective", "permitted", "ambient"}),
        ((), None, {"bounding", "effective", "permitted"}),
    ],
)
def test_capabilities_go_where_the_version_puts_them(
    version: tuple[int, ...], inheritable: list[str] | None, expected: set[str]
) -> None:
    """Versions of runc differ in the sets to which `--cap` adds."""
    held = {"bounding": ["CAP_KILL"]} | ({} if inheritable is None else {"inheritable": inheritable})
    found = made(RUNC, Overrides(caps=["CAP_CHOWN"]), version, capabilities=held)["capabilities"]
    assert {kind for kind, names in found.items() if "CAP_CHOWN" in names} == expected
    assert found["bounding"] == ["CAP_KILL", "CAP_CHOWN"]


@pytest.mark.parametrize("dialect", [RUNC, CRUN], ids=["runc", "crun"])
def test_short_names_of_capabilities(dialect: Dialect) -> None:
    """A document has their full names, as an option has: a runtime knows no others."""
    found = made(dialect, Overrides(caps=["net_raw"]), capabilities={})["capabilities"]
    assert {name for names in found.values() for name in names} == {"CAP_NET_RAW"}


def test_crun_takes_less_from_the_template() -> None:
    """Of the container's process, crun takes the user and the environment, and no directory, limits or flags."""
    assert made(CRUN, Overrides(env={"A": "new"})) == {
        "args": ["id"],
        "cwd": "/",
        "terminal": False,
        "user": OWN["user"],
        "env": [*OWN["env"], "A=new"],
    }
    assert made(CRUN, Overrides(user=5, caps=["CAP_CHOWN"])) == {
        "args": ["id"],
        "cwd": "/",
        "terminal": False,
        "user": {"uid": 5, "gid": 0},
        "env": OWN["env"],
        "capabilities": {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted", "ambient")},
    }


def write(path: Path, document: object) -> None:
    """Write a file that a runtime keeps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(document))


def test_records_of_both_runtimes(tmp_path: Path) -> None:
    """A record of runc names the bundle; crun keeps a copy of config.json; without either, nothing is known."""
    write(tmp_path / "r" / "state.json", {"init_process_pid": 7, "config": {"labels": ["x=y", "bundle=/b"]}})
    write(tmp_path / "c" / "status", {"pid": 7})
    write(tmp_path / "n" / "state.json", {"init_process_pid": 7, "config": {}})
    assert find_template(str(tmp_path), "r") == Template(RUNC, "/b/config.json")
    assert find_template(str(tmp_path), "c") == Template(CRUN, str(tmp_path / "c" / "config.json"))
    assert find_template(str(tmp_path), "n") is None
    assert find_template(str(tmp_path), "none") is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"process": null}', b"\xff"])
def test_what_is_no_configuration_is_no_template(content: bytes, tmp_path: Path) -> None:
    """A config.json that can't be read, or has no process, is left to the runtime."""
    (tmp_path / "config.json").write_bytes(content)
    assert Template(RUNC, str(tmp_path / "config.json")).process() is None
    assert Template(RUNC, str(tmp_path / "none")).process() is None


async def test_values_go_by_document(tmp_path: Path) -> None:
    """With `env`, the document has the values and the command line none; the other options stay words."""
    write(tmp_path / "web" / "state.json", {"init_process_pid": 7, "config": {"labels": [f"bundle={tmp_path}"]}})
    write(tmp_path / "config.json", {"process": OWN})
    runner = FakeRunner()
    await Runc(root=tmp_path, runner=runner).exec("web", ["id"], env={"A": "s"}, cwd="/x", detach=True, cgroup="g")
    invocation = runner.invocations[-1]  # before it, the version is asked for
    command = list(invocation.args[invocation.args.index("exec") :])
    assert command == ["exec", "--process", "<process.json>", "--detach", "--cgroup", "g", "--", "web"]
    (data,) = (word.data for word in invocation.argv if isinstance(word, Document))
    assert json.loads(data) == OWN | {"args": ["id"], "terminal": False, "cwd": "/x", "env": [*OWN["env"], "A=s"]}


async def test_a_runner_of_ones_own_keeps_the_words(tmp_path: Path) -> None:
    """Where nothing is known of the container's own process, values go to a runner as words that hide them."""
    runner = FakeRunner()
    await Runc(root=tmp_path, runner=runner).exec("web", ["id"], env={"A": "s"})
    (invocation,) = runner.invocations
    assert "A=***" in invocation.args


@pytest.mark.runc
async def test_no_value_is_shown_to_find_that_there_is_no_container(tmp_path: Path) -> None:
    """For a container that isn't there, runc is never started with a value in its command line."""
    with pytest.raises(ContainerNotFound) as caught:
        await Runc(root=tmp_path).exec("web", ["id"], env={"A": "s"})
    assert "exec" not in caught.value.args


@pytest.mark.parametrize("client", [Crun, Runc])
@pytest.mark.parametrize(("user", "given"), [(7, "7:0"), ("7", "7:0"), ((7, 8), "7:8")])
async def test_a_user_has_a_group_in_crun(tmp_path: Path, client: type[Runc], user: User, given: str) -> None:
    """Crun 1.21 runs `--user 7` as root, so the group is always given; for runc it would be another than it takes."""
    runner = FakeRunner()
    await client(root=tmp_path, runner=runner).exec("web", ["id"], user=user, detach=True)
    words = runner.invocations[-1].args
    expected = given if client is Crun else given.removesuffix(":0")
    assert words[words.index("--user") + 1] == expected


async def test_a_container_of_crun_has_a_client_of_any_name(tmp_path: Path) -> None:
    """The record of a container tells that crun has made it."""
    write(tmp_path / "web" / "status", {"pid": 7, "process-start-time": 9, "bundle": str(tmp_path)})
    runner = FakeRunner()
    await Runc(root=tmp_path, runner=runner).exec("web", ["id"], user=7, detach=True)
    assert "7:0" in runner.invocations[-1].args
