"""`deploy recipes` and `deploy schema`: what may be written, and what comes out."""

import json

import click

from pipeline.cli.options import json_option


@click.command()
@click.argument("name", required=False)
@json_option
def recipes(name: str | None, as_json: bool) -> None:
    """List the quantization recipes, or say what the NAME of one means."""
    from pipeline.recipes import OPTIONAL, RECIPES
    from pipeline.recipes.recipe import promise, recipe

    if name is not None:
        _explain(name, as_json)
        return
    rows = [(name, recipe(name)) for name in RECIPES]
    if as_json:
        found = [
            {
                "name": name,
                "format": made.format,
                "needs": made.start,
                "summary": made.summary,
                "by_default": name not in OPTIONAL,
                "promised_size": promise(name).size,
                "promised_latency": promise(name).latency,
            }
            for name, made in rows
        ]
        click.echo(json.dumps(found))
        return
    width = max(len(name) for name, _ in rows)
    for name, made in rows:
        click.echo(f"{name:<{width}}  {made.summary}")


def _explain(name: str, as_json: bool) -> None:
    from pipeline.errors import UsageError
    from pipeline.quantities import times
    from pipeline.recipes import OPTIONAL, RECIPES, unknown
    from pipeline.recipes.grammar import decoded
    from pipeline.recipes.recipe import promise, recipe

    if name not in RECIPES:
        message, hint = unknown(name)
        raise UsageError(message, hint=hint)
    made, promised = recipe(name), promise(name)
    try:
        parts = decoded(name)
    except ValueError:
        parts = ()  # a third party's name need not follow the grammar
    if as_json:
        said = {
            "name": name,
            "parts": dict(parts),
            "summary": made.summary,
            "needs": made.start,
            "by_default": name not in OPTIONAL,
            "promised_size": promised.size,
            "promised_latency": promised.latency,
        }
        click.echo(json.dumps(said))
        return
    click.echo(f"{name}: {made.summary}")
    for part, meaning in parts:
        click.echo(f"  {part:<13} {meaning}")
    promises = {"size": promised.size, "latency": promised.latency}
    shown = [f"{what} {times(value)} of float32" for what, value in promises.items() if value is not None]
    if shown:
        click.echo(f"  {'promised':<13} {', '.join(shown)}, say the toolkits' guides; the report has what came of it")
    click.echo(f"  {'run':<13} {'only when deploy.yaml names it' if name in OPTIONAL else 'by default'}")


@click.command()
@click.argument("document", type=click.Choice(["config", "faults", "report"]))
def schema(document: str) -> None:
    """Print the JSON Schema of deploy.yaml (config), faults.yaml (faults) or report.json (report)."""
    if document == "config":
        from pipeline.config import config_schema

        described = config_schema()
    elif document == "faults":
        from pipeline.rehearsal.schedule import faults_schema

        described = faults_schema()
    else:
        from pipeline.reporting.schema import report_schema

        described = report_schema()
    click.echo(json.dumps(described, indent=2))
