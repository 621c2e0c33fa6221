#!/usr/bin/env python3
"""Write docs/reference/index.md: every public name with the first line of its docstring.

The five names that a program needs first are at the top, and the classes of errors have a section of their own.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator
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

FIRST = (
    ("runc_async", "Runc"),
    ("runc_async", "Container"),
    ("runc_async", "Bundle"),
    ("runc_async.spec", "Spec"),
    ("runc_async", "EventStream"),
)
"""The names at the top of the page, each with its module."""

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
    modules = {name: importlib.import_module(name) for name in MODULES}
    lines = [HEAD, "## The names to begin with", ""]
    for place, name in FIRST:
        lines += entries(modules[place], [name])
    lines.append("")
    for place, module in modules.items():
        names = [name for name in public(module) if (place, name) not in FIRST]
        failures = [name for name in names if is_error(getattr(module, name))]
        lines += [f"## {place}", "", first_line(module).replace("``", "`"), ""]
        lines += [*entries(module, [name for name in names if name not in failures]), ""]
        if failures:
            lines += [f"### Errors of {place}", "", *entries(module, failures), ""]
    return "\n".join(lines).rstrip() + "\n"


def entries(module: ModuleType, names: Iterable[str]) -> Iterator[str]:
    """Yield the lines for names of a module."""
    for name in names:
        yield f"- [`{name}`](#{module.__name__}.{name}): {first_line(getattr(module, name))}"


def is_error(value: object) -> bool:
    """Return whether a value is a class of errors or warnings."""
    return isinstance(value, type) and issubclass(value, Exception)


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
