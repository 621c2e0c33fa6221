"""The web service around a function."""

from __future__ import annotations

import json

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runc_async import RuncError
from runc_async.prometheus import PoolCollector

from .function import Function, FunctionFailed

LARGEST = 1 << 20
"""Bytes that an event may have."""


def create_app(function: Function) -> Starlette:
    """Make the application."""
    registry = CollectorRegistry()
    if function.pool is not None:
        registry.register(PoolCollector({"function": function.pool}))

    async def call(request: Request) -> Response:
        event = await read_event(request)
        try:
            answer = await function.call(event)
        except TimeoutError:
            raise HTTPException(504, "the function takes too long") from None
        except FunctionFailed as error:
            raise HTTPException(502, str(error)) from None
        except RuncError as error:
            raise HTTPException(503, type(error).__name__, {"retry-after": "1"}) from error
        return Response(
            answer, status_code=500 if answer.startswith(b'{"error"') else 200, media_type="application/json"
        )

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/call", call, methods=["POST"]), Route("/metrics", show_metrics)])


async def read_event(request: Request) -> bytes:
    """Read an event: JSON, which is put into one line.

    Raises:
        HTTPException: If it is none, or too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise HTTPException(413, f"an event may have {LARGEST} bytes")
    try:
        return json.dumps(json.loads(body)).encode()
    except (ValueError, RecursionError):
        raise HTTPException(422, "an event has to be JSON") from None
