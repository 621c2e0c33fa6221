"""A real browser without a screen: Debian's Chromium, driven by selenium."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import leaks
from selenium import webdriver

if TYPE_CHECKING:
    from collections.abc import Generator

WIDTH, HEIGHT = 1200, 830

PATIENCE = 20.0
"""Seconds for a browser's processes to end."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str | None:
    """Say what is missing on this host."""
    absent = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"needs {' and '.join(absent)} in $PATH" if absent else None


@contextmanager
def private_directory() -> Generator[str]:
    """Make a directory for a browser's files, and remove it when the last process that has it as $TMPDIR is gone.

    Chromium's processes end some time after it has said goodbye, and write and remove files until then.
    """
    with tempfile.TemporaryDirectory(prefix="browser-") as directory:
        yield directory
        if left := leaks.persisting(lambda: list(leaks.processes(directory)), PATIENCE):
            raise TimeoutError(f"a browser doesn't end: {left}")


@contextmanager
def browse(*, dark: bool = False) -> Generator[webdriver.Chrome]:
    """Run a browser that knows nothing of any other."""
    with private_directory() as directory:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={directory}/profile"):
            options.add_argument(flag)
        service = webdriver.ChromeService(shutil.which("chromedriver"), env=os.environ | {"TMPDIR": directory})
        with webdriver.Chrome(options, service) as browser:
            resize(browser, HEIGHT)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            _command(browser, "Emulation.setEmulatedMedia", features=[scheme])
            yield browser


def resize(browser: webdriver.Chrome, height: int, width: int = WIDTH) -> None:
    """Set the size of the page's window."""
    _command(
        browser, "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
    )


def run_script(browser: Any, script: str) -> Any:
    """Run JavaScript in the page, and return what it returns."""
    return browser.execute_script(script)


def complaints(browser: Any) -> list[str]:
    """Return the errors in the browser's log."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def _command(browser: Any, name: str, **arguments: Any) -> None:
    """Send a command of Chrome's DevTools protocol."""
    browser.execute_cdp_cmd(name, arguments)
