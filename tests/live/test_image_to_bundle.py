"""The page docs/howto/image-to-bundle.md: what it says is done here, on an image made without a network."""

from __future__ import annotations

import ast
import asyncio
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import pytest
from runtime import Runtime

import runc_async
from runc_async.client import Runc

pytestmark = pytest.mark.runc

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "image-to-bundle.md"
BLOCK = re.compile(r"^```(sh|py|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty working directory."""
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        monkeypatch.chdir(made)
        yield Path(made)


@pytest.fixture
def tools(request: pytest.FixtureRequest) -> None:
    """Skip, or with `--require-runc` fail, where the page's programs are missing."""
    if missing := [name for name in ("skopeo", "umoci") if shutil.which(name) is None]:
        reason = f"needs {' and '.join(missing)} in $PATH"
        pytest.fail(reason, pytrace=False) if request.config.getoption("--require-runc") else pytest.skip(reason)


def write_image(layout: Path, layer: bytes) -> None:
    """Write an image of one layer, under the name `tiny`: image-spec, image-layout.md."""

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    (layout / "blobs" / "sha256").mkdir(parents=True)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [blob(gzip.compress(layer), "layer.v1.tar+gzip")],
    }
    tiny = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    tiny["annotations"] = {"org.opencontainers.image.ref.name": "tiny"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [tiny]}))


@pytest.mark.usefixtures("tools")
def test_the_page_works(
    place: Path, runtime: Runtime, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command and each program on the page works, in this order, and prints what the page says."""
    write_image(place / "layout", archives.rootfs_tar(Path("/bin/busybox")))

    def own_runc() -> Runc:
        return Runc(runtime.command, root=root)

    monkeypatch.setattr(runc_async, "Runc", own_runc)
    (_, naming), (_, unpacking), *programs = BLOCK.findall(PAGE.read_text())
    assert naming.startswith("image=docker://")
    subprocess.run(["sh", "-euc", f"image=oci:layout:tiny\n{unpacking}"], check=True, capture_output=True)  # noqa: S607 - any shell
    assert [kind for kind, _ in programs] == ["py", "text"] * 2
    for (_, program), (_, output) in zip(programs[::2], programs[1::2], strict=True):
        asyncio.run(eval(compile(program, PAGE, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {}))  # noqa: S307 - our own page
        assert capsys.readouterr().out == output
