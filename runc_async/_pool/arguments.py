"""The arguments of a pool, checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from .._commands.words import StrPath, absolute

MakeBundle: TypeAlias = Callable[[], AbstractAsyncContextManager[StrPath]]
"""Makes a bundle for one container of a pool."""


def bundle_maker(bundle: StrPath | MakeBundle) -> MakeBundle:
    """Return the function for the bundle of each container.

    Raises:
        TypeError: If `bundle` is neither a function nor a path.
        ValueError: If the path is empty or has a NUL byte.
    """
    if callable(bundle):
        return bundle
    absolute(bundle)
    return lambda: contextlib.nullcontext(bundle)


def at_least_one(name: str, value: int) -> int:
    """Return a number of containers.

    Raises:
        ValueError: If the number is below 1.
        TypeError: If the number isn't an int.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int: {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1: {value}")
    return value
