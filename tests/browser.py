"""A headless Chromium for tests that look at a page as people do, and what they ask it.

Tests take the fixture `chromium` (one for the whole run, in `conftest.py`), or `browser()` for one
of their own.
"""

import base64
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

REQUIRED = "FORMWRIGHT_REQUIRE"  # names of what must not be skipped
PATIENCE = 60  # seconds that a page may take
BETWEEN = ("aborted by navigation", "Cannot find context")  # said between two pages
LOCAL = ("about", "blob", "chrome", "data")  # schemes that ask nobody
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--force-device-scale-factor=1"),
    "--hide-scrollbars",  # pictures of a page have the same width everywhere
)


class Browser:
    """A browser, and what its pages have said and asked since the last `open`."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url, scheme="light", wide=1200, high=900):
        """Shows a page to somebody who likes `light` or `dark`; it is loaded when this returns."""
        self.driver.set_window_size(wide, high)
        self.prefer(scheme)
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(str(url))
        return self

    def prefer(self, scheme, motion="reduce"):
        """Changes the colour scheme, also of a page that is open. Nothing moves by itself, or what
        one clicks at might."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def wait(self, script, *arguments):
        """Until the JavaScript expression is true, on this page or the next. Returns its value."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        def look(driver):
            try:
                return driver.execute_script(f"return {script}", *arguments)
            except WebDriverException as error:
                if any(said in str(error.msg) for said in BETWEEN):
                    return None
                raise

        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.02).until(look, script)

    def complaints(self):
        """What the console has shown since it was asked, a line each; a page that is well has
        none. Refusals by a content security policy are among them."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def asked(self):
        """The addresses that were asked for since this was called, data in the page left out."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                url = message["params"].get("url") or message["params"]["request"]["url"]
                if urlsplit(url).scheme not in LOCAL:
                    found.append(url)
        return found

    def barriers(self):
        """What axe finds that keeps people out, a line each; best without any. What is drawn inside
        a figure is left to the figure's own words: it is an image to those who cannot see it."""
        from axe_core_python.selenium import Axe

        options = {"resultTypes": ["violations"]}
        found = Axe().run(self.driver, {"exclude": [[".svg-container"]]}, options)
        return [
            f"{rule['id']} ({rule['impact']}): {node['html'][:200]}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def picture(self, path, whole=False):
        """A screenshot, as PNG: of what is seen, or of the `whole` page."""
        sizes = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        options = {"captureBeyondViewport": True, "clip": {**sizes, "scale": 1}} if whole else {}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", **options})
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))


@contextmanager
def browser(*flags):
    """A Chromium of one's own, with a profile in a temporary folder; `flags` are for its command
    line. Skips the test where there is none, or fails it where there must be one."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        said = "Chromium or its chromedriver is not installed"
        if "chromium" in os.environ.get(REQUIRED, ""):
            pytest.fail(said)
        pytest.skip(said)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="fw-web-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}", *flags):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, Service(chromedriver))
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            yield Browser(driver)
        finally:
            driver.quit()
