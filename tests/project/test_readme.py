"""The code of the README, of the docs and of docstrings runs, and prints what is written below it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import anyio
import containers
import feature_table
import once
import pages
import pytest
from anyio.streams.text import TextReceiveStream
from pages import PAGES, PROJECT, Block
from programs import load

import runc_async
from runc_async import errors

PAGES_WITH_BLOCKS = [page for page in PAGES if pages.blocks(page)]

# Their blocks of the kind "py" have needs of their own: images and a shell, criu, a user who isn't root.
RUN_ELSEWHERE = {
    "clean-up.md",
    "many-machines.md",
    "network.md",
    "image-to-bundle.md",
    "checkpoint.md",
    "conmon.md",
    "rootless.md",
    "logging.md",
}

# Likewise their commands for a shell.
COMMANDS_RUN_ELSEWHERE = {"network.md", "image-to-bundle.md", "runtimes.md"}

DOCSTRINGS = list(pages.docstring_blocks())

LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")

NOBODY = 65534


def page_id(page: Path) -> str:
    """Show a page as in the ids of the tests."""
    return str(page.relative_to(PROJECT))


@contextlib.contextmanager
def passable(directory: Path) -> Generator[None]:
    """Let other users, such as those that a page maps, on their way through a directory for the time of the block."""
    mode = directory.stat().st_mode
    directory.chmod(0o711)
    try:
        yield
    finally:
        directory.chmod(mode)


@pytest.fixture
def own_root(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give clients without a root directory a private one, so that the ids on the pages are free."""
    original = runc_async.Runc.__init__
    with passable(scratch), containers.private_root(scratch) as root:

        def init(client: runc_async.Runc, *args: Any, **options: Any) -> None:
            original(client, *args, **{"root": root, **options})

        monkeypatch.setattr(runc_async.Runc, "__init__", init)
        yield root


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give blocks a working directory, with the programs in it that a page tells to save."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name, code in pages.saved().items():
        (tmp_path / f"{name}.py").write_text(code)
    yield
    for name in pages.saved():
        sys.modules.pop(name, None)


