"""A static web server, and a headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

AXE = Path(__file__).parents[2] / ".npm/node_modules/axe-core/axe.min.js"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, headers: Mapping[str, str], **settings: Any) -> None:
        self._more = headers
        super().__init__(*args, **settings)

    def end_headers(self) -> None:
        for name, value in self._more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def server(folder: Path, headers: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Serve a folder, with further headers; yields its address."""
    handler = partial(_Handler, directory=str(folder), headers=headers)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()


@contextmanager
def chromium(downloads: Path, *arguments: str) -> Iterator[Any]:
    """A browser with a profile of its own and a fake camera."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        *arguments,
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(300)
    try:
        yield driver
    finally:
        driver.quit()


def run(browser: Any, script: str, *arguments: object) -> Any:
    """Run a script that may wait; its value must be JSON."""
    wrapped = f"""const done = arguments[arguments.length - 1];
        (async (...args) => {{ {script} }})(...arguments)
            .then(done, (e) => done({{error: String(e?.stack ?? e)}}));"""
    result = browser.execute_async_script(wrapped, *arguments)
    assert not (isinstance(result, dict) and "error" in result), result["error"]
    return result


class Page:
    """What tests of a page need of the browser."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def find(self, name: str) -> Any:
        return self.browser.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return str(self.find(name).get_attribute("textContent"))

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        WebDriverWait(self.browser, seconds, 0.1).until(lambda _: condition())

    def size(self, width: int, mobile: bool = False) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def theme(self, name: str) -> None:
        """Set the colours that the system prefers: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def barriers(self) -> list[str]:
        """What axe-core finds serious or critical on the page as it is."""
        self.browser.execute_script(AXE.read_text())
        script = """const { violations } = await axe.run(document, {resultTypes: ["violations"]});
            return violations.filter((v) => ["serious", "critical"].includes(v.impact))
                .map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 160)).join("; ")}`);"""
        return [str(one) for one in run(self.browser, script)]
