"""A program sees the size of `PtyIO` when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runc_async import Bundle, PtyIO
from runc_async.spec import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = pytest.mark.runc

SIZE = PtyIO(rows=33, cols=77)


async def test_a_container_starts_with_its_size(client: Runc) -> None:
    """The first process of a container sees the size at once, whatever config.json has."""
    async with Bundle.busybox(["stty", "size"]) as bundle:
        bundle.spec.set_terminal(rows=5, cols=6)
        async with client.open_container("sized", bundle, io=SIZE) as container:
            assert container.pty
            assert b"".join([chunk async for chunk in container.pty]).split() == [b"33", b"77"]


@pytest.mark.parametrize(
    "process",
    [["stty", "size"], Process(cwd="/", args=["stty", "size"], env=["PATH=/bin"], terminal=True)],
    ids=["arguments", "document"],
)
@pytest.mark.needs("process details")
async def test_an_exec_starts_with_its_size(client: Runc, runtime: Runtime, process: Process | Sequence[str]) -> None:
    """A process of an `exec` sees the size at once, and neither config.json nor the caller's document is changed."""
    if runtime.is_crun:
        pytest.skip("crun has a template of its own")
    async with Bundle.busybox(["sleep", "100"]) as bundle, client.open_container("host", bundle, grace=0) as container:
        before = (bundle.path / "config.json").read_bytes()
        for _ in range(5):
            async with container.open_exec(process, io=SIZE) as opened:
                assert opened.pty
                assert b"".join([chunk async for chunk in opened.pty]).split() == [b"33", b"77"]
        response = await container.exec(process, io=SIZE, tty=not isinstance(process, Process))
        assert response.output.split() == ["33", "77"]
        assert (bundle.path / "config.json").read_bytes() == before
        if isinstance(process, Process):
            assert process.console_size is None


async def test_a_template_gives_what_runc_makes_of_it(client: Runc, runtime: Runtime) -> None:
    """With a terminal of a size, the options of an `exec` do what they do without one."""
    if runtime.is_crun:
        pytest.skip("crun has a template of its own")
    show = [
        "sh",
        "-c",
        "id -u; id -g; id -G; pwd; echo $A $B; awk '/CapEff|NoNewPrivs/ { print $2 }' /proc/self/status",
    ]
    async with Bundle.busybox(["sleep", "100"]) as bundle:
        bundle.spec.set_env({"A": "own", "B": "own"}).set_user(0, 3, additional_gids=[4]).set_cwd("/tmp")
        assert bundle.spec.process
        bundle.spec.process.no_new_privileges = False
        async with client.open_container("host", bundle, grace=0) as container:
            for user in (None, 5, "6:7", (8, 9)):
                for cwd, env, groups in ((None, {}, []), ("/etc", {"A": "other"}, [11, 12])):
                    for no_new_privs in (False, True):
                        found = [
                            (
                                await container.exec(
                                    show,
                                    tty=tty,
                                    io=SIZE if tty else None,
                                    user=user,
                                    cwd=cwd,
                                    env=env,
                                    additional_gids=groups,
                                    no_new_privs=no_new_privs,
                                )
                            ).output.split()
                            for tty in (False, True)
                        ]
                        assert found[0] == found[1]


async def test_a_document_with_a_size_keeps_it(client: Runc, runtime: Runtime) -> None:
    """Options that runc's versions understand differently leave the arguments to runc; so does another error."""
    if runtime.is_crun:
        pytest.skip("crun has a template of its own")
    async with Bundle.busybox(["sleep", "100"]) as bundle, client.open_container("host", bundle, grace=0) as container:
        async with container.open_exec(["sleep", "0.5"], io=SIZE, caps=["CAP_KILL"]) as opened:
            assert opened.pty
            assert opened.pty.size == (33, 77)
        with pytest.raises(ValueError, match=r"a spec\.Process says everything"):
            await container.exec(Process(cwd="/"), io=SIZE, tty=True)
