"""Metrics of a node, beside Dask's own at each worker's /metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Counting(Protocol):
    """The numbers of a node."""

    @property
    def name(self) -> str:
        """The node's name."""
        ...

    @property
    def running(self) -> int:
        """The number of running sandboxes."""
        ...

    @property
    def capacity(self) -> int:
        """The maximum number of running sandboxes."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers of ended sandboxes, by kind of end."""
        ...


class NodeCollector:
    """Collects a node's numbers for prometheus_client's default registry, which Dask's /metrics shows.

    Does nothing without prometheus_client; Dask has no /metrics then either.
    """

    def __init__(self, node: Counting) -> None:
        self._node = node

    def register(self) -> None:
        """Add the metrics to the default registry."""
        try:
            from prometheus_client import REGISTRY  # noqa: PLC0415  (Dask works without it)
        except ImportError:
            return
        REGISTRY.register(self)

    def unregister(self) -> None:
        """Remove the metrics from the default registry."""
        try:
            from prometheus_client import REGISTRY  # noqa: PLC0415  (as above)
        except ImportError:
            return
        REGISTRY.unregister(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415  (as above)

        for name, help_, value in (
            ("runc_async_node_sandboxes", "Sandboxes that run on this node", self._node.running),
            ("runc_async_node_capacity", "Sandboxes that run on this node at most", self._node.capacity),
        ):
            family = GaugeMetricFamily(name, help_, labels=["node"])
            family.add_metric([self._node.name], value)
            yield family
        ended = CounterMetricFamily(
            "runc_async_node_ended", "Sandboxes that have ended, by how", labels=["node", "how"]
        )
        for how, count in sorted(self._node.counts.items()):
            ended.add_metric([self._node.name, how], count)
        yield ended

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering needs no numbers."""
        return []
