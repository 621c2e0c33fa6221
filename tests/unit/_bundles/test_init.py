"""The first process that `init=` puts in front of a bundle's program."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runc_async._bundles import init as inits
from runc_async.bundle import Bundle
from runc_async.errors import InitNotFound
from runc_async.spec import Process, Spec


def process(bundle: Bundle) -> dict[str, Any]:
    """Read what a bundle's config.json runs."""
    found: dict[str, Any] = json.loads((bundle.path / "config.json").read_bytes())["process"]
    return found


@pytest.fixture
def static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a directory first in $PATH; take each program in it for a static one."""
    monkeypatch.setenv("PATH", f"{tmp_path}")

    def is_static(path: str) -> bool:
        return "dynamic" not in Path(path).read_text()

    monkeypatch.setattr(inits, "is_static", is_static)
    return tmp_path


def program(path: Path, content: str = "") -> str:
    """Make a program."""
    path.write_text(content)
    path.chmod(0o755)
    return str(path)


async def test_arguments_are_wrapped_when_they_are_written(static: Path) -> None:
    """The configuration in memory has the user's own arguments, before and after changes; config.json has the init."""
    path = program(static / "tini-static")
    spec = Spec.default().set_args("sleep", "1")
    async with Bundle.temporary(rootfs=static, spec=spec, init=True, directory=static) as bundle:
        assert process(bundle)["args"] == [inits.PLACE, "-s", "--", "sleep", "1"]
        assert bundle.spec.process
        assert bundle.spec.process.args == ["sleep", "1"]
        bundle.spec.set_args("id")
        await bundle.save()
        assert process(bundle)["args"] == [inits.PLACE, "-s", "--", "id"]
        mounts = json.loads((bundle.path / "config.json").read_bytes())["mounts"]
        assert [mount["source"] for mount in mounts if mount["destination"] == inits.PLACE] == [path]
        assert "ro" in mounts[-1]["options"]
        assert spec.process
        assert spec.process.args == ["sleep", "1"]


async def test_a_program_is_no_init_of_its_own(static: Path) -> None:
    """Without `init`, and for a configuration without a program, nothing is put in front."""
    program(static / "tini-static")
    async with Bundle.temporary(rootfs=static, spec=Spec.default().set_args("id"), directory=static) as bundle:
        assert process(bundle)["args"] == ["id"]
    bare = Spec.default()
    bare.process = Process(cwd="/")
    async with Bundle.temporary(rootfs=static, spec=bare, init=True, directory=static) as bundle:
        assert "args" not in process(bundle)


def test_the_order_in_which_inits_are_looked_for(static: Path) -> None:
    """Of the known ones, the first that is there and needs no shared libraries."""
    assert inits.find_init() is None
    program(static / "dumb-init", "dynamic")
    assert inits.find_init() is None
    program(static / "catatonit")
    assert inits.find_init() == str(static / "catatonit")
    program(static / "tini-static")
    assert inits.find_init() == str(static / "tini-static")


@pytest.mark.parametrize(
    ("name", "words"), [("tini-static", ["-s"]), ("catatonit", []), ("dumb-init", ["-c"]), ("mine", [])]
)
def test_each_init_has_its_options(name: str, words: list[str], static: Path) -> None:
    """Each is started by its own rules, and one that isn't known by `--` alone; a path or a name tells which."""
    path = program(static / name)
    assert inits.chosen_init(name) == inits.chosen_init(static / name) == path
    made = inits.with_init(Spec.default().set_args("id"), path)
    assert made.process
    assert made.process.args == [inits.PLACE, *words, "--", "id"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (True, "none is here that is statically linked"),
        ("no-such-init", "there is no such program"),
        (sys.executable, "no statically linked program"),
    ],
)
async def test_an_init_has_to_be_there(
    asked: bool | str,  # noqa: FBT001 - as the bundle takes it
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is not there, or needs shared libraries, is an error, and no bundle is made."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InitNotFound, match=says):
        await Bundle.create(tmp_path / "bundle", rootfs=tmp_path, init=asked)
    assert os.listdir(tmp_path) == []
