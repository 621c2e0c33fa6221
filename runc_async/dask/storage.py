"""Root filesystems on a node: resolved from a recipe's name, unpacked once, and evicted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from ..bundle import Bundle
from ..rootfs import Busybox, Host, Overlay, Rootfs, Tar
from .errors import RecipeRefused
from .values import Recipe

_BLOCK = 1 << 20


class Storage:
    """The root filesystems of one node.

    Args:
        directory: Where archives are unpacked, one directory for each SHA-256.
        names: Directories by their names in recipes.
        size: The number of unused unpacked archives to keep.
    """

    def __init__(self, directory: Path, names: Mapping[str, str], size: int = 8) -> None:
        self._directory = directory
        self._names = names
        self._size = size
        self._used: Counter[str] = Counter()
        self._recent: dict[str, None] = {}  # oldest first
        self._locks: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def bundle(self, recipe: Recipe) -> AsyncGenerator[Bundle]:
        """Make the bundle of a recipe, for the time of the block.

        Raises:
            RecipeRefused: If the node lacks the root filesystem, or the archive has another hash.
            RootfsError: If the archive can't be unpacked.
            OSError: If the bundle can't be made, for example because the disk is full.
        """
        document = recipe.document()
        async with (
            self._rootfs(recipe) as rootfs,
            Bundle.temporary(rootfs=rootfs, spec=document, init=recipe.init) as bundle,
        ):
            yield bundle

    @contextlib.asynccontextmanager
    async def _rootfs(self, recipe: Recipe) -> AsyncGenerator[Rootfs]:
        """Resolve the root filesystem of a recipe; not evicted while the block runs."""
        match recipe.rootfs:
            case "host":
                yield Host()
            case "busybox":
                yield Busybox()
            case name if recipe.sha256 is not None:
                self._used[recipe.sha256] += 1
                try:
                    yield Overlay([await self._unpacked(name, recipe.sha256)])
                finally:
                    self._used[recipe.sha256] -= 1
            case name:
                path = name if name.startswith("/") else self._names.get(name, "")
                if not os.path.isdir(path):
                    raise RecipeRefused(f"there is no root filesystem {name!r} here")
                yield Overlay([path])

    async def _unpacked(self, archive: str, sha256: str) -> str:
        """Return the directory of an unpacked archive, after unpacking it if necessary."""
        target = self._directory / sha256
        async with self._locks.setdefault(sha256, asyncio.Lock()):
            if not await asyncio.to_thread(target.is_dir):
                await asyncio.to_thread(_check_hash, archive, sha256)
                # Another worker of this machine may unpack the same archive. The final name appears by rename(2), when
                # the directory is complete; the worker that comes second gets an error there, and uses the first one's
                # directory.
                partial = self._directory / f"{sha256}.{os.urandom(8).hex()}"
                try:
                    await asyncio.to_thread(self._directory.mkdir, mode=0o700, parents=True, exist_ok=True)
                    await Bundle.create(partial, rootfs=Tar(archive))
                    with contextlib.suppress(FileExistsError, OSError):
                        await asyncio.to_thread(os.rename, partial, target)
                finally:
                    await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
        # Moved to the end: the order of the dict is the order of use.
        self._recent.pop(sha256, None)
        self._recent[sha256] = None
        await asyncio.to_thread(self._evict)
        return str(target / "rootfs")

    def _evict(self) -> None:
        """Remove the least recently used unpacked archives beyond the size of the cache."""
        idle = [name for name in self._recent if not self._used[name]]
        # The cache may be larger while sandboxes use its archives.
        for name in idle[: max(len(self._recent) - self._size, 0)]:
            del self._recent[name]
            shutil.rmtree(self._directory / name, ignore_errors=True)


def _check_hash(archive: str, sha256: str) -> None:
    """Compare the SHA-256 of a file.

    Raises:
        RecipeRefused: If the hash differs, or the file can't be read.
    """
    digest = hashlib.sha256()
    try:
        with open(archive, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as exc:
        raise RecipeRefused(f"archive {archive!r} can't be read: {exc.strerror}") from exc
    if digest.hexdigest() != sha256:
        raise RecipeRefused(f"archive {archive!r} has SHA-256 {digest.hexdigest()}, and not {sha256}")
