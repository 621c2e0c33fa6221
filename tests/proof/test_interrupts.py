"""One Ctrl-C at a random moment of a script that runs containers: nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import leaks
import proof
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from containers import MakeBundle
    from runtime import Runtime

pytestmark = [pytest.mark.runc, pytest.mark.needs("cgroup removal")]

ROUNDS = int(os.environ.get("INTERRUPTS", proof.amount(12, 4)))
"""How often Ctrl-C is pressed."""

LONGEST = 1.0
"""Seconds that the script takes on a machine with little else to do."""

SCRIPT = """\
import asyncio, sys
from runc_async import PipedIO, Runc

async def main(command, root, opened, ran, sleeping, short):
    runc = Runc(command, root=root)
    print("begins", flush=True)
    async with runc.open_container(opened, sleeping, io=PipedIO(), grace=0) as container:
        await asyncio.gather(runc.run(ran, short, grace=0.2), container.exec(["true"]))
        async with container.open_exec(["sleep", "1000"], grace=0.2):
            pass

try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.timeout(max(60, ROUNDS * 8))
def test_ctrl_c_at_a_random_moment(
    runtime: Runtime,
    root: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    tried: Callable[[str, int], None],
) -> None:
    """SIGINT for the whole process group, the runtimes too, leaves no container, cgroup or process, and no warning."""
    bundles = [str(make_bundle(["sleep", "1000"])), str(make_bundle(["sleep", "0.05"]))]
    found: list[str] = []
    interrupted = 0
    for seed in range(ROUNDS):
        names = container_id(), container_id()
        argv = [sys.executable, "-W", "always", "-c", SCRIPT, runtime.command, str(root), *names, *bundles]
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as script:
            try:
                assert script.stdout
                assert script.stdout.readline() == "begins\n"
                try:
                    script.wait(random.Random(seed).uniform(0, LONGEST))  # noqa: S311 - it is to be repeated
                except subprocess.TimeoutExpired:
                    os.killpg(script.pid, signal.SIGINT)
                printed, said = script.communicate(timeout=60)
            finally:
                script.kill()
        interrupted += printed == "interrupted\n"
        left = [*leaks.containers(root), *(line for name in names for line in leaks.left_on_host(name))]
        # Python restores the default action of SIGINT when it exits: the script may be at its end already.
        # What a runtime process has logged when the signal ended it may be on stderr.
        if left or script.returncode not in {0, -signal.SIGINT} or "Warning" in said or "Traceback" in said:
            found.append(f"seed {seed}: code {script.returncode}, left {left}, {said[-2000:]}")
            for name in leaks.containers(root):
                subprocess.run([runtime.command, "--root", root, "delete", "--force", name], check=False)
    tried("Ctrl-C at a random moment", ROUNDS)
    assert not found, "\n".join(found)
    assert interrupted > 0
