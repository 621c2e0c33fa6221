"""What is built and shipped: the wheel works by itself, and holds what it has to."""

from __future__ import annotations

import email
import email.policy
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
from pathlib import Path

import once
import pytest
import trove_classifiers

import runc_async

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the sdist and the wheel, built without a network."""
    return once.distributions(tmp_path_factory)


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Return the wheel's path."""
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    """Return the source distribution's path."""
    (path,) = built.glob("*.tar.gz")
    return path


def metadata(wheel: Path) -> Message:
    """Return what a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name), policy=email.policy.default)


def files(archive: Path) -> set[str]:
    """Return the files of a source distribution, without its own directory."""
    with tarfile.open(archive) as opened:
        return {member.name.split("/", 1)[1] for member in opened if member.isfile()}


def test_the_wheel_is_named_after_the_version(wheel: Path) -> None:
    """The version has one source, the package."""
    assert wheel.name == f"runc_async-{runc_async.__version__}-py3-none-any.whl"


def test_an_index_would_take_them(built: Path) -> None:
    """Twine finds nothing to complain of, not even in how the README would be shown."""
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *map(str, built.iterdir())]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout.count("PASSED")) == (0, 2), said.stdout


def test_what_the_wheel_says_of_itself(wheel: Path) -> None:
    """Version, Python and licence are there once, the classifiers exist, and name each Python that CI tests."""
    said = metadata(wheel)
    assert said["Version"] == runc_async.__version__
    assert said["Requires-Python"] == ">=3.11"
    assert said["License-Expression"] == "Apache-2.0"
    classifiers = said.get_all("Classifier", [])
    assert set(classifiers) <= trove_classifiers.classifiers
    workflow = (PROJECT / ".github" / "workflows" / "ci.yml").read_text()
    tested = re.findall(r'"(3\.\d+)"', workflow)
    assert {f"Programming Language :: Python :: {version}" for version in tested} <= set(classifiers)
    needed = [requirement for requirement in said.get_all("Requires-Dist", []) if "extra ==" not in requirement]
    assert {requirement.split(">")[0] for requirement in needed} == {"anyio", "msgspec"}
    assert said["Keywords"]
    assert all(": " not in url and ", https://" in url for url in said.get_all("Project-URL", [""]))


def test_a_wheel_of_the_source_distribution_is_the_same(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """Who builds from source gets what is in the wheel."""
    # Not by `tarfile`, whose argument `filter` is needed from Python 3.12 on, and unknown before 3.11.4.
    subprocess.run(["tar", "-xf", str(sdist), "-C", str(tmp_path)], check=True)  # noqa: S607 - any tar
    (source,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(tmp_path / wheel.name) as theirs, zipfile.ZipFile(wheel) as ours:
        assert {item.filename: item.CRC for item in theirs.infolist()} == {
            item.filename: item.CRC for item in ours.infolist()
        }


def test_the_wheel_holds_the_package_and_its_types(wheel: Path) -> None:
    """Every module is in it, `py.typed` says that its annotations count, and nothing else is in it."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {str(path.relative_to(PROJECT)) for path in (PROJECT / "runc_async").rglob("*.py")}
    assert names == modules | {"runc_async/py.typed"}


def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    """Installed beside its two dependencies and nothing else of ours, it can be imported and run."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel)], check=True)
    # The dependencies come from here: a path for modules, where the link to this checkout doesn't count.
    dependencies = sysconfig.get_path("purelib")
    said = subprocess.run(
        [python, "-c", "import runc_async; print(runc_async.__file__)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": dependencies},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(said.stdout.strip()).is_relative_to(environment)


def test_the_source_distribution_can_be_worked_on(sdist: Path) -> None:
    """It holds the tests, the docs, the examples and the tools, and nothing that was made by running them."""
    names = files(sdist)
    assert names >= {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"}
    for folder in ("bench", "docs", "examples", "runc_async", "tests", "tools"):
        there = {path for path in (PROJECT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        made = {PROJECT / "bench" / "results"}
        assert {str(path.relative_to(PROJECT)) for path in there if made.isdisjoint(path.parents)} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".cache", "build/"))]


def test_the_changelog_tells_of_this_version() -> None:
    """A release has an entry."""
    assert f"## [{runc_async.__version__}]" in (PROJECT / "CHANGELOG.md").read_text()
