"""What Prometheus is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .messages import Outcome

if TYPE_CHECKING:
    from .messages import Ended

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one service."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.waiting = Gauge("sandbox_runs_waiting", "Runs that wait for others to end", registry=registry)
        self.running = Gauge("sandbox_runs_running", "Runs whose container is there", registry=registry)
        self.refused = Counter("sandbox_runs_refused", "Runs that were not taken", registry=registry)
        self.output = Counter("sandbox_output_bytes", "Bytes that scripts have printed", registry=registry)
        self._ended = Counter("sandbox_runs_ended", "Runs that have ended", ["outcome"], registry=registry)
        self._failed = Counter("sandbox_runs_failed", "Runs that could not be run", registry=registry)
        self._oom_kills = Counter("sandbox_oom_kills", "Runs in which memory ran out", registry=registry)
        self._timeouts = Counter("sandbox_timeouts", "Runs that were ended because time ran out", registry=registry)
        self._seconds = Histogram(
            "sandbox_run_seconds",
            "Seconds from the start of a script to its end",
            registry=registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
        )
        for outcome in get_args(Outcome):
            self._ended.labels(outcome)  # so that each is there from the beginning, as 0

    def ended(self, end: Ended) -> None:
        """Count the end of a run."""
        self._ended.labels(end.outcome).inc()
        self._failed.inc(end.outcome == "failed")
        self._timeouts.inc(end.outcome == "out of time")
        self._oom_kills.inc(end.oom_killed)
        if end.seconds:
            self._seconds.observe(end.seconds)

    def render(self) -> bytes:
        """Return all of it in the format of Prometheus."""
        return generate_latest(self._registry)
