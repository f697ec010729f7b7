"""`deploy doctor`: is what is installed what was shipped, and what can it do?"""

import click


@click.command()
def doctor() -> None:
    """Compare the installed files with the package's record, and list runtimes and source frameworks.

    Our import names, `pipeline` and `targets`, are generic: another distribution with the same name can overwrite
    files when it is installed later into the same environment.
    """
    import hashlib
    from base64 import urlsafe_b64encode
    from importlib import metadata
    from pathlib import Path

    from pipeline.errors import EnvironmentFault
    from pipeline.plugins import versions

    package = metadata.distribution("edge-deploy-pipeline")
    damaged = []
    for file in package.files or ():
        if file.hash is None:
            continue
        path = Path(str(file.locate()))
        digest = hashlib.new(file.hash.mode, path.read_bytes()).digest() if path.exists() else b""
        if urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            damaged.append(str(file))
    click.echo(f"edge-deploy-pipeline {package.version}: {len(package.files or ())} files")
    for name in ("ai-edge-litert", "ai-edge-quantizer", "onnxruntime", "fabric", "paramiko"):
        click.echo(f"  {name:<20} {versions(name).get(name, 'MISSING')}")
    for extra, name in (("tensorflow", "tensorflow"), ("tensorflow", "tf2onnx"), ("torch", "torch")):
        missing = f"— (pip install 'edge-deploy-pipeline[{extra}]')"
        click.echo(f"  {name:<20} {versions(name).get(name, missing)}")
    if damaged:
        raise EnvironmentFault(
            f"{len(damaged)} installed files are not ours any more: {', '.join(damaged[:5])}",
            hint="install into an environment of its own: pipx install edge-deploy-pipeline",
        )
