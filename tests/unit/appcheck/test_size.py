"""Google Play's limits, on apps that need not be built to have their sizes."""

from dataclasses import replace

import pytest

from pipeline.appcheck.app import App, Entry, Finding, Manifest
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.rules.size import download_bytes, play_limits
from targets.records import Absent


def entry(path: str, megabytes: float, module: str = "base") -> Entry:
    size_bytes = int(megabytes * 1e6)
    return Entry(
        name=f"{module}/{path}",
        module=module,
        path=path,
        size_bytes=size_bytes,
        compressed_bytes=size_bytes,
        stored=True,
        offset=0,
    )


def limits(*entries: Entry, **manifests: Manifest) -> list[Finding]:
    app = App(
        name="app.aab",
        kind="aab",
        sha256="",
        size_bytes=0,
        entries=entries,
        models=(),
        libraries=(),
        manifests=manifests,
        bundle=Absent(reason=""),
    )
    return list(play_limits(app, Asked()))


def test_a_device_fetches_the_libraries_of_one_abi() -> None:
    libraries = [entry("lib/arm64-v8a/a.so", 60), entry("lib/x86_64/a.so", 70), entry("lib/x86_64/b.so", 5)]
    assert download_bytes([entry("assets/a", 40), *libraries]) == pytest.approx(115e6)
    assert limits(entry("assets/a", 100), *libraries) == limits()


@pytest.mark.parametrize(
    ("megabytes", "severities"), [(150, []), (190, ["warning"]), (200, ["warning"]), (201, ["blocking"])]
)
def test_the_base_module(megabytes: float, severities: list[str]) -> None:
    found = limits(entry("assets/net.tflite", megabytes))
    assert [finding.severity for finding in found] == severities
    assert all("com.android.asset-pack" in finding.remedy and "200 MB" in finding.detail for finding in found)


def test_asset_packs_have_more_and_on_demand_ones_are_counted_apart() -> None:
    pack, later = Manifest(asset_pack=True), Manifest(asset_pack=True, on_demand=True)
    packs = [entry("assets/a", 1300, f"pack{n}") for n in range(4)]
    names = [part.module for part in packs]
    both = {name: pack if place < 2 else later for place, name in enumerate(names)}
    assert limits(entry("dex", 10), *packs, **both) == []
    [over] = limits(entry("dex", 10), *packs, **dict.fromkeys(names, pack))
    assert over.severity == "blocking" and "install-time asset packs together" in over.detail
    [large] = limits(*packs[:3], replace(packs[3], compressed_bytes=1_600_000_000), **both)
    assert large.severity == "blocking" and "asset pack 'pack3'" in large.detail


def test_the_manifests_of_modules_do_not_count_as_modules() -> None:
    assert limits(entry("MANIFEST.MF", 300, "META-INF"), entry("deps.pb", 300, "BUNDLE-METADATA")) == []
