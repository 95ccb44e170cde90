"""Opening pictures: named formats, the limit on pixels, and errors that say what happened."""

from __future__ import annotations

import io
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.EpsImagePlugin
import PIL.Image
import pytest
from written_files import chunk, exif, png, saved, short, tiff

from samrt.errors import InputError
from samrt.images import limits, read_image, read_part
from samrt.images.formats import FORMATS

SMOOTH = np.add.outer(np.arange(61), np.arange(83))[..., None] * np.array([1, 2, 3])
PHOTO = PIL.Image.fromarray((SMOOTH % 256).astype(np.uint8))
NOISE = PIL.Image.effect_noise((64, 64), 90).convert("RGB")


def refusal(source: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_image(source)
    return str(caught.value)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read(form: str) -> None:
    if form not in PIL.Image.SAVE:
        pytest.skip(f"{form} is not in this Pillow")
    options = {"JPEG2000": {"irreversible": False}, "WEBP": {"lossless": True}}.get(form, {})
    result = read_image(saved(PHOTO.convert("P") if form == "GIF" else PHOTO, form, **options))
    lossy = form in ("JPEG", "MPO", "AVIF", "GIF")
    assert np.abs(result.astype(int) - np.asarray(PHOTO)).mean() <= (30 if lossy else 0)


@pytest.mark.parametrize("form", sorted(set(PIL.Image.SAVE) - set(FORMATS) - {"PDF", "PALM", "JPEG2000"}))
def test_no_other_format_is_opened(form: str) -> None:
    for mode in ("RGB", "L", "1"):
        try:
            file = saved(NOISE.convert(mode), form)
        except Exception:
            continue
        if form in ("DIB", "WEBP") or file[:2] in (b"\xff\xd8", b"BM") or file[:8] == b"\x89PNG\r\n\x1a\n":
            continue  # another name of a format that is read
        assert "is not an image in a format that samrt reads" in refusal(file)


def test_ghostscript_is_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").write_bytes(saved(PHOTO, "EPS"))
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    assert "photo.jpg is not an image in a format that samrt reads: it is PostScript; render it" in refusal(
        tmp_path / "photo.jpg"
    )


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"%PDF-1.7", "it is a PDF; render"),
        (b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS, not the file itself; run: git lfs pull"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "it is a web page; download the picture itself"),
        (b"8BPS\0\1", "a Photoshop file; export"),
        (b"\0\0\0\x20ftypheic", "is a HEIF file, which Pillow reads with the package pillow-heif only; pip install"),
        (b"hello", "a format that samrt reads; convert it to PNG or JPEG"),
    ],
)
def test_other_files_are_named(start: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert message in refusal(start.ljust(200, b" "))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "PPM", "GIF"])
def test_truncated_file_is_called_truncated(tmp_path: Path, form: str) -> None:
    file = saved(NOISE, form)
    (tmp_path / "a").write_bytes(file[: len(file) * 3 // 4])
    assert "a is truncated: pixels are missing at its end" in refusal(tmp_path / "a")


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_cut_is_read_whole_or_refused(form: str) -> None:
    """Never a picture with a part missing, and no error but samrt's own."""
    if form not in PIL.Image.SAVE:
        pytest.skip(f"{form} is not in this Pillow")
    file = saved(NOISE.resize((24, 24)), form)
    whole = read_image(file)
    for length in {*range(0, len(file), max(1, len(file) // 60)), *range(len(file) - 20, len(file))}:
        try:
            found = read_image(file[:length])
        except InputError:
            continue
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 1}, {"optimize": True}]
)
def test_jpeg_without_its_end_marker_is_whole_or_truncated(options: dict[str, Any]) -> None:
    file = saved(PHOTO, "JPEG", **options)
    np.testing.assert_array_equal(read_image(file[:-2]), read_image(file))
    turned = saved(PHOTO, "JPEG", exif=b"Exif\0\0" + exif(short(0x0112, 3)), **options)
    np.testing.assert_array_equal(read_image(turned[:-2]), read_image(file)[::-1, ::-1])
    assert file[-2:] == b"\xff\xd9"
    start = file.index(b"\xff\xda") + 14
    restarts = {place.start() + n for place in re.finditer(rb"\xff[\xd0-\xd7]", file[start:]) for n in (0, 1)}
    for length in {*range(start, len(file) - 4, max(1, (len(file) - start) // 80)), *(start + n for n in restarts)}:
        assert "truncated" in refusal(file[:length])


def test_progressive_jpeg_without_its_end_marker_is_truncated() -> None:
    assert "truncated" in refusal(saved(PHOTO, "JPEG", progressive=True)[:-2])


@pytest.mark.parametrize("place", [33, -12])
def test_what_is_beside_the_pixels_does_not_refuse_a_png(place: int) -> None:
    file = saved(PHOTO, "PNG", exif=exif(short(0x0112, 3)))
    large = zlib.compress(bytes(2**21))  # more than Pillow unpacks
    for extra in (chunk(b"tEXt", b"a\0b")[:-1] + b"!", chunk(b"zTXt", b"a\0\0" + large), chunk(b"acTL", b"")):
        np.testing.assert_array_equal(read_image(file[:place] + extra + file[place:]), np.asarray(PHOTO)[::-1, ::-1])


def test_opencv_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    file = png(np.full((4, 4, 3), 1023, np.uint16), 2)
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(b"no profile"))
    assert (read_image(file[:33] + profile + file[33:]) == 255).all()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe0\0\x09JFIF\0\1\1",
        b"\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\xff\0\0",
        b"\xff\xe2\0\x12MPF\0II*\0\x08\0\0\0\0\0\0\0",
        b"\xff\xed\0\x18Photoshop 3.0\08BIM\4\4\0\0",
        b"\xff\xee\0\x08Adobe\0",
    ],
)
def test_what_is_beside_the_pixels_does_not_refuse_a_jpeg(segment: bytes) -> None:
    file = saved(PHOTO, "JPEG", exif=b"Exif\0\0" + exif(short(0x0112, 3)))
    np.testing.assert_array_equal(read_image(file[:2] + segment + file[2:]), read_image(file))


def test_damaged_pixels_are_not_read() -> None:
    file = saved(NOISE, "PNG")
    assert "cannot be" in refusal(file[:60] + bytes([file[60] ^ 255]) + file[61:])


def test_200_megapixels_are_read_and_more_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.MAX_PIXELS >= 16384 * 12288
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own limit does not count, nor is it changed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(saved(PHOTO, "PNG")).shape == (61, 83, 3)
        assert read_image(saved(PHOTO, "JPEG")).shape == (61, 83, 3)
        assert read_image(saved(PHOTO, "TIFF", compression="tiff_lzw")).shape == (61, 83, 3)
        assert read_image(tiff(np.asarray(PHOTO), 2, {0x0112: 6})).shape == (83, 61, 3)
        assert read_part(saved(PHOTO, "PNG"), "RGB", lambda _: (1, 1, 80, 60))[0].shape == (59, 79, 3)
    assert PIL.Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(limits, "MAX_PIXELS", 61 * 83)
    assert read_image(saved(PHOTO, "PNG")).shape == (61, 83, 3)
    monkeypatch.setattr(limits, "MAX_PIXELS", 61 * 83 - 1)
    assert "has 83x61 pixels, 5,063 in all, and samrt reads 5,062 at most; shrink it, or pass" in refusal(
        saved(PHOTO, "PNG")
    )


def test_few_bytes_that_declare_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16000, 16000, 8, 2, 0, 0, 0))
    small = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    monkeypatch.setattr(PIL.Image.Image, "load", lambda _: pytest.fail("memory was taken"))
    assert "declares 16000x16000 pixels in 58 bytes" in refusal(small)


