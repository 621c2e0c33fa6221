"""The rooms of the package: the order of their imports, their picture, and the tests that mirror them."""

from __future__ import annotations

import graphlib
from pathlib import Path

import pytest
from programs import load

PROJECT = Path(__file__).parents[2]

rooms = load("rooms")
ORDER: list[str] = list(rooms.ROOMS)


@pytest.fixture
def imports() -> dict[str, set[str]]:
    """Return the imports of each module, read by the first test that asks for them."""
    found: dict[str, set[str]] = rooms.imports()
    return found


def test_each_module_is_in_a_room(imports: dict[str, set[str]]) -> None:
    """`ROOMS` has each folder and each module at the root of the package."""
    missing = {module for module in imports if module.partition(".")[0] not in " ".join(rooms.ROOMS.values()).split()}
    assert missing == set()


def test_imports_go_downwards(imports: dict[str, set[str]]) -> None:
    """A module imports its own room and rooms below it, in functions and for type checkers too."""
    pairs = [(module, other) for module, used in imports.items() for other in used]
    assert [pair for pair in pairs if ORDER.index(rooms.room_of(pair[0])) < ORDER.index(rooms.room_of(pair[1]))] == []


def test_extras_are_imported_by_no_module(imports: dict[str, set[str]]) -> None:
    """Each needs a library of its own, which a program without it doesn't have."""
    pairs = [(module, other) for module, used in imports.items() for other in used if rooms.room_of(other) == "extras"]
    assert [pair for pair in pairs if pair[0].partition(".")[0] != pair[1].partition(".")[0]] == []


def test_there_is_no_circle(imports: dict[str, set[str]]) -> None:
    """No module imports itself by way of others."""
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError, which shows the circle


def test_the_picture_is_what_the_imports_are() -> None:
    """docs/topics/rooms.svg is what `make docs` draws."""
    assert (PROJECT / "docs" / "topics" / "rooms.svg").read_text() == rooms.picture()


def test_unit_tests_mirror_the_rooms() -> None:
    """tests/unit/<room>/test_<module>.py, or test_<module>_<behaviour>.py, has the tests of that module."""
    unit = PROJECT / "tests" / "unit"
    modules = [path.relative_to(rooms.PACKAGE) for path in rooms.modules().values()]
    known = {path.with_name(path.stem.strip("_")) for path in modules}
    tests = [path.relative_to(unit) for path in sorted(unit.rglob("test_*.py"))]
    named = {test: test.with_name(test.stem.removeprefix("test_")) for test in tests}
    assert [
        test for test, name in named.items() if not any(str(f"{name}_").startswith(f"{module}_") for module in known)
    ] == []
