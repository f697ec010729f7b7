"""`deploy completion SHELL`: the script that a shell sources."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script: add `eval "$(deploy completion bash)"` to ~/.bashrc."""
    from click.shell_completion import get_completion_class

    from pipeline.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    click.echo(found(cli, {}, "deploy", "_DEPLOY_COMPLETE").source())
