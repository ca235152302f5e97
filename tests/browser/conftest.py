"""Tests in a real headless browser. They need selenium and a browser with its driver; without, they are not collected.

What can be tested without a browser (the page's data, the server) is tested in tests/viz.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.viz.conftest import one_thread

__all__ = ["one_thread"]  # a fixture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
SELENIUM = importlib.util.find_spec("selenium") is not None
GECKODRIVER = shutil.which("geckodriver")
USABLE = [n for n, ok in {"chromium": CHROMIUM and CHROMEDRIVER, "firefox": FIREFOX and GECKODRIVER}.items() if ok]
if not SELENIUM or not USABLE:
    collect_ignore_glob = ["test_*.py"]

FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1400,800",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def pytest_report_header() -> str | None:
    if not SELENIUM:
        return "not collected: tests/browser (selenium is not installed)"
    missing = [name for name in ("chromium", "firefox") if name not in USABLE]
    if not USABLE:
        return "not collected: tests/browser (no chromium with chromedriver, no firefox with geckodriver)"
    return f"tests/browser run in {', '.join(USABLE)}" + (f"; not in {missing[0]}: not installed" if missing else "")


def _chromium(profile: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))


def _firefox(profile: str) -> Any:
    from selenium import webdriver

    options = webdriver.FirefoxOptions()
    options.binary_location = FIREFOX or ""
    for flag in ("-headless", "--width=1400", "--height=800", "-profile", profile):
        options.add_argument(flag)
    return webdriver.Firefox(options=options, service=webdriver.FirefoxService(GECKODRIVER))


@pytest.fixture(scope="session", params=USABLE or ["none"])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    profile = str(tmp_path_factory.mktemp("profile"))
    driver = _chromium(profile) if request.param == "chromium" else _firefox(profile)
    yield driver
    driver.quit()


@pytest.fixture
def severe(browser: Any) -> Callable[[], list[str]]:
    """Return what the browser has complained about since the test began; Firefox's driver does not tell."""
    if not browser.capabilities["browserName"].startswith("chrom"):
        return list
    browser.get_log("browser")  # empties it
    return lambda: [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], Any]:
    """Wait until a function returns something true, at most 2 minutes, and return it."""

    def wait(ask: Callable[[], Any]) -> Any:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if value := ask():
                return value
            time.sleep(0.05)
        raise AssertionError("nothing happened in 2 minutes")

    return wait