def printed_by(block: Block, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a block, and return what it prints."""
    pages.run(block)
    return capsys.readouterr().out.strip()


@pytest.mark.runc
@pytest.mark.usefixtures("own_root", "own_place")
@pytest.mark.parametrize("page", PAGES_WITH_BLOCKS, ids=page_id)
def test_the_blocks_of_a_page_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks run as they stand, one after the other, and print the text below them where there is one."""
    for block in pages.blocks(page):
        printed = printed_by(block, capsys)
        if block.output is not None:
            assert printed == block.output.strip(), block


@pytest.mark.runc
@pytest.mark.usefixtures("own_root", "own_place")
@pytest.mark.parametrize("block", DOCSTRINGS, ids=str)
def test_an_example_in_a_docstring_runs(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """An example runs with the public names at hand, and prints what stands behind its `print` calls."""
    assert printed_by(block, capsys) == (block.output or "")


@pytest.mark.parametrize("name", ["Runc", "Runc.open_container", "EventStream", "Bundle", "testing.FakeRunner"])
def test_what_is_used_first_has_an_example(name: str) -> None:
    """The docstrings that a beginner reads first have one."""
    value: Any = runc_async
    for word in name.split("."):
        value = getattr(value, word)
    assert pages.LITERAL.search(value.__doc__ + "\n")


@pytest.mark.runc
def test_the_page_on_logging_is_true(scratch: Path) -> None:
    """Its program logs the lines below it, but for the numbers and the names that are new each time."""
    (block,) = pages.blocks(PROJECT / "docs" / "howto" / "logging.md", "py")
    with containers.private_root(scratch) as root:
        code = block.code.replace("Runc()", f"Runc(root={str(root)!r})")
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert without_numbers(ended.stderr.replace(f"--root {root} ", "")) == without_numbers(block.output or "")


def without_numbers(text: str) -> str:
    """Put one word in the place of what differs from run to run: numbers, and a temporary directory."""
    return re.sub(r"[\d.]+|/tmp/\S+", "N", text)


@pytest.mark.runc
def test_the_page_on_rootless_containers_is_true(scratch: Path, tmp_path: Path) -> None:
    """Its program runs as a user who isn't root, and makes a container.

    The one capability that it gets is for reading files: a Python in somebody's home directory couldn't start without.
    """
    (block,) = pages.blocks(PROJECT / "docs" / "howto" / "rootless.md", "py")
    program = tmp_path / "program.py"
    program.write_text(block.code)
    with passable(scratch), containers.private_root(scratch) as place:
        os.chown(place, NOBODY, NOBODY)
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        ended = subprocess.run(
            ["setpriv", *user, *reading, sys.executable, str(program)],  # noqa: S607 - of util-linux
            env={**os.environ, "XDG_RUNTIME_DIR": str(place), "TMPDIR": str(place), "HOME": str(place)},
            capture_output=True,
            text=True,
            check=False,
        )
        left = sorted(path.name for path in place.iterdir())
    assert ended.stdout == block.output, ended.stderr
    assert left == ["runc"]


@pytest.mark.runc
def test_the_page_on_networks_is_true(scratch: Path) -> None:
    """Its program gives a container a network by slirp4netns, and prints the address inside."""
    if shutil.which("slirp4netns") is None or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs slirp4netns and /dev/net/tun")
    (block,) = pages.blocks(PROJECT / "docs" / "howto" / "network.md", "py")
    with containers.private_root(scratch) as root:
        code = block.code.replace("Runc()", f"Runc(root={str(root)!r})")
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == block.output


@pytest.mark.runc
def test_the_page_on_cleaning_up_is_true(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its service is killed, and what it leaves is swept: both below one root directory."""
    (block,) = pages.blocks(PROJECT / "docs" / "howto" / "clean-up.md", "py")
    with containers.private_root(scratch) as root:
        there = block._replace(code=block.code.replace("Runc()", f"Runc(root='{root}')"))
        assert printed_by(there, capsys) == (block.output or "").strip()


@pytest.mark.runc
@pytest.mark.timeout(180)
def test_the_page_on_many_machines_is_true(scratch: Path, tmp_path: Path) -> None:
    """Its program runs containers on a cluster of two workers."""
    (block,) = pages.blocks(PROJECT / "docs" / "howto" / "many-machines.md", "py")
    program = tmp_path / "program.py"
    program.write_text(block.code)
    with containers.private_root(scratch) as root:
        env = os.environ | {"DASK_RUNC_ASYNC__ROOT": str(root), "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
        ended = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, env=env)
    assert ended.stdout == block.output, ended.stderr


def test_no_block_is_forgotten() -> None:
    """Every block is run, here or by a test of its page's own, or is what one prints: there is no other kind."""
    elsewhere = {page.name for page in PAGES if pages.blocks(page, "py")}
    assert elsewhere == RUN_ELSEWHERE
    for page in PAGES:
        kinds = pages.kinds(page)
        directives = {"{eval-rst}", "{include}", "{literalinclude}", "{toctree}"}
        assert set(kinds) <= {"python", "py", "sh", "text", *directives}, page
        for kind in ("python", "py"):
            assert kinds.count(kind) == len(pages.blocks(page, kind)), page
        assert kinds.count("sh") == len(pages.SHELL.findall(page.read_text())), page


def test_commands_are_there() -> None:
    """A target of make that a page names is one of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.read_text(), re.MULTILINE)) <= targets, page


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what `pip install PATH_OF_THE_CHECKOUT` would build."""
    (built,) = once.distributions(tmp_path_factory).glob("*.whl")
    return built


INSTALL = ["python3 -m venv .venv", ". .venv/bin/activate", "pip install PATH_OF_THE_CHECKOUT"]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install this package by the commands of the pages, and return the directory of its environment."""

    def install(place: Path) -> None:
        for command in INSTALL:
            run_command(command.replace("PATH_OF_THE_CHECKOUT", str(wheel)), place, place)

    return once.directory(tmp_path_factory, "installed", install)


@pytest.mark.runc
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if pages.commands(page) and page.name not in COMMANDS_RUN_ELSEWHERE],
    ids=page_id,
)
def test_the_commands_of_a_page_run(page: Path, wheel: Path, installed: Path, tmp_path: Path) -> None:
    """They work as they stand, one after the other, where this package is installed.

    The pages that install it do so by the same commands, which are run once for all of them. The targets of make have a
    test of their own, and so has the web service.
    """
    commands = [
        command for command in pages.commands(page) if not command.startswith(("make ", "cd examples", "curl "))
    ]
    if INSTALL[0] in commands:
        first = commands.index(INSTALL[0])
        assert commands[first : first + len(INSTALL)] == INSTALL
        del commands[first : first + len(INSTALL)]
    for command in commands:
        match command.split():
            case ["apt-get", "update"]:
                assert "apt-get" in setup_scripts()
            case ["apt-get", "install", *packages]:
                assert set(packages) <= set(re.findall(r"[\w-]+", setup_scripts())), "what the tools install here"
            case _:
                run_command(command.replace("PATH_OF_THE_CHECKOUT", str(wheel)), tmp_path, installed)


def setup_scripts() -> str:
    """Return what `make demo` and `make test` do before the rest."""
    return "".join(script.read_text() for script in (PROJECT / "tools").glob("setup-*.sh"))


def run_command(command: str, place: Path, environment_at: Path) -> None:
    """Run a command in a directory, with the virtual environment of a directory; all that pip needs is there."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([f"{environment_at}/.venv/bin", os.path.dirname(sys.executable), os.environ["PATH"]]),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        # The dependencies come from here: a path for modules, where the link to this checkout doesn't count.
        "PYTHONPATH": "" if "pip" in command else sysconfig.get_path("purelib"),
    }
    said = subprocess.run(command, shell=True, cwd=place, env=environment, capture_output=True, text=True, check=False)  # noqa: S602 - that is what a page shows
    assert said.returncode == 0, (command, said.stdout, said.stderr)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="until 3.13 it reads what is pasted line by line")
@pytest.mark.parametrize("number", range(4))
def test_the_interactive_asyncio_takes_a_block_as_it_is(number: int) -> None:
    """A block with an `await` outside of functions can be pasted into `python -m asyncio`."""
    block = pages.blocks(PROJECT / "docs" / "howto" / "fake-runner.md")[number]
    assert block.output
    expected = "".join(f"{line}\r\n" for line in block.output.splitlines()).encode()
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "asyncio"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        try:
            read_until(ours, b"\x1b[?2004h")  # it takes whole blocks
            os.write(ours, b"\x1b[200~" + block.code.encode() + b"\x1b[201~\r")  # as a terminal pastes
            read_until(ours, expected)
        finally:
            process.kill()
            os.close(ours)


def read_until(terminal: int, expected: bytes) -> None:
    """Read from a terminal until something comes; the test's limit of time holds."""
    said = b""
    while expected not in said:
        said += os.read(terminal, 1 << 16)


@pytest.mark.runc
async def test_a_namespace_with_cgroup_v2_alone(scratch: Path) -> None:
    """The command on docs/topics/runtimes.md runs a container where cgroup v2 is all there is."""
    (command,) = pages.commands(PROJECT / "docs" / "topics" / "runtimes.md")
    name = f"v2-{os.getpid()}"
    with containers.private_root(scratch) as root:
        async with runc_async.Bundle.busybox(["sh", "-c", "echo hello; exit 3"]) as bundle:
            for word, ours in {"/run/v2": root, "/b": bundle.path, "web": name}.items():
                command = re.sub(rf"(?<= ){word}(?= |$)", str(ours), command)
            ended = await anyio.run_process(["sh", "-c", command], check=False)
    assert (ended.returncode, ended.stdout) == (3, b"hello\n"), ended.stderr


def test_links_lead_somewhere() -> None:
    """A link to a file of the project leads to one that is there."""
    links = [(page, link) for page in PAGES for link in LINK.findall(page.read_text())]
    assert [(page, link) for page, link in links if not (page.parent / link).exists()] == []


def test_the_page_on_errors_has_all_of_them() -> None:
    """The tree is that of the module, and each class stands in a table, with when it comes."""
    page = (PROJECT / "docs" / "topics" / "errors.md").read_text()
    tree = re.search(r"(?:^    .*\n)+", errors.__doc__ or "", re.MULTILINE)
    assert tree
    assert f"```text\n{textwrap.dedent(tree[0])}```\n" in page
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    explained = set(re.findall(r"^\| .*", page, re.MULTILINE))
    unexplained = {name for name in classes if not any(f"`{name}`" in row.partition(" | ")[0] for row in explained)}
    assert unexplained == {"RuncError", "CommandError", "CleanupWarning"}  # those have a sentence


def test_names_are_there() -> None:
    """What a page or a docstring calls by a class of ours and a member is there, such as `Runc.open_exec`."""
    for page in (*PAGES, *sorted((PROJECT / "runc_async").rglob("*.py"))):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        named = re.findall(r"`([A-Z]\w+)\.(\w+)[^`]*`", prose)
        ours = [(getattr(runc_async, owner), name) for owner, name in named if hasattr(runc_async, owner)]
        assert [f"{owner.__name__}.{name}" for owner, name in ours if not has(owner, name)] == [], page


def has(owner: type, name: str) -> bool:
    """Whether a class has a method or a field of that name, or says so in its docstring."""
    return hasattr(owner, name) or re.search(rf"^ +{name}: ", owner.__doc__ or "", re.MULTILINE) is not None


def test_the_readme_has_blocks() -> None:
    """The pattern finds them, and what is below them."""
    found = pages.blocks(PROJECT / "README.md")
    assert len(found) >= 4
    assert all(block.output for block in found)


EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(example: Path) -> None:
    """An example holds one idea, in forty lines at most."""
    assert len(example.read_text().splitlines()) <= 40


@pytest.mark.runc
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, scratch: Path) -> None:
    """An example ends with status 0 and prints something; also if nobody types anything."""
    with containers.private_root(scratch) as root:
        command = [sys.executable, str(example), str(root)]
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=50
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


