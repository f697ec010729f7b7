"""The built wheel, in an environment of its own and from a folder of its own, runs the example it carries."""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with the wheel; its dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    found = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip())
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-input"]
    subprocess.run([*pip, str(wheel)], check=True)
    # Only a path, so that the .pth file of our editable install there is not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin"


def test_is_the_installed_package(installed: Path, tmp_path: Path) -> None:
    where = [str(installed / "python"), "-c", "import pipeline, targets; print(pipeline.__file__, targets.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split()
    assert all(str(installed.parent) in path for path in found), found


def test_runs_its_example_elsewhere(installed: Path, tmp_path: Path) -> None:
    deploy = str(installed / "deploy")
    subprocess.run([deploy, "init", "example"], cwd=tmp_path, check=True, capture_output=True)
    command = [deploy, "run", "--config", "example/deploy.yaml", "--out", "answers", "--json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    by_recipe = {candidate["recipe"]: candidate for candidate in report["candidates"]}
    assert len(by_recipe) == 8
    float32, int8 = by_recipe["litert-float32"], by_recipe["litert-int8"]

    # The story the example tells: smaller, faster, hardly worse; and int16x8 is too slow.
    assert float32["size_bytes"] / int8["size_bytes"] >= 3.5
    medians = {
        name: by_recipe[name]["targets"]["local"]["warm_ms"]["median"] for name in ("litert-float32", "litert-int8")
    }
    assert medians["litert-int8"] < medians["litert-float32"]
    assert int8["metrics"]["psnr-y"]["reference"] - int8["metrics"]["psnr-y"]["value"] <= 0.15
    assert by_recipe["litert-int16x8"]["verdict"] == "fail"
    assert "latency" in by_recipe["litert-int16x8"]["reason"]
    assert report["status"] == "pass" and by_recipe[report["chosen"]]["verdict"] == "pass"

    for name in ("report.html", "report.md", "report.json", "junit.xml"):
        assert (tmp_path / "answers" / name).stat().st_size > 0
    for candidate in by_recipe.values():
        assert (tmp_path / "answers" / candidate["path"]).stat().st_size == candidate["size_bytes"]
    assert json.loads((tmp_path / "answers" / "report.json").read_text()) == report
