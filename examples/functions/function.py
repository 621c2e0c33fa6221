"""One function: where its containers come from, and how an event goes in and an answer comes out."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio
import msgspec

from runc_async import Bundle, Container, PipedIO, Pool, Runc, rootfs, spec

Mode: TypeAlias = Literal["cold", "created", "running", "paused"]

Take: TypeAlias = Callable[[], AbstractAsyncContextManager[Container]]

MIB: Final = 1 << 20
INSIDE: Final = Path(__file__).with_name("inside.py")
PIPES: Final = PipedIO(stderr=False)


class FunctionFailed(Exception):  # noqa: N818 - it is the function that has failed, and not the service
    """The function has ended without an answer, or its answer is too long."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may use.

    Attributes:
        memory: Bytes of memory; there is no swap.
        pids: Processes and threads.
        seconds: Time from the event to the answer.
        answer: Bytes of the answer.
    """

    memory: int = 128 * MIB
    pids: int = 32
    seconds: float = 10.0
    answer: int = MIB


class Function:
    """A handler that is called, each time in a container of its own; comes from `open`.

    Attributes:
        pool: The pool; None if each container is made when it is needed.
    """

    def __init__(
        self,
        take: Callable[[], AbstractAsyncContextManager[Container]],
        limits: Limits,
        pool: Pool | None,
        *,
        waits: bool,
    ) -> None:
        self.pool = pool
        self._take = take
        self._limits = limits
        self._waits = waits

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, runc: Runc, handler: Path, *, mode: Mode, size: int, name: str, limits: Limits
    ) -> AsyncGenerator[Function]:
        """Make the root filesystem, which all containers share and none can write to, and fill the pool.

        Args:
            runc: The client.
            handler: The module with the function `handle`.
            mode: What the containers of the pool do while they wait; "cold": there is no pool.
            size: How many are held ready.
            name: What the ids of containers begin with.
            limits: What one call may use.
        """
        base = spec.Spec.default().set_root("rootfs", readonly=True)
        async with Bundle.temporary(rootfs=rootfs.Host(), spec=base) as bundle:
            confine(bundle.spec, handler, limits)
            await bundle.save()
            if mode == "cold":

                def open_one() -> AbstractAsyncContextManager[Container]:
                    return runc.open_container(f"{name}-{uuid.uuid4().hex}", bundle, io=PIPES, grace=0)

                yield cls(open_one, limits, None, waits=True)
                return
            ready = None if mode == "created" else hear
            async with Pool(runc, bundle, size=size, state=mode, io=PIPES, ready=ready, name=name, grace=0) as pool:
                await pool.filled()
                yield cls(pool.take, limits, pool, waits=mode == "created")

    async def call(self, event: bytes) -> bytes:
        """Send an event, and return the answer; both are JSON in one line.

        Raises:
            TimeoutError: If there is no answer in time.
            FunctionFailed: If there is none at all, or if it is too long.
            RuncError: If there is no container.
        """
        async with self._take() as container:
            assert container.stdin is not None
            assert container.stdout is not None
            with anyio.fail_after(self._limits.seconds):
                if self._waits:
                    await hear(container)
                with contextlib.suppress(anyio.BrokenResourceError):  # it has ended, and the answer tells
                    await container.stdin.send(event + b"\n")
                async for line in container.stdout.lines(keepends=True, max_length=self._limits.answer):
                    if line.endswith("\n"):
                        return line.encode()
                    raise FunctionFailed("the answer is too long, or cut short")
        raise FunctionFailed("the function has ended without an answer")


async def hear(container: Container) -> None:
    """Wait until the handler is loaded."""
    assert container.stdout is not None
    async for line in container.stdout.lines():
        if line == "ready":
            return
    raise FunctionFailed("the handler can't be loaded")


def confine(config: spec.Spec, handler: Path, limits: Limits) -> None:
    """Configure a container that runs the handler and may do little else; it has no network."""
    (
        config.set_args("python3", "-I", "/run/inside.py", "/run/handler.py")
        .set_terminal(enabled=False)
        .set_env({"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"})  # noqa: S108 - it is the container's own
        .set_cwd("/tmp")  # noqa: S108 - as above
        .set_hostname("function")
        .set_user(65534, 65534)
        .drop_capabilities("ALL")
        .set_seccomp(spec.default_seccomp())
        .bind(os.fspath(INSIDE), "/run/inside.py", readonly=True)
        .bind(os.fspath(handler.resolve()), "/run/handler.py", readonly=True)
        .tmpfs("/tmp", size=32 * MIB)  # noqa: S108 - as above
        .limit_memory(limits.memory, swap=limits.memory)
        .limit_pids(limits.pids)
    )
