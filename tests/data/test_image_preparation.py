"""Tests of the preparation of image files, on a folder of odd ones."""

import io
import os
import pathlib
import subprocess
import sys

import documents
import numpy as np
import pytest
from PIL import Image
from small_data import create, make_config

from edp.data import image_files, image_preparation
from edp.errors import InputError
from edp.export import classify_files

ROOT = pathlib.Path(__file__).parents[2]
RNG = np.random.default_rng(0)
GREY = RNG.integers(256, size=(8, 8), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(8, 8, 3), dtype=np.uint8)
# EXIF orientation -> what a camera stores of an upright image.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[:, ::-1],
}


def read(path, shape=(8, 8, 1), **options):
    return image_preparation.prepare(path, str(path), shape, **options)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_images_are_turned_upright(orientation, suffix, tmp_path):
    pixels = GREY[:, :5]
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif(orientation))
    np.testing.assert_array_equal(read(path, (8, 5, 1))[..., 0], pixels)
    # Size checks and crops are of the upright image.
    with pytest.raises(InputError, match=r"is 8x5 .*asks for 5x8"):
        read(path, (5, 8, 1))
    cropped = Image.fromarray(pixels).resize(
        (4, 4),
        Image.Resampling.BILINEAR,
        image_preparation.central_box((5, 8), (4, 4)),
    )
    np.testing.assert_array_equal(
        read(path, (4, 4, 1), resize="random_crop")[..., 0], cropped
    )


def write_odd_files(folder):
    """Writes files of unusual forms.

    Returns:
      File name -> the colours uint8 [8, 8, 3] that it should give.
    """
    folder.mkdir()
    grey = np.repeat(GREY[..., None], 3, 2)
    alpha = RNG.integers(1, 255, size=(8, 8), dtype=np.uint8)
    share = alpha[..., None] / 255
    ink = np.dstack([np.zeros((8, 8, 3), np.uint8), alpha])
    palette = Image.fromarray(GREY // 64 * 60).quantize(4)
    colours = np.asarray(palette.convert("RGB"))
    index = np.asarray(palette)
    wanted = {
        "grey.PNG": grey,
        "colour.bmp": COLOUR,
        "colour.webp": COLOUR,
        "colour.tif": COLOUR,
        "colour.ppm": COLOUR,
        "bits16.png": grey,
        "bilevel.png": np.repeat(np.uint8(255 * (GREY > 127))[..., None], 3, 2),
        "palette.gif": colours,
        "palette_transparent.png": np.where(
            index[..., None] == 0, np.uint8(255), colours
        ),
        "colour_key.png": np.where(
            (COLOUR[0, 0] == COLOUR).all(-1, keepdims=True), np.uint8(255), COLOUR
        ),
        "opaque.png": COLOUR,
        "ink_in_alpha.png": np.repeat(255 - alpha[..., None], 3, 2),
        "grey_alpha.png": grey * share + 255 * (1 - share),
        "cmyk.tiff": 255 - COLOUR,
        "bad_exif.png": COLOUR,
        "strange_exif.png": COLOUR,
    }
    Image.fromarray(GREY).save(folder / "grey.PNG")
    for suffix in ("bmp", "tif", "ppm"):
        Image.fromarray(COLOUR).save(folder / f"colour.{suffix}")
    Image.fromarray(COLOUR).save(folder / "colour.webp", lossless=True)
    Image.fromarray(np.uint16(GREY) * 256 + 200).save(folder / "bits16.png")
    Image.fromarray(GREY > 127).save(folder / "bilevel.png")
    palette.save(folder / "palette.gif")
    palette.save(folder / "palette_transparent.png", transparency=0)
    key = tuple(map(int, COLOUR[0, 0]))
    Image.fromarray(COLOUR).save(folder / "colour_key.png", transparency=key)
    full = np.dstack([COLOUR, np.full((8, 8), 255, np.uint8)])
    Image.fromarray(full).save(folder / "opaque.png")
    Image.fromarray(ink).save(folder / "ink_in_alpha.png")
    Image.fromarray(np.dstack([GREY, alpha])).save(folder / "grey_alpha.png")
    none = np.zeros((8, 8, 1), np.uint8)
    Image.fromarray(np.dstack([COLOUR, none]), "CMYK").save(folder / "cmyk.tiff")
    Image.fromarray(COLOUR).save(folder / "bad_exif.png", exif=b"Exif\0\0MM\0*damaged")
    Image.fromarray(COLOUR).save(folder / "strange_exif.png", exif=exif(99))
    return wanted


def luma(colours):
    """ITU-R 601-2 luma."""
    return np.asarray(colours, float) @ (0.299, 0.587, 0.114)


def test_odd_files_give_the_same_pixels_everywhere(tmp_path):
    wanted = write_odd_files(tmp_path / "odd")
    found = image_files.images_below(tmp_path / "odd")
    assert sorted(path.name for path in found.paths) == sorted(wanted)
    for path in found.paths:
        np.testing.assert_allclose(
            read(path, (8, 8, 3)), wanted[path.name], atol=1, err_msg=path.name
        )
        np.testing.assert_allclose(
            read(path)[..., 0], luma(wanted[path.name]), atol=1.5, err_msg=path.name
        )
    # The loader of training data and `launch.predict` read the same.
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / part).mkdir(parents=True, exist_ok=True)
            os.symlink(tmp_path / "odd", tmp_path / "set" / part / name)
    config = make_config(source="folder", path=str(tmp_path / "set"))
    config.update(image_shape=(8, 8, 3), num_classes=2, validation_size=2)
    images = create(config).test.images
    for i, path in enumerate(found.paths):
        np.testing.assert_array_equal(images[i], read(path, (8, 8, 3)))
    metadata = {
        "input": {"shape": ["batch", 8, 8, 3]},
        "preparation": {"resize": "whole", "downsample": 1},
    }
    files = classify_files._Images(found.paths, metadata)
    np.testing.assert_array_equal(files[:], images[: len(found.paths)])
    # So does the program that the documentation shows, which needs Pillow alone.
    text = documents.files(ROOT / "docs/deploying.md")["classify.py"]
    (tmp_path / "load.py").write_text(
        f"def load():\n    return None, {metadata | {'classes': []}!r}\n"
    )
    program, _ = text.split("files = sys.argv")
    (tmp_path / "classify.py").write_text(
        f"{program}\nnp.save(sys.argv[1], np.stack([read(p) for p in sys.argv[2:]]))\n"
    )
    out = tmp_path / "pixels.npy"
    command = [sys.executable, tmp_path / "classify.py", out]
    subprocess.run([*command, *found.paths], check=True)
    np.testing.assert_array_equal(np.load(out), images[: len(found.paths)])


