import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example import HOSTILE, example, two_devices

from pipeline.errors import HostDiskFull
from pipeline.reporting.files import NAMES, write_all
from pipeline.reporting.html import html
from pipeline.reporting.plots import script_json


class _Page(HTMLParser):
    """Elements with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "pictures").mkdir()
    write_all(example(folder / "pictures"), folder, folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> _Page:
    return _Page((folder / "report.html").read_text())


def test_all_files_are_there_and_nothing_else(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*NAMES, "pictures"}


def test_nothing_is_loaded_from_elsewhere(page: _Page) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_pictures_are_embedded_and_each_shared_one_once(page: _Page) -> None:
    sources = [a["src"] for tag, a in page.elements if tag == "img"]
    # 3 samples × (input, truth, float, and 8 candidates × answer and error map)
    assert len(sources) == 3 * (3 + 8 * 2)
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_plots_are_json_with_every_measured_candidate(page: _Page) -> None:
    figures = [json.loads(text) for text in page.scripts if text.startswith("{")]
    assert len(figures) == 3  # latency, size, distribution
    assert [len(figure["data"]) for figure in figures] == [8, 8, 8]
    assert figures[0]["layout"]["xaxis"]["type"] == "log"  # 6 to 599 ms
    assert figures[1]["layout"]["xaxis"].get("type") != "log"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    report = example()
    hostile = f'</script>{HOSTILE}"><img src=x onerror=alert(1)>'
    candidates = [replace(report.candidates[0], recipe=hostile), *report.candidates[1:]]
    report = replace(report, name=hostile, reason=hostile, baseline=hostile, candidates=tuple(candidates))
    page = _Page(html(report, tmp_path))
    assert not [a for tag, a in page.elements if tag == "img" or "onerror" in a]
    assert len(page.scripts) == len(_Page(html(example(), tmp_path)).scripts)
    names = [trace["name"] for text in page.scripts if text.startswith("{") for trace in json.loads(text)["data"]]
    assert hostile in names


def test_script_json_cannot_end_its_element() -> None:
    text = script_json({"a": "</script><!--", "b": "&amp;"})
    assert not re.search("[<>&]", text)
    assert json.loads(text) == {"a": "</script><!--", "b": "&amp;"}


def test_emulation_and_failed_devices_are_told(tmp_path: Path) -> None:
    text = html(two_devices(), tmp_path)
    assert "Emulated device." in text
    assert "qemu-user on x86-64" in text
    assert "no route to 192.0.2.7" in text


def test_missing_pictures_do_not_stop_the_report(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    report = example(tmp_path / "pictures")
    for path in (tmp_path / "pictures").iterdir():
        path.unlink()
    assert "picture missing" in html(report, tmp_path)


def test_a_report_without_devices_or_results_is_still_a_page(tmp_path: Path) -> None:
    report = example()
    refused = replace(
        report,
        status="fail",
        chosen=None,
        chosen_by_target={},
        facts={},
        candidates=report.candidates[-1:],
    )
    text = html(refused, tmp_path)
    assert "Nothing passes" in text
    assert "Plotly" not in text  # nothing to plot, so no megabytes either


def test_a_folder_that_cannot_be_made_is_an_expected_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostDiskFull, match="cannot write the report"):
        write_all(example(), tmp_path / "file" / "folder", tmp_path)


def test_the_console_needs_no_plotly() -> None:
    code = "import sys, pipeline.reporting.console; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
