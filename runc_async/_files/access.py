"""What a handle on a container does with the container's files."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, TypeAlias

import anyio

from .._commands.words import argument
from .worker import Worker

if TYPE_CHECKING:
    from anyio.abc import ByteReceiveStream

    from .root import Root

Content: TypeAlias = bytes | bytearray | memoryview | AsyncIterable[bytes]
"""What is written: bytes, or a stream or another asynchronous iterable of them."""

_PIECE = 1 << 20
"""Bytes that are written at once; small ones from a stream are collected up to a quarter of it."""


class FileAccess:
    """The files of a container, without any program inside it: also while it is created or paused."""

    @abstractmethod
    async def _open_root(self) -> Root:
        """Open the container's root filesystem."""

    async def read_file(self, path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
        """Read a file of the container's.

        Cancelling gives the reading up.

        Args:
            path: The file, as seen inside, from `/`. Links are followed as they lead inside.
            limit: Bytes that it may have; None: any number, and all of them are in memory.

        Raises:
            FileNotFoundError: If there is no such file.
            IsADirectoryError: If it is a directory.
            PermissionError: If it is a file of procfs, which a process inside has to read.
            OSError: If it has more than `limit` bytes (`errno.EFBIG`), is a FIFO, a device or a socket
                (`errno.EINVAL`), or can't be read for another reason.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path is empty or has a NUL byte, or the limit is negative.
            UnsupportedError: If the runtime keeps the container's files to itself.
        """
        name = _checked(path)
        if limit is not None and limit < 0:
            raise ValueError(f"limit must not be negative: {limit}")
        from .reading import read_file  # noqa: PLC0415  (ctypes takes milliseconds to load)

        root = await self._open_root()
        async with Worker() as worker:
            worker.keep(root)
            return await worker.do(lambda: read_file(root, name, limit, worker.check))

    async def write_file(
        self,
        path: str | os.PathLike[str],
        data: bytes | bytearray | memoryview | AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        owner: tuple[int, int] = (0, 0),
        parents: bool = False,
    ) -> None:
        """Write a file of the container's, whole or not at all.

        A process inside sees the old file, or the new one with all its content; a link of that name is replaced, and
        not followed. Cancelled, or if `data` raises, nothing has changed but for the directories that were made. A
        service that is killed in the last moment may leave a file `.runc_async-...` beside it.

        Args:
            path: The file, as seen inside, from `/`. Links to its directory are followed as they lead inside.
            data: Its content: bytes, or a stream or another asynchronous iterable of bytes, of any size.
            mode: Its permissions, whatever the umask is.
            owner: The user and the group that it belongs to, as numbers inside the container.
            parents: Make the directories above it that aren't there, with mode 0755 and the same owner.

        Raises:
            FileNotFoundError: If its directory isn't there.
            IsADirectoryError: If there is a directory of that name.
            NotADirectoryError: If something above it is no directory.
            OSError: If a FIFO, a device or a socket has the name (`errno.EINVAL`), if something is mounted there
                (`errno.EBUSY`), if the file system is read-only or full, or if it can't be written for another reason.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path names no file, the mode is none, or the owner isn't known in the container's user
                namespace.
            TypeError: If `data` is neither bytes nor an asynchronous iterable of them.
            UnsupportedError: If the runtime keeps the container's files to itself.
        """
        from .writing import Destination, NewFile  # noqa: PLC0415  (as above)

        name = _checked(path)
        if name.rpartition("/")[2] in {"", ".", ".."}:
            raise ValueError(f"path must name a file: {name!r}")
        if not 0 <= mode <= 0o7777:  # noqa: PLR2004 - the bits of chmod(2)
            raise ValueError(f"mode must be permissions: {mode!r}")
        destination = Destination(name, mode, *owner, parents)
        pieces = _pieces(data)
        root = await self._open_root()
        async with Worker() as worker:
            worker.keep(root)
            if isinstance(data, AsyncIterable):
                file = await worker.do(lambda: worker.keep(NewFile(root, destination)))
                async for piece in pieces:
                    await worker.do(functools.partial(file.write, piece))
                await worker.do(file.commit)
            else:  # all at once: each turn of a thread takes as long as the writing of a mebibyte
                await worker.do(lambda: worker.keep(NewFile(root, destination)).write_all(data, worker.check))

    @contextlib.asynccontextmanager
    async def get_archive(self, path: str | os.PathLike[str]) -> AsyncGenerator[ByteReceiveStream]:
        """Open a directory or a file of the container's as a tar archive.

        ::

            async with (
                Bundle.busybox(["sleep", "100"]) as bundle,
                Runc().open_container("box", bundle) as container,
                container.get_archive("/etc") as archive,
            ):
                size = sum([len(data) async for data in archive])

        The archive is made as it is read, so memory stays flat whatever it holds. Its names begin with the last part
        of the path, as `work/...`. In it are regular files, directories and symbolic links, with owners as seen inside,
        holes of sparse files, and hard links; mounts below the path too. Left out are devices, FIFOs and sockets,
        extended attributes, and what is below the kernel's own file systems, such as /proc. What comes and goes
        meanwhile is in it or isn't; a file that shrinks meanwhile ends with zeros.

        Cancelling a `receive` loses nothing; leaving the block closes the stream.

        Args:
            path: The directory or file, as seen inside, from `/`. Links are followed as they lead inside.

        Raises:
            FileNotFoundError: If there is no such directory or file.
            OSError: If it is neither directory nor file (`errno.EINVAL`), can't be read, or if more than 256
                directories lie in each other (`errno.ELOOP`).
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path is empty or has a NUL byte.
            UnsupportedError: If the runtime keeps the container's files to itself.
        """
        from .packing import Packing  # noqa: PLC0415  (as above)
        from .streams import ArchiveStream  # noqa: PLC0415  (as above)

        name = _checked(path)
        root = await self._open_root()
        async with Worker() as worker:
            worker.keep(root)
            packing = await worker.do(lambda: worker.keep(Packing(root, name)))
            async with ArchiveStream(worker, packing) as stream:
                yield stream

    async def put_archive(
        self, path: str | os.PathLike[str], archive: bytes | bytearray | memoryview | AsyncIterable[bytes]
    ) -> None:
        """Unpack a tar archive into a directory of the container's.

        Existing files and links of the same names are replaced, directories kept. Refused, as in `rootfs.Tar`, are
        names that are absolute, have `..` in them or lead through a link, links that climb above the directory, devices
        and FIFOs, owners that the container's user namespace doesn't know, and archives that are packed, cut short or
        damaged.

        Unlike `write_file` it is not atomic: what was unpacked before an error, or a cancel, stays.

        Args:
            path: The directory, as seen inside, from `/`. Links are followed as they lead inside.
            archive: The archive: bytes, or a stream or another asynchronous iterable of bytes, of any size. Owners are
                those inside the container.

        Raises:
            ArchiveError: If the archive is refused.
            FileNotFoundError: If there is no such directory.
            NotADirectoryError: If it is no directory.
            OSError: If something of the archive's is mounted there (`errno.EBUSY`), or can't be written for another
                reason.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path is empty or has a NUL byte.
            TypeError: If the archive is neither bytes nor an asynchronous iterable of them.
            UnsupportedError: If the runtime keeps the container's files to itself.
        """
        from .._streams.pipes import PipeWriter  # noqa: PLC0415  (as above)
        from .unpacking import unpack_inside  # noqa: PLC0415  (as above)

        name = _checked(path)
        pieces = _pieces(archive)
        root = await self._open_root()
        async with Worker() as worker:
            worker.keep(root)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            pipe = PipeWriter(writing)
            # The thread reads for as long as the archive comes, and so doesn't take part in the event loop's own.
            work = worker.begin(lambda: unpack_inside(root, name, reading, worker.check))
            try:
                async for piece in pieces:
                    try:
                        await pipe.send(bytes(piece))
                    except anyio.BrokenResourceError:  # the thread has closed its end, and says why
                        break
                pipe.close()
                await asyncio.wait((work,))
            except BaseException:
                pipe.close()
                await worker.give_up(work)
                raise
            work.result()


def _checked(path: str | os.PathLike[str]) -> str:
    """Return a path inside a container.

    Raises:
        ValueError: If it is empty, or has a NUL byte or what is no character.
        TypeError: If it is no path of str.
    """
    name = argument("path", os.fspath(path))
    if not name:
        raise ValueError("path must not be empty")
    return name


def _pieces(content: Content) -> AsyncIterator[bytes | memoryview]:
    """Return what is to be written, in pieces that are worth a turn of a thread.

    Raises:
        TypeError: If it is neither bytes nor an asynchronous iterable.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        return _cut(memoryview(content).cast("B"))
    if not isinstance(content, AsyncIterable):
        raise TypeError(f"content must be bytes or an asynchronous iterable of bytes: {type(content).__name__}")
    return _collected(content)


async def _cut(content: memoryview) -> AsyncIterator[memoryview]:
    """Yield pieces of bytes that are there."""
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


async def _collected(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield what comes, small pieces together.

    Raises:
        TypeError: If something else than bytes comes.
    """
    collected = bytearray()
    async for piece in content:
        collected += memoryview(piece)  # a str, or a number, is a TypeError
        if len(collected) >= _PIECE // 4:
            yield bytes(collected)
            collected.clear()
    yield bytes(collected)
