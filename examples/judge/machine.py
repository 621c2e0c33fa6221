"""A container for each run of a submission: the host's programs read-only, no network, nothing to write but /tmp."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from runc_async import Bundle, Limits, Response, Runc, rootfs, spec

from .problem import Allowance, Case, Submission

Run: TypeAlias = Callable[[Submission, Case, Allowance], Awaitable[Response]]
"""Runs a submission on a test, here (`run`) or on another machine (`fleet.run`)."""

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


def limits_of(allowance: Allowance) -> Limits:
    """Return the limits that are held from outside the container."""
    return Limits(wall=allowance.wall, cpu=allowance.cpu, output=allowance.output)


async def run(runc: Runc, submission: Submission, case: Case, allowance: Allowance) -> Response:
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
        return await runc.run(
            f"judge-{uuid.uuid4().hex}",
            bundle,
            input=case.input,
            limits=limits_of(allowance),
            usage=True,
            timeout=allowance.wall + SPARE,
        )
