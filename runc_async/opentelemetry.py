"""A trace span for each start of the runtime: the extra `opentelemetry`.

Names and attributes follow OpenTelemetry's semantic conventions for spans of command line programs, processes and
containers.
"""

from __future__ import annotations

import os
import signal as signals
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

try:
    from opentelemetry import trace
except ImportError as _missing:
    raise ImportError(
        "runc_async.opentelemetry needs opentelemetry-api: install runc-async with the extra 'opentelemetry'"
    ) from _missing

from ._answers.log import parse_log
from ._process.running import ProcessRunner
from .runner import Completed, Invocation, Process, Runner, StartedProcess

if TYPE_CHECKING:
    from opentelemetry.util.types import AttributeValue

    from ._streams.pipes import PipeReader, PipeWriter
    from .console import Pty

_PROGRAMS: Final = {"run", "exec", "restore"}
"""Commands with the exit code of a container's process, which is a result and no failure of the runtime."""


class TracingRunner:
    """A runner that records a span for each start of the runtime, around another runner.

    Pass the runner to a client; the program's tracer provider decides where spans go::

        from runc_async.opentelemetry import TracingRunner

        runc = Runc(runner=TracingRunner())

    A span is a child of the current span of the caller, and is current itself while the runtime is started and waited
    for. The name is `runc create` and so on, the kind CLIENT, with these attributes:

    - `process.executable.name`, `process.executable.path` (of an absolute path), `process.pid`
    - `process.command_args`, without documents, logs and values of variables: see `Response.args`
    - `process.exit.code`: for a foreground `run`, `exec` or `restore`, the code of the container's process
    - `container.id` and `container.runtime.name`
    - `error.type`: `timeout`; the name of the signal that has ended the runtime, such as `SIGKILL`; the exit code of a
      failed runtime; or the class of a raised exception, which is recorded as an event

    The status of a span is ERROR if the runtime failed, with the message in its log, and not if a program in a
    container ends with a code other than 0. The span of `events`, `open_exec` and other long-running commands ends
    together with the process.

    Args:
        runner: The runner that starts the runtime; `ProcessRunner()` if None.
        tracer_provider: The source of spans; the program's global one if None.
    """

    def __init__(self, runner: Runner | None = None, *, tracer_provider: trace.TracerProvider | None = None) -> None:
        self._runner: Runner = ProcessRunner() if runner is None else runner
        self._tracer = trace.get_tracer("runc_async", tracer_provider=tracer_provider)

    def __repr__(self) -> str:
        """Show the inner runner."""
        return f"TracingRunner({self._runner!r})"

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start the runtime and wait for the exit, in a span; see `Runner.run`.

        Cancelling ends the span after the exit, with the cancellation recorded.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If the start fails.
        """
        with self._started(invocation) as span:

            def note(pid: int) -> None:
                span.set_attribute("process.pid", pid)
                if started is not None:
                    started(pid)

            try:
                completed = await self._runner.run(invocation, started=note)
            except BaseException as exc:
                _fail(span, exc)
                raise
            _finish(span, invocation, completed)
            return completed

    async def open(self, invocation: Invocation) -> Process:
        """Start the runtime and return the running process, with a span until its exit; see `Runner.open`.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If the start fails.
        """
        span = self._span(invocation)
        try:
            # The span isn't current after this block: it ends with the process, possibly in another task.
            with trace.use_span(span):
                process = await self._runner.open(invocation)
        except BaseException as exc:
            _fail(span, exc)
            span.end()
            raise
        span.set_attribute("process.pid", process.pid)
        return _TracedProcess(process, span, invocation)

    def _started(self, invocation: Invocation) -> Any:
        """Return a context manager that makes a span current, and ends it."""
        return trace.use_span(
            self._span(invocation), end_on_exit=True, record_exception=False, set_status_on_exception=False
        )

    def _span(self, invocation: Invocation) -> trace.Span:
        """Start a span."""
        program = os.fspath(str(invocation.argv[0]))
        name = os.path.basename(program)
        attributes: dict[str, AttributeValue] = {
            "process.executable.name": name,
            "process.command_args": invocation.args,
            "container.runtime.name": name,
        }
        # A name is looked up in $PATH by the system call, and the path found isn't known here.
        if os.path.isabs(program):
            attributes["process.executable.path"] = program
        if invocation.container_id is not None:
            attributes["container.id"] = invocation.container_id
        return self._tracer.start_span(
            f"{name} {invocation.command}", kind=trace.SpanKind.CLIENT, attributes=attributes
        )


class _TracedProcess:
    """A running runtime with a span until its exit: see `Process`."""

    def __init__(self, process: Process, span: trace.Span, invocation: Invocation) -> None:
        self._process = process
        self._span = span
        self._invocation = invocation
        self._closing = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def stdin(self) -> PipeWriter | None:
        """The writing end of stdin, if stdin is a pipe."""
        return self._process.stdin

    @property
    def stdout(self) -> PipeReader | None:
        """The reading end of stdout, if stdout is a pipe of ours."""
        return self._process.stdout

    @property
    def stderr(self) -> PipeReader | None:
        """The reading end of stderr, if stderr is a pipe of ours."""
        return self._process.stderr

    @property
    def pty(self) -> Pty | None:
        """Our end of the terminal, if there is one."""
        return self._process.pty

    @property
    def workload(self) -> StartedProcess | None:
        """The container's process."""
        return self._process.workload

    def close_workload(self) -> None:
        """Release the container's process."""
        self._process.close_workload()

    async def started(self) -> Completed | None:
        """Wait until the container's process runs."""
        return self._noted(await self._process.started())

    async def ended(self) -> int | None:
        """Wait for the end of the container's process."""
        return await self._process.ended()

    async def wait(self) -> Completed:
        """Wait for the exit."""
        completed = await self._process.wait()
        self._noted(completed)
        return completed

    async def finish(self) -> Completed:
        """Wait for the exit, for a limited time."""
        completed = await self._process.finish()
        self._noted(completed)
        return completed

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the container's process and to all descendants."""
        self._process.signal_tree(signum)

    def send_signal(self, signum: int) -> None:
        """Send a signal."""
        self._span.add_event("signal", {"signal": signum})
        self._process.send_signal(signum)

    async def aclose(self) -> None:
        """Stop a running runtime; the span ends in any case."""
        self._closing = True  # so that the signal that ends it is no failure
        try:
            await self._process.aclose()
        finally:
            self._span.end()

    def _noted(self, completed: Completed | None) -> Completed | None:
        """Record the result in the span."""
        # Several waits may return the same result; the first ends the span.
        if completed is not None and not self._closing and self._span.is_recording():
            _finish(self._span, self._invocation, completed)
            self._span.end()
        return completed


def _finish(span: trace.Span, invocation: Invocation, completed: Completed) -> None:
    """Record the result of a runtime."""
    code = completed.returncode
    span.set_attribute("process.pid", completed.pid)
    if code is not None:
        span.set_attribute("process.exit.code", code)
    errors = [record.msg for record in parse_log(completed.log) if record.is_error]
    if completed.timed_out:
        failure = "timeout"
    elif code is None or code == 0:
        return
    elif code < 0:
        failure = _signal_name(-code)
    # The exit code of a container's process is a result. An error in runc's log means that runc itself failed.
    elif invocation.command in _PROGRAMS and not errors:
        return
    else:
        failure = str(code)
    span.set_attribute("error.type", failure)
    span.set_status(trace.StatusCode.ERROR, errors[-1] if errors else failure)


def _fail(span: trace.Span, error: BaseException) -> None:
    """Record a failed start or an interrupted call."""
    span.set_attribute("error.type", type(error).__qualname__)
    span.record_exception(error)
    span.set_status(trace.StatusCode.ERROR, str(error) or type(error).__name__)


def _signal_name(number: int) -> str:
    """Name a signal."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
