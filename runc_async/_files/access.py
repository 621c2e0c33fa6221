"""File operations of a container's handle."""

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
"""The contents to write: bytes, or a stream or another asynchronous iterable of bytes."""

_PIECE = 1 << 20
"""Bytes per write; small pieces of a stream are collected up to a quarter of this size."""


class FileAccess:
    """The files of a container, accessible without a program inside, also while the container is created or paused."""

    @abstractmethod
    async def _open_root(self) -> Root:
        """Open the container's root filesystem."""

    async def read_file(self, path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
        """Read (download) a file of the container.

        Cancelling stops the reading.

        Args:
            path: The file, as seen inside, from `/`. Links are followed as inside the container.
            limit: Maximal size in bytes; None for any size. The whole file is kept in memory.

        Raises:
            FileNotFoundError: If there is no such file.
            IsADirectoryError: If the path is a directory.
            PermissionError: If the file belongs to procfs, which only processes inside can read correctly.
            OSError: If the file has more than `limit` bytes (`errno.EFBIG`), is a FIFO, a device or a socket
                (`errno.EINVAL`), or can't be read for another reason.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path is empty or has a NUL byte, or the limit is negative.
            UnsupportedError: If the files can't be accessed from outside with this runtime.
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
        """Write (upload) a file of the container atomically.

        Processes inside see either the old file or the complete new one; a link with the name is replaced, and not
        followed. On cancellation, or if `data` raises, nothing changes except new parent directories. A service killed
        at the last moment may leave a file `.runc_async-...` in the directory.

        Args:
            path: The file, as seen inside, from `/`. Links to its directory are followed as inside the container.
            data: The contents: bytes, or a stream or another asynchronous iterable of bytes, of any size.
            mode: The permissions, independent of the umask.
            owner: User and group of the file, as numbers inside the container.
            parents: Create missing parent directories, with mode 0755 and the same owner.

        Raises:
            FileNotFoundError: If the directory is missing.
            IsADirectoryError: If there is a directory with this name.
            NotADirectoryError: If a parent isn't a directory.
            OSError: If a FIFO, a device or a socket has the name (`errno.EINVAL`), if a mount is there
                (`errno.EBUSY`), if the file system is read-only or full, or if the write fails for another reason.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path has no file name, the mode is invalid, or the owner is unknown in the container's
                user namespace.
            TypeError: If `data` is neither bytes nor an asynchronous iterable of bytes.
            UnsupportedError: If the files can't be accessed from outside with this runtime.
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
        """Open a directory or a file of the container as a tar archive (download).

        ::

            async with (
                Bundle.busybox(["sleep", "100"]) as bundle,
                Runc().open_container("box", bundle) as container,
                container.get_archive("/etc") as archive,
            ):
                size = sum([len(data) async for data in archive])

        The archive is created while it is read, with constant memory. Names start with the last part of the path, such
        as `work/...`. Included are regular files, directories and symbolic links, with owners as seen inside, holes of
        sparse files, hard links, and mounts below the path. Left out are devices, FIFOs and sockets, extended
        attributes, and the kernel's own file systems, such as /proc. Files that appear or vanish meanwhile may be
        included or not; a file that shrinks meanwhile ends with zeros.

        Cancelling a `receive` loses nothing; leaving the block closes the stream.

        Args:
            path: The directory or file, as seen inside, from `/`. Links are followed as inside the container.

        Raises:
            FileNotFoundError: If there is no such directory or file.
            OSError: If the path is neither directory nor file (`errno.EINVAL`), can't be read, or has more than 256
                nested directories (`errno.ELOOP`).
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path is empty or has a NUL byte.
            UnsupportedError: If the files can't be accessed from outside with this runtime.
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
        """Unpack a tar archive into a directory of the container (upload).

        Existing files and links with the same names are replaced, directories kept. Refused, as in `rootfs.Tar`, are
        names that are absolute, have `..` or lead through a link, links above the directory, devices and FIFOs, owners
        unknown in the container's user namespace, and archives that are compressed, cut short or damaged.

        Unlike `write_file`, the call isn't atomic: files unpacked before an error or a cancellation stay.

        Args:
            path: The directory, as seen inside, from `/`. Links are followed as inside the container.
            archive: The archive: bytes, or a stream or another asynchronous iterable of bytes, of any size. Owners are
                numbers inside the container.

        Raises:
            ArchiveError: If the archive is refused.
            FileNotFoundError: If there is no such directory.
            NotADirectoryError: If the path isn't a directory.
            OSError: If a mount is in the place of an entry (`errno.EBUSY`), or a write fails for another reason.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            ValueError: If the path is empty or has a NUL byte.
            TypeError: If the archive is neither bytes nor an asynchronous iterable of bytes.
            UnsupportedError: If the files can't be accessed from outside with this runtime.
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
            # The thread reads as long as the archive arrives, so it isn't one of the event loop's own pool.
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
        ValueError: If the path is empty, or has a NUL byte or an invalid character.
        TypeError: If `path` isn't a path of str.
    """
    name = argument("path", os.fspath(path))
    if not name:
        raise ValueError("path must not be empty")
    return name


def _pieces(content: Content) -> AsyncIterator[bytes | memoryview]:
    """Return the contents in pieces of a reasonable size for a thread.

    Raises:
        TypeError: If `content` is neither bytes nor an asynchronous iterable.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        return _cut(memoryview(content).cast("B"))
    if not isinstance(content, AsyncIterable):
        raise TypeError(f"content must be bytes or an asynchronous iterable of bytes: {type(content).__name__}")
    return _collected(content)


async def _cut(content: memoryview) -> AsyncIterator[memoryview]:
    """Yield pieces of bytes."""
    for start in range(0, len(content), _PIECE):
        yield content[start : start + _PIECE]


async def _collected(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of a stream, small ones joined.

    Raises:
        TypeError: If a piece isn't bytes.
    """
    collected = bytearray()
    async for piece in content:
        collected += memoryview(piece)  # a str, or a number, is a TypeError
        if len(collected) >= _PIECE // 4:
            yield bytes(collected)
            collected.clear()
    yield bytes(collected)
