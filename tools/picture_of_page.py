"""Take the picture of the server's page for the documentation, in a headless Chromium.

PYTHONPATH=tests .venv/bin/python tools/picture_of_page.py docs/page.webp
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

import live
from PIL import Image
from selenium.webdriver.common.by import By
from web import static


def main() -> None:
    """Show an example, with outlines and the probe on a car."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    with (
        tempfile.TemporaryDirectory() as downloads,
        live.server() as address,
        static.chromium(Path(downloads)) as browser,
    ):
        page = static.Page(browser)
        page.theme("light")
        page.size(1280)
        browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        browser.get(f"{address}/")
        page.until(lambda: browser.find_elements(By.CLASS_NAME, "example"))
        for _ in range(2):  # the first time takes longer
            browser.find_element(By.CLASS_NAME, "example").click()
            page.until(lambda: "480 × 360" in page.text("status"))
            page.find("again").click()
        browser.find_element(By.CLASS_NAME, "example").click()
        page.until(lambda: "480 × 360" in page.text("status"))
        page.find("outlines").click()
        browser.execute_script("window.scrollTo(0, 0)")
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
    # Without the time of this machine, in the line below.
    picture.convert("RGB").crop((0, 0, 1280, 812)).save(file, quality=80, method=6)


if __name__ == "__main__":
    main()
