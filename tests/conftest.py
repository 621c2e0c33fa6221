"""Options, marks and checks of all tests."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import inspect
import itertools
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path
from time import monotonic, sleep  # by name: tests put other clocks into the module
from typing import TYPE_CHECKING

import criu
import hypothesis
import inotify
import leaks
import proof
import pytest

from runc_async import subreaper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
    from types import FrameType

LAST_RESORT = 3
"""How many times the time limit of a test its process may take before it is ended."""

FRAMES = 4
"""How many frames asyncio's debug mode notes of the stack in which a future, a task or a callback was made."""

pytest_plugins = ["container_fixtures"]

FOOTPRINT = pytest.StashKey[leaks.Footprint]()
LAST_RESORTS = pytest.StashKey["LastResort"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption(
        "--require-runc",
        action="store_true",
        help="a test that needs runc or root and can't have it fails instead of being skipped",
    )
    parser.addoption(
        "--runtime",
        action="append",
        metavar="PATH",
        help="a runtime that the live tests drive instead of the host's runc; can be given several times",
    )
    parser.addoption(
        "--proof",
        action="store_true",
        help="try all that the proofs have, instead of a small sample: see tests/proof/proof.py",
    )
    parser.addoption(
        "--no-inotify",
        action="store_true",
        help="let inotify_init1(2) fail in the tests' process, as if this user's instances were used up",
    )


def few_frames(
    frames: Iterable[tuple[FrameType, int]],
    *,
    limit: int | None = None,
    lookup_lines: bool = True,
    capture_locals: bool = False,
) -> traceback.StackSummary:
    """Do as `traceback.StackSummary.extract` for up to `FRAMES` frames, and look up their lines when they are printed.

    Asyncio's debug mode calls it for each future, task and callback. The original notes all frames, 25 on average below
    pytest, looks whether the file of each has changed, and reads the line: 141 µs, against 5.
    """
    del limit, lookup_lines, capture_locals
    return traceback.StackSummary(
        traceback.FrameSummary(frame.f_code.co_filename, line, frame.f_code.co_name, lookup_line=False)
        for frame, line in itertools.islice(frames, FRAMES)
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set how much is tried; register marks; ignore no signal, though `nohup` or a job in the background may do so."""
    proof.WHOLE = config.getoption("--proof")
    pytest.MonkeyPatch().setattr(traceback.StackSummary, "extract", few_frames)
    config.stash[LAST_RESORTS] = LastResort()
    config.stash[LAST_RESORTS].start()
    leaks.note_kept_records()
    # Any generated example may be slow where the machine is busy.
    hypothesis.settings.register_profile("project", deadline=None, max_examples=proof.amount(100, 25))
    hypothesis.settings.load_profile("project")
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "needs(feature): skipped where the runtime has no such command or option, or the host no such controller",
    )
    config.addinivalue_line(
        "markers", "proof(every): without --proof only every n-th of its parameter sets is run; none without a number"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without looking for garbage among their hundred thousands of objects, which all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # see `long_lived_objects`; to look through them once would cost half a second
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what isn't in the sample of a proof, unless `--proof` is given or the test is named in full."""
    left = {item for item in proof.left_out(items) if item.nodeid not in config.args}
    if left:
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run a test marked `any_loop` on each kind of event loop, and the others on asyncio's own."""
    del config
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("any_loop"):
        factories["uvloop"] = uvloop_factory()
    return factories


@cache
def uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of uvloop's; the first one opens a pipe for good: now, and not in a test."""
    uvloop = pytest.importorskip("uvloop")
    uvloop.new_event_loop().close()
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Take stock before a test's first fixture, and see that the test ends at all.

    The time limit of a test raises an exception in it. A task that can't be cancelled outlives that, and the event loop
    waits for it; then the process has to go, which xdist reports as the end of this test's worker.
    """
    last_resort = item.config.stash[LAST_RESORTS]
    item.stash[FOOTPRINT] = leaks.footprint()
    last_resort.watch(item.nodeid, LAST_RESORT * time_limit(item))
    try:
        return (yield)
    finally:
        last_resort.watch(None)


def time_limit(item: pytest.Item) -> float:
    """Return the seconds that a test may take."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0] if mark else item.config.getoption("timeout") or item.config.getini("timeout") or 60)


class LastResort(threading.Thread):
    """The thread that ends this process if a test doesn't end: one for all tests, as to start one for each costs more.

    A process forked from this one has no such thread.
    """

    def __init__(self) -> None:
        super().__init__(name="last resort", daemon=True)
        self._watched: tuple[str, float] | None = None

    def watch(self, test: str | None, limit: float = 0) -> None:
        """Give a test this many seconds from now; None for the time between two."""
        self._watched = (test, monotonic() + limit) if test else None

    def run(self) -> None:
        """Look once a second."""
        while True:
            sleep(1)
            watched = self._watched
            if watched and monotonic() > watched[1]:
                give_up(watched[0])


def give_up(test: str) -> None:
    """End this process, with what its threads are doing."""
    assert sys.__stderr__ is not None
    print(f"{test} does not end, not even by its time limit", file=sys.__stderr__)
    faulthandler.dump_traceback(sys.__stderr__)
    os._exit(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test that leaves a child process, a zombie or a descriptor when its last fixture is gone.

    A hook and not a fixture, because the event loop's own descriptors outlive every fixture. A fixture of a wider scope
    must therefore hold neither across tests.
    """
    yield
    leaks.release_kept_records()
    before = item.stash[FOOTPRINT]
    if not leaks.left_since(before, patience=0):
        return
    gc.collect()  # what only waits for the collector is no leak: ResourceWarning is an error already
    if left := leaks.left_since(before):
        pytest.fail("left behind by the test:\n" + "\n".join(left), pytrace=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or with `--require-runc` fail, what can't run on this host."""
    for mark, missing in MISSING.items():
        if item.get_closest_marker(mark) and (reason := missing()):
            if item.config.getoption("--require-runc") and (mark != "criu" or criu.MADE):
                pytest.fail(f"{reason} (--require-runc is given)", pytrace=False)
            pytest.skip(reason)


def missing_root() -> str | None:
    """Say what is missing for a test that needs root."""
    return None if os.geteuid() == 0 else "needs root"


def missing_runc() -> str | None:
    """Say what is missing for a test that runs containers."""
    return missing_root() or (None if shutil.which("runc") else "needs runc in $PATH")


MISSING: dict[str, Callable[[], str | None]] = {"root": missing_root, "runc": missing_runc, "criu": criu.missing}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the proofs have tried."""
    if table := list(proof.lines(proof.rows(terminalreporter.stats))):
        terminalreporter.section("proof")
        terminalreporter.write("\n".join(table) + "\n")


@pytest.fixture
def one_subreaper() -> Iterator[None]:
    """Be a subreaper for one test."""
    with subreaper():
        yield


@pytest.fixture
def no_inotify(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no inotify instance to spare, as if this user's were used up by others."""
    inotify.use_up(monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def inotify_option(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have no inotify instance in all tests, with `--no-inotify`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--no-inotify"):
            inotify.use_up(patch)
        yield


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> proof.Tried:
    """Return the function by which a test says what it has tried; see `proof.Tried`."""
    return lambda what, number: record_property(proof.PROPERTY, (what, number))


@pytest.fixture(scope="session")
def prefix() -> str:
    """Return what the ids, paths and variables of this run, or of this xdist worker, begin with."""
    return f"rat-{os.getpid()}-{secrets.token_hex(3)}-"


@pytest.fixture(scope="session", autouse=True)
def scratch(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give this run a temporary directory of its own with a short path; see at the end that it is empty.

    The path is short because sockets are made in it: a socket's path has at most 107 bytes. All children get a variable
    that names the run, by which those that outlive it are found.
    """
    tmp_path_factory.getbasetemp()  # pytest's own directories stay where they were
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(directory))
        patch.setenv("TMPDIR", str(directory))
        patch.setenv("RUNC_ASYNC_TEST_RUN", prefix)
        yield directory
    leaks.forget_dead_owners(prefix)
    left = [f"file {path}" for path in directory.iterdir()] + leaks.left_on_host(prefix)
    shutil.rmtree(directory)
    if left:
        pytest.fail("left behind by the run:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def long_lived_objects() -> Iterator[None]:
    """Keep what was loaded with the tests out of the garbage collector's sight while they run.

    The proofs collect garbage after every point; that takes a fifth of a second where all tests are loaded.
    """
    gc.freeze()
    yield
    gc.unfreeze()  # at the end of the session, Hypothesis looks for referrers, which it can't see otherwise


@pytest.fixture(autouse=True)
def no_task_left(request: pytest.FixtureRequest) -> None:
    """Fail an asynchronous test that leaves a task on its event loop."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("watched_tasks")


@pytest.fixture
async def watched_tasks() -> AsyncIterator[None]:
    """Compare the event loop's tasks before and after the test and its own fixtures."""
    before = asyncio.all_tasks()
    yield
    if left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        pytest.fail("tasks left behind by the test:\n" + "\n".join(map(repr, left)), pytrace=False)
