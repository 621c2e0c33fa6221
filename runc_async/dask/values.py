"""Values that travel between clients and nodes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..response import Response
from ..spec import Spec

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GLOBAL_PERIOD = 100_000  # cpu.cfs_period_us without a value in the spec: the kernel's default


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a bundle, as a value for pickle and msgspec; each node makes the bundle itself.

    Attributes:
        spec: The configuration, with the program and its limits. Kept as the bytes of config.json.
        rootfs: The root filesystem, as each node resolves it: ``host`` (`rootfs.Host`), ``busybox`` (`rootfs.Busybox`),
            an absolute path of a directory (shared read-only, with a private layer for writes), an absolute path of a
            tar archive (with `sha256`), or a name in the node's own table, ``runc-async.rootfs`` of Dask's
            configuration.
        sha256: The SHA-256 of the archive, as 64 hexadecimal digits. Each node unpacks the archive once, and keeps the
            files while there is room in the node's cache.
        init: Whether a small init is the first process, as for `Bundle.temporary`.

    Raises:
        ValueError: If `rootfs` is empty, a relative path, or `sha256` isn't 64 hexadecimal digits.
        TypeError: If `spec` is neither a `Spec` nor bytes.
    """

    spec: Spec | bytes
    rootfs: str = "host"
    sha256: str | None = None
    init: bool | str = False

    def __post_init__(self) -> None:
        """Check the values, and encode the spec."""
        if isinstance(self.spec, Spec):
            msgspec.structs.force_setattr(self, "spec", self.spec.encode())
        elif not isinstance(self.spec, bytes):
            raise TypeError(f"spec must be a Spec or the bytes of a config.json, not {type(self.spec).__name__}")
        if not self.rootfs or ("/" in self.rootfs and not self.rootfs.startswith("/")):
            raise ValueError(f"rootfs must be a name or an absolute path: {self.rootfs!r}")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 must be 64 hexadecimal digits: {self.sha256!r}")

    def document(self) -> Spec:
        """Return a new copy of the configuration: changes don't affect the recipe.

        Raises:
            DecodeError: If the bytes are no configuration.
        """
        return Spec.decode(self.spec, strict=False) if isinstance(self.spec, bytes) else self.spec

    @property
    def digest(self) -> str:
        """The SHA-256 of the whole recipe, for a node's list of permitted recipes."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.astuple(self), order="sorted")).hexdigest()


class Demand(msgspec.Struct, frozen=True):
    """The maximum resources of a sandbox, or the resources of a node.

    Attributes:
        memory: Bytes.
        cpus: CPUs.
    """

    memory: int
    cpus: float

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.memory + other.memory, self.cpus + other.cpus)

    def fits(self, total: Demand) -> bool:
        """Return whether a node with the resources `total` has room."""
        return self.memory <= total.memory and self.cpus <= total.cpus


def demand_of(recipe: Recipe) -> Demand:
    """Return the container's limits on memory and CPUs; 0 for no limit."""
    linux = recipe.document().linux
    resources = linux.resources if linux else None
    memory = resources.memory.limit if resources and resources.memory else None
    cpu = resources.cpu if resources else None
    quota = cpu.quota if cpu else None
    period = (cpu.period if cpu else None) or _GLOBAL_PERIOD
    return Demand(max(memory or 0, 0), max(quota or 0, 0) / period)


class NodeResponse(Response, frozen=True, kw_only=True):
    """The `Response` of a run on a node.

    Attributes:
        node: The node's name.
    """

    node: str


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the fleet, as seen by this client.

    Attributes:
        name: The name of Dask's worker.
        address: The address of Dask's worker.
        host: The machine.
        state: "ready", "unusable" or "lost".
        problem: The reason, unless the state is "ready".
        capacity: The maximum number of sandboxes.
        running: The number of sandboxes of all clients, at the node's last answer.
        runs: The number of runs and boxes of this fleet on the node so far.
    """

    name: str
    address: str
    host: str
    state: str
    problem: str | None
    capacity: int
    running: int
    runs: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox ordered by a client from a node.

    Attributes:
        id: The name of the order, and the id of the container. Unique, so that a repeated order is recognized.
        recipe: The bundle.
        live: Whether the order is for a box with streams, and not for a run.
        options: Keyword arguments of `Runc.run`, or of `Runc.open_container`.
    """

    id: str
    recipe: Recipe
    live: bool
    options: Mapping[str, Any]
