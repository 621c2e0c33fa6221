"""A container for each run of a submission: the host's programs read-only, no network, nothing to write but /tmp."""

from __future__ import annotations

import contextlib
import os
import uuid

import anyio
import msgspec

from runc_async import Bundle, Container, EndReason, PipedIO, PipeReader, Runc, Usage, rootfs, spec

from .problem import Allowance, Case, Submission

SPARE = 10.0
"""Seconds that the runtime itself may take beside the submission."""


def confined(submission: Submission, allowance: Allowance) -> spec.Spec:
    """Configure a container that runs a submission and may do little else."""
    return (
        spec.Spec.default()
        .set_args(*submission.command)
        .set_terminal(enabled=False)
        .set_env({"HOME": "/tmp", "PATH": "/usr/bin:/bin"})  # noqa: S108 - it is the container's own
        .set_cwd("/tmp")  # noqa: S108 - as above
        .set_hostname("judge")
        .set_user(65534, 65534)
        .drop_capabilities("ALL")
        .set_seccomp(spec.default_seccomp())
        .tmpfs("/tmp", size=allowance.scratch)  # noqa: S108 - as above
        .limit_memory(allowance.memory, swap=allowance.memory)
        .limit_pids(allowance.processes)
        .set_rlimit("CORE", 0)
    )


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run has ended: which limit it has reached, if any; its exit code, its output, and what it has used."""

    reached: EndReason | None
    exit_code: int | None
    stdout: bytes
    usage: Usage


async def run(runc: Runc, submission: Submission, case: Case, allowance: Allowance) -> Outcome:
    """Run a submission on a test; how it ends is a result, and only a runtime that fails is an exception.

    Cancelled, it leaves no container.

    Raises:
        RuncError: If the runtime fails, or takes too long.
        OSError: If there is no place for the container.
    """
    config = confined(submission, allowance)
    async with Bundle.temporary(rootfs=rootfs.Host(), spec=config, init=True) as bundle:
        box = bundle.path / "box"
        box.mkdir(mode=0o755)
        (box / submission.name).write_bytes(submission.source)
        bundle.path.chmod(0o711)  # the submission's user has to reach its file
        bundle.spec.bind(str(box), "/box", readonly=True)
        assert bundle.spec.root is not None
        bundle.spec.root.readonly = True
        name = f"judge-{uuid.uuid4().hex}"
        async with runc.open_container(name, bundle, io=PipedIO(), grace=0, timeout=SPARE) as container:
            return await Run(container, allowance).outcome(case.input)


class Run:
    """A container that runs a submission, held to its limits of time, CPU time and output."""

    def __init__(self, container: Container, allowance: Allowance) -> None:
        self._container = container
        self._allowance = allowance
        self._reached: EndReason | None = None
        self._running = anyio.CancelScope(deadline=anyio.current_time() + allowance.wall)

    async def outcome(self, data: bytes) -> Outcome:
        """Feed it, read it, and wait for its end, or bring it about when a limit is reached."""
        container, stdout, stderr = self._container, bytearray(), bytearray()
        assert container.stdout is not None
        assert container.stderr is not None
        async with anyio.create_task_group() as reading:  # its end is the end of all that hold the pipes
            reading.start_soon(self._read, container.stdout, stdout)
            reading.start_soon(self._read, container.stderr, stderr)
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._feed, data)
                beside.start_soon(self._watch)
                with self._running:
                    await container.ended()
                if self._running.cancelled_caught:
                    self._reached = self._reached or EndReason.WALL
                    await container.stop(grace=0)
                beside.cancel_scope.cancel()
        status = await container.wait()
        return Outcome(
            reached=self._reached, exit_code=status.exit_code, stdout=bytes(stdout), usage=await container.usage()
        )

    def _end(self, reached: EndReason) -> None:
        """Have it ended because it has reached a limit."""
        self._reached = self._reached or reached
        self._running.cancel()

    async def _feed(self, data: bytes) -> None:
        """Write its input; not to read it is the submission's own matter."""
        assert self._container.stdin is not None
        with contextlib.suppress(anyio.BrokenResourceError):
            await self._container.stdin.send(data)
        await self._container.stdin.aclose()

    async def _read(self, stream: PipeReader, kept: bytearray) -> None:
        """Keep the beginning of a stream, and read on to its end, or the program would wait."""
        async for chunk in stream:
            room = self._allowance.output - len(kept)
            kept += chunk[:room]
            if len(chunk) > room:
                self._end(EndReason.OUTPUT)

    async def _watch(self) -> None:
        """Look at its CPU time as often as is needed: no event tells when it is used up."""
        while (used := (await self._container.usage()).cpu_seconds) is not None:
            left = self._allowance.cpu - used
            if left <= 0:
                self._end(EndReason.CPU)
                return
            await anyio.sleep(max(left / (os.cpu_count() or 1), 0.01))
