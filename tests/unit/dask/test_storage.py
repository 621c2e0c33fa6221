"""Root filesystems of a node: found by name, unpacked once by their hash, and evicted."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from runc_async import spec
from runc_async.dask import Recipe, RecipeRefused
from runc_async.dask.storage import Storage

SPEC = spec.Spec.default().set_args("true")


def archive(path: Path, text: str) -> Recipe:
    """Write a tar archive with one file, and return a recipe of it."""
    (path.parent / "file").write_text(text)
    with tarfile.open(path, "w") as tar:
        tar.add(path.parent / "file", "file")
    return Recipe(spec=SPEC, rootfs=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.root
async def test_an_archive_is_unpacked_once(tmp_path: Path) -> None:
    """A second bundle shares what the first has unpacked, also when the archive is gone by then."""
    recipe = archive(tmp_path / "a.tar", "hello")
    storage = Storage(tmp_path / "cache", {})
    for _ in range(2):
        async with storage.bundle(recipe) as bundle:
            assert (bundle.rootfs / "file").read_text() == "hello"
        (tmp_path / "a.tar").unlink(missing_ok=True)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [recipe.sha256]


@pytest.mark.root
async def test_what_isnt_used_is_evicted(tmp_path: Path) -> None:
    """Beyond the size of the cache the archive unused for longest goes, and none that a bundle uses."""
    recipes = [archive(tmp_path / f"{number}.tar", str(number)) for number in range(4)]
    storage = Storage(tmp_path / "cache", {}, size=2)
    async with storage.bundle(recipes[0]) as used:
        for recipe in recipes[1:]:
            async with storage.bundle(recipe):
                pass
        assert (used.rootfs / "file").read_text() == "0"
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kept == {recipes[0].sha256, recipes[3].sha256}


async def test_another_hash_is_refused(tmp_path: Path) -> None:
    """An archive that has changed isn't unpacked; nor one that isn't there."""
    recipe = archive(tmp_path / "a.tar", "hello")
    (tmp_path / "a.tar").write_bytes(b"other")
    storage = Storage(tmp_path / "cache", {})
    with pytest.raises(RecipeRefused, match="SHA-256"):
        async with storage.bundle(recipe):
            pass
    (tmp_path / "a.tar").unlink()
    with pytest.raises(RecipeRefused, match="can't be read"):
        async with storage.bundle(recipe):
            pass
    assert not (tmp_path / "cache").exists()


@pytest.mark.root
async def test_names(tmp_path: Path) -> None:
    """A name stands for the node's own directory; an unknown one is refused."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "file").write_text("hello")
    storage = Storage(tmp_path / "cache", {"python": str(tmp_path / "python")})
    async with storage.bundle(Recipe(spec=SPEC, rootfs="python")) as bundle:
        assert (bundle.rootfs / "file").read_text() == "hello"
    with pytest.raises(RecipeRefused, match="no root filesystem 'ruby'"):
        async with storage.bundle(Recipe(spec=SPEC, rootfs="ruby")):
            pass
