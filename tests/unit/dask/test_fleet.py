"""How a fleet goes on with an order that a node couldn't begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from distributed import Client

from runc_async import spec
from runc_async.dask import Fleet, Recipe

if TYPE_CHECKING:
    import pytest

    from runc_async.dask.values import Order


class Nodes:
    """Two nodes behind one link: the first can't begin the order, the second one does."""

    address = name = "tcp://127.0.0.1:1"
    lost = None

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.running = 0

    def expect(self, name: str) -> None:
        """Expect events."""

    forget = expect

    async def begin(self, order: Order) -> str:
        """Take an order."""
        self.orders.append(order.id)
        return "taken"

    async def event(self, name: str) -> tuple[str, Any]:
        """Give the first event of an order."""
        assert name == self.orders[-1]
        return ("unstarted", "the disk is full") if len(self.orders) == 1 else ("open", 1)

    async def call(self, method: str, *arguments: object, **options: object) -> None:
        """Answer nothing."""
        del method, arguments, options
        await anyio.sleep_forever()

    async def end(self, name: str) -> None:
        """End a sandbox."""
        assert name == self.orders[-1]


async def test_a_box_has_the_id_of_the_order_that_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that couldn't begin an order never will; the next one gets it under another id, and so has the box."""
    nodes = Nodes()

    async def place(_fleet: Fleet, _request: object) -> Nodes:
        return nodes

    monkeypatch.setattr(Fleet, "_place", place)
    client = Client.__new__(Client)
    monkeypatch.setattr(Client, "asynchronous", True)
    async with Fleet(client).open(Recipe(spec=spec.Spec.default())) as box:
        assert len(set(nodes.orders)) == 2
        assert box.id == nodes.orders[1]
