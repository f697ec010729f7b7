"""A folder of images, decoded one by one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline.errors import InputError, UsageError
from targets.records import TensorSpec

from .files import resolve
from .image_file import list_images, load_image
from .preprocess import apply_steps
from .sample import Raw
from .spec import DataSpec, ImageTruth
from .truth import open_truth


class ImageFolder:
    """A folder of images for a model with one input."""

    def __init__(self, spec: DataSpec, signature: Sequence[TensorSpec], base: Path) -> None:
        if len(signature) != 1:
            names = ", ".join(tensor.name for tensor in signature)
            raise UsageError(
                f"{spec.path}: a folder of images feeds one input, this model has {len(signature)}: {names}",
                hint="use an .npz with one array per input, or a function",
            )
        self._folder = resolve(spec.path, base)
        self._paths = list_images(self._folder)
        self._name = signature[0].name
        self._own_truth = spec.truth if isinstance(spec.truth, ImageTruth) else None
        relative = tuple(path.relative_to(self._folder) for path in self._paths)
        self._ids = tuple(f"{self._folder.resolve().name}/{path.as_posix()}" for path in relative)
        self._truth = None if self._own_truth else open_truth(spec.truth, relative, spec.path, base)

    def __len__(self) -> int:
        return len(self._paths)

    def file(self, index: int) -> Path:
        """The picture's own file."""
        return self._paths[index]

    def read(self, indices: Sequence[int]) -> Iterator[Raw]:
        """Yield the samples at these places, one decoded image at a time."""
        for index in indices:
            image = load_image(self._paths[index])
            yield Raw(id=self._ids[index], inputs={self._name: image}, truth=self._answer(index, image))

    def _answer(self, index: int, image: NDArray[Any]) -> NDArray[Any] | None:
        if self._own_truth is None:
            return None if self._truth is None else self._truth(index)
        try:
            return apply_steps(self._own_truth.image, image)
        except ValueError as error:
            raise InputError(f"{self._ids[index]}: truth: {error}", hint="change `truth` or the image") from error
