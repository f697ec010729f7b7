"""`deploy fit`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import config_option, json_option, out_option, state_folder, state_option
from pipeline.cli.terminal import rendered

if TYPE_CHECKING:
    from pipeline.fit.fitter import Fitter
    from pipeline.reporting.fit import Judged
    from targets.records import Facts, Failed, TargetSpec


@click.command()
@config_option
@out_option
@state_option
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="SELECTOR",
    help="Only these: a name, a group, a glob, an expression; may be repeated.",
)
@click.option("--targets-from", "lab", metavar="LAB", help="Use the devices of a running lab; needs no deploy.yaml.")
@click.option("--lower", is_flag=True, help="Write the file that the targets' runtimes can load, with -o FILE.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the lowered file."
)
@json_option
@click.argument("model")
def fit(
    config: Path,
    out: Path,
    state: Path | None,
    targets: tuple[str, ...],
    lab: str | None,
    lower: bool,
    output: Path | None,
    as_json: bool,
    model: str,
) -> None:
    """Say whether MODEL fits the targets, before it travels: operators, runtime, CPU, memory, disk.

    MODEL is a .tflite or .onnx file, or a recipe of the last run (its file is in --out). Exit code: 0 it fits every
    target, 1 it does not, or only lowered, 2 usage, 3 a target was not reached, 4 nobody knows. `deploy run` asks the
    same before it pushes, and lowers by itself.
    """
    from pipeline.fit.fitter import Fitter
    from pipeline.reporting.fit import fit_json
    from pipeline.store import Store
    from pipeline.worker import Worker

    if lower != (output is not None):
        raise click.UsageError("--lower and -o FILE go together")
    path = _file(model, out)
    specs = _specs(config, state, targets, lab)
    store = Store(state_folder(config, state))
    with Worker() as worker:
        facts = _probe(specs, store.root)
        judged = _judge(Fitter(worker, store, store.workspace), path, facts)
    if output is not None:
        _write(judged, path, output, store.path)
    if as_json:
        click.echo(fit_json(str(path), judged))
    else:
        _show(path, judged, output)
    raise click.exceptions.Exit(_exit_code(judged, lowered=output is not None))


def _specs(config: Path, state: Path | None, targets: tuple[str, ...], lab: str | None) -> "Sequence[TargetSpec]":
    if lab is None:
        from pipeline.cli.fleet import chosen

        return chosen(config, state, targets)
    from pipeline.inventory.selector import select
    from targets.lab.state import running_lab

    return select(running_lab(lab).target_specs(), targets, {})


def _file(model: str, out: Path) -> Path:
    """The file itself, or that of a recipe of the last run."""
    import json

    from pipeline.errors import InputError, nearest

    if Path(model).is_file():
        return Path(model)
    report = out / "report.json"
    made: dict[str, Path] = {}
    if report.is_file():
        try:
            made = {
                row["recipe"]: out / row["path"] for row in json.loads(report.read_text())["candidates"] if row["path"]
            }
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{report}: is no report of a run", hint="run `deploy run` again") from None
    if model in made and made[model].is_file():
        return made[model]
    if model in made:
        raise InputError(f"{made[model]}: is not there any more", hint="run `deploy run` again")
    hint = f"recipes of the last run: {', '.join(made)}" if made else f"there is no run in {out} either"
    raise InputError(f"{model}: no such file or recipe{nearest(model, made)}", hint=hint)


def _probe(specs: "Sequence[TargetSpec]", root: Path) -> "dict[str, Facts | Failed]":
    """The facts of every target; one that cannot be reached does not hide the others."""
    from dataclasses import replace

    from pipeline.cli.fleet import on_all
    from pipeline.errors import DeployError
    from targets.device import connect
    from targets.records import Failed

    def probe(spec: "TargetSpec") -> "Facts":
        with connect(spec, state=root) as device:
            return replace(device.facts(), imports=device.try_runtimes())

    return {
        spec.name: Failed(code=found.code, message=found.message, hint=found.hint)
        if isinstance(found, DeployError)
        else found
        for spec, found in on_all(specs, probe)
    }


def _judge(fitter: "Fitter", path: Path, probed: "dict[str, Facts | Failed]") -> "list[Judged]":
    from pipeline.reporting.fit import Judged
    from targets.records import Failed

    return [
        Judged(target=name, facts=facts, fit=None if isinstance(facts, Failed) else fitter.fit(path, facts))
        for name, facts in probed.items()
    ]


def _write(judged: "Sequence[Judged]", path: Path, output: Path, blob: Callable[[str], Path]) -> None:
    """The one file for all targets: the lowered one, or the model itself where it fits as it is."""
    from pipeline.errors import ConversionFailed, EnvironmentFault, UsageError
    from pipeline.model_files import copy_model

    made = {found.fit.lowered.blob for found in judged if found.fit and found.fit.lowered}
    if len(made) > 1:
        raise UsageError("the targets need different files", hint="write one for each: --target NAME --lower -o FILE")
    unfit = [found for found in judged if found.fit is None or found.fit.answer == "no"]
    if unfit:
        found = unfit[0]
        why = found.fit.text if found.fit else "it was not reached"
        raise ConversionFailed(f"{found.target}: {why}", hint=found.fit.remedy if found.fit else "try again")
    try:
        copy_model("onnx" if output.suffix == ".onnx" else "tflite", blob(made.pop()) if made else path, output)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {output}: {error.strerror}", hint="make room or rights") from None


def _show(path: Path, judged: "Sequence[Judged]", output: Path | None) -> None:
    from pipeline.reporting.fit import FitView

    click.echo(rendered(FitView(path.name, judged)), nl=False)
    if output is not None:
        lowered = any(found.fit and found.fit.lowered for found in judged)
        click.echo(f"written: {output}" + ("" if lowered else " (the model as it is: nothing had to be lowered)"))


def _exit_code(judged: "Sequence[Judged]", *, lowered: bool) -> int:
    """With a lowered file written, that it was needed is no failure."""
    answers = {found.fit.answer if found.fit else "unreached" for found in judged}
    if "no" in answers or ("lowering" in answers and not lowered):
        return 1
    return 3 if "unreached" in answers else 4 if "unsure" in answers else 0
