"""Containers of a user who isn't root: what each command gives without a cgroup, and with one that root has given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import containers
import pages
import pytest
import runtime as runtimes
from runtime import CGROUPS, Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.runc, pytest.mark.root, pytest.mark.needs("events")]

NOBODY = 65534
PROJECT = Path(__file__).parents[2]
CGROUP2 = PROJECT / "tools" / "cgroup2.sh"

# What all programs here begin with. They print one JSON document.
PROLOGUE = """\
import asyncio, json, os, sys
from runc_async import Bundle, NullIO, Runc, RuncError
from runc_async.spec import LinuxPids, LinuxResources

async def said(call):
    try:
        return [type(await call).__name__]
    except RuncError as error:
        return [cls.__name__ for cls in type(error).__mro__] + [str(error)]

async def first_event(runc, name):
    async with runc.events(name, interval=0.05) as stream:
        return await anext(stream)

async def answers(bundle):
    runc, name = Runc(sys.argv[1]), sys.argv[2]
    async with runc.open_container(name, bundle, io=NullIO()):
        calls = {
            "ps": runc.ps(name), "top": runc.top(name), "pause": runc.pause(name), "resume": runc.resume(name),
            "kill": runc.kill(name, 0, all=True), "stats": runc.stats(name), "events": first_event(runc, name),
            "update": runc.update(name, LinuxResources(pids=LinuxPids(limit=10))), "exec": runc.exec(name, ["true"]),
        }
        return {command: await said(call) for command, call in calls.items()}

async def main(cgroups_path=None):
    async with Bundle.busybox(["sleep", "60"]) as bundle:
        if cgroups_path:
            bundle.spec.linux.cgroups_path = cgroups_path
            await bundle.save()
        print(json.dumps(await answers(bundle)))

asyncio.run(main(*sys.argv[3:]))
"""


@pytest.fixture
def place(scratch: Path, runtime: Runtime) -> Iterator[Path]:
    """Return a directory of the user's, on a way that it may go."""
    mode = scratch.stat().st_mode
    scratch.chmod(0o711)
    with containers.private_root(scratch, runtime.command) as directory:
        os.chown(directory, NOBODY, NOBODY)
        yield directory
    scratch.chmod(mode)


