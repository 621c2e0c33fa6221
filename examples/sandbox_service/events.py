"""Server-sent events that a coroutine pushes: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .messages import Message, Tell


class EventStream(Response):
    """Has a coroutine tell the client messages, and cancels it when the client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, produce: Callable[[Tell], Awaitable[None]], *, after: int | None = None) -> None:
        """Number the messages if the client can come back: the first follows the number `after`."""
        self.status_code = 200
        self.background = None
        self._produce = produce
        self._number = after
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes until there is no more, or nobody to send it to."""
        del scope
        turn = anyio.Lock()

        async def tell(message: Message) -> None:
            body = b"data: " + msgspec.json.encode(message) + b"\n\n"
            async with turn:  # ASGI says nothing of tasks that send at once
                if self._number is not None:
                    self._number += 1
                    body = b"id: %d\n%b" % (self._number, body)
                await send({"type": "http.response.body", "body": body, "more_body": True})  # waits for a slow client

        async def listen(group: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel()

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:
            group.start_soon(listen, group.cancel_scope)
            await self._produce(tell)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()
