#!/usr/bin/env python3
"""Write docs/inventories: the names of Python, anyio and msgspec to which the reference links, for builds offline.

Python's inventory comes from Debian's package python3-doc, without the names that aren't types or functions. The
other two projects have one page each with all names, so their inventories are made from the installed modules.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import zlib
from pathlib import Path

import anyio
import msgspec
from sphinx.util.inventory import InventoryFile

PROJECT = Path(__file__).parents[1]
PYTHON = Path("/usr/share/doc/python3/html/objects.inv")
KINDS = ("py:class", "py:exception", "py:function", "py:data")


def main() -> None:
    """Write the three files."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else PYTHON
    found = InventoryFile.loads(source.read_bytes(), uri="").data
    python = {
        (name, kind): item.uri for kind in KINDS for name, item in found.get(kind, {}).items() if "._" not in name
    }
    write("python", "3", python)
    write("anyio", anyio_version(), page_of("anyio", "anyio.abc"))
    write("msgspec", msgspec.__version__, page_of("msgspec", "msgspec.json", "msgspec.structs"))


def anyio_version() -> str:
    """Return the version of the installed anyio."""
    from importlib.metadata import version  # noqa: PLC0415 - once

    return version(anyio.__name__)


def page_of(*modules: str) -> dict[tuple[str, str], str]:
    """Return the public classes, exceptions and functions of modules, all on one page `api.html`."""
    names: dict[tuple[str, str], str] = {}
    for module in map(importlib.import_module, modules):
        for name in dir(module):
            value = getattr(module, name)
            if name.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            is_error = inspect.isclass(value) and issubclass(value, BaseException)
            kind = "py:exception" if is_error else "py:class" if inspect.isclass(value) else "py:function"
            full = f"{module.__name__}.{name}"
            names[full, kind] = f"api.html#{full}"
    return names


def write(project: str, version: str, names: dict[tuple[str, str], str]) -> None:
    """Write an inventory in Sphinx's format, version 2."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: {version}\n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = "".join(f"{name} {kind} 1 {place} -\n" for (name, kind), place in sorted(names.items()))
    path = PROJECT / "docs" / "inventories" / f"{project}.inv"
    path.write_bytes(head.encode() + zlib.compress(lines.encode(), 9))


if __name__ == "__main__":
    main()
