"""What is generated is current, the generator says what is not, and the schema accepts what ships."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import jsonschema
import pytest
from ruamel.yaml import YAML

from pipeline.cli.main import cli
from pipeline.config_file import load_config
from pipeline.rehearsal.schedule import load_schedule

_ROOT = Path(__file__).resolve().parents[2]
_PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((_ROOT / "docs").glob("*.md")))]


def _text(page: str) -> str:
    return (_ROOT / page).read_text(encoding="utf-8")


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(_ROOT / "docs" / "generate.py"), *arguments], capture_output=True, text=True, check=False
    )


def schema(name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((_ROOT / "docs" / name).read_text(encoding="utf-8"))
    return found


def test_everything_generated_is_current() -> None:
    checked = generate("--check")
    assert checked.returncode == 0, checked.stderr


def test_what_is_stale_is_named_then_written_and_the_rest_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- generated: exit-codes -->\nold\n<!-- /generated -->\nafter\n", encoding="utf-8")
    root = ("--root", str(tmp_path))

    stale = generate("--check", *root)
    assert stale.returncode == 1
    assert "README.md: exit-codes is stale" in stale.stderr
    assert "docs/deploy.schema.json is stale" in stale.stderr
    assert "old" in readme.read_text(encoding="utf-8")

    assert generate(*root).returncode == 0
    written = readme.read_text(encoding="utf-8")
    assert written.startswith("before\n<!-- generated: exit-codes -->\n| Exit code | Meaning |\n")
    assert "| 0 | pass |" in written
    assert written.endswith("<!-- /generated -->\nafter\n")
    assert generate("--check", *root).returncode == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- generated: recipe -->\n<!-- /generated -->\n", "no block is called 'recipe'; there are help, recipes"),
        ("<!-- generated: help -->\n", "without its `<!-- /generated -->`"),
        ("<!-- generated: help -->\n<!-- generated: metrics -->\n<!-- /generated -->\n", "without its"),
    ],
    ids=["unknown", "unended", "nested"],
)
def test_a_wrong_block_is_an_error_and_nothing_is_written(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    done = generate("--root", str(tmp_path))
    assert done.returncode == 1
    assert said in done.stderr
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize("name", ["deploy.schema.json", "faults.schema.json", "report.schema.json"])
def test_the_schemas_are_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_the_shipped_deploy_yaml_fits_its_schema() -> None:
    shipped = YAML(typ="safe", pure=True).load(_ROOT / "deploy.yaml")
    jsonschema.Draft202012Validator(schema("deploy.schema.json")).validate(shipped)


def test_the_schema_refuses_a_key_that_does_not_exist() -> None:
    shipped = YAML(typ="safe", pure=True).load(_ROOT / "deploy.yaml")
    with pytest.raises(jsonschema.ValidationError, match="latency_p99"):
        jsonschema.Draft202012Validator(schema("deploy.schema.json")).validate(
            {**shipped, "budgets": {"latency_p99": "1 ms"}}
        )


def test_the_examples_are_understood(tmp_path: Path) -> None:
    """Each YAML block stands for itself or adds to the README's first, as a reader would put them together."""
    blocks = [block for page in _PAGES for block in re.findall(r"```yaml\n(.*?)```", _text(page), re.DOTALL)]
    assert len(blocks) >= 4
    schedules = [block for block in blocks if block.startswith("lab:")]
    blocks = [block for block in blocks if block not in schedules]
    for number, block in enumerate(schedules):
        path = tmp_path / f"faults-{number}.yaml"
        path.write_text(block, encoding="utf-8")
        assert load_schedule(path).faults
    first = YAML(typ="safe").load(blocks[0])
    (tmp_path / "quality.py").write_text("def f1(outputs, truth): ...\n")
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "lyon.yaml").write_text("targets: {shop: {host: shop.lan}}\n")
    (tmp_path / "inventory.ini").write_text("[boards]\nboard-[1:3].lan\n")
    (tmp_path / "ssh_config").write_text("Host pi-1\n")
    for block in blocks:
        whole = {**first, **YAML(typ="safe").load(block.replace("~/.ssh/config", "ssh_config"))}
        config = tmp_path / "deploy.yaml"
        with config.open("w") as file:
            YAML(typ="safe").dump(whole, file)
        assert load_config(config).target_specs(), block


@pytest.mark.parametrize("page", _PAGES)
def test_the_commands_exist(page: str) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", _text(page), re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if "deploy " in line]
    commands = [line[place + 1 :] for line in lines for place, word in enumerate(line) if word.endswith("deploy")]
    assert commands or page in ("docs/recipes.md", "docs/models.md"), page
    for words in commands:
        command: click.Command = cli
        context = click.Context(cli, info_name="deploy")
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            assert found is not None, f"deploy {' '.join(words)}"
            command, words = found, words[1:]
            context = click.Context(command, parent=context)
        if not isinstance(command, click.Group):
            command.make_parser(context).parse_args(list(words))  # an option it has not raises


@pytest.mark.parametrize("page", _PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """To a file of the repository, and to a heading that is there."""
    for link in re.findall(r"\]\(([^)]+)\)", _text(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        found = (_ROOT / page).parent / path if path else _ROOT / page
        assert found.exists(), f"{page}: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, link
