"""The machines of a Dask cluster instead of this one: the same run of a submission, on any of them."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import AsyncGenerator
from typing import Any

from dask import config as dask_config
from distributed import Client, LocalCluster

from runc_async import Response
from runc_async.dask import Fleet, Recipe

from .machine import SPARE, Run, confined, limits_of
from .problem import Allowance, Case, Submission

UNPACK = 'IFS= read -r size && head -c "$size" >"$0" && chmod 500 /box && exec "$@"'
"""Takes a submission from the beginning of the input, and leaves the rest for the submission itself.

The source is no part of the recipe, so a node can have a list of the recipes that it permits.
"""


def recipe(submission: Submission, allowance: Allowance) -> Recipe:
    """Return what a node makes the container of; the same for each submission with the same name."""
    config = confined(submission, allowance).set_root("rootfs", readonly=True)
    config.tmpfs("/box", size="1M", mode=0o700, options=["uid=65534", "gid=65534"])
    config.set_args("sh", "-c", UNPACK, f"/box/{submission.name}", *submission.command)
    return Recipe(spec=config, rootfs="host", init=True)


async def run(fleet: Fleet, submission: Submission, case: Case, allowance: Allowance) -> Response:
    """Run a submission on a test on some node, as `machine.run` does here.

    Cancelled, it leaves no container.

    Raises:
        NodeLost: If the node is lost; the test wasn't run a second time.
        RuncError: If the runtime fails, or takes too long.
        OSError: If there is no place for the container.
    """
    return await fleet.run(
        recipe(submission, allowance),
        input=b"%d\n%b%b" % (len(submission.source), submission.source, case.input),
        limits=limits_of(allowance),
        usage=True,
        timeout=allowance.wall + SPARE,
    )


@contextlib.asynccontextmanager
async def two_workers(runtime: str, root: str | None, *, at_once: int) -> AsyncGenerator[Run]:
    """Start a cluster of two workers on this machine, and yield the function that runs submissions there."""
    settings = {"runc-async.command": runtime} | ({} if root is None else {"runc-async.root": root})
    local_cluster: Any = LocalCluster  # Dask's constructors have no annotations
    connect: Any = Client
    with tempfile.TemporaryDirectory() as place, dask_config.set(settings | {"temporary-directory": place}):
        async with (
            local_cluster(n_workers=2, threads_per_worker=1, dashboard_address=None, asynchronous=True) as cluster,
            connect(cluster, asynchronous=True) as client,
            Fleet(client, capacity=at_once) as fleet,
        ):
            yield functools.partial(run, fleet)
