"""The host's programs without an image, and nothing else of the host."""

from __future__ import annotations

import json
import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import rootfs
from runc_async._bundles import host
from runc_async.bundle import Bundle
from runc_async.errors import RootfsError
from runc_async.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async.client import Runc

pytestmark = [
    pytest.mark.runc,
    pytest.mark.skipif(not os.path.exists("/usr/bin/python3"), reason="needs a python3 in /usr"),
]

LOOK = """
import json, os
found = {}
for top in "/", "/etc", "/root", "/home", "/opt", "/srv", "/var", "/var/tmp", "/run", "/tmp", "/mnt", "/media":
    found[top] = sorted(os.listdir(top)) if os.path.isdir(top) else None
files = [os.path.join(d, n) for d, _, names in os.walk("/etc") for n in names]
found["files"] = sorted(files)
found["environment"] = [name for name in os.environ]
print(json.dumps(found))
"""

USE = """
import decimal, json, pwd, sqlite3, ssl, subprocess, sys, tempfile
with tempfile.TemporaryFile() as file:
    file.write(b"x")
assert pwd.getpwuid(0).pw_dir == "/root"
assert ssl.create_default_context()
print(subprocess.check_output(["sh", "-c", "ls /usr/bin/python3"], text=True).strip())
"""


def python(script: str) -> Spec:
    """Return a configuration that runs a script of Python."""
    return Spec.default().set_args("python3", "-c", script).set_terminal(enabled=False).set_root("x", readonly=False)


async def test_python_runs_without_an_image(client: Runc, container_id: Callable[[], str]) -> None:
    """The host's python3 runs, with its library, other programs, users, and a directory for temporary files."""
    async with Bundle.temporary(rootfs=rootfs.Host(), spec=python(USE)) as bundle:
        response = await client.run(container_id(), bundle)
    assert (response.exit_code, response.output) == (0, "/usr/bin/python3\n"), response.output


async def test_what_of_the_host_is_visible(client: Runc, container_id: Callable[[], str]) -> None:
    """Homes, keys, passwords, logs and mounts of the host are not there; of /etc, only what the page lists is."""
    async with Bundle.temporary(rootfs=rootfs.Host(), spec=python(LOOK)) as bundle:
        found: dict[str, Any] = json.loads((await client.run(container_id(), bundle, check=True)).stdout)
    tops = {"dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var", "bin", "sbin"}
    assert tops <= set(found["/"]) <= tops | {"lib", "lib32", "lib64", "libx32"}
    assert [found[top] for top in ("/root", "/run", "/tmp", "/var/tmp")] == [[], [], [], []]
    assert [found[top] for top in ("/home", "/opt", "/srv", "/mnt", "/media")] == [None] * 5
    listed = {name.split("/")[0] for name in host.COPIED} | {"passwd", "group", "hosts", "nsswitch.conf"}
    assert {name for name in found["/etc"] if not name.startswith("python3.")} <= listed
    private = ("shadow", "gshadow", "sudoers", "ssl/private", "ssh", "machine-id", "resolv.conf", "hostname", "fstab")
    assert [name for name in found["files"] if name.startswith(tuple(f"/etc/{each}" for each in private))] == []
    assert set(found["environment"]) <= {"PATH", "TERM", "HOME", "LC_CTYPE"}


@pytest.mark.needs("host kernel")
async def test_the_host_cannot_be_written_to(client: Runc, container_id: Callable[[], str]) -> None:
    """What is borrowed is read-only, and setuid programs have no effect there; the rest can be written to."""
    script = (
        "import os\nfor path in ('/usr/x', '/etc/x', '/root/x'):\n try: open(path, 'w'); print(path)\n"
        " except OSError as error: print(error.strerror)\n"
        "print(bool(os.statvfs('/usr').f_flag & os.ST_NOSUID))"
    )
    async with Bundle.temporary(rootfs=rootfs.Host(), spec=python(script)) as bundle:
        response = await client.run(container_id(), bundle)
    assert response.output.splitlines() == ["Read-only file system", "/etc/x", "/root/x", "True"]


async def test_mounts_of_the_caller_come_after(client: Runc, container_id: Callable[[], str], scratch: Path) -> None:
    """A directory of the caller's can be mounted inside of what is borrowed, and an init goes with it."""
    if shutil.which("tini-static") is None:
        pytest.skip("needs tini-static")
    spec = python("import os; print(os.listdir('/usr/share'), os.getpid() > 1)").bind(str(scratch), "/usr/share")
    async with Bundle.temporary(rootfs=rootfs.Host(), spec=spec, init=True) as bundle:
        output = (await client.run(container_id(), bundle)).output
    assert bundle.path.name in output
    assert output.endswith("True\n")


def test_only_what_all_may_read_is_copied(tmp_path: Path) -> None:
    """Files that others may not read are left out, also in directories; links are copied and never followed."""
    etc, target = tmp_path / "etc", tmp_path / "root"
    target.mkdir()
    for name, mode in {"alternatives/open": 0o644, "alternatives/closed": 0o640, "shadow": 0o644}.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(name)
        (etc / name).chmod(mode)
    (etc / "localtime").symlink_to(etc / "alternatives" / "closed")
    (etc / "ssl").mkdir()
    (etc / "ssl" / "certs").mkdir(mode=0o700)
    (etc / "ssl" / "certs" / "key").write_text("key")
    spec = Spec.default()
    host.fill_from_host(str(target), spec, str(etc))
    assert sorted(os.listdir(target / "etc" / "alternatives")) == ["open"]
    assert os.readlink(target / "etc" / "localtime") == str(etc / "alternatives" / "closed")
    assert not (target / "etc" / "shadow").exists()
    assert not (target / "etc" / "ssl" / "certs").exists()
    assert stat.S_IMODE((target / "tmp").stat().st_mode) == 0o1777
    assert spec.mounts
    assert (spec.mounts[0].destination, "ro" in (spec.mounts[0].options or ())) == ("/usr", True)


def test_directories_are_mounted_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host whose /bin is a directory of its own, that is mounted too."""

    def never(_: str) -> bool:
        return False

    monkeypatch.setattr(os.path, "islink", never)
    spec = Spec.default()
    host.fill_from_host(str(tmp_path), spec)
    borrowed = [mount.destination for mount in spec.mounts or () if mount.source and mount.source.startswith("/")]
    assert borrowed[:2] == ["/usr", "/bin"]
    assert (tmp_path / "bin").is_dir()


def test_a_host_without_usr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the programs are elsewhere, that is an error."""
    monkeypatch.setattr(host, "BORROWED", str(tmp_path / "none"))
    with pytest.raises(RootfsError, match="no programs"):
        host.fill_from_host(str(tmp_path), Spec.default())