def test_what_has_no_certain_pixels_is_refused(tmp_path):
    path = tmp_path / "a.tiff"
    for mode in ("I;16", "I", "F"):
        Image.new(mode, (8, 8)).save(path)
        with pytest.raises(InputError, match=rf"a.tiff has pixels of mode {mode}; .*8"):
            read(path)
    white = np.full((8, 8, 4), 255, np.uint8)
    white[:4, :, 3] = 0
    Image.fromarray(white).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a.png is blank .*on white"):
        read(tmp_path / "a.png")


def test_other_formats_are_not_opened(tmp_path):
    eps = io.BytesIO()
    Image.new("L", (8, 8)).save(eps, "EPS")
    ico = io.BytesIO()
    Image.new("RGB", (8, 8)).save(ico, "ICO")
    contents = {
        "eps": eps.getvalue(),
        "ico": ico.getvalue(),
        "text": b"no image",
        "empty": b"",
        "html": b"<!DOCTYPE html><html></html>",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        with pytest.raises(InputError, match=rf"read the image .*{name}.png.*formats"):
            read(tmp_path / f"{name}.png")


def test_damaged_files_are_told_in_a_line(tmp_path):
    """Cut and with bytes overwritten: a result or an InputError, never another."""
    rng = np.random.default_rng(1)
    for suffix in ("png", "jpg", "bmp", "webp", "tiff", "gif", "ppm"):
        file = io.BytesIO()
        kinds = {"jpg": "JPEG", "tiff": "TIFF"}
        kind = kinds.get(suffix, suffix.upper())
        Image.fromarray(COLOUR).save(file, kind)
        whole = bytearray(file.getvalue())
        for _ in range(20):
            damaged = whole[: rng.integers(len(whole))]
            for place in rng.integers(max(len(damaged), 1), size=4):
                damaged[place : place + 1] = bytes([rng.integers(256)])
            try:
                image_preparation.prepare(io.BytesIO(bytes(damaged)), "x", (8, 8, 3))
            except InputError as error:
                assert str(error).startswith(
                    ("cannot read the image x", "x is", "x has")
                )


def test_folders_are_searched_through_links_without_loops(tmp_path, capsys):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "deep/er").mkdir(parents=True)
    elsewhere.mkdir()
    Image.fromarray(GREY).save(root / "deep/er/a.webp")
    Image.fromarray(GREY).save(elsewhere / "b.bmp")
    os.symlink(elsewhere, root / "linked")
    os.symlink(elsewhere, root / "linked_too")  # is read once
    os.symlink(root, root / "deep/loop")
    os.symlink(elsewhere / "b.bmp", root / "c.bmp")
    os.symlink(tmp_path / "gone.png", root / "gone.png")
    (root / ".hidden.png").write_bytes(b"")
    (root / "deep/notes.txt").write_text("none")
    (root / "README").write_text("none")
    paths, left_out = image_files.images_below(root)
    names = [str(path.relative_to(root)) for path in paths]
    assert names == ["c.bmp", "deep/er/a.webp", "linked/b.bmp"]
    assert left_out == {".txt": 1, "README": 1, ".png": 1}
    assert capsys.readouterr().err == ""
    assert classify_files.find_images([root]) == paths
    warned = capsys.readouterr().err
    assert "3 files are left out (1 .png, 1 .txt, 1 README)" in warned
    assert warned.count("\n") == 1


def test_boxes():
    rng = np.random.default_rng(0)
    # The shorter side is 32 as the target would have it: 28 of 32 are seen.
    assert image_preparation.central_box((64, 32), (7, 7)) == (18, 2, 46, 30)
    assert image_preparation.central_box((32, 64), (14, 7)) == (2, 25, 30, 39)
    boxes = [image_preparation.random_box((60, 40), rng) for _ in range(500)]
    left, top, right, bottom = np.transpose(boxes)
    assert min(left.min(), top.min()) >= 0
    assert right.max() <= 60 and bottom.max() <= 40
    areas = (right - left) * (bottom - top) / (60 * 40)
    ratios = (right - left) / (bottom - top)
    assert 0.0799 < areas.min() < 0.1 and 0.8 < areas.max() <= 1
    assert 0.7499 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.3334
    assert left.std() > 5 and top.std() > 3
    # So long an image that no box of these ratios and areas is in it.
    assert image_preparation.random_box((1000, 10), rng) == (0, 0, 1000, 10)
