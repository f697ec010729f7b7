"""`deploy check`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import json_option, state_folder, state_option
from pipeline.cli.terminal import rendered

if TYPE_CHECKING:
    from pipeline.appcheck import App, Asked, Checked, Finding
    from pipeline.appcheck.modelcheck import ModelCheck
    from pipeline.config_file import LoadedConfig
    from pipeline.fit.records import RuntimeName

_FILE = click.Path(path_type=Path, dir_okay=False)
_DEFAULT_RELEASE = Path("deploy-out")


@click.command()
@click.option("--apk", "apk", type=_FILE, help="The APK that is to be released.")
@click.option("--aab", "aab", type=_FILE, help="The app bundle that is to be released.")
@click.option(
    "--release",
    "releases",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Bundle, or output folder of the run, that a model is of; may be repeated.  [default: deploy-out, if there]",
)
@click.option("--release-key", "keys", multiple=True, type=_FILE, help="Public key that must have signed the bundles.")
@click.option(
    "--config",
    "-c",
    "config",
    type=_FILE,
    help="deploy.yaml: run the models through its stages up to the quality gate, and judge its budgets and targets.",
)
@state_option
@click.option("--budget", metavar="SIZE", help='All models together, such as "20 MB".')
@click.option(
    "--latency", metavar="TIME", help='90th percentile on every device, as "15 ms".  [default: the run\'s budget]'
)
@click.option(
    "--require",
    "required",
    multiple=True,
    metavar="CLASS",
    help="Device class on which the models must have been measured; may be repeated.",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME=VERSION",
    help="Version of litert or onnxruntime in the app, when it cannot be read; 'litert=tensorflow-lite 2.16.1'.",
)
@json_option
@click.option("--junit", type=_FILE, help="Also write JUnit XML.")
@click.option("--sarif", type=_FILE, help="Also write SARIF 2.1.0.")
@click.option("--markdown", type=_FILE, help="Also write Markdown, for a pull request.")
def check(
    apk: Path | None,
    aab: Path | None,
    releases: tuple[Path, ...],
    keys: tuple[Path, ...],
    config: Path | None,
    state: Path | None,
    budget: str | None,
    latency: str | None,
    required: tuple[str, ...],
    runtimes: tuple[str, ...],
    as_json: bool,
    junit: Path | None,
    sarif: Path | None,
    markdown: Path | None,
) -> None:
    """Look for what breaks an Android app's release because of its model.

    With a release, its models are also asked its golden question here, and what its devices showed is judged.

    Exit code: 0 nothing blocks (there may be warnings), 1 something does, 2 the file or the command line is wrong,
    4 nothing blocks but something could not be judged.
    """
    from pipeline.appcheck import check as judge
    from pipeline.appcheck import read_app
    from pipeline.appcheck.check import EXIT_CODES

    path = _one(apk, aab)
    loaded = _loaded(config)
    asked = _asked(releases, keys, loaded, budget, latency, required, runtimes)
    app = read_app(path)
    _kind_as_said(path, app.kind, "aab" if aab else "apk")
    checked = judge(app, asked, *_run_models(path, app, asked, loaded, state))
    _write(checked, path, junit, sarif, markdown)
    _print(checked, as_json)
    raise click.exceptions.Exit(EXIT_CODES[checked.status])


def _loaded(config: Path | None) -> "LoadedConfig | None":
    if config is None:
        return None
    from pipeline.config_file import load_config  # takes longer than all else here

    return load_config(config)


def _one(apk: Path | None, aab: Path | None) -> Path:
    if (apk is None) == (aab is None):
        raise click.UsageError("give one app: --apk app-release.apk or --aab app-release.aab")
    path = apk or aab
    assert path is not None
    return path


def _kind_as_said(path: Path, kind: str, said: str) -> None:
    from pipeline.errors import UsageError

    if kind != said:
        raise UsageError(f"{path}: is an {kind.upper()}, not an {said.upper()}", hint=f"deploy check --{kind} {path}")


def _asked(
    releases: tuple[Path, ...],
    keys: tuple[Path, ...],
    loaded: "LoadedConfig | None",
    budget: str | None,
    latency: str | None,
    required: tuple[str, ...],
    runtimes: tuple[str, ...],
) -> "Asked":
    from pipeline.appcheck import Asked, released
    from pipeline.quantities import parse_quantity

    if not releases and (_DEFAULT_RELEASE / "report.json").exists():
        releases = (_DEFAULT_RELEASE,)
    return Asked(
        releases=tuple(released(release, keys) for release in releases),
        budget_bytes=parse_quantity(budget, "bytes") if budget else None,
        model_budget_bytes=loaded.config.budgets.size if loaded else None,
        runtimes=_runtimes(runtimes),
        targets=tuple(loaded.config.targets) if loaded else (),
        required={name: _of_class(loaded, name) for name in required},
        latency_p90_ms=_latency(loaded, latency),
    )


def _of_class(loaded: "LoadedConfig | None", name: str) -> tuple[str, ...]:
    targets = loaded.config.targets.items() if loaded else ()
    return tuple(target for target, found in targets if found.device_class == name)


def _latency(loaded: "LoadedConfig | None", written: str | None) -> float | None:
    from pipeline.quantities import parse_quantity

    if written:
        return parse_quantity(written, "ms")
    return loaded.config.budgets.latency_p90 if loaded else None


def _runtimes(written: tuple[str, ...]) -> "Mapping[RuntimeName, str]":
    from pipeline.fit.records import RUNTIME_TITLES

    found: dict[RuntimeName, str] = {}
    for text in written:
        name, _, version = text.partition("=")
        known = next((known for known in RUNTIME_TITLES if known == name), None)
        if known is None or not version:
            raise click.BadParameter(
                f"{text!r} is not NAME=VERSION with a NAME of {', '.join(RUNTIME_TITLES)}", param_hint="--runtime"
            )
        found[known] = version
    return found


def _run_models(
    path: Path, app: "App", asked: "Asked", loaded: "LoadedConfig | None", state: Path | None
) -> "tuple[tuple[Finding, ...], tuple[ModelCheck, ...]]":
    """What comes of running the app's models on this machine: the golden question, and the quality gate."""
    from pipeline.appcheck.golden import golden_checks, has_golden

    if loaded is None and not has_golden(app, asked):
        return (), ()
    from pipeline.worker import Worker

    with Worker() as worker:
        golden = tuple(golden_checks(path, app, asked, worker))
        if loaded is None:
            return (), golden
        from pipeline.appcheck.models import run_models
        from pipeline.cli.progress import observer
        from pipeline.store import Store

        store = Store(state_folder(loaded.path, state))
        findings, gate = run_models(path, app, asked, loaded, store, worker, observer)
    return findings, (*golden, *gate)


def _write(checked: "Checked", path: Path, junit: Path | None, sarif: Path | None, markdown: Path | None) -> None:
    from pipeline.errors import EnvironmentFault
    from pipeline.reporting.appcheck import check_junit, check_markdown
    from pipeline.reporting.sarif import check_sarif

    wanted = (
        (junit, check_junit(checked)),
        (sarif, check_sarif(checked, _uri(path)).encode(errors="replace")),
        (markdown, check_markdown(checked).encode(errors="replace")),
    )
    for file, content in wanted:
        if file is not None:
            try:
                file.write_bytes(content)
            except OSError as error:
                raise EnvironmentFault(f"cannot write {file}: {error.strerror}", hint="make room or rights") from None


def _uri(path: Path) -> str:
    """As a code host knows the file: relative to where it was started, or a whole file URI."""
    from urllib.parse import quote

    whole, here = path.resolve(), Path.cwd()
    return quote(whole.relative_to(here).as_posix()) if whole.is_relative_to(here) else whole.as_uri()


def _print(checked: "Checked", as_json: bool) -> None:
    from pipeline.reporting.appcheck import CheckView, check_json

    if as_json:
        click.echo(check_json(checked))
        return
    click.echo(rendered(CheckView(checked)), nl=False)
