"""Folders of images: real files of every kind, good and bad."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError, UsageError
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.image_file import load_image
from targets.records import TensorSpec

PIXELS = (TensorSpec(name="image", shape=(-1, -1, -1, 3), dtype="uint8"),)
FLOATS = (TensorSpec(name="image", shape=(1, 8, 8, 3), dtype="float32"),)


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, seed: int, height: int = 8, width: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed, height, width)).save(path)
    return path


def failure(spec: DataSpec, base: Path, signature=PIXELS) -> InputError:
    with pytest.raises(InputError) as caught:
        list(open_samples(spec, signature, base))
    assert caught.value.hint
    return caught.value


def test_images_come_sorted_recursive_and_as_they_are(tmp_path):
    for name in ("photos/b.png", "photos/a.bmp", "photos/deep/c.tif", "photos/.hidden/d.png", "photos/.e.png"):
        save(tmp_path / name, sum(name.encode()))
    (tmp_path / "photos/NOTICE.md").write_text("not an image")
    samples = list(open_samples(DataSpec(path="photos"), PIXELS, tmp_path))
    assert [sample.id for sample in samples] == ["photos/a.bmp", "photos/b.png", "photos/deep/c.tif"]
    assert np.array_equal(samples[0].inputs["image"][0], noise(sum(b"photos/a.bmp")))


def test_preprocessing_and_own_truth(tmp_path):
    save(tmp_path / "p/a.png", 1, 20, 16)
    spec = DataSpec.model_validate(
        {
            "path": "p",
            "preprocess": [{"center_crop": 16}, {"resize": {"size": [8, 8], "filter": "area"}}, {"scale": "1/255"}],
            "truth": {"image": [{"center_crop": 16}, {"scale": "1/255"}]},
        }
    )
    [sample] = open_samples(spec, FLOATS, tmp_path)
    assert sample.truth.shape == (16, 16, 3)
    means = sample.truth.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
    # Pillow's box filter rounds to whole pixels, once along each axis.
    assert np.abs(sample.inputs["image"][0] - means).max() <= 1.01 / 255


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    Image.fromarray(noise(1, 4, 9)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_image(tmp_path / "a.png"), np.rot90(noise(1, 4, 9), -1))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.fromarray(noise(2)).convert(mode).save(path)
    loaded = load_image(path)
    assert loaded.shape == (8, 8, 3)
    assert loaded.dtype == np.uint8
    if mode == "RGBA":
        assert np.array_equal(loaded, noise(2))


def test_a_palette_with_transparency_becomes_rgb(tmp_path):
    image = Image.fromarray(noise(3)).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes(range(16)))
    assert load_image(tmp_path / "a.png").shape == (8, 8, 3)


def test_sixteen_bit_gray_keeps_its_precision_in_the_same_range(tmp_path):
    values = np.array([[0, 1000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png")
    assert loaded.dtype == np.float32
    assert np.allclose(loaded[0, :, 0], [0, 1000 / 257, 255])


def test_float_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: 32-bit"):
        load_image(tmp_path / "a.tif")


def test_truncated_png_jpeg_and_webp_name_the_file(tmp_path):
    for number, kind in enumerate(("png", "jpg", "webp")):
        folder = tmp_path / kind
        path = save(folder / f"cut.{kind}", number, 64, 64)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert f"cut.{kind}: cannot decode" in failure(DataSpec(path=kind), tmp_path).message


def test_any_damaged_byte_string_is_an_input_error_or_an_image(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(noise(5)).save(buffer, "PNG")
    whole, random = buffer.getvalue(), np.random.default_rng(0)
    refused = 0
    for number in range(60):
        damaged = bytearray(whole)
        damaged[random.integers(8, len(whole))] ^= int(random.integers(1, 256))
        path = tmp_path / f"{number}.png"
        path.write_bytes(bytes(damaged))
        try:
            load_image(path)
        except InputError as error:
            refused += 1
            assert f"{number}.png" in error.message
    assert refused > 20


@pytest.mark.parametrize("factor", [1.5, 3])
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, factor):
    save(tmp_path / "p/bomb.png", 1, 30, 30)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(900 / factor))
    assert "bomb.png: the image is too large" in failure(DataSpec(path="p"), tmp_path).message


def test_several_pictures_in_one_file_are_refused(tmp_path):
    (tmp_path / "p").mkdir()
    pages = [Image.fromarray(noise(number)) for number in range(2)]
    pages[0].save(tmp_path / "p/pages.tif", save_all=True, append_images=pages[1:])
    assert "pages.tif: the file holds 2 pictures" in failure(DataSpec(path="p"), tmp_path).message


def test_git_lfs_pointer_empty_file_and_missing_folder(tmp_path):
    (tmp_path / "p").mkdir()
    assert "p: there is no image" in failure(DataSpec(path="p"), tmp_path).message
    pointer = tmp_path / "p/cat.png"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    error = failure(DataSpec(path="p"), tmp_path)
    assert "cat.png: this is a git-lfs pointer" in error.message
    assert "git lfs pull" in error.hint
    pointer.write_bytes(b"")
    assert "cat.png: the file is empty" in failure(DataSpec(path="p"), tmp_path).message
    assert "gone: there is no such" in failure(DataSpec(path="gone"), tmp_path).message


def test_a_broken_link_names_the_file(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/link.png").symlink_to(tmp_path / "nowhere.png")
    assert "link.png: there is no such image" in failure(DataSpec(path="p"), tmp_path).message


def test_a_model_with_two_inputs_cannot_take_images(tmp_path):
    save(tmp_path / "p/a.png", 1)
    second = TensorSpec(name="mask", shape=(1, 8, 8, 1), dtype="uint8")
    with pytest.raises(UsageError, match="2: image, mask"):
        open_samples(DataSpec(path="p"), (*PIXELS, second), tmp_path)


def test_a_step_that_fails_names_the_sample(tmp_path):
    save(tmp_path / "p/a.png", 1, 20, 20)
    save(tmp_path / "p/small.png", 1, 6, 20)
    spec = DataSpec.model_validate({"path": "p", "preprocess": [{"center_crop": 8}]})
    assert "p/small.png: input 'image': `center_crop` cannot cut 8×8 out of 6×20" in failure(spec, tmp_path).message


# Truth beside images


def truths(spec: dict, base: Path) -> list:
    samples = open_samples(DataSpec.model_validate({"path": "p", **spec}), PIXELS, base)
    return [sample.truth.tolist() for sample in samples]


def test_class_folders_number_the_sorted_names(tmp_path):
    for name in ("p/dog/1.png", "p/cat/2.png", "p/cat/1.png"):
        save(tmp_path / name, 1)
    assert truths({"truth": "folders"}, tmp_path) == [0, 0, 1]
    save(tmp_path / "p/stray.png", 1)
    assert "stray.png: lies in no class folder" in failure(DataSpec(path="p", truth="folders"), tmp_path).message


def test_label_files_and_arrays(tmp_path):
    for name in ("p/a.png", "p/b.png", "p/c.png"):
        save(tmp_path / name, 1)
    (tmp_path / "named.csv").write_text("file,label\nc.png,3\na.png,1\nb.png,2\n")
    (tmp_path / "column.csv").write_text("label\n1\n2\n3\n")
    (tmp_path / "lines.txt").write_text("1\n2\n3\n")
    np.save(tmp_path / "array.npy", np.array([1, 2, 3]))
    np.savez(tmp_path / "array.npz", labels=np.array([1, 2, 3]))
    for file in ("named.csv", "column.csv", "lines.txt", "array.npy", "array.npz"):
        assert truths({"truth": file}, tmp_path) == [1, 2, 3], file
    assert truths({"truth": "lines.txt", "limit": 2, "seed": 1}, tmp_path) in ([1, 2], [1, 3], [2, 3])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("t.csv", "file,label\na.png,1\n", "has no label for b.png"),
        ("t.csv", "file,label\na.png,1\na.png,2\nb.png,1\n", "t.csv:3: a.png has a label already"),
        ("t.csv", "file,label\na.png,cat\nb.png,1\n", "t.csv:2: the label 'cat' is not a number"),
        ("t.csv", "file,label\na.png\nb.png,1\n", "t.csv:2: 1 cells"),
        ("t.txt", "1\n", "t.txt: 1 right answers for the 2 samples"),
        ("t.txt", "1\nnan\n", "t.txt:2: the label 'nan'"),
        ("t.txt", "1,2\n3,4\n", "t.txt:1: 2 columns"),
    ],
)
def test_bad_label_files_name_file_and_line(tmp_path, file, text, message):
    save(tmp_path / "p/a.png", 1)
    save(tmp_path / "p/b.png", 2)
    (tmp_path / file).write_text(text)
    assert message in failure(DataSpec(path="p", truth=file), tmp_path).message


def test_truth_images_with_the_same_stems(tmp_path):
    save(tmp_path / "p/a.png", 1)
    save(tmp_path / "hr/a.bmp", 2, 16, 16)
    assert truths({"truth": "hr"}, tmp_path) == [noise(2, 16, 16).tolist()]
    scaled = truths({"truth": {"folder": "hr", "preprocess": [{"scale": 0}]}}, tmp_path)
    assert np.array_equal(scaled, np.zeros((1, 16, 16, 3)))
    save(tmp_path / "p/b.png", 2)
    assert "b.png: " in failure(DataSpec(path="p", truth="hr"), tmp_path).message
    save(tmp_path / "hr/a.png", 2)
    assert "two truth images with one stem" in failure(DataSpec(path="p", truth="hr"), tmp_path).message


def test_truth_of_the_wrong_form(tmp_path):
    save(tmp_path / "p/a.png", 1)
    (tmp_path / "t.json").write_text("[]")
    for truth in ("next-token", {"array": "y"}, "t.json"):
        with pytest.raises(UsageError):
            open_samples(DataSpec.model_validate({"path": "p", "truth": truth}), PIXELS, tmp_path)
