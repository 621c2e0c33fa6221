"""The web service around a sandbox: what comes in is checked here, and what goes out is put into words of HTTP."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from . import metrics
from .events import EventStream
from .kept import KeptSandbox
from .metrics import Metrics
from .sandbox import Sandbox

PAGE = Path(__file__).parent / "page"

LOCAL_HOSTS = ("localhost", "127.0.0.1")


class Submission(msgspec.Struct, forbid_unknown_fields=True):
    """What a client sends."""

    script: str


def create_app(sandbox: Sandbox, figures: Metrics, *, hosts: Sequence[str] = LOCAL_HOSTS) -> Starlette:
    """Make the application.

    Args:
        sandbox: Where scripts run.
        figures: What `/metrics` shows.
        hosts: Names by which clients may call the service. Others are refused, so that no page of another site can make
            a browser call it under a name of that site's.
    """

    async def submit(request: Request) -> Response:
        submission = await read_submission(request, sandbox.limits.script)
        if reason := sandbox.refusal():
            figures.refused.inc()
            raise HTTPException(503, reason, {"retry-after": "1"})
        return EventStream(functools.partial(sandbox.run, submission.script), after=0 if sandbox.resumable else None)

    async def come_back(request: Request) -> Response:
        name, last = request.path_params["name"], request.headers.get("last-event-id", "0")
        if not isinstance(sandbox, KeptSandbox) or not sandbox.knows(name) or not last.isdecimal():
            raise HTTPException(404, "no such run")
        return EventStream(functools.partial(sandbox.follow, name, int(last)), after=int(last))

    async def show_limits(_request: Request) -> Response:
        return Response(msgspec.json.encode(sandbox.limits), media_type="application/json")

    async def show_metrics(_request: Request) -> Response:
        return Response(figures.render(), headers={"content-type": metrics.CONTENT_TYPE})

    return Starlette(
        routes=[
            Route("/runs", submit, methods=["POST"]),
            Route("/runs/{name}", come_back),
            Route("/limits", show_limits),
            Route("/metrics", show_metrics),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])],
    )


async def read_submission(request: Request, limit: int) -> Submission:
    """Read a script of at most `limit` bytes.

    Raises:
        HTTPException: If there is none, or it can't be one.
    """
    # A page of another site may make a browser send a form or text here, but not this type.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON, as application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > 6 * limit + 100:  # JSON has up to six bytes for one
            raise HTTPException(413, f"a script may have {limit} bytes")
    try:
        submission = msgspec.json.decode(body, type=Submission)
    except msgspec.DecodeError as error:
        raise HTTPException(422, str(error)) from None
    if len(submission.script.encode()) > limit:
        raise HTTPException(413, f"a script may have {limit} bytes")
    if "\0" in submission.script:
        raise HTTPException(422, "a script may have no NUL")
    return submission
