"""Open every page of the built documentation in a headless Chromium: axe-core, and all links.

Each page is checked in light and dark colours, on a screen and on a phone. Requires chromium,
chromedriver and axe-core: `make docs-check`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from selenium import webdriver

IMPACTS = ("serious", "critical")
SCHEMES, WIDTHS = ("light", "dark"), (1280, 400)
AXE = """const done = arguments[0];
axe.run(document, {resultTypes: ["violations"]}).then(
    (found) => done(found.violations.flatMap((rule) => rule.nodes.map((node) => [
        rule.impact, rule.id, node.target.join(" "), node.failureSummary]))),
    (error) => done([["critical", "axe failed", "", String(error)]]));"""
LINKS = """return [...document.querySelectorAll("a[href], img[src], link[href], script[src]")]
    .map((element) => element.href || element.src)"""


class Quiet(SimpleHTTPRequestHandler):
    """A static server without a log."""

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder; yields its address."""
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A headless browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        driver.set_script_timeout(120)
        yield driver


def show(driver: webdriver.Chrome, scheme: str, width: int) -> None:
    """Choose the colours and the size of the page."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # nothing is measured half-faded
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def findings(driver: webdriver.Chrome, axe: str) -> Iterator[str]:
    """What axe-core finds on the current page, in all forms of it, once each."""
    seen = set()
    for scheme, width in product(SCHEMES, WIDTHS):
        show(driver, scheme, width)
        driver.execute_script(axe)
        results: list[list[Any]] = driver.execute_async_script(AXE)
        for impact, rule, target, summary in results:
            if impact in IMPACTS and (rule, target) not in seen:
                seen.add((rule, target))
                yield f"{scheme}, {width} px: {rule}: {target}: {summary}"


def broken(links: list[str], site: Path, address: str) -> Iterator[str]:
    """The links of a page to files or parts of pages that do not exist."""
    for link in sorted(set(links)):
        target, part = urldefrag(link)
        if not target.startswith(address):
            continue
        file = site / unquote(urlsplit(target).path).lstrip("/")
        file = file / "index.html" if file.is_dir() else file
        if not file.is_file():
            yield f"{link} does not exist"
        elif part and not re.search(rf'id="?{re.escape(unquote(part))}[\s">]', file.read_text()):
            yield f"{link}: the page has no such part"


def main() -> int:
    """Check all pages; the status is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="the folder that mkdocs wrote")
    parser.add_argument("axe", type=Path, help="axe.min.js of the npm package axe-core")
    options = parser.parse_args()
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            print(f"skipped: {program} is not installed")
            return 0
    pages = sorted(options.site.rglob("*.html"))
    axe, wrong = options.axe.read_text(), 0
    with served(options.site) as address, chromium() as driver:
        for done, page in enumerate(pages):
            name = page.relative_to(options.site).as_posix()
            if sys.stderr.isatty():
                print(f"\r{done}/{len(pages)} {name:60}", end="\r", file=sys.stderr, flush=True)
            driver.get(f"{address}/{name}")
            links = driver.execute_script(LINKS)
            for problem in [*broken(links, options.site, address), *findings(driver, axe)]:
                print(f"{name}: {problem}", flush=True)
                wrong += 1
    print(f"{len(pages)} pages, {wrong} problems")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
