"""A bundle's config.json, shared by calls that want it as it is and calls that want another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from runc_async import Bundle, Runc
from runc_async.errors import BundleChanged
from runc_async.testing import FakeRunner


@pytest.fixture
async def bundle() -> AsyncIterator[Bundle]:
    """Make a bundle that runs `first`."""
    async with Bundle.busybox(["first"]) as bundle:
        yield bundle


def args(bundle: Bundle) -> list[str]:
    """Read what config.json runs, without the library."""
    found: list[str] = json.loads((bundle.path / "config.json").read_bytes())["process"]["args"]
    return found


async def settled() -> None:
    """Let all tasks go on for as long as they can without a thread."""
    for _ in range(10):
        await asyncio.sleep(0)


def holding(bundle: Bundle, *command: str) -> tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]:
    """Begin to hold the bundle with a command; return the task, its beginning, and what ends it."""
    bundle.spec.set_args(*command)
    saved, begun, end = bundle.saved(), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with saved:
            assert args(bundle) == list(command)
            begun.set()
            await end.wait()
            assert args(bundle) == list(command)

    return asyncio.create_task(hold()), begun, end


async def test_equal_ones_share_and_another_one_waits(bundle: Bundle) -> None:
    """Blocks that want the same file run at once; one that wants another writes it when the last has ended."""
    one, one_begun, one_end = holding(bundle, "same")
    two, two_begun, two_end = holding(bundle, "same")
    await one_begun.wait()
    await two_begun.wait()
    other, other_begun, other_end = holding(bundle, "other")
    one_end.set()
    await one
    await settled()
    assert not other_begun.is_set()
    two_end.set()
    await other_begun.wait()
    assert args(bundle) == ["other"]
    other_end.set()
    await asyncio.gather(two, other)


async def test_a_file_is_let_go_early(bundle: Bundle) -> None:
    """What a block gets lets go of the file within it; called again it does nothing."""
    async with bundle.saved() as read:
        other, begun, end = holding(bundle, "other")
        await settled()
        assert not begun.is_set()
        read()
        read()
        await begun.wait()
        end.set()
        await other
    last, begun, end = holding(bundle, "last")
    await begun.wait()
    end.set()
    await last


async def test_save_waits_as_well(bundle: Bundle) -> None:
    """A save of another spec waits for those who hold the file; a save of the same one doesn't."""
    async with bundle.saved():
        await bundle.save()
        bundle.spec.set_args("other")
        save = asyncio.create_task(bundle.save())
        await settled()
        assert args(bundle) == ["first"]
    await save
    assert args(bundle) == ["other"]


async def test_a_cancelled_wait_changes_nothing(bundle: Bundle) -> None:
    """One that is cancelled while it waits leaves the file, and its place to the next."""
    async with bundle.saved():
        waiting, _, _ = holding(bundle, "cancelled")
        next_one, begun, end = holding(bundle, "next")
        await settled()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert args(bundle) == ["first"]
    await begun.wait()
    end.set()
    await next_one


async def test_what_fails_holds_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can't be written is an error of the block that wanted it, and the next one has its turn."""

    def full(*_: object, **__: object) -> None:
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr("runc_async._bundles.config.write_private", full)
        bundle.spec.set_args("second")
        with pytest.raises(OSError, match="full"):
            async with bundle.saved():
                raise AssertionError
    async with bundle.saved():
        assert args(bundle) == ["second"]


@pytest.mark.parametrize("theirs", [b"{}", None])
async def test_what_others_have_changed_is_not_overwritten(bundle: Bundle, theirs: bytes | None) -> None:
    """Where the file isn't what was last written, a changed spec is an error; an unchanged one leaves it."""
    config = bundle.path / "config.json"
    config.unlink()
    if theirs is not None:
        config.write_bytes(theirs)
    async with bundle.saved():
        pass
    bundle.spec.set_args("second")
    with pytest.raises(BundleChanged) as caught:
        async with bundle.saved():
            raise AssertionError
    assert caught.value.path == str(bundle.path)
    assert (config.read_bytes() if config.exists() else None) == theirs


async def test_what_others_have_written_for_us(bundle: Bundle) -> None:
    """Where the file is already what the spec says, there is nothing to overwrite."""
    bundle.spec.set_args("second")
    (bundle.path / "config.json").write_bytes(bundle.spec.encode(indent=2))
    async with bundle.saved():
        assert args(bundle) == ["second"]


async def test_a_spec_is_encoded_when_the_call_begins(bundle: Bundle) -> None:
    """A command runs the spec of its first step; what is changed while it waits is for the next one."""
    runc = Runc(runner=FakeRunner())
    async with bundle.saved():
        bundle.spec.set_args("second")
        call = asyncio.create_task(runc.run("web", bundle))
        await settled()
        bundle.spec.set_args("third")
    await call
    assert args(bundle) == ["second"]
    await runc.create("web", bundle)
    assert args(bundle) == ["third"]


CALLS: dict[str, Callable[[Runc, Bundle], Any]] = {
    "create": lambda runc, bundle: runc.create("web", bundle),
    "run": lambda runc, bundle: runc.run("web", bundle),
    "run detached": lambda runc, bundle: runc.run("web", bundle, detach=True),
    "restore": lambda runc, bundle: runc.restore("web", bundle, bundle.path / "img"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_each_command_saves(bundle: Bundle, call: Callable[[Runc, Bundle], Any]) -> None:
    """Each command that gets a `Bundle` saves it before runc is started, and lets go of it."""
    seen: list[list[str]] = []

    class Looking(FakeRunner):
        async def open(self, invocation: Any) -> Any:
            if "--bundle" in invocation.argv:
                seen.append(args(bundle))
            return await super().open(invocation)

    runc = Runc(runner=Looking())
    for command in ("one", "two"):
        bundle.spec.set_args(command)
        await call(runc, bundle)
    assert seen == [["one"], ["two"]]


@pytest.mark.parametrize("value", [float("nan"), object()])
async def test_what_has_no_form_in_json_starts_nothing(bundle: Bundle, value: object) -> None:
    """A spec that can't be encoded is refused before anything is started."""
    runner = FakeRunner()
    bundle.spec.extra["x"] = value
    with pytest.raises((ValueError, TypeError), match="JSON"):
        await Runc(runner=runner).run("web", bundle)
    assert runner.invocations == []


async def test_several_event_loops_share_a_bundle(bundle: Bundle) -> None:
    """Blocks of another thread's event loop wait for ours, and ours for theirs."""
    order: list[str] = []
    waiting = threading.Event()

    async def theirs() -> None:
        order.append("waiting")
        waiting.set()
        async with other:
            order.append("theirs")

    async with bundle.saved():
        bundle.spec.set_args("other")
        other = bundle.saved()
        thread = threading.Thread(target=lambda: asyncio.run(theirs()))
        thread.start()
        await asyncio.to_thread(waiting.wait)
        order.append("ours")
    await asyncio.to_thread(thread.join)
    assert order == ["waiting", "ours", "theirs"]


async def test_any_order_of_ends(bundle: Bundle) -> None:
    """Many blocks with different wishes, some cancelled, each see the file that they want, and all end."""

    async def use(number: int, saved: contextlib.AbstractAsyncContextManager[Any]) -> None:
        async with saved:
            assert args(bundle) == [str(number % 3)]
            await asyncio.sleep(0)
            assert args(bundle) == [str(number % 3)]

    tasks: list[asyncio.Task[None]] = []
    for number in range(40):
        bundle.spec.set_args(str(number % 3))
        tasks.append(asyncio.create_task(use(number, bundle.saved())))
        if number % 7 == 0:
            tasks[number // 2].cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
