"""The site: it can be built without a warning, holds every public name, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser as browsers
import proof
import pytest
from programs import load
from selenium import webdriver
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


@pytest.mark.proof
@pytest.mark.timeout(300)
def test_the_site(tmp_path: Path) -> None:
    """It can be built, and is whole. One test, because a build takes long: a minute on a busy machine."""
    site = build(tmp_path)
    check_reference(site)
    check_signatures(site)
    check_loads(site)
    check_pages(site)
    check_anchors(site)
    if browsers.missing() is None:
        with browsers.browse() as browser:
            check_search(site, browser)
            check_shown(site, browser)


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


SOUGHT = {
    "open_container": "Runc.open_container",
    "upload": "Upload and download files",
    "download": "Upload and download files",
    "artifact": "files",
    "peak memory": "peak memory",
    "health": "Pool",
    "zombie": "zombies",
    "signal": "signals",
    "docker": "tools",
    "timeout": "Timeout",
}
"""Words that readers look for, and a part of a title that has to be among the results."""


def check_search(site: Path, browser: webdriver.Chrome) -> None:
    """A browser without a server or a network finds the pages and methods that a reader looks for."""
    missing: list[str] = []
    for words, title in proof.chosen(list(SOUGHT.items()), 3):
        browser.get(f"{(site / 'search.html').as_uri()}?q={words.replace(' ', '+')}")
        WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results p.search-summary"))
        WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results li a"))
        found = [link.text for link in browser.find_elements(By.CSS_SELECTOR, "#search-results li a")]
        missing += [] if any(title.lower() in link.lower() for link in found) else [f"{words}: {found[:20]}"]
    assert missing == []


SHOWN = """
const wide = [...document.querySelectorAll("article *")].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width && box.right > window.innerWidth + 1 && !each.closest("pre, .table-wrapper, .sig, svg");
});
const blocks = document.querySelectorAll("div.highlight");
return {
  wider: document.documentElement.scrollWidth - window.innerWidth,
  wide: wide.slice(0, 3).map(each => each.outerHTML.slice(0, 120)),
  uncopyable: [...blocks].filter(each => !each.querySelector("button.copy")).length,
};
"""


def still(browser: webdriver.Chrome) -> dict[str, Any]:
    """Look at a page, up to five seconds for its scripts and fonts, until there is no fault."""
    found: dict[str, Any] = browsers.run_script(browser, SHOWN)
    for _ in range(50):
        if not (found["wider"] > 0 or found["wide"] or found["uncopyable"]):
            break
        time.sleep(0.1)
        found = browsers.run_script(browser, SHOWN)
    return found


def check_shown(site: Path, browser: webdriver.Chrome) -> None:
    """No page is wider than a phone or a laptop, and each block of code has a button that copies it."""
    faults: list[tuple[object, ...]] = []
    pages = sorted(page for page in site.rglob("*.html") if "_" not in page.name)
    for width in (390, 1280):
        browsers.resize(browser, 830, width)
        for page in proof.chosen(pages, 6):
            browser.get(page.as_uri())
            found = still(browser)
            if found["wider"] > 0 or found["wide"] or found["uncopyable"]:
                faults.append((width, page.relative_to(site), found))
    assert faults == []


def check_signatures(site: Path) -> None:
    """The reference shows numbers for constants, options one by one, and what `async with` gives."""
    pages = "".join(re.sub(r"<[^>]+>", "", page.read_text()) for page in (site / "reference").glob("*.html"))
    assert re.findall(r"Unpack\[\w+|= (?:GRACE|DRAIN_TIMEOUT|DEFAULT_CONCURRENCY|AT_ONCE|LINE_LIMIT)\b", pages) == []
    assert "AsyncGenerator[Container" not in pages
    assert "AbstractAsyncContextManager[Container]" in pages


class Anchors(HTMLParser):
    """Collects the places of a page, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the id of a tag, and the target of a link."""
        given = dict(attrs)
        self.places.add(given.get("id") or "")
        if tag == "a" and (link := given.get("href")) and not re.match(r"\w+:", link):
            self.links.append(link)


def check_anchors(site: Path) -> None:
    """Each link inside the site leads to a page that is there, and to a place that is on it."""
    found: dict[Path, Anchors] = {}
    for page in site.rglob("*.html"):
        found[page] = Anchors()
        found[page].feed(page.read_text())
    broken: list[tuple[str, str]] = []
    for page, anchors in found.items():
        for link in anchors.links:
            path, _, place = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not (target.exists() and (not place or target not in found or place in found[target].places)):
                broken.append((page.name, link))
    assert broken == []


def check_pages(site: Path) -> None:
    """Every page in docs/ has become one of the site."""
    sources = {path.relative_to(PROJECT / "docs").with_suffix(".html") for path in (PROJECT / "docs").rglob("*.md")}
    assert {path for path in sources if not (site / path).exists()} == set()
    for source in (PROJECT / "docs").rglob("*.md"):
        assert (site / source.relative_to(PROJECT / "docs")).exists(), "the same page as Markdown"
    listed = set(re.findall(r"\]\(([\w/-]+\.md)\)", (site / "llms.txt").read_text()))
    unlisted = {"index.html", "changelog.html"}
    assert listed == {str(path.with_suffix(".md")) for path in sources if path.name not in unlisted}
