#!/usr/bin/env python3
"""Write docs/reference.md: the public names, what calls take, and the first line of each docstring."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

MODULES = ("runc_async", "runc_async.rootfs", "runc_async.figures", "runc_async.spec", "runc_async.testing")

HEAD = """\
# Reference

All public names; `help()` on each has the whole of its documentation. Written by `make docs`.
"""


def page() -> str:
    """Return the text of the page."""
    lines = [HEAD]
    for name in MODULES:
        module = importlib.import_module(name)
        lines += [f"## {name}", "", first_line(module), "", *entries(module), ""]
    return "\n".join(lines).rstrip() + "\n"


def entries(module: ModuleType) -> Iterator[str]:
    """Yield the lines for the public names of a module, those of its classes below them."""
    for name in public(module):
        value = getattr(module, name)
        yield f"- `{name}{arguments(value)}`: {first_line(value)}".removesuffix(": ")
        if inspect.isclass(value):
            yield from members(value)


def members(owner: type) -> Iterator[str]:
    """Yield the lines for the public methods and properties of a class, and of those that it is made from."""
    ours = [parent for parent in owner.__mro__ if parent.__module__.startswith("runc_async")]
    names = dict.fromkeys(name for parent in ours for name in vars(parent) if not name.startswith("_"))
    for name in names:
        value = inspect.getattr_static(owner, name)
        value = getattr(value, "__func__", value)  # of a class method
        if inspect.isfunction(value):
            yield f"    - `{name}{arguments(value)}`: {first_line(value)}"
        elif isinstance(value, property):
            yield f"    - `{name}`: {first_line(value)}"


def public(module: ModuleType) -> list[str]:
    """Return the names that a module defines, and for a package also those that it takes from its modules."""
    origin = "runc_async" if hasattr(module, "__path__") else module.__name__
    names = (
        name for name in dir(module) if (getattr(getattr(module, name), "__module__", "") or "").startswith(origin)
    )
    return sorted(name for name in names if not name.startswith("_"))


def arguments(value: object) -> str:
    """Return what a function takes, without types and defaults; nothing for what isn't one."""
    if not inspect.isfunction(value):
        return ""
    words: list[str] = []
    marks: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        words.append(marks.get(parameter.kind, "") + parameter.name)
    return f"({', '.join(word for word in words if word not in {'self', 'cls'})})"


def first_line(value: object) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(value) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.stdout.write(page())