@pytest.mark.runc
@pytest.mark.parametrize(
    ("example", "said"),
    [("events.py", "watched-"), ("oom_watch.py", "watching 1 containers")],
)
async def test_an_example_that_watches_sees_a_container(example: str, said: str, scratch: Path) -> None:
    """It tells of a container that is there, and ends with it."""
    name = f"watched-{os.getpid()}"
    command = [sys.executable, str(PROJECT / "examples" / example)]
    environment = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm"}  # rich shows what is live to terminals only
    with containers.private_root(scratch) as root:
        async with (
            runc_async.Bundle.busybox(["sleep", "1000"]) as bundle,
            runc_async.Runc(root=root).open_container(name, bundle) as container,
            await anyio.open_process([*command, str(root)], stderr=None, env=environment) as process,
        ):
            assert process.stdout is not None
            stdout = TextReceiveStream(process.stdout)
            shown = ""
            async for text in stdout:
                shown += text
                if said in shown:
                    break
            await container.kill("KILL")
            async for _ in stdout:
                pass
            assert await process.wait() == 0
    assert said in shown


@pytest.mark.runc
def test_the_quickstart_tells_the_whole_story() -> None:
    """From the runtime's version to the deletion, in this order, and with the exit code that its program chose."""
    command = [sys.executable, str(PROJECT / "examples" / "quickstart.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    first = [line.split()[0] for line in said]
    assert first == [
        "runtime",
        "bundle",
        "it",
        "state",
        "exec",
        "processes",
        "stats",
        "it",
        "ended",
        "deleted",
    ]
    assert "it says   I was told to end" in said
    assert said[-1] == "deleted   containers left: 0"


def test_the_reference_is_up_to_date() -> None:
    """`make docs` has written the index, and it begins with the five names that matter most."""
    command = [sys.executable, str(PROJECT / "tools" / "reference.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == (PROJECT / "docs" / "reference" / "index.md").read_text(), "run make docs"
    names = re.findall(r"^- \[`(\w+)`\]", said, re.MULTILINE)
    assert names[:5] == ["Runc", "Container", "Bundle", "Spec", "EventStream"]
    assert len(names) == len(re.findall(r"^- ", said, re.MULTILINE))


def test_the_table_of_features_is_up_to_date() -> None:
    """What `make docs` writes into the README is there, and docs/topics/runtimes.md has the same versions."""
    readme, written = (PROJECT / "README.md").read_text(), load("feature_table")
    assert written.page(readme) == readme, "run make docs"
    page = feature_table.read()
    for features in written.ROWS.values():
        for feature in page.keys() & set(features):
            for runtime, cell in page[feature].items():
                assert cell.startswith(written.cell(runtime, features)), (feature, runtime)


def test_the_design_names_every_module() -> None:
    """Each module of the package stands in one room of the page on design, and no other does."""
    page = (PROJECT / "docs" / "topics" / "design.md").read_text()
    rows = [row.split("|")[1:3] for row in page.splitlines() if row.startswith("| ") and row.count("|") == 4][1:]
    named: set[str] = set()
    for room, modules in rows:
        folder = "".join(re.findall(r"`(\w+/)`", room))
        named |= {f"{folder}{module}.py" for module in re.findall(r"`(\w+)`", modules)}
    package = PROJECT / "runc_async"
    present = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.stem != "__init__"}
    assert named == {path for path in present if not path.startswith("spec/")}
