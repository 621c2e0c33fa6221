#!/usr/bin/env python3
"""Make docs/sandbox-service.png: the page of examples/sandbox_service while a script runs. As root.

It needs what the tests need: see tools/setup-host.sh, and the group `test` in pyproject.toml.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

TOP = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(TOP / "tests" / "support"))

import browser as browsers  # noqa: E402 - they stand in that directory
import sandbox_server  # noqa: E402 - as above


def take(browser: webdriver.Chrome, address: str, *, example: str, seconds: float) -> Image.Image:
    """Run one of the page's examples, and look at the page when it has run for some seconds."""
    browser.get(address)
    WebDriverWait(browser, 20).until(lambda b: b.find_element(By.ID, "limits").text)
    browser.find_element(By.CSS_SELECTOR, f"[data-example={example}]").click()
    browser.find_element(By.ID, "run").click()
    time.sleep(seconds)
    browsers.resize(browser, browsers.run_script(browser, "return document.body.scrollHeight"))
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=TOP / "docs" / "sandbox-service.png", help="the file")
    parser.add_argument("--example", default="tour", help="tour, memory, bomb or flood")
    parser.add_argument("--seconds", type=float, default=7.0, help="how long it has run then")
    parser.add_argument("--dark", action="store_true", help="as on a dark screen")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="screenshot-") as root,
        sandbox_server.serve(Path(root), "--name", Path(root).name) as server,
        browsers.browse(dark=given.dark) as browser,
    ):
        image = take(browser, server.address, example=given.example, seconds=given.seconds)
    image.quantize(256).save(given.output, optimize=True)
    print(given.output, *image.size)


if __name__ == "__main__":
    main()