def test_a_picture_that_is_opened_without_what_is_beside_its_pixels_has_the_same_limits() -> None:
    side = 2**31 - 1  # so large that decoding it fails at once
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    for broken in (chunk(b"fcTL", b"") + header, header + chunk(b"fcTL", b"")):
        assert "samrt reads 268,435,456 at most" in refusal(b"\x89PNG\r\n\x1a\n" + broken + chunk(b"IDAT", b""))


@pytest.mark.parametrize("tags", [{254: 1}, {0xC612: 1}])
def test_raw_files_of_cameras_are_refused(tags: dict[int, int]) -> None:
    assert "is a camera's raw file or begins with a preview" in refusal(tiff(np.zeros((4, 4, 3), np.uint8), 2, tags))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("odd"), "a.png cannot be decoded (odd); open it in a viewer"),
        (KeyError("odd"), "a.png cannot be decoded ('odd')"),
        (NotImplementedError(), "a.png cannot be decoded (NotImplementedError)"),
        (MemoryError(), "not enough memory to read"),
        (OSError("out of memory error when reading image file"), "not enough memory to read"),
        (OSError("decoder jpeg2k not available"), "this Pillow was built without what"),
        (OSError(28, "No space left on device"), "cannot read"),
        (EOFError("no more"), "a.png is truncated"),
        (UserWarning("odd"), "a warning about"),
        (PIL.Image.DecompressionBombError("many"), "has more pixels than Pillow decodes in this format (many)"),
    ],
)
def test_each_cause_has_its_own_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    PHOTO.save(tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image.Image, "load", fail)
    assert message in refusal(tmp_path / "a.png")


