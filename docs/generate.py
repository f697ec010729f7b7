"""Write what can be derived: the JSON schemas beside this file, and the marked blocks of README.md and the pages here.

    python docs/generate.py            write
    python docs/generate.py --check    change nothing; end with 1 and name what is stale

A block stands between `<!-- generated: NAME -->` and `<!-- /generated -->`. A block that no page has is left out; a
name that is not in `BLOCKS` is an error.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[^>]*?) -->\n)(?P<body>.*?)(<!-- /generated -->)", re.DOTALL)
_MARK = re.compile(r"<!-- (generated: [^>]*|/generated) -->")


def help_block() -> str:
    """What `deploy --help` prints."""
    shown = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli.main import main; main()", "--help"],
        env={**os.environ, "COLUMNS": "100", "PYTHONUTF8": "1"},
        check=True,
        capture_output=True,
        encoding="utf-8",
    ).stdout
    return f"```console\n$ deploy --help\n{shown.rstrip()}\n```\n"


def recipes_block() -> str:
    """The recipes that ship."""
    from pipeline.recipes import AS_IS, RECIPES
    from pipeline.recipes.recipe import recipe

    starts = {
        "source": "the source in its own framework",
        "float": "the float32 model",
        "ranges": "the float32 model and calibration samples",
        "search": "the same, and `budgets.max_drop`",
        "mixed": "the same, and `mixed`",
        "finetuned-w8": "a Keras or PyTorch source and calibration samples to train on",
        "finetuned-w4": "a Keras or PyTorch source and calibration samples to train on",
    }
    found = [(name, recipe(name)) for name in RECIPES]

    def needs(name: str, made: Any) -> str:
        if name.endswith(AS_IS):
            return "a quantized file"
        return "a PyTorch source" if made.format == "pt" else starts[made.start]

    rows = [(f"`{name}`", f"`.{made.format}`", made.summary, needs(name, made)) for name, made in found]
    return _table(("Recipe", "Format", "What it does", "Needs"), rows)


def grammar_block() -> str:
    """What the parts of a recipe's name mean."""
    from pipeline.recipes import grammar

    tables = {"format": grammar.FORMATS, "precision": grammar.PRECISIONS, "option": grammar.OPTIONS}
    rows = [(part, f"`{word}`", says) for part, words in tables.items() for word, says in words.items()]
    return _table(("Part", "Word", "Meaning"), rows)


def targets_block() -> str:
    """The keys of a target, by transport."""
    from pipeline.config import AdbTarget, LocalTarget, SshTarget

    rows = []
    for transport, model in (("local", LocalTarget), ("ssh", SshTarget), ("adb", AdbTarget)):
        rows.append((f"**`{transport}`**", _first_sentence(model), ""))
        for key, field in model.model_fields.items():
            if key == "transport":
                continue
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
            rows.append((f"`{field.alias or key}`", field.description or "", default))
    return _table(("Key", "Meaning", "Default"), rows)


def metrics_block() -> str:
    """The task metrics."""
    from pipeline.plugins import load_plugin
    from pipeline.quality.metrics import METRICS

    rows = [(f"`{name}`", _first_sentence(load_plugin(where))) for name, where in METRICS.items()]
    return _table(("Metric", "What it is"), [*rows, ("`file.py:function`", "your own: `function(outputs, truth)`")])


def exit_codes_block() -> str:
    """The exit codes, from where the command line declares them."""
    import pipeline.cli.main

    declared = re.search(r"^Exit codes: (.+?)\.$", pipeline.cli.main.__doc__ or "", re.MULTILINE | re.DOTALL)
    if declared is None:
        raise SystemExit("pipeline/cli/main.py: its docstring has no paragraph `Exit codes: 0 … · 1 ….` any more")
    rows = [" ".join(code.split()).partition(" ")[::2] for code in " ".join(declared[1].split()).split(" · ")]
    return _table(("Exit code", "Meaning"), rows)


