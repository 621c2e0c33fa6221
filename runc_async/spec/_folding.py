"""Which keys a runtime takes for a key of the specification, though they are spelled otherwise.

runc and other runtimes in Go read JSON with encoding/json. For a field of a struct it takes any key that is equal under
simple case folding, and the last of several wins. Keys of the specification are ASCII; so what folds to them is ASCII
in the other case, and the two characters beyond ASCII that fold into it: U+017F (long s) and U+212A (the Kelvin sign).
`str.casefold` is another folding: it takes `ß` for `ss`, which Go doesn't.
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
        """Take the keys as the specification spells them."""
        self._spelling = {fold(key): key for key in keys}

    def known(self, key: str) -> str | None:
        """Return the key for which a runtime takes one that is spelled otherwise; None if there is none."""
        meant = self._spelling.get(fold(key))
        return None if meant == key else meant