def test_warning_as_an_error_does_not_refuse_a_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = PIL.PngImagePlugin.PngImageFile.load_prepare
    file, expected = saved(PHOTO, "PNG"), np.asarray(PHOTO)

    def warn(image: PIL.ImageFile.ImageFile) -> None:
        warnings.warn("odd", UserWarning, stacklevel=1)
        prepare(image)

    monkeypatch.setattr(PIL.PngImagePlugin.PngImageFile, "load_prepare", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(file), expected)
        assert warnings.filters[0][0] == "error"


def test_codec_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    factory, _ = PIL.Image.OPEN["PNG"]
    monkeypatch.setitem(PIL.Image.OPEN, "PNG", (factory, lambda _: "PNG support not installed"))
    assert "is a PNG file, which this Pillow was built without; pip install" in refusal(saved(PHOTO, "PNG"))


def test_pil_image_that_cannot_be_decoded() -> None:
    image = PIL.Image.open(io.BytesIO(saved(NOISE, "PNG")[:5000]))
    assert refusal(image).startswith("the PIL image is truncated")
    assert "is truncated" in refusal(b"P3 2 2 255 1 2 3 4 5 6")
    jpeg = saved(PHOTO, "JPEG")
    np.testing.assert_array_equal(read_image(PIL.Image.open(io.BytesIO(jpeg[:-2]))), read_image(jpeg))


def test_pil_image_of_a_file_that_pillow_opened_or_that_is_closed(tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    wide.write_bytes(png(np.full((4, 5, 3), 700), 2))
    np.testing.assert_array_equal(read_image(PIL.Image.open(wide)), read_image(wide))
    with PIL.Image.open(wide) as closed_by_pillow:
        pass
    with wide.open("rb") as file:
        closed_by_caller = PIL.Image.open(file)
    for image in (closed_by_pillow, closed_by_caller):
        assert refusal(image) == "the PIL image was not decoded before its file was closed; call its load() first"


def test_large_picture_is_converted_without_a_second_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []
    convert = PIL.Image.Image.convert

    def watch(image: PIL.Image.Image, *words: Any) -> PIL.Image.Image:
        converted.append(image.width * image.height)
        return convert(image, *words)

    monkeypatch.setattr("samrt.images.kinds._AT_ONCE", 83 * 10)
    monkeypatch.setattr(PIL.Image.Image, "convert", watch)
    grey = PHOTO.getchannel("R")
    np.testing.assert_array_equal(read_image(saved(grey, "PNG"))[..., 1], np.asarray(grey))
    assert max(converted) == 83 * 10
