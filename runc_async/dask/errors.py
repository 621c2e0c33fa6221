"""Exceptions of a fleet."""

# ruff: noqa: N818 - the names read as in "except NodeLost", like those of `runc_async.errors`

from __future__ import annotations

from .._text import one_line
from ..errors import RuncError


class NodeLost(RuncError):
    """The node of a sandbox was lost: killed, cut off, or silent for longer than the fleet's `patience`.

    The end of the program is unknown, and so is its result. No program is run twice: a node that comes back ends the
    sandboxes of clients that have given the node up.

    Attributes:
        node: The node's name.
        reason: The observed failure.
    """

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(node, reason)
        self.node = node
        self.reason = reason

    def __str__(self) -> str:
        return f"node {one_line(self.node)!r} is lost: {one_line(self.reason)}"


class NoNode(RuncError):
    """No node of the fleet can ever run the recipe: each node is too small, or refuses the recipe.

    Attributes:
        reasons: The reason of each node, by name.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "no node can run the recipe: " + one_line(", ".join(f"{k}: {v}" for k, v in self.reasons.items()))


class RecipeRefused(RuncError):
    """A node refuses a recipe: the recipe isn't in the node's list, or the root filesystem isn't there.

    Attributes:
        reason: The cause.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"recipe refused: {one_line(self.reason)}"
