"""Entry point: commands are imported when they are used, so that `deploy --help` costs no more than Python and click.

Exit codes: 0 pass · 1 gate failed · 2 usage or config · 3 device or environment · 4 inconclusive · 70 a fault of deploy
itself · 130 interrupted.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Mapping

import click

from targets.errors import DeployError

_EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h: no verdict on the model or the device

# Command -> (where it is, what --help says of it).
COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("pipeline.cli.run:run", "Export, quantize, check, push, measure and decide, as deploy.yaml says."),
    "measure": ("pipeline.cli.measure:measure", "Measure one recipe's model on devices, with its doubt."),
    "compare": ("pipeline.cli.measure:compare", "Measure two recipes against each other: is one slower?"),
    "init": ("pipeline.cli.init:init", "Make a folder with the example, ready to run."),
    "targets": ("pipeline.cli.targets:targets", "List the devices of deploy.yaml, or look at one."),
    "fit": ("pipeline.cli.fit:fit", "Say whether a model fits the targets, before it travels."),
    "plan": ("pipeline.cli.rollout:plan", "Print what a push would do to each device; change nothing."),
    "push": ("pipeline.cli.rollout:push", "Bring a release to devices in waves, proved on each by its answers."),
    "status": ("pipeline.cli.rollout:status", "Where each device is, and why."),
    "rollback": ("pipeline.cli.rollout:rollback", "Bring devices back to the release before."),
    "reconcile": ("pipeline.cli.rollout:reconcile", "Bring late devices to what they are to have, once or as a loop."),
    "pin": ("pipeline.cli.rollout:pin", "Keep a device at a release, whatever is pushed."),
    "rehearse": (
        "pipeline.cli.rehearse:rehearse",
        "Run on devices made of software while they fail as faults.yaml says.",
    ),
    "release": ("pipeline.cli.release:release", "Make keys, sign, verify and look at releases."),
    "history": ("pipeline.cli.history:history", "What was run and released, and one number over the runs."),
    "diff": ("pipeline.cli.history:diff", "What changed between two releases."),
    "check": ("pipeline.cli.check:check", "Look for what breaks an Android app's release because of its model."),
    "lab": ("pipeline.cli.lab:lab", "Start and stop devices made of software, and make them fail."),
    "sensitivity": (
        "pipeline.cli.sensitivity:sensitivity",
        "Rank the blocks of the model by what they lose in int8.",
    ),
    "calibration": ("pipeline.cli.calibration:calibration", "Look at, merge and compare calibration sketches."),
    "recipes": ("pipeline.cli.describe:recipes", "List the quantization recipes, or explain one."),
    "schema": ("pipeline.cli.describe:schema", "Print the JSON Schema of deploy.yaml, faults.yaml or report.json."),
    "doctor": ("pipeline.cli.doctor:doctor", "Check this installation."),
    "completion": ("pipeline.cli.completion:completion", "Print the shell completion script."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-liners without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            raise click.UsageError(
                f"No such command {args[0]!r}." + (f" Did you mean {close[0]!r}?" if close else ""), ctx
            ) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edge-deploy-pipeline", prog_name="deploy")
def cli() -> None:
    """Take a trained model to real devices, and prove that it still answers correctly and fast enough there."""


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = cli.main(prog_name="deploy", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        resumes = sys.argv[1:2] in (["run"], ["push"], ["rollback"], ["reconcile"])
        kept = ": finished steps are kept, the same command goes on from there" if resumes else ""
        click.echo(f"\ninterrupted{kept}", err=True)
        code = 130
    except DeployError as error:
        show_error(error)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output has gone
        code = 0
    except Exception as error:  # a fault of ours; a user has no use for forty lines of it
        if os.environ.get("DEPLOY_TRACEBACK"):
            traceback.print_exc()
        show_error(_unexpected(error))
        code = _EXIT_INTERNAL
    sys.exit(code if isinstance(code, int) else 0)


def _unexpected(error: Exception) -> DeployError:
    return DeployError(
        f"deploy itself is at fault: {type(error).__name__}: {error}",
        hint="run it again with DEPLOY_TRACEBACK=1 and report what it prints; finished steps are kept",
    )


def show_error(error: DeployError) -> None:
    """Print what happened and what to do, on standard error."""
    click.echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
    if error.hint:
        click.echo(click.style("  hint: ", fg="cyan") + error.hint, err=True)


if __name__ == "__main__":
    main()
