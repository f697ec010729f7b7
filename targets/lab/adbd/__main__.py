"""`python -I -m targets.lab.adbd --root FOLDER`: be a device until it reboots."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from targets.lab.adbd.daemon import PORT, Options, serve


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="adbd", description="An Android debug daemon whose faults can be switched.")
    parser.add_argument("--root", type=Path, required=True, help="folder where the paths of the device begin")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT, help="0: any; it is named on standard output")
    parser.add_argument("--state", type=Path, help="JSON file to switch faults by; read again when replaced")
    parser.add_argument("--properties", type=Path, help="file of NAME=VALUE lines")
    parser.add_argument("--commands", type=Path, help="folder to put getprop and setprop in; needs --properties")
    try:
        asyncio.run(serve(Options(**vars(parser.parse_args(argv)))))
    except OSError as fault:
        print(f"adbd: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
