"""The bill of materials: CycloneDX 1.6 with the models as machine-learning models, by cyclonedx-python-lib."""

import json
import uuid
from collections.abc import Iterator

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from pipeline import codec
from pipeline.release.records import ClassModel, Manifest, ReleasedData

_OURS = "edge-deploy-pipeline"
_DATA = "data:{}"


def bill_of_materials(manifest: Manifest) -> bytes:
    """Canonical JSON; the same for the same release, so it has no time of making."""
    release = Component(
        name=manifest.name,
        version=str(manifest.sequence),
        type=ComponentType.APPLICATION,
        bom_ref="release",
        description=manifest.summary or None,
        licenses=_license(manifest.license),
        properties=[Property(name="edge-deploy:content", value=manifest.content)],
    )
    source = Component(
        name=manifest.source.file,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="source",
        hashes=[_sha256(manifest.source.sha256)],
        properties=[Property(name="edge-deploy:kind", value=manifest.source.kind)],
    )
    data = [_data("calibration", manifest.calibration), _data("test", manifest.test)]
    models = {name: _model(name, model) for name, model in manifest.classes.items()}
    tools = {name: _tool(name, version) for name, version in manifest.tools.items()}
    runtimes = {name: list(_runtimes(model)) for name, model in manifest.classes.items()}
    libraries = {str(found.bom_ref): found for several in runtimes.values() for found in several}
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, f"{manifest.name} {manifest.sequence} {manifest.content}"),
        components=[source, *data, *models.values(), *libraries.values()],
    )
    bom.metadata.component = release
    bom.metadata.tools.components.update(tools.values())
    bom.register_dependency(release, models.values())
    for name, model in models.items():
        bom.register_dependency(model, [source, data[0], *runtimes[name]])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    return codec.canonical(document) + b"\n"


def _model(name: str, model: ClassModel) -> Component:
    facts = {"class": name, "recipe": model.recipe, "format": model.format, "bytes": str(model.total_bytes)}
    if model.quality:
        facts |= {f"fidelity:{key}": f"{value:.6g}" for key, value in model.quality.fidelity.items()}
        facts |= {f"metric:{key}": f"{value.value:.6g}" for key, value in model.quality.metrics.items()}
    return Component(
        name=model.file,
        group=name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{name}",
        hashes=[_sha256(model.blob)],
        properties=[Property(name=f"edge-deploy:{key}", value=value) for key, value in facts.items()],
    )


def _data(role: str, data: ReleasedData) -> Component:
    facts = {"role": role, "samples": str(data.count), "preprocessing": data.preprocess}
    if data.seed is not None:
        facts["seed"] = str(data.seed)
    return Component(
        name=f"{role} samples",
        type=ComponentType.DATA,
        bom_ref=_DATA.format(role),
        hashes=[_sha256(data.sha256)],
        licenses=_license(data.license),
        properties=[Property(name=f"edge-deploy:{key}", value=value) for key, value in facts.items()],
    )


def _runtimes(model: ClassModel) -> Iterator[Component]:
    for name, version in model.runtime.items():
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"runtime:{name}@{version}",
            purl=PackageURL("pypi", name=name, version=version),
        )


def _tool(name: str, version: str) -> Component:
    return Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION if name == _OURS else ComponentType.LIBRARY,
        bom_ref=f"tool:{name}",
        manufacturer=OrganizationalEntity(name="edge-deploy-pipeline contributors") if name == _OURS else None,
    )


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _license(name: str) -> list[DisjunctiveLicense] | None:
    """By its SPDX identifier where it is one, else as the user wrote it."""
    from cyclonedx.spdx import fixup_id

    known = fixup_id(name) if name else None
    return [DisjunctiveLicense(id=known) if known else DisjunctiveLicense(name=name)] if name else None
