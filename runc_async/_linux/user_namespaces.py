"""Settings and files of the host that decide on user namespaces for users other than root."""

from __future__ import annotations

import contextlib
import pwd
from collections.abc import Callable, Iterator

from .files import read_words

SETTINGS: tuple[tuple[str, Callable[[int], bool]], ...] = (
    ("user.max_user_namespaces", lambda number: number == 0),
    ("kernel.unprivileged_userns_clone", lambda number: number == 0),
    ("kernel.apparmor_restrict_unprivileged_userns", lambda number: number != 0),
)
"""Settings that can forbid user namespaces, and when: of the kernel (namespaces(7)), of Debian, of Ubuntu."""


def forbidding(sysctl: str) -> Iterator[str]:
    """Yield each setting that keeps users from creating user namespaces, as `name = value`."""
    for name, forbids in SETTINGS:
        for value in read_words(f"{sysctl}/{name.replace('.', '/')}"):
            if forbids(int(value)):
                yield f"{name} = {value}"


def subordinate_ids(subuid: str, uid: int) -> int:
    """Count the user ids for a user in a file like /etc/subuid, by number or by name: subuid(5)."""
    names = {str(uid)}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    entries = (word.split(":") for word in read_words(subuid))
    return sum(int(entry[2]) for entry in entries if len(entry) == 3 and entry[0] in names)  # noqa: PLR2004 - owner:first:count
