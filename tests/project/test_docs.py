"""The site: it can be built without a warning, holds every public name, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import browser as browsers
import pytest
from programs import load
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from sphinx.util.inventory import InventoryFile

PROJECT = Path(__file__).parents[2]


reference = load("reference")


def build(directory: Path) -> Path:
    """Build the site as `make docs` does, where a warning is an error; but for the menu of methods, to save time."""
    options = ["-W", "--keep-going", "-n", "-q", "-E", "-b", "html", "-D", "toc_object_entries=0"]
    command = [sys.executable, "-m", "sphinx", *options, "-d", str(directory / "doctrees"), "docs"]
    ended = subprocess.run(
        [*command, str(directory / "html")], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return directory / "html"


@pytest.mark.timeout(300)
def test_the_site(tmp_path: Path) -> None:
    """It can be built, and is whole. One test, because a build takes long: a minute on a busy machine."""
    site = build(tmp_path)
    check_reference(site)
    check_loads(site)
    check_search(site)
    check_pages(site)


def check_reference(site: Path) -> None:
    """Each name that `make docs` lists has an entry of its own, and so has each method and property."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    entries = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    missing = [name for name in public_names() if name not in entries]
    assert missing == []


def public_names() -> Iterator[str]:
    """Yield all public names; those of a class's members as its own."""
    for place in reference.MODULES:
        module = importlib.import_module(place)
        for name in reference.public(module):
            yield f"{place}.{name}"
            value = getattr(module, name)
            if isinstance(value, type):
                yield from (f"{place}.{name}.{member}" for member in own_members(value))


def own_members(owner: type) -> list[str]:
    """Return a class's members, but for those that it shares with its documented parents."""
    inherited = {name for parent in owner.__mro__[1:] if public_parent(parent) for name in reference.members(parent)}
    return [name for name in reference.members(owner) if name not in inherited]


def public_parent(parent: type) -> bool:
    """Whether a parent has an entry of its own."""
    return parent.__name__ in {
        "Response",
        "Runc",
        "SpecObject",
        "RuncError",
        "UnsupportedError",
        "CommandError",
        "RootfsError",
    }


class Loads(HTMLParser):
    """Collects what a browser loads for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is loaded for a tag; a link that somebody has to follow isn't."""
        given = dict(attrs)
        loaded = given.get("href") if tag == "link" else given.get("src")
        if loaded:
            self.urls.append(loaded)


def check_loads(site: Path) -> None:
    """Nothing is loaded from elsewhere: scripts, styles, fonts and pictures come with the site."""
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text())
        assert loads.urls
        assert [url for url in loads.urls if re.match(r"(\w+:)?//", url)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", style.read_text()), style


def check_search(site: Path) -> None:
    """A browser without a server or a network finds the method that a reader looks for, where there is a browser."""
    assert "open_container" in (site / "searchindex.js").read_text()
    if browsers.missing() is not None:
        return
    with browsers.browse() as browser:
        browser.get(f"{(site / 'search.html').as_uri()}?q=open_container")
        found = WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results li a"))
        assert "Runc.open_container" in found[0].text


def check_pages(site: Path) -> None:
    """Every page in docs/ has become one of the site."""
    sources = {path.relative_to(PROJECT / "docs").with_suffix(".html") for path in (PROJECT / "docs").rglob("*.md")}
    assert {path for path in sources if not (site / path).exists()} == set()
