"""Put one measured run of the example into README.md, and its report's picture into docs/report.png.

    make run && .venv/bin/python docs/example.py deploy-out

The table stands between `<!-- measured: example -->` and `<!-- /measured -->`. It is what one machine said on one day,
so nothing checks it for being current; the picture needs Chromium.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline import quantities

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"(<!-- measured: example -->\n).*?(<!-- /measured -->)", re.DOTALL)
_TARGET, _METRIC = "local", "psnr-y"


def table(report: dict[str, Any]) -> str:
    """The comparison of the example as a Markdown table, and the verdict."""
    candidates = {candidate["recipe"]: candidate for candidate in report["candidates"]}
    base = candidates[report["baseline"]]
    lines = [
        "| recipe | verdict | file | peak memory | latency, median | PSNR-Y | SQNR |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, candidate in candidates.items():
        ours, theirs = candidate["targets"][_TARGET], base["targets"][_TARGET]
        metric = candidate["metrics"][_METRIC]
        cells = [
            f"**`{name}`**" if name == report["chosen"] else f"`{name}`",
            candidate["verdict"],
            _changed(quantities.size, candidate["size_bytes"], base["size_bytes"]),
            _changed(quantities.size, ours["peak_rss_bytes"], theirs["peak_rss_bytes"]),
            _changed(quantities.milliseconds, ours["warm_ms"]["median"], theirs["warm_ms"]["median"]),
            f"{metric['value']:.2f} dB ({quantities.signed(-metric['drop'])})",
            f"{candidate['fidelity']['sqnr_db']:.1f} dB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _changed(shown: Any, value: float, base: float) -> str:
    return shown(value) if value == base else f"{shown(value)} ({quantities.change(value, base)})"


def main(out: Path) -> None:
    """Rewrite the block and the picture."""
    report = json.loads((out / "report.json").read_text())
    readme = ROOT / "README.md"
    body = table(report)
    readme.write_text(_BLOCK.sub(lambda block: block[1] + body + block[2], readme.read_text()))
    picture = ROOT / "docs" / "report.png"
    page = (out / "report.html").resolve().as_uri()
    window = ["--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,2000"]
    subprocess.run(["chromium", *window, f"--screenshot={picture}", page], check=True, capture_output=True)
    print(f"README.md and {picture.relative_to(ROOT)} show {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
