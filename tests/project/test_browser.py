"""The browser that the tests use cleans up after itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import browser as browsers
import leaks
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(browsers.missing() is not None, reason=str(browsers.missing()))
def test_all_files_of_a_browser_are_in_one_directory(scratch: Path) -> None:
    """A file that Chromium forgets as it ends is removed with that directory, when nobody is left to write there."""
    before = set(scratch.iterdir())
    with browsers.browse() as browser:
        browser.get("data:text/html,<p>seen")
        (directory,) = set(scratch.iterdir()) - before
        assert list(leaks.processes(str(directory)))
    assert list(leaks.processes(str(directory))) == []
    assert set(scratch.iterdir()) == before
