#!/usr/bin/env python3
"""Write docs/reference/index.md: every public name with its docstring's first line, and the pages that say more."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType, UnionType
from typing import get_args

MODULES = (
    "runc_async",
    "runc_async.rootfs",
    "runc_async.figures",
    "runc_async.prometheus",
    "runc_async.opentelemetry",
    "runc_async.dask",
    "runc_async.spec",
    "runc_async.testing",
)

HEAD = """\
# Reference

All public names, from the docstrings. Written by `make docs`.

```{toctree}
:maxdepth: 1

client
handles
keeper
streams
bundles
events
host
fleet
answers
figures
errors
spec
runner
testing
```
"""


def page() -> str:
    """Return the text of the page."""
    lines = [HEAD]
    for name in MODULES:
        module = importlib.import_module(name)
        lines += [f"## {name}", "", first_line(module).replace("``", "`"), "", *entries(module), ""]
    return "\n".join(lines).rstrip() + "\n"


def entries(module: ModuleType) -> Iterator[str]:
    """Yield the lines for the public names of a module."""
    for name in public(module):
        yield f"- [`{name}`](#{module.__name__}.{name}): {first_line(getattr(module, name))}"


def members(owner: type) -> list[str]:
    """Return the public methods and properties of a class, and of those of ours that it is made from."""
    ours = [parent for parent in owner.__mro__ if parent.__module__.startswith("runc_async")]
    names = dict.fromkeys(name for parent in ours for name in vars(parent) if not name.startswith("_"))
    values = {name: inspect.getattr_static(owner, name) for name in names}
    return [name for name, value in values.items() if isinstance(value, property) or callable(getattr(owner, name))]


def public(module: ModuleType) -> list[str]:
    """Return the classes and functions that a module defines, a package also those that it takes from its modules.

    What a module lists in `__all__` is there as well, such as a name for a union of classes; but for modules.
    """
    origin = "runc_async" if hasattr(module, "__path__") else module.__name__
    names = {
        name for name in dir(module) if (getattr(getattr(module, name), "__module__", "") or "").startswith(origin)
    }
    listed = {name for name in getattr(module, "__all__", ()) if not inspect.ismodule(getattr(module, name))}
    return sorted(name for name in names | listed if not name.startswith("_"))


def first_line(value: object) -> str:
    """Return the first line of a docstring; for a union, which has none of its own, what it is made of."""
    if isinstance(value, UnionType):
        return "One of " + ", ".join(f"`{part.__name__}`" for part in get_args(value)) + "."
    return (inspect.getdoc(value) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.stdout.write(page())
