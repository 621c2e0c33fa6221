"""Keys that a runtime takes for a key of the specification in spite of another spelling.

runc and other runtimes in Go read JSON with encoding/json. A field of a struct takes any key that is equal under simple
case folding, and the last of several keys wins. Keys of the specification are ASCII; so the keys that fold to them are
ASCII in the other case, and the two characters beyond ASCII with an ASCII folding: U+017F (long s) and U+212A (the
Kelvin sign). `str.casefold` is another folding: it equates `ß` and `ss`, which Go doesn't.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Final

_FOLDING: Final = str.maketrans(string.ascii_uppercase + "\u017f\u212a", string.ascii_lowercase + "sk")


def fold(key: str) -> str:
    """Return the form in which Go's decoder compares a key."""
    return key.translate(_FOLDING)


class FoldedKeys:
    """The keys of an object, as Go's decoder looks them up."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Store the keys in the specification's spelling."""
        self._spelling = {fold(key): key for key in keys}

    def known(self, key: str) -> str | None:
        """Return the known key that a runtime takes a differently spelled key for; None if there is none."""
        meant = self._spelling.get(fold(key))
        return None if meant == key else meant
