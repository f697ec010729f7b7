"""What the device reads of a release's manifest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from .wire import Json, Refused

SCHEMA = 1
MAX_MANIFEST_BYTES = 160 * 1024  # it travels in a request of at most 256 KiB, as base64
DIGEST = re.compile(r"[0-9a-f]{64}")
# A model's name in its folder: no path, nothing hidden, none of the store's own names.
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RESERVED = ("manifest.json", "manifest.sig", "staged.json")
MAX_NAME = 200


@dataclass(frozen=True)
class Manifest:
    """One class of one release."""

    id: str
    name: str
    sequence: int
    file: str
    blob: str
    beside: tuple[str, ...]  # files that the model wants in its folder, under their digests
    sizes: dict[str, int]  # of the model, of those, and of its golden vectors, by digest


def parse(content: bytes, device_class: str) -> Manifest:
    """Raises Refused with code release-refused when anything in it is not as it must be."""
    try:
        return _parsed(json.loads(content.decode("utf-8")), content, device_class)
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise Refused("release-refused", "the manifest cannot be used: %s %s" % (type(fault).__name__, fault)) from None


def _parsed(said: Json, content: bytes, device_class: str) -> Manifest:
    if said["schema"] != SCHEMA:
        raise ValueError("schema %r, this agent knows %d" % (said["schema"], SCHEMA))
    if device_class not in said["classes"]:
        raise ValueError("it has no class %r, but %s" % (device_class, ", ".join(sorted(said["classes"]))))
    model = said["classes"][device_class]
    sizes = {digest(model["blob"]): whole(model["size_bytes"])}
    beside = {digest(name): whole(size) for name, size in model.get("beside", {}).items()}
    sizes.update(beside)
    for golden in model["golden"]:
        for role in ("inputs", "expected"):
            sizes[digest(golden[role])] = whole(golden[role + "_bytes"])
    if not FILE.fullmatch(model["file"]) or model["file"] in RESERVED or model["file"].endswith(".new"):
        raise ValueError("no name for a file: %r" % model["file"])
    if not isinstance(said["name"], str) or not 0 < len(said["name"]) <= MAX_NAME:
        raise ValueError("no name for a release: %r" % (said["name"],))
    return Manifest(
        id=hashlib.sha256(content).hexdigest(),
        name=said["name"],
        sequence=whole(said["sequence"]),
        file=model["file"],
        blob=model["blob"],
        beside=tuple(sorted(beside)),
        sizes=sizes,
    )


def digest(text: str) -> str:
    if not DIGEST.fullmatch(text):
        raise ValueError("not a SHA-256 digest: %r" % text)
    return text


def whole(number: int) -> int:
    if type(number) is not int or not 0 <= number < 1 << 53:
        raise ValueError("not a whole number: %r" % (number,))
    return number
