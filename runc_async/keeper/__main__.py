"""The keeper program: `python -m runc_async.keeper PATH`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Generator, Sequence
from typing import NamedTuple, NoReturn

from runc_async import subreaper

from .._linux.scratch import scratch_directory
from . import orphans
from .errors import KeeperError
from .handover import Handover, read, replace, take_over
from .place import Place
from .reaching import BUSY
from .server import Server, log
from .systemd import Inherited, Store

BUSY_TEXT = b"another keeper is there"

DESCRIPTION = """\
Keep containers for services that come and go: their streams, their exit statuses, and a record of each.
SIGTERM ends the keeper and no container; SIGHUP replaces it by the program that is installed now.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a keeper until a signal ends it."""
    parser = argparse.ArgumentParser("python -m runc_async.keeper", description=DESCRIPTION)
    parser.add_argument("path", metavar="PATH", help="the keeper's directory, of mode 0700; made if it isn't there")
    parser.add_argument("--detach", action="store_true", help="run in the background, and return when it listens")
    parser.add_argument("--resume", metavar="FD", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--try", dest="trial", metavar="FD", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    path = os.path.abspath(options.path)
    try:
        if options.trial is not None:
            read(options.trial)
            return 0
        handover = None if options.resume is None else read(options.resume)
        if options.detach:
            return detach(path)
        code = run(path, handover)
    except (KeeperError, OSError) as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - it is a program
        return 1
    if code == BUSY:
        print(f"another keeper is at {path}", file=sys.stderr)  # noqa: T201 - as above
    return code


class Setup(NamedTuple):
    """The resources of a keeper on start.

    Attributes:
        place: The keeper's directory.
        lock: The descriptor that holds the lock.
        listener: The listening socket.
        inherited: Descriptors from the service manager.
        handover: The resources of the former program in this process.
        ready: A descriptor for the report that the keeper listens; -1 for none.
    """

    place: Place
    lock: int
    listener: socket.socket
    inherited: Inherited
    handover: Handover | None
    ready: int


def run(path: str, handover: Handover | None = None, ready: int = -1) -> int:
    """Keep containers at a place.

    Args:
        path: The place.
        handover: The resources of the former program in this process.
        ready: A descriptor to which a line feed is written when the keeper listens.

    Raises:
        KeeperError: If the place isn't private.
        OSError: If the place can't be used.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    logging.captureWarnings(True)
    # Before any child starts: the variables would make a runtime take the descriptors for its own.
    inherited = Inherited(os.environ)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(Place.make(path))
        if handover is None:
            try:
                lock = place.lock()
            except BlockingIOError:
                return BUSY
            listener = inherited.listener or place.listen()
        else:
            lock = handover.lock
            listener = socket.socket(fileno=handover.listener)
        stack.callback(os.close, lock)
        stack.enter_context(scratch(place, resumed=handover is not None))
        stack.enter_context(subreaper())
        asyncio.run(_keep(Setup(place, lock, listener, inherited, handover, ready)))
    return 0


@contextlib.contextmanager
def scratch(place: Place, *, resumed: bool) -> Generator[None]:
    """Create temporary files in a directory of the keeper's own, which the next keeper removes after a kill."""
    if not resumed:
        place.remove_scratch()
    made = contextlib.nullcontext(os.environ.get("TMPDIR", "")) if resumed else scratch_directory(recorded=False)
    with made as directory:
        if not resumed:
            place.note_scratch(directory)
        os.environ["TMPDIR"] = tempfile.tempdir = directory
        try:
            yield
        finally:
            place.remove_scratch()


async def _keep(setup: Setup) -> None:
    """Serve until SIGTERM or SIGINT; replace the program on SIGHUP."""
    store = Store(os.environ)
    server = Server(setup.place, setup.listener, store)
    ending = asyncio.Event()
    replacing = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number, event in ((signal.SIGTERM, ending), (signal.SIGINT, ending), (signal.SIGHUP, replacing)):
        loop.add_signal_handler(number, event.set)
    # SIGHUP may come at any time from here on; the handlers above only set events.
    if setup.handover is None:
        for record in setup.place.records():
            server.adopt(record, setup.inherited.take(record.id))
    else:
        take_over(setup.handover, server)
    # Streams in systemd's store whose container has no record any more.
    setup.inherited.close()
    orphans.mark(setup.place.path)  # after the search for those of the keeper before
    # Only now: a client that connects early waits in the backlog, and finds all containers.
    server.resume()
    store.ready()
    log.info("keeps %d containers at %s", len(server.holdings), setup.place.path)
    if setup.ready >= 0:
        try:
            os.write(setup.ready, b"\n")
        except BrokenPipeError:  # the process that has started us was cancelled
            ending.set()
        os.close(setup.ready)
    watches = [
        asyncio.create_task(ending.wait()),
        asyncio.create_task(_replace(replacing, server, setup.place.path, setup.lock)),
    ]
    try:
        await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await server.close()


async def _replace(wanted: asyncio.Event, server: Server, path: str, lock: int) -> NoReturn:
    """Replace the keeper on each request. A failure is logged, and the keeper continues."""
    while True:
        await wanted.wait()
        # Cleared before the work: a SIGHUP that arrives meanwhile asks for one more replacement.
        wanted.clear()
        try:
            await replace(server, path, lock)
        except (KeeperError, OSError) as exc:
            log.warning("not replaced: %s", exc)


def detach(path: str) -> int:
    """Run a keeper in a new session, in the background; return when it listens, or has failed."""
    ours, ready = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(ready)
        with open(ours, "rb") as answer:
            # Until the end of file: if the keeper ends before it listens, the kernel closes the pipe, and nothing is
            # said.
            said = answer.read()
        # The first child, which has exited after the second fork.
        os.waitpid(child, 0)
        if said == b"\n":
            return 0
        print(said.decode(errors="replace") or "it has ended", file=sys.stderr)  # noqa: T201 - as above
        return BUSY if said == BUSY_TEXT else 1
    os.close(ours)
    # A session of its own: the keeper isn't ended with the service's terminal or process group.
    os.setsid()
    # Fork twice: the keeper isn't a session leader, so that it never gets a controlling terminal, and its parent is
    # process 1.
    if os.fork():
        os._exit(0)
    return _background(path, ready)


def _background(path: str, ready: int) -> int:
    """Run the keeper with its log in its directory."""
    try:
        with Place.make(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            log_file = os.open(os.path.join(path, "log"), flags, 0o600)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for source, target in ((nothing, 0), (nothing, 1), (log_file, 2)):
            os.dup2(source, target)
        os.close(nothing)
        os.close(log_file)
        # The working directory of the service could keep a filesystem from being unmounted.
        os.chdir("/")
        code = run(path, None, ready)
    except (KeeperError, OSError) as exc:
        with contextlib.suppress(OSError):  # it was reported already that we listen, and the pipe is closed
            os.write(ready, str(exc).encode(errors="backslashreplace"))
        raise
    if code == BUSY:
        os.write(ready, BUSY_TEXT)
    return code


if __name__ == "__main__":
    sys.exit(main())
