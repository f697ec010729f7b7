"""`deploy recipes` and `deploy schema`: what may be written, and what comes out."""

import json

import click

from pipeline.cli.options import json_option


@click.command()
@json_option
def recipes(as_json: bool) -> None:
    """List the quantization recipes."""
    from pipeline.recipes import RECIPES
    from pipeline.recipes.recipe import recipe

    rows = [(name, recipe(name)) for name in RECIPES]
    if as_json:
        click.echo(
            json.dumps([{"name": n, "format": r.format, "needs": r.start, "summary": r.summary} for n, r in rows])
        )
        return
    width = max(len(name) for name, _ in rows)
    for name, found in rows:
        click.echo(f"{name:<{width}}  {found.summary}")


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
