"""`TracingRunner` with the SDK's exporter in memory."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runc_async import ContainerNotFound, ExitError, Runc, RuncNotFound, RuncTimeout
from runc_async.opentelemetry import TracingRunner
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATS = b'{"type":"stats","id":"web","data":{}}\n'
MISSING = json.dumps({"level": "error", "msg": "container does not exist"}).encode()


class Traced:
    """A client of a fake runner with its spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.fake = FakeRunner()
        self.runc = Runc("/opt/bin/runc", runner=TracingRunner(self.fake, tracer_provider=self.provider))

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended."""
        return list(self.exporter.get_finished_spans())

    def real(self, command: str | Path) -> Runc:
        """Return a client that starts processes."""
        return Runc(command, runner=TracingRunner(tracer_provider=self.provider))


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Return a traced client."""
    made = Traced()
    yield made
    made.provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, object]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


async def test_a_command_is_a_span(traced: Traced) -> None:
    """A command has a span with the names and attributes of the semantic conventions."""
    await traced.runc.start("web")
    (span,) = traced.spans
    assert (span.name, span.kind, span.status.status_code) == (
        "runc start",
        trace.SpanKind.CLIENT,
        trace.StatusCode.UNSET,
    )
    assert attributes(span) == {
        "process.executable.name": "runc",
        "process.executable.path": "/opt/bin/runc",
        "process.command_args": ("/opt/bin/runc", "--log", "<log>", "--log-format", "json", "start", "--", "web"),
        "process.pid": 1001,
        "process.exit.code": 0,
        "container.id": "web",
        "container.runtime.name": "runc",
    }


async def test_a_failure_is_an_error(traced: Traced) -> None:
    """A runtime that fails has a span with the status ERROR, and what it said."""
    traced.fake.reply("start", exit_code=1, log=MISSING)
    with pytest.raises(ContainerNotFound):
        await traced.runc.start("web")
    (span,) = traced.spans
    assert span.status.status_code == trace.StatusCode.ERROR
    assert span.status.description == "container does not exist"
    assert (attributes(span)["error.type"], attributes(span)["process.exit.code"]) == ("1", 1)


async def test_the_code_of_a_program_is_no_failure(traced: Traced) -> None:
    """A program in a container that ends with 3 is a result; a runtime that failed to run it is an error."""
    traced.fake.reply("exec", exit_code=3)
    traced.fake.reply("exec", exit_code=255, log=MISSING)
    with pytest.raises(ExitError):
        await traced.runc.exec("web", ["false"], check=True)
    with pytest.raises(ContainerNotFound):
        await traced.runc.exec("web", ["false"])
    first, second = traced.spans
    assert (first.status.status_code, attributes(first)["process.exit.code"]) == (trace.StatusCode.UNSET, 3)
    assert second.status.status_code == trace.StatusCode.ERROR


async def test_secrets_are_hidden(traced: Traced) -> None:
    """The values of variables are in no attribute."""
    await traced.runc.exec("web", ["env"], env={"TOKEN": "s3cret"})
    (span,) = traced.spans
    assert "TOKEN=***" in str(attributes(span))
    assert "s3cret" not in span.to_json()


async def test_what_cannot_be_started(traced: Traced) -> None:
    """The exception is recorded, with its class."""
    with pytest.raises(RuncNotFound):
        await traced.real("/nowhere/runc").version()
    (span,) = traced.spans
    assert attributes(span)["error.type"] == "RuncNotFound"
    assert span.status.status_code == trace.StatusCode.ERROR
    assert [event.name for event in span.events] == ["exception"]


async def test_out_of_time_and_cancelled(traced: Traced, tmp_path: Path) -> None:
    """A command that is out of time, or cancelled, says so; it has ended when its span does."""
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    runc = traced.real(slow)
    with pytest.raises(RuncTimeout):
        await runc.state("web", timeout=0.1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(runc.state("web"), 0.2)
    first, second = traced.spans
    assert (attributes(first)["error.type"], first.status.status_code) == ("timeout", trace.StatusCode.ERROR)
    assert (attributes(second)["error.type"], second.name) == ("CancelledError", "slow state")


async def test_spans_have_the_parent_of_their_caller(traced: Traced) -> None:
    """Concurrent calls have the span as parent that is current where each is made."""
    tracer = traced.provider.get_tracer("test")

    async def work(name: str) -> None:
        with tracer.start_as_current_span(name):
            await traced.runc.start(name)
            await asyncio.sleep(0)
            await traced.runc.kill(name)

    await asyncio.gather(*map(work, "abc"))
    parents = {span.context.span_id: span.name for span in traced.spans if span.parent is None and span.context}
    children = [span for span in traced.spans if span.parent is not None]
    assert len(children) == 6
    for span in children:
        assert span.parent is not None
        assert parents[span.parent.span_id] == attributes(span)["container.id"]


async def test_events_last_as_long_as_their_process(traced: Traced) -> None:
    """The span of a stream ends with its runtime process; closing the stream is no failure."""
    traced.fake.reply("events", stdout=STATS, hang=True)
    async with traced.runc.events("web") as events:
        await anext(events)
        assert traced.spans == []
    (span,) = traced.spans
    assert (span.name, span.status.status_code) == ("runc events", trace.StatusCode.UNSET)


async def test_events_that_fail(traced: Traced) -> None:
    """The span of a stream whose runtime fails says why."""
    traced.fake.reply("events", exit_code=1, log=MISSING)
    with pytest.raises(ContainerNotFound):
        async for _ in traced.runc.events("web"):
            pass
    (span,) = traced.spans
    assert (span.status.status_code, span.status.description) == (
        trace.StatusCode.ERROR,
        "container does not exist",
    )


def test_the_repr_names_the_other_runner() -> None:
    """The repr shows what does the work."""
    assert repr(TracingRunner("other")) == "TracingRunner('other')"  # type: ignore[arg-type]
