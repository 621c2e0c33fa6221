"""Checked words for command lines."""

from __future__ import annotations

import os
import re
import signal as signals
from collections.abc import Sequence
from typing import TypeAlias

from .._text import one_line
from ..errors import InvalidContainerID, InvalidSignal
from ..runner import Setting
from ..stdio import SupportsFileno

FileDescriptor: TypeAlias = int | SupportsFileno
"""A descriptor, or an object with `fileno()`."""

StrPath: TypeAlias = str | os.PathLike[str]


User: TypeAlias = int | str | tuple[int, int]


_CONTAINER_ID = re.compile(r"[A-Za-z0-9_+.-]+")


_DECIMAL = re.compile(r"[0-9]{1,3}", re.ASCII)


_REAL_TIME = re.compile(r"(RTMIN|RTMAX)([+-][0-9]{1,2})")


_NUMERIC_USER = re.compile(r"[0-9]+(:[0-9]+)?")


_ID_RULE = "invalid container id: it takes letters, digits and '_+.-', and must not be empty, '.' or '..'"


_LAST_SIGNAL = 64


def check_container_id(container_id: str) -> str:
    """Return a valid container id.

    Raises:
        InvalidContainerID: If runc would refuse the id: letters, digits and `_+.-` are valid, except `.` and `..`.
        TypeError: If the id isn't a str.
    """
    if not isinstance(container_id, str):
        raise TypeError(f"container_id must be a str: {container_id!r}")
    # crun up to 1.21 checks less: `delete ..` would delete the directory above its root.
    if not _CONTAINER_ID.fullmatch(container_id) or container_id in {".", ".."}:
        raise InvalidContainerID((), None, container_id=container_id, message=_ID_RULE)
    return container_id


def absolute(path: StrPath) -> str:
    """Return an absolute path: runc resolves some relative paths against the bundle, and crun different ones.

    Raises:
        TypeError: If `path` isn't a path.
        ValueError: If the path is empty or has a NUL byte.
    """
    argument = os.fspath(path)
    if not isinstance(argument, str):
        raise TypeError(f"path must be a str or a path of str: {path!r}")
    if not argument or "\0" in argument:
        raise ValueError(f"path must not be empty or have a NUL byte: {path!r}")
    return os.path.abspath(argument)


def argument(what: str, value: str) -> str:
    """Return an argument that exec(2) can pass on.

    Raises:
        TypeError: If the argument isn't a str.
        ValueError: If it has a NUL byte, or a lone surrogate that stands for no byte.
    """
    # The messages never show the value, which may be a secret.
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{what} must not have a NUL byte")
    if not _is_encodable(value):
        raise ValueError(f"{what} must not have half of a surrogate pair")
    return value


def _is_encodable(value: str) -> bool:
    """Return whether a text can be encoded. The error of a spawn would show the whole text in its repr."""
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def signal_number(signal: int | str) -> int:
    """Return the number of a signal: names differ between runtimes, and crun misreads some.

    Args:
        signal: A number from 0 to 64, or a name with or without SIG, in any case; also `RTMIN+n` and `RTMAX-n`.

    Raises:
        InvalidSignal: If there is no such signal.
        TypeError: If `signal` is neither a number nor a name.
    """
    # bool is a subclass of int: kill(True) would send SIGHUP.
    if isinstance(signal, bool) or not isinstance(signal, int | str):
        raise TypeError(f"signal must be a number or a name: {signal!r}")
    non_negative = signal if isinstance(signal, int) else _signal_by_name(signal)
    if not 0 <= non_negative <= _LAST_SIGNAL:
        raise InvalidSignal((), None, message=f"no such signal: {signal!r}")
    return int(non_negative)


def _signal_by_name(name: str) -> int:
    """Return the number of a signal name; -1 if unknown."""
    if _DECIMAL.fullmatch(name):
        return int(name)
    upper = name.upper().removeprefix("SIG")
    if real_time := _REAL_TIME.fullmatch(upper):
        non_negative = signals.Signals[f"SIG{real_time[1]}"] + int(real_time[2])
        # The C library keeps 32 and 33 for itself, so SIGRTMIN is 34.
        return non_negative if signals.SIGRTMIN <= non_negative <= signals.SIGRTMAX else -1
    return signals.Signals.__members__.get(f"SIG{upper}", -1)


def option(flag: str, value: str | None) -> tuple[str, ...]:
    """Return an option with its value; nothing for None."""
    return () if value is None else (flag, argument(flag, value))


def path_option(flag: str, path: StrPath | None) -> tuple[str, ...]:
    """Return an option with a path; nothing for None."""
    return () if path is None else (flag, absolute(path))


def switches(**given: bool) -> tuple[str, ...]:
    """Return the enabled switches: `no_pivot=True` is `--no-pivot`."""
    return tuple("--" + name.replace("_", "-") for name, on in given.items() if on)


def unchecked(words: Sequence[str]) -> tuple[str, ...]:
    """Return the caller's own words unchanged.

    Raises:
        TypeError: If `words` is one str instead of a sequence of str.
        ValueError: If a word has a NUL byte.
    """
    return strings("extra_args", words)


def strings(what: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return a sequence of arguments.

    Raises:
        TypeError: If `words` is one str instead of a sequence, or not all elements are str.
        ValueError: If a word has a NUL byte.
    """
    # A str is a sequence of one-letter strings: a frequent mistake with surprising results.
    if isinstance(words, str | bytes) or not isinstance(words, Sequence):
        raise TypeError(f"{what} must be a sequence of str, not {type(words).__name__}")
    return tuple(argument(what, word) for word in words)


def setting(name: str, value: str) -> Setting:
    """Return an environment variable.

    Raises:
        ValueError: If the name is empty or has a `=`, or name or value has a NUL byte.
        TypeError: If name or value isn't a str.
    """
    if not argument("the name of a variable", name) or "=" in name:
        raise ValueError(f"the name of a variable must not be empty or have a '=': {name.partition('=')[0]!r}...")
    if not isinstance(value, str) or "\0" in value or not _is_encodable(value):
        wrong = ValueError if isinstance(value, str) else TypeError
        raise wrong(f"the value of {one_line(name)} must be a str without NUL")  # the value itself stays out of it
    return Setting(name, value)


def numeric_user(user: User) -> str:
    """Return a user in the form of runc, which takes only numbers: runc doesn't read the container's passwd.

    Raises:
        ValueError: If the user isn't `uid` or `uid:gid` in numbers.
    """
    written = ":".join(map(str, user)) if isinstance(user, tuple) else str(user)
    if isinstance(user, bool) or not _NUMERIC_USER.fullmatch(written):
        raise ValueError(f"user must be a number, 'uid:gid', or (uid, gid): {user!r}")
    return written


def non_negative(what: str, value: int) -> int:
    """Return a number that isn't negative.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{what} must be a number, and not negative: {value!r}")
    return value


def preserved(files: Sequence[FileDescriptor]) -> tuple[int, ...]:
    """Turn what `preserve_fds` takes into descriptors that are open.

    runc itself passes on whatever has the number, its own files included (runc#5474).

    Raises:
        ValueError: If one isn't open.
        TypeError: If it is a number instead of a sequence, as runc's own option takes.
    """
    if isinstance(files, int):
        raise TypeError(f"preserve_fds must be a sequence of descriptors, not how many: {files}")
    fds = tuple(file if isinstance(file, int) else file.fileno() for file in files)
    for fd in fds:
        try:
            os.fstat(fd)
        except (OSError, OverflowError) as exc:
            raise ValueError(f"preserve_fds must be open descriptors: {fd}") from exc
    return fds
