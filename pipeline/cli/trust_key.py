"""`deploy targets trust-key KEY.pub SELECTOR…`: whose releases devices take."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import config_option, json_option, state_folder, state_option

if TYPE_CHECKING:
    from targets.records import TargetSpec

_FILE = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """What a device trusts after it was asked to trust a key."""

    target: str
    added: bool
    trusts: tuple[str, ...]  # raw public keys in hexadecimal


@click.command("trust-key")
@config_option
@state_option
@click.option(
    "--signed-by", "private", type=_FILE, metavar="PRIVATE", help="A key that the devices trust, to vouch for this one."
)
@json_option
@click.argument("key", type=_FILE)
@click.argument("selectors", nargs=-1, required=True, metavar="SELECTOR...")
def trust_key(
    config: Path, state: Path | None, private: Path | None, as_json: bool, key: Path, selectors: tuple[str, ...]
) -> None:
    """Have devices take releases that KEY, a public one, has signed.

    A device's first key is taken over the authenticated link, and from then on it takes no unsigned release. To change
    keys, add the next one with `--signed-by` the present one, push with it, then remove the present one's file in the
    folder `trust` of each device. Doing it again changes nothing. Exit code 3 when a device does not trust KEY now.
    """
    from pipeline.cli.fleet import chosen, failures, on_all, outcome_json, print_failures
    from pipeline.cli.options import ask_passphrase
    from pipeline.release.keys import PublicKey, load_private_key, load_public_key
    from targets.device import connect
    from targets.errors import SignatureRefused
    from targets.releases import TRUST_PREFIX

    public = load_public_key(key)
    voucher = load_private_key(private, ask_passphrase) if private else None
    word = voucher.sign(TRUST_PREFIX + public.raw) if voucher else b""
    folder = state_folder(config, state)

    def give(spec: "TargetSpec") -> _Given:
        with connect(spec, state=folder) as device:
            before = device.releases.installed().keys
            known = [PublicKey(bytes.fromhex(text)) for text in before]
            if known and public not in known and (voucher is None or voucher.public not in known):
                trusted = ", ".join(one.fingerprint for one in known)
                vouched = f"{voucher.public.fingerprint} is none of them" if voucher else "nothing vouches for another"
                raise SignatureRefused(
                    f"{spec.name}: trusts {trusted}; {vouched}", hint="`--signed-by` the private key of one it trusts"
                )
            device.releases.trust(public.raw, word)
            after = device.releases.installed().keys
        return _Given(target=spec.name, added=public.raw.hex() not in before, trusts=after)

    outcomes = list(on_all(chosen(config, state, selectors), give))
    if as_json:
        click.echo(json.dumps([asdict(f) if isinstance(f, _Given) else outcome_json(spec, f) for spec, f in outcomes]))
    else:
        for spec, found in outcomes:
            if isinstance(found, _Given):
                said = "from now on" if found.added else "as before"
                others = [
                    PublicKey(bytes.fromhex(text)).fingerprint for text in found.trusts if text != public.raw.hex()
                ]
                besides = f", besides {', '.join(others)}" if others else ""
                click.echo(f"{spec.name}: trusts {public.fingerprint} {said}{besides}")
        print_failures(failures(outcomes))
    raise click.exceptions.Exit(3 if failures(outcomes) else 0)
