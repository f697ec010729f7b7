"""report.html in a real Chromium: no complaint on the console, nothing from the network, readable on a phone."""

import json
import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import Report
from pipeline.reporting.files import write_all

try:
    from selenium import webdriver
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("selenium is in the test group", allow_module_level=True)

# The unit tests' example is the one a reader of both files knows.
_EXAMPLES = runpy.run_path(str(Path(__file__).parents[1] / "unit/reporting/example.py"))
_DESKTOP, _PHONE = (1280, 900), (390, 844)
_DRAWN = """
    const done = arguments[0], start = performance.now();
    (function poll() {
      const plots = [...document.querySelectorAll('figure:not([hidden]) > .plot')];
      if (plots.every((p) => p.dataset.drawn)) return done(plots.length);
      if (performance.now() - start > 20000) return done(-1);
      setTimeout(poll, 50);
    })();
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        reason = "chromium and chromedriver are not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # Without a sandbox because CI containers run as root; the page is our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module", params=["example", "two_devices"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    (folder / "pictures").mkdir()
    make: Callable[[Path], Report] = _EXAMPLES[request.param]
    write_all(make(folder / "pictures"), folder, folder)
    return (folder / "report.html").as_uri()


@pytest.fixture(params=[_DESKTOP, _PHONE], ids=["desktop", "phone"])
def opened(request: pytest.FixtureRequest, chromium: Any, page: str) -> Any:
    width, height = request.param
    _resize(chromium, width, height)
    chromium.get_log("browser"), chromium.get_log("performance")  # what an earlier page said
    chromium.get(page)
    assert chromium.execute_async_script(_DRAWN) == 2
    return chromium


def _resize(chromium: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def _assert_silent(chromium: Any) -> None:
    assert [entry for entry in chromium.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []


def test_the_console_stays_empty_and_the_network_idle(opened: Any) -> None:
    for button in opened.find_elements("css selector", ".switch button"):
        button.click()
        assert opened.execute_async_script(_DRAWN) == 2
    _assert_silent(opened)
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert urls[:1] == [opened.current_url]
    assert [url for url in urls[1:] if not url.startswith(("data:", "blob:"))] == []


def test_the_page_never_scrolls_sideways(opened: Any) -> None:
    script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    # Closed details may hide what is too wide.
    opened.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    content, window = opened.execute_script(script)
    assert content <= window


def test_the_chosen_row_is_visible_and_marked(opened: Any) -> None:
    row = opened.find_element("css selector", "tr.chosen > th")
    assert row.is_displayed()
    assert "litert-int8" in row.text
    assert "★ chosen" in row.text
    left, right = opened.execute_script(
        "const r = arguments[0].getBoundingClientRect(); return [r.left, r.right - innerWidth]", row
    )
    assert left >= 0
    assert right <= 0


def test_plots_show_every_measured_candidate(opened: Any) -> None:
    sizes = opened.execute_script(
        "return [...document.querySelectorAll('figure:not([hidden]) .main-svg')]"
        ".map((s) => [s.getBoundingClientRect().width, s.getBoundingClientRect().height])"
    )
    assert sizes
    assert all(width > 250 and height > 200 for width, height in sizes)
    assert len(opened.find_elements("css selector", "figure:not([hidden]) .scatterlayer .point")) == 8
    assert len(opened.find_elements("css selector", "figure:not([hidden]) .boxlayer .box")) == 8
    labels = {element.text for element in opened.find_elements("css selector", ".annotation-text")}
    assert "litert-int16x8" in labels


def test_pictures_are_decoded(opened: Any) -> None:
    assert opened.execute_async_script(
        "const done = arguments[0]; const all = [...document.querySelectorAll('details[open] img')];"
        "Promise.all(all.map((i) => i.decode())).then(() => done(all.every((i) => i.naturalWidth > 0) && all.length))"
        ".catch((e) => done(String(e)))"
    ) == (3 + 8 * 2)


def test_dark_and_paper_are_painted_too(chromium: Any, page: str) -> None:
    _resize(chromium, *_DESKTOP)
    seen = set()
    for media in (
        {"media": "screen", "features": [{"name": "prefers-color-scheme", "value": "light"}]},
        {"media": "screen", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    ):
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        chromium.get(page)
        assert chromium.execute_async_script(_DRAWN) == 2
        paper = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
        plot = chromium.execute_script("return getComputedStyle(document.querySelector('.main-svg')).backgroundColor")
        assert plot == paper
        seen.add(paper)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert len(seen) == 2
    _assert_silent(chromium)


def test_the_table_reads_without_javascript(chromium: Any, page: str) -> None:
    _resize(chromium, *_DESKTOP)
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get(page)
        assert "29.67 dB" in chromium.find_element("css selector", "tr.chosen").text
        assert "needs JavaScript" in chromium.find_element("tag name", "main").text
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
