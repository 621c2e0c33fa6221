"""Features of the current runtime that not all runtimes have."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from .._runtimes.known import DIALECTS, FEATURES, numbers
from ..errors import UnsupportedError
from ..features import Version
from .argv import Command

CREATE_PIDFD_SOCKET: Final = "create --pidfd-socket"

_FEATURES: Final = frozenset(FEATURES)

UNKNOWN: Final = Version(runtime="", version="")


def needed(command: Command) -> Iterator[str]:
    """Yield the features that a command needs: by its options, and by `Command.needs`."""
    words = [str(word) for word in command.words]
    # Words after `--` are the program's, whatever they look like.
    options = words[: words.index("--")] if "--" in words else words
    for word, value in pairwise((*options, "")):
        for name in (f"{command.name} {word}", f"{command.name} {word} {value}"):
            if name in _FEATURES:
                yield name
    yield from command.needs


@functools.cache
def worth_asking(feature: str) -> bool:
    """Return whether a feature is missing in some version of a runtime with runc's command line."""
    # Runtimes with another command line are identified before use, so an unidentified runtime isn't one of these.
    return any(feature in dialect.features for dialect in DIALECTS.values() if not dialect.spell)


@functools.lru_cache(maxsize=1024)
def supported(feature: str, version: Version) -> bool:
    """Return whether a version has a feature; an unknown runtime counts as complete."""
    dialect = DIALECTS.get(version.runtime)
    first = () if dialect is None else dialect.features.get(feature, ())
    number = numbers(version)
    return first is not None and (number >= first or not number)


def check_feature(feature: str, version: Version) -> None:
    """Raise if a version lacks a feature.

    Raises:
        UnsupportedError: If the feature is missing.
    """
    if not supported(feature, version):
        raise UnsupportedError(feature, f"{version.runtime} {version.version}")


def sends_pidfd(version: Version) -> bool:
    """Return whether a version is known to send a pidfd of the created process."""
    return version.runtime in DIALECTS and bool(numbers(version)) and supported(CREATE_PIDFD_SOCKET, version)
