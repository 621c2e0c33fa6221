"""All families of commands in one class, used by `Container`."""

from __future__ import annotations

from .checkpoints import Checkpoints
from .executions import Executions
from .lifecycle import Lifecycle
from .programs import Programs
from .queries import Queries
from .streaming import Streaming


class Commands(Queries, Lifecycle, Programs, Executions, Checkpoints, Streaming):
    """The commands of a client, each with a container's id as first argument."""