def kinds_block() -> str:
    """The kinds of devices of the lab."""
    from targets.lab.kinds import KINDS
    from targets.lab.profiles import profiles

    looks = {name: [key for key, board in profiles().items() if board["kind"] == name] for name in KINDS}
    rows = [
        (f"`--{name} N`", kind.title, kind.says, ", ".join(f"`{look}`" for look in looks[name]))
        for name, kind in KINDS.items()
    ]
    return _table(("Option", "Makes", "Which are", "Profiles"), rows)


def faults_block() -> str:
    """The faults of the device lab."""
    from targets.lab.faults import FAULTS

    values = {"bytes": "100MB", "s": "2s", "share": "5%", "k": "40K"}
    rows = []
    for name, fault in FAULTS.items():
        value = "-3d" if fault.signed else values.get(fault.dimension, "")
        services = " and ".join({"ssh": "SSH", "adb": "adb"}[service] for service in fault.services)
        services += f" (`--{fault.kinds[0]}`)" if fault.kinds else ""
        rows.append((f"`{name}={value}`" if value else f"`{name}`", fault.says, services))
    return _table(("Fault", "What it does", "On devices with"), rows)


def checks_block() -> str:
    """What `deploy check` can find."""
    from pipeline.appcheck.rules import SAYS

    return _table(("Rule", "Meaning"), [(f"`{rule}`", says) for rule, says in SAYS.items()])


BLOCKS: Mapping[str, Callable[[], str]] = {
    "help": help_block,
    "recipes": recipes_block,
    "recipe-grammar": grammar_block,
    "targets": targets_block,
    "metrics": metrics_block,
    "exit-codes": exit_codes_block,
    "faults": faults_block,
    "kinds": kinds_block,
    "checks": checks_block,
}


def pages(root: Path) -> list[Path]:
    """README.md and what it points to."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(text: str, bodies: Mapping[str, str]) -> tuple[str, list[str]]:
    """The text with its blocks filled, and the names of those that changed.

    Raises:
        ValueError: a block has an unknown name, or no end.
    """
    whole = list(_BLOCK.finditer(text))
    if len(_MARK.findall(text)) != 2 * len(whole):
        raise ValueError("a `<!-- generated: NAME -->` without its `<!-- /generated -->`, or the other way round")
    stale: list[str] = []

    def fill(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in bodies:
            raise ValueError(f"no block is called {name!r}; there are {', '.join(bodies)}")
        if bodies[name] != block["body"]:
            stale.append(name)
        return f"{block[1]}{bodies[name]}{block[4]}"

    return _BLOCK.sub(fill, text), stale


def schemas() -> dict[str, str]:
    """File name in this folder -> JSON Schema."""
    from pipeline.config import config_schema
    from pipeline.rehearsal.schedule import faults_schema
    from pipeline.reporting.schema import report_schema

    found = {
        "deploy.schema.json": config_schema(),
        "faults.schema.json": faults_schema(),
        "report.schema.json": report_schema(),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 and name what is stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of README.md and docs/ (default: this one)")
    asked = parser.parse_args(arguments)
    wanted = {asked.root / "docs" / name: text for name, text in schemas().items()}
    stale = [f"docs/{path.name}" for path, text in wanted.items() if _read(path) != text]
    bodies = {name: made() for name, made in BLOCKS.items()}  # takes a while, in which an editor may save a page
    for page in pages(asked.root):
        name = page.relative_to(asked.root).as_posix()
        try:
            wanted[page], blocks = filled(_read(page), bodies)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        stale += [f"{name}: {block}" for block in blocks]
    for name in stale:
        print(f"{name} {'is stale: run `make docs`' if asked.check else 'written'}", file=sys.stderr)
    if asked.check:
        return 1 if stale else 0
    for path, text in wanted.items():
        if _read(path) != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _first_sentence(described: object) -> str:
    # A full stop ends a sentence when a capital or code follows: "Wang et al. (2004)" goes on.
    return re.split(r"(?<=\.)\s+(?=[A-Z`])", getdoc(described) or "")[0]


def _default(value: Any) -> str:
    return "" if value in ("", None, [], {}) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(titles), " | ".join("---" for _ in titles)]
    lines += [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
