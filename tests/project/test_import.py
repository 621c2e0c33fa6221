"""What `import runc_async` gives, and what it spares those who import it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import runc_async

SOURCE = Path(runc_async.__file__)
PUBLIC: list[str] = vars(runc_async)["__all__"]  # type checkers don't see it: it is computed


def names_for_type_checkers() -> set[str]:
    """Return the names that the imports for type checkers bind."""
    tree = ast.parse(SOURCE.read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def loaded_by(statement: str) -> set[str]:
    """Return the modules that are loaded in a new interpreter after a statement."""
    command = [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_a_program_finds_what_a_type_checker_knows() -> None:
    """Every name that type checkers are told of is public, and the other way round."""
    assert set(PUBLIC) == names_for_type_checkers()


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_can_be_loaded(name: str) -> None:
    """The name is found in the module that the table tells, and listed by `dir()`."""
    assert getattr(runc_async, name) is not None
    assert name in dir(runc_async)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    """It is an `AttributeError` that tells the name, as of any module."""
    with pytest.raises(AttributeError, match="'Podman'"):
        _ = getattr(runc_async, "Podman")  # noqa: B009 - a type checker would refuse the attribute


def test_importing_the_package_loads_nothing_else() -> None:
    """Who imports the package for one name doesn't wait for all modules."""
    loaded = loaded_by("import runc_async")
    assert not {name for name in loaded if name.startswith("runc_async.")}
    assert not loaded & {"anyio", "asyncio", "msgspec"}


def test_a_module_is_loaded_when_it_is_first_used() -> None:
    """The modules of public classes, and those that are public themselves, are attributes of the package."""
    assert "runc_async.errors" in loaded_by("import runc_async; runc_async.errors")


def test_a_client_comes_without_the_runtime_spec() -> None:
    """The structs of the runtime-spec take as long to make as much of the rest; only who uses them waits."""
    assert not {name for name in loaded_by("from runc_async import Runc") if name.startswith("runc_async.spec")}


def test_a_star_gives_all_public_names() -> None:
    """`from runc_async import *` binds every public name, though none is there yet."""
    statement = "from runc_async import *; assert Runc and spec.Spec and Stats"
    assert "runc_async.client" in loaded_by(statement)
