"""`deploy release`: keys, signatures, and what is in a bundle."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import ask_passphrase, config_option, json_option, state_folder, state_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.release.keys import PublicKey

_BUNDLE = click.Path(path_type=Path, dir_okay=False)
_KEY = click.Path(path_type=Path, dir_okay=False)
name_option = click.option("--name", metavar="NAME", help="Of the release, where the history has several.")


@click.group()
def release() -> None:
    """Make keys, sign, verify and look at releases.

    `deploy run` writes NAME-SEQ.release, and signs it when deploy.yaml has `release: {key: FILE}`.
    """


@release.command()
@click.argument("file", type=_KEY)
@click.option("--passphrase", "protected", is_flag=True, help="Ask for one, twice; the key is of no use without it.")
@json_option
def keygen(file: Path, protected: bool, as_json: bool) -> None:
    """Make a key pair: FILE, which nobody else may read, and FILE.pub for whoever verifies.

    Ed25519, as PKCS #8 PEM and PEM: what `openssl genpkey -algorithm ed25519` makes, and reads.
    """
    import os

    from pipeline.release.keys import PASSPHRASE_VARIABLE, make_keys, public_path_of

    passphrase = ""
    if protected:
        passphrase = os.environ.get(PASSPHRASE_VARIABLE) or click.prompt(
            "passphrase", hide_input=True, confirmation_prompt=True, err=True
        )
    public = make_keys(file, passphrase)
    if as_json:
        made = {"private": str(file), "public": str(public_path_of(file)), "key": public.raw.hex()}
        click.echo(json.dumps(made | {"fingerprint": public.fingerprint}))
        return
    click.echo(f"{public.fingerprint}")
    click.echo(f"  {file}  signs; keep it out of the repository, and a copy of it somewhere safe")
    click.echo(f"  {public_path_of(file)}  verifies; give it to devices and to whoever checks releases")


@release.command()
@click.argument("bundle", type=_BUNDLE)
@click.option("--key", "key", type=_KEY, help="Private key.  [default: deploy.yaml's release.key]")
@click.option("--again", is_flag=True, help="Replace the signature that is there.")
@config_option
@state_option
@json_option
def sign(bundle: Path, key: Path | None, again: bool, config: Path, state: Path | None, as_json: bool) -> None:
    """Sign a bundle that is not signed yet. Its content and its id stay the same."""
    from dataclasses import replace

    from pipeline.errors import UsageError
    from pipeline.release.bundle import open_bundle, write_bundle
    from pipeline.release.history import History
    from pipeline.release.keys import load_private_key

    private = load_private_key(key or _configured_key(config), ask_passphrase)
    opened = open_bundle(bundle, None)
    signature = private.sign(opened.manifest)
    if opened.signature and opened.signature != signature and not again:
        raise UsageError(f"{bundle}: is signed by another key", hint="`--again` puts this signature in its place")
    blobs = {digest: opened.blob(digest) for digest in opened.digests}
    write_bundle(bundle, opened.manifest, blobs, opened.texts, signature)
    history = History(state_folder(config, state), opened.name)  # so that the next run writes it with its signature
    entry = history.releases().get(opened.sequence)
    if entry is not None and entry.id == opened.id:
        signed = replace(entry, signature=signature.hex(), signed_by=private.public.fingerprint)
        history.sign_release(opened.sequence, signed)
    if as_json:
        click.echo(json.dumps({"id": opened.id, "signed_by": private.public.fingerprint}))
        return
    click.echo(f"{bundle}: signed by {private.public.fingerprint}")


@release.command()
@click.argument("bundles", nargs=-1, required=True, type=_BUNDLE)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=_KEY,
    help="Public key that may have signed; may be repeated.  [default: that of deploy.yaml's release.key]",
)
@click.option("--whole", "only_whole", is_flag=True, help="Do not ask who signed: only whether it is whole.")
@config_option
@json_option
def verify(bundles: tuple[Path, ...], keys: tuple[Path, ...], only_whole: bool, config: Path, as_json: bool) -> None:
    """Check every byte of bundles, and that a key that you trust has signed them.

    Exit code: 0 all are good, 1 one is refused, 2 a file or key is missing.
    """
    from pipeline.release.bundle import open_bundle
    from pipeline.release.keys import public_path_of
    from targets.errors import BundleRefused

    trusted = None if only_whole else _public(keys or (public_path_of(_configured_key(config)),))
    rows = []
    for path in bundles:
        row: dict[str, object] = {"file": str(path)}
        try:
            opened = open_bundle(path, trusted)
            signer = opened.signed_by.fingerprint if opened.signed_by else None
            row |= {"verdict": "good", "id": opened.id, "name": opened.name, "sequence": opened.sequence}
            row |= {"signed_by": signer, "signed": bool(opened.signature)}
        except BundleRefused as error:
            row |= {"verdict": "refused", "reason": error.message, "hint": error.hint}
        rows.append(row)
        if not as_json:
            _say(path, row)
    if as_json:
        click.echo(json.dumps(rows))
    raise click.exceptions.Exit(1 if any(row["verdict"] == "refused" for row in rows) else 0)


def _say(path: Path, row: dict[str, object]) -> None:
    if row["verdict"] == "refused":
        click.echo(click.style("✗ ", fg="red") + str(row["reason"]))
        click.echo(click.style("  hint: ", fg="cyan") + str(row["hint"]))
        return
    who = f"signed by {row['signed_by']}" if row["signed_by"] else "whole; who signed it was not asked"
    click.echo(click.style("✓ ", fg="green") + f"{path}: {row['name']} {row['sequence']}, {who}, {str(row['id'])[:16]}")


@release.command("list")
@name_option
@config_option
@state_option
@json_option
def list_(name: str | None, config: Path, state: Path | None, as_json: bool) -> None:
    """List the releases that were made here."""
    from pipeline.release.find import found, the_name
    from pipeline.release.history import History

    folder = state_folder(config, state)
    releases = {number: found(entry) for number, entry in History(folder, the_name(folder, name)).releases().items()}
    if as_json:
        rows = [
            {
                "name": each.record.name,
                "sequence": number,
                "id": each.id,
                "date": each.date,
                "content": each.record.content,
                "signed_by": each.signed_by or None,
                "classes": {key: model.recipe for key, model in each.record.classes.items()},
            }
            for number, each in releases.items()
        ]
        click.echo(json.dumps(rows))
        return
    for number, each in releases.items():
        models = ", ".join(f"{key}: {model.recipe}" for key, model in each.record.classes.items())
        models = models.removeprefix("default: ") if len(each.record.classes) == 1 else models
        date = each.date[:16].replace("T", " ")
        signed = each.signed_by or "not signed"
        click.echo(f"{each.record.name} {number:>4}  {each.id[:12]}  {date}  {models}  ({signed})")


@release.command()
@click.argument("which", metavar="RELEASE")
@click.option("--card", is_flag=True, help="Print the model card, as Markdown.")
@click.option("--bom", is_flag=True, help="Print the bill of materials, as CycloneDX JSON.")
@name_option
@config_option
@state_option
@json_option
def show(which: str, card: bool, bom: bool, name: str | None, config: Path, state: Path | None, as_json: bool) -> None:
    """Show a release: a bundle file, a number, or the beginning of an id.

    It is read without asking who signed it; `deploy release verify` asks.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from pipeline import codec
    from pipeline.release.bom import bill_of_materials
    from pipeline.release.card import model_card
    from pipeline.release.find import find_release

    found = find_release(which, state_folder(config, state), name)
    if as_json:
        click.echo(json.dumps({"id": found.id, "manifest": codec.plain(found.record)}))
    elif bom:
        click.echo(bill_of_materials(found.record), nl=False)
    elif card or not sys.stdout.isatty():
        click.echo(model_card(found.record), nl=False)
    else:
        console = Console()
        body = model_card(found.record).partition("\n---\n")[2]
        console.print(Markdown(body))
        console.print(f"id {found.id}", highlight=False)


def _public(paths: "Sequence[Path]") -> "list[PublicKey]":
    from pipeline.release.keys import load_public_key

    return [load_public_key(path) for path in paths]


def _configured_key(config: Path) -> Path:
    from pipeline.config_file import load_config
    from pipeline.errors import UsageError

    loaded = load_config(config) if config.exists() else None
    if loaded is None or not loaded.config.release.key:
        raise UsageError(
            f"{config}: has no `release: {{key: FILE}}`" if loaded else "no key is given",
            hint="give one with --key FILE; `deploy release keygen FILE` makes a pair",
        )
    return loaded.base / Path(loaded.config.release.key).expanduser()
