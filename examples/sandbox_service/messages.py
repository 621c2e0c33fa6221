"""What a client is told about its run, in this order: Waiting, Started, any number of Output and Figures, Ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import msgspec

Outcome: TypeAlias = Literal[
    "exited",  # by itself, with whatever code
    "killed",  # by a signal
    "out of memory",
    "out of time",
    "too much output",
    "stopped",  # by the service, which ends
    "abandoned",  # by its client
    "failed",  # to run at all
]


class Waiting(msgspec.Struct, frozen=True, tag_field="type", tag="waiting"):
    """The script is taken, and waits until another one ends if `ahead` isn't 0."""

    ahead: int


class Started(msgspec.Struct, frozen=True, tag_field="type", tag="started"):
    """The script runs."""

    id: str


class Output(msgspec.Struct, frozen=True, tag_field="type", tag="output"):
    """It has printed something: a piece of text, cut anywhere."""

    stream: Literal["stdout", "stderr"]
    text: str


class Figures(msgspec.Struct, frozen=True, tag_field="type", tag="figures"):
    """What it uses just now; None is unknown. `seconds` are since its start, 100 `cpu` are one core."""

    seconds: float
    cpu: float | None
    memory: int | None
    pids: int


class Ended(msgspec.Struct, frozen=True, tag_field="type", tag="ended"):
    """It has ended, and its container is gone."""

    outcome: Outcome
    seconds: float = 0.0
    code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    message: str = ""


Message: TypeAlias = Waiting | Started | Output | Figures | Ended

Tell: TypeAlias = Callable[[Message], Awaitable[None]]
"""Tells the client; it waits while the client is slow."""
