"""How large models and downloads are.

Limits: https://support.google.com/googleplay/android-developer/answer/9859372 ("Google Play maximum size limits", read
2026-11): compressed download size of the base module and of each feature module 200 MB, of an asset pack 1.5 GB, of all
modules and install-time packs 4 GB, of all other packs 4 GB. Play Console calculates the size; ours is the compressed
bytes that one device would fetch: all of a module but the libraries of other ABIs.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from pipeline.appcheck.app import App, Entry, Finding, Manifest, Model
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.rules.finding import blocking, listed, models, warning
from pipeline.quantities import size

_MODULE_BYTES, _PACK_BYTES, _TOTAL_BYTES = 200e6, 1.5e9, 4e9
# Play's calculation is "similar, but not identical": from here on the upload may fail where ours does not.
_NEAR = 0.9


def budgets(app: App, asked: Asked) -> Iterator[Finding]:
    """Models against the budgets that were asked for."""
    total = sum(model.entry.size_bytes for model in app.models)
    if asked.budget_bytes is not None and total > asked.budget_bytes:
        detail = f"{models(len(app.models))} of {size(total)} together, the budget is {size(asked.budget_bytes)}"
        remedy = "ship a smaller candidate: `choose: size` in deploy.yaml and `deploy run`"
        yield blocking("budget", None, detail, remedy)
    for model in app.models:
        if asked.model_budget_bytes is not None and model.entry.size_bytes > asked.model_budget_bytes:
            detail = f"{size(model.entry.size_bytes)}, deploy.yaml's budgets.size is {size(asked.model_budget_bytes)}"
            yield blocking("budget", model.entry, detail, "ship a candidate within it; `deploy run` names them")


def duplicates(app: App, asked: Asked) -> Iterator[Finding]:
    """The same model twice."""
    same: dict[str, list[Model]] = defaultdict(list)
    for model in app.models:
        same[model.sha256].append(model)
    for twins in same.values():
        if len(twins) > 1:
            first, *others = sorted(twins, key=lambda model: model.entry.name)
            wasted = sum(model.entry.compressed_bytes for model in others)
            detail = (
                f"the same bytes as {listed(m.entry.name for m in others)}: {size(wasted)} of the download for nothing"
            )
            remedy = "keep one file; in a bundle, the one in base, which every module can open"
            yield warning("duplicate", first.entry, detail, remedy)


def play_limits(app: App, asked: Asked) -> Iterator[Finding]:
    """Downloads against Google Play's limits."""
    modules: dict[str, list[Entry]] = defaultdict(list)
    for entry in app.entries:
        if entry.module not in ("META-INF", "BUNDLE-METADATA"):
            modules[entry.module].append(entry)
    totals = {True: 0.0, False: 0.0}
    for module, entries in modules.items():
        found = app.manifests.get(module)
        pack = isinstance(found, Manifest) and found.asset_pack
        fetched = download_bytes(entries)
        totals[isinstance(found, Manifest) and pack and found.on_demand] += fetched
        title = "the APK" if app.kind == "apk" else f"{'asset pack' if pack else 'module'} {module!r}"
        yield from _limit(title, fetched, _PACK_BYTES if pack else _MODULE_BYTES, _advice(pack))
    if len(modules) > 1:
        advice = "take models out of the app and fetch them when they are needed"
        yield from _limit("modules and install-time asset packs together", totals[False], _TOTAL_BYTES, advice)
        yield from _limit("on-demand asset packs together", totals[True], _TOTAL_BYTES, advice)


def download_bytes(entries: Iterable[Entry]) -> float:
    """What one device fetches: everything but libraries, and the libraries of its ABI (here the largest)."""
    by_abi: dict[str, float] = defaultdict(float)
    for entry in entries:
        folder, _, rest = entry.path.partition("/")
        by_abi[rest.partition("/")[0] if folder == "lib" else ""] += entry.compressed_bytes
    return by_abi.pop("", 0.0) + max(by_abi.values(), default=0.0)


def _limit(title: str, fetched: float, limit: float, remedy: str) -> Iterator[Finding]:
    detail = f"{title}: about {size(fetched)} to download, Google Play takes {size(limit)}"
    if fetched > limit:
        yield blocking("play-size", None, detail, remedy)
    elif fetched > _NEAR * limit:
        yield warning("play-size", None, detail, remedy)


def _advice(pack: bool) -> str:
    if pack:
        return "split the asset pack"
    return (
        "move models into an asset pack: `plugins { id 'com.android.asset-pack' }` in a module of its own and "
        "`android { assetPacks += [':models'] }` in app/build.gradle"
    )
