"""What is built and shipped: the wheel works by itself, and holds what it has to."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import runc_async

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist and the wheel with the build backend that is installed, without a network."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Return the wheel's path."""
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_is_named_after_the_version(wheel: Path) -> None:
    """The version has one source, the package."""
    assert wheel.name == f"runc_async-{runc_async.__version__}-py3-none-any.whl"


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


def test_the_source_distribution_can_be_worked_on(built: Path) -> None:
    """It holds the tests, the docs, the examples and the Makefile, and nothing that was made by running them."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert names >= {
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "docs/topics/design.md",
        "examples/quickstart.py",
        "pyproject.toml",
        "runc_async/py.typed",
        "tests/test_package.py",
        "tools/setup-venv.sh",
    }
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".cache"))]


def test_the_changelog_tells_of_this_version() -> None:
    """A release has an entry."""
    assert f"## [{runc_async.__version__}]" in (PROJECT / "CHANGELOG.md").read_text()
