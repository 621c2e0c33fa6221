"""Signatures in the reference as a caller needs them: numbers for constants, options in full, and block managers."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any

from sphinx.util.inspect import signature as evaluated, stringify_signature
from sphinx.util.typing import stringify_annotation

import runc_async

HOST_DEPENDENT = {"DEFAULT_CONCURRENCY": "8 * cpus", "AT_ONCE": "2 * cpus"}
"""Constants with another value on each host."""

SOURCES: dict[str, Callable[..., Any]] = {
    "ProcessOptions": runc_async.Runc.exec,
    "ExecOptions": runc_async.Runc.exec,
    "CreateOptions": runc_async.Runc.create,
    "CheckpointOptions": runc_async.Runc.checkpoint,
    "RestoreOptions": runc_async.Runc.restore,
    "ClientOptions": runc_async.Runc.__init__,
}
"""Typed dictionaries of options, and the function with their defaults."""

_CONSTANT = re.compile(r"(?<== )([A-Z][A-Z_]+)\b(?!\.)")
_OPTIONS = re.compile(r"\*\*options: ~?(?:typing\.)?Unpack\[~?(?:\w+\.)*(\w+)\]")
_DEFAULT = re.compile(r" \| ~?(?:typing\.)?Literal\[[^\]]*Default\.DEFAULT\]")
_UNPRINTABLE = re.compile(r"= <[^>]*>")


def with_numbers(signature: str, obj: object) -> str:
    """Return a signature with the values of constants, such as 5.0 for GRACE."""
    names = vars(inspect.getmodule(obj)) if inspect.getmodule(obj) else {}

    def number(match: re.Match[str]) -> str:
        value = names.get(match[1])
        if match[1] in HOST_DEPENDENT:
            return HOST_DEPENDENT[match[1]]
        return repr(value) if isinstance(value, int | float) else match[1]

    return _CONSTANT.sub(number, signature)


def with_options(signature: str) -> str:
    """Return a signature with all options instead of `**options`, except those that it already has."""
    match = _OPTIONS.search(signature)
    if match is None or match[1] not in SOURCES:
        return signature
    source = SOURCES[match[1]]
    found = evaluated(source, bound_method=True)
    named = set(re.findall(r"(\w+): ", signature))
    parameters = [
        parameter
        for name, parameter in found.parameters.items()
        if name in option_names(match[1]) and name not in named
    ]
    text = stringify_signature(inspect.Signature(parameters), unqualified_typehints=True)
    options = _UNPRINTABLE.sub("= TASK_STATUS_IGNORED", text.removeprefix("(*, ").removesuffix(")"))
    return signature.replace(match[0], with_numbers(options, source))


def option_names(kind: str) -> frozenset[str]:
    """Return the keys of a typed dictionary of options."""
    from runc_async import runtimes  # noqa: PLC0415 - after the modules' own imports were completed
    from runc_async._commands import options  # noqa: PLC0415

    found: type = getattr(options, kind, None) or getattr(runtimes, kind)
    return frozenset(found.__required_keys__ | found.__optional_keys__)  # type: ignore[attr-defined]


def without_sentinel(signature: str) -> str:
    """Return a signature without the type of DEFAULT, which is shown as a default value."""
    return _DEFAULT.sub("", signature)


def returned_block(obj: object, returned: str | None) -> str | None:
    """Return an asynchronous context manager as the type of a function that yields once."""
    if is_block(obj) and returned is not None:
        return re.sub(r"~?(?:\w+\.)*AsyncGenerator\[(.*)\]", r"~contextlib.AbstractAsyncContextManager[\1]", returned)
    return returned


def is_block(obj: object) -> bool:
    """Return whether a function is used as `async with`."""
    inner = inspect.unwrap(obj) if callable(obj) else obj
    if inner is not obj and inspect.isasyncgenfunction(inner):
        return True
    return "AbstractAsyncContextManager" in str(getattr(inner, "__annotations__", {}).get("return", ""))


def attribute_types(cls: type) -> dict[str, str]:
    """Return the types of attributes that a constructor sets: annotated there, or the same as a parameter's."""
    types: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if owner.__module__.startswith("runc_async") and "__init__" in vars(owner):
            types |= dict(_assigned(owner))
    return types


def _assigned(owner: type) -> Iterator[tuple[str, str]]:
    """Yield the attributes that a class's own constructor assigns, with their types."""
    init = vars(owner)["__init__"]
    try:
        source = textwrap.dedent(inspect.getsource(init))
    except (OSError, TypeError):
        return
    hints = {name: value for name, value in _hints(init).items() if name != "return"}
    names = vars(inspect.getmodule(init) or typing)
    for node in ast.walk(ast.parse(source)):
        target: ast.expr | None = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        if not (isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"):
            continue
        if isinstance(node, ast.AnnAssign):
            with_types = eval(ast.unparse(node.annotation), {**vars(typing), **names})  # noqa: S307 - our own source
            yield target.attr, stringify_annotation(with_types, "smart")
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is not None:
            yield target.attr, type(node.value.value).__name__
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in hints:
            yield target.attr, stringify_annotation(hints[node.value.id], "smart")


def _hints(function: object) -> dict[str, object]:
    """Return the evaluated annotations of a function; none if a name can't be found."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        return {}
