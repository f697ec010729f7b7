"""`deploy check` as it is used: on the app of a project whose pipeline has run."""

import hashlib
import json
import subprocess
from pathlib import Path

import apps
import pytest
from apps import File, good_apk
from projects import DEPLOY, Project, Ran, one_error, project
from release_files import write_release
from tiny_models import onnx_bundle


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = project(tmp_path_factory.mktemp("app"))
    done = made.run()
    assert done.status == 0, done.err
    return made


def check(folder: Path, *arguments: str) -> Ran:
    done = subprocess.run([*DEPLOY, "check", *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    return Ran(done.returncode, done.stdout, done.stderr)


def app_of(made: Project, model: bytes, name: str) -> str:
    good_apk().without(apps.MODEL).with_files({"assets/net.onnx": File(model)}).write(made.folder / name)
    return name


def shipped(made: Project) -> bytes:
    report = made.report()
    [path] = [c["path"] for c in report["candidates"] if c["recipe"] == report["chosen"]]
    return (made.folder / "deploy-out" / path).read_bytes()


def test_the_release_of_the_run_passes_with_its_quality_gate(ran: Project) -> None:
    name = app_of(ran, shipped(ran), "good.apk")
    done = check(ran.folder, "--apk", name, "--config", "deploy.yaml", "--budget", "1 MB", "--json")
    assert done.status == 0, done.out + done.err
    read = json.loads(done.out)
    assert (read["status"], read["findings"]) == ("pass", [])
    asked = {(one["what"], one["where"]): one["status"] for one in read["checks"]}
    wanted = {("golden outputs", "this host"), ("quality gate", "this host"), ("golden outputs", "local")}
    assert asked == dict.fromkeys([*wanted, ("latency p90", "local")], "pass")
    assert read["app"]["models"][0]["sha256"] == hashlib.sha256(shipped(ran)).hexdigest()
    assert done.err.count(": kept") == 1  # the source's answers were there already


def test_a_signed_bundle_is_the_release(ran: Project) -> None:
    name = app_of(ran, shipped(ran), "good.apk")
    bundle = "deploy-out/net-1.release"
    for number in (1, 2):
        subprocess.run([*DEPLOY, "release", "keygen", f"{number}.pem"], cwd=ran.folder, check=True)
    subprocess.run([*DEPLOY, "release", "sign", bundle, "--key", "1.pem"], cwd=ran.folder, check=True)
    done = check(ran.folder, "--apk", name, "--release", bundle, "--release-key", "1.pem.pub", "--json")
    assert done.status == 0 and json.loads(done.out)["findings"] == [], done.out + done.err
    done = check(ran.folder, "--apk", name, "--release", bundle, "--release-key", "2.pem.pub")
    assert done.status == 1 and "signed by no key that is trusted here" in done.err
    stale = app_of(ran, (ran.folder / "net.onnx").read_bytes() + b"", "stale.apk")
    assert "release-missing" in check(ran.folder, "--apk", stale, "--release", bundle).out


def test_other_bytes_than_the_release_do_not(ran: Project) -> None:
    name = app_of(ran, (ran.folder / "net.onnx").read_bytes(), "stale.apk")
    files = ["--junit", "junit.xml", "--sarif", "check.sarif", "--markdown", "check.md"]
    done = check(ran.folder, "--apk", name, *files)
    assert done.status == 1
    assert "release-missing" in done.out and "deploy-out/models/" in done.out
    assert all((ran.folder / file).stat().st_size for file in files[1::2])


def test_budgets_of_quality_are_judged_on_the_bytes_of_the_app(ran: Project) -> None:
    """A stricter deploy.yaml than the run's: the model of the release does not pass it any more."""
    strict = {**ran.config, "budgets": {"min_fidelity_db": 1000, "size": "100 B"}}
    (ran.folder / "strict.yaml").write_text(json.dumps(strict))
    done = check(ran.folder, "--apk", app_of(ran, shipped(ran), "good.apk"), "--config", "strict.yaml", "--json")
    rules = {finding["rule"] for finding in json.loads(done.out)["findings"] if finding["severity"] == "blocking"}
    assert (done.status, rules) == (1, {"model-fails", "budget"})


def test_what_devices_showed_is_judged_by_the_budget_of_today(ran: Project) -> None:
    name = app_of(ran, shipped(ran), "good.apk")
    files = ["--junit", "junit.xml", "--sarif", "check.sarif", "--markdown", "check.md"]
    done = check(
        ran.folder, "--apk", name, "--latency", "0.001 us", "--require", "default", "--require", "phones", *files
    )
    assert done.status == 1 and "on local is over the budget of" in done.out, done.out + done.err
    assert "measured on no device of class phones" in done.out and "class default" not in done.out
    junit = (ran.folder / "junit.xml").read_text()
    assert 'name="golden outputs of assets/net.onnx on this host" classname="deploy.check.models"' in junit
    assert junit.count("<failure") == 2 and junit.count("<skipped") == 2  # the row, and the rule
    assert '"device-latency"' in (ran.folder / "check.sarif").read_text()
    assert "| ✗ | assets/net.onnx | latency p90 | local |" in (ran.folder / "check.md").read_text()


def test_the_golden_question_is_asked_of_the_bytes_of_the_app(tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path / "net", wrong_by=1.0)
    write_release(tmp_path / "net.release", {"default": bundle}, sequence=1)
    built = good_apk().without(apps.MODEL).with_files({"assets/net.onnx": File(bundle.model.read_bytes())})
    built.write(tmp_path / "app.apk")
    done = check(tmp_path, "--apk", "app.apk", "--release", "net.release", "--json")
    [finding] = [one for one in json.loads(done.out)["findings"] if one["severity"] == "blocking"]
    assert done.status == 1 and finding["rule"] == "golden-outputs", done.out + done.err
    assert "from the golden outputs (tolerated:" in finding["detail"]


def test_a_target_without_numbers_is_not_judged(ran: Project) -> None:
    more = {**ran.config, "targets": {"local": None, "pi": {"host": "pi.local"}}}
    (ran.folder / "more.yaml").write_text(json.dumps(more))
    done = check(ran.folder, "--apk", app_of(ran, shipped(ran), "good.apk"), "--config", "more.yaml")
    assert done.status == 4
    assert "target-not-measured" in done.out and "deploy run --target pi" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--apk", "missing.apk"), "no such file"),
        (("--apk", "deploy.yaml"), "no whole zip archive"),
        (("--apk", "good.aab"), "is an AAB, not an APK"),
        (("--aab", "good.aab", "--release", "nowhere"), "no report of a run"),
    ],
)
def test_what_cannot_be_checked_is_one_error(ran: Project, arguments: tuple[str, ...], said: str) -> None:
    apps.good_aab().write(ran.folder / "good.aab")
    done = check(ran.folder, *arguments)
    assert done.status == 2 and said in one_error(done)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give one app"),
        (("--apk", "a.apk", "--aab", "a.aab"), "give one app"),
        (("--apk", "a.apk", "--runtime", "litert"), "NAME=VERSION"),
    ],
)
def test_a_wrong_command_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = check(tmp_path, *arguments)
    assert done.status == 2 and said in done.err