def as_user(place: Path, *command: str, prefix: tuple[str, ...] = (), xdg: str | None = None) -> dict[str, Any]:
    """Run a program as a user who isn't root, and return the document that it prints.

    The one capability that it gets is for reading files: a Python in a home directory couldn't start without.
    """
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    ended = subprocess.run(
        [*prefix, *user, sys.executable, *command],
        env={**os.environ, "XDG_RUNTIME_DIR": xdg or str(place), "TMPDIR": str(place), "HOME": str(place)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=place,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("version", ["here", "v2"])
@pytest.mark.needs("rootless")
def test_without_a_cgroup_each_command_says_what_is_missing(
    version: str, runtime: Runtime, place: Path, prefix: str
) -> None:
    """What needs a cgroup is a ResourceError that names it; what needs none works."""
    before = () if version == "here" or runtimes.is_cgroup2() else (str(CGROUP2),)
    answers = as_user(place, "-c", PROLOGUE, runtime.command, f"{prefix}rootless", prefix=before)
    assert answers.pop("exec") == ["Response"]
    assert "ContainerNotPaused" in answers.pop("resume")
    killed = answers.pop("kill")  # from runc 1.2 on it signals the first process and none else
    assert killed == ["NoneType"] or "ResourceError" in killed
    for command in ("ps", "top", "pause", "stats", "events", "update"):
        assert "ResourceError" in answers[command], (command, answers[command])
        assert "cgroup" in answers[command][-1]
        assert "has no cgroup" in answers[command][-1] or "no cgroup of the container's own" in answers[command][-1]


WITH_A_CGROUP = """\
set -eu
for hierarchy in {hierarchies}; do
    mkdir "$hierarchy/$NAME"
    chown -R "$USER_ID" "$hierarchy/$NAME"
done
{enter}
set +e
"$@"
status=$?
{leave}
for hierarchy in {hierarchies}; do find "$hierarchy/$NAME" -depth -type d -exec rmdir {{}} \\; ; done
exit $status
"""


@pytest.mark.parametrize("version", ["here", "v2"])
@pytest.mark.needs("rootless")
def test_with_a_cgroup_that_was_given_each_command_works(
    version: str, runtime: Runtime, place: Path, prefix: str
) -> None:
    """A cgroup that root has made and given away, and `cgroups_path`, give a user all that the controllers do."""
    name = f"{prefix}given"
    v2 = version == "v2" or runtimes.is_cgroup2()
    if v2:  # a process can be moved within the part that was given away, so that the service has to be in there too
        inside = f"{CGROUPS}/{name}"
        enter = f"mkdir {inside}/service; chown -R $USER_ID {inside}/service; echo $$ > {inside}/service/cgroup.procs"
        leave, hierarchies = f"echo $$ > {CGROUPS}/cgroup.procs", str(CGROUPS)
    else:
        enter = (
            f"for file in cpus mems; do cat {CGROUPS}/cpuset/cpuset.$file > {CGROUPS}/cpuset/{name}/cpuset.$file; done"
        )
        leave = ":"
        hierarchies = " ".join(str(path) for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())
    script = WITH_A_CGROUP.format(hierarchies=hierarchies, enter=enter, leave=leave)
    shell = ("env", f"NAME={name}", f"USER_ID={NOBODY}", "sh", "-c", script, "sh")
    before = shell if version == "here" or runtimes.is_cgroup2() else (str(CGROUP2), *shell)
    answers = as_user(place, "-c", PROLOGUE, runtime.command, f"{name}-c", f"/{name}/{name}-c", prefix=before)
    expected = {"ps": ["list"], "top": ["Top"], "pause": ["NoneType"], "resume": ["NoneType"], "kill": ["NoneType"]}
    expected |= {"stats": ["Stats"], "exec": ["Response"]}
    if version == "here" and runtimes.has_controller("memory") and runtimes.has_controller("pids"):
        expected |= {"events": ["StatsEvent"], "update": ["NoneType"]}
    assert {command: answers[command] for command in expected} == expected
    for command in answers.keys() - expected.keys():  # the private mount has neither memory nor pids
        assert "ResourceError" in answers[command]
        assert "controller" in answers[command][-1]


XDG = """\
import asyncio, json, sys
from runc_async import Bundle, Runc, RuncError

async def main():
    found = {}
    async with Bundle.busybox(["true"]) as bundle:
        for command in ("run", "create"):
            try:
                found[command] = str(await getattr(Runc(sys.argv[1]), command)("x", bundle))
            except RuncError as error:
                found[command] = f"{type(error).__name__}: {error}"
        found["root"] = (await Runc(sys.argv[1], root=sys.argv[2]).run("x", bundle)).exit_code
    print(json.dumps(found))

asyncio.run(main())
"""


@pytest.mark.parametrize("directory", ["/run/user/0", "/nonexistent/directory", "/etc/passwd"])
@pytest.mark.needs("rootless")
def test_a_runtime_directory_of_another_user_is_named(directory: str, runtime: Runtime, place: Path) -> None:
    """What su(1) leaves in $XDG_RUNTIME_DIR is an error that names it, and never an exit code of a program."""
    found = as_user(place, "-c", XDG, runtime.command, str(place / "own"), xdg=directory)
    assert found.pop("root") == 0
    for said in found.values():
        assert said.startswith("PermissionDenied: ")
        assert "$XDG_RUNTIME_DIR" in said
        assert directory in said


@pytest.mark.needs("rootless")
def test_the_doctor_says_what_this_user_can_do(runtime: Runtime, place: Path) -> None:
    """A container was run as this user, or none can; controllers in which it may make no cgroup are named."""
    options = ("-m", "runc_async", "--json", "--runtime", runtime.command)
    good = as_user(place, *options)
    assert good["ready"]
    assert good["tried"]
    assert good["failure"] is None
    if runtimes.has_controller("memory"):
        assert "memory" in good["limits"]["unwritable"]


@pytest.mark.usefixtures("runtime")
def test_the_page_names_what_each_command_gives() -> None:
    """The table of the page has each command that is tried here."""
    page = (PROJECT / "docs" / "howto" / "rootless.md").read_text()
    for command in ("ps", "top", "pause", "kill(all=True)", "events", "stats", "update"):
        assert f"`{command}`" in page
    assert pages.blocks(PROJECT / "docs" / "howto" / "rootless.md", "py")
