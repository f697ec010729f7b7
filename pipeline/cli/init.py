"""`deploy init`: the shipped example as a folder of the user's own."""

import json
import shutil
from pathlib import Path

import click

_PARTS = ("deploy.yaml", "models", "calibration_data")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def init(folder: Path) -> None:
    """Make FOLDER with the example (model, photos, deploy.yaml), ready for `deploy run`."""
    from pipeline.config import config_schema
    from pipeline.errors import UsageError

    example = _example()
    taken = [part for part in _PARTS if (folder / part).exists()]
    if taken:
        raise UsageError(f"{folder}: has {', '.join(taken)} already", hint="choose a folder that is new or empty")
    folder.mkdir(parents=True, exist_ok=True)
    for part in _PARTS:
        source = example / part
        if source.is_dir():
            shutil.copytree(source, folder / part)
        else:
            shutil.copyfile(source, folder / part)
    (folder / "docs").mkdir(exist_ok=True)  # where deploy.yaml's first line tells editors to look
    (folder / "docs" / "deploy.schema.json").write_text(json.dumps(config_schema(), indent=2) + "\n")
    click.echo(f"made {folder}; now: cd {folder} && deploy run")


def _example() -> Path:
    """The example in the installed package, or, in an editable install, at the top of the checkout."""
    import pipeline

    package = Path(pipeline.__file__).parent
    return package / "example" if (package / "example").exists() else package.parent
