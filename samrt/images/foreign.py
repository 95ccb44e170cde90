"""What a file is that is none of the pictures that samrt reads, for the error that says so."""

from __future__ import annotations

_CONVERT = "convert it to PNG or JPEG"

# By how they begin: what it is, and what to do.
_BEGINNINGS = (
    (b"%PDF", "a PDF", "render the page as PNG"),
    (b"%!PS", "PostScript", "render it as PNG"),
    (b"\xc5\xd0\xd3\xc6", "PostScript", "render it as PNG"),
    (b"8BPS", "a Photoshop file", "export it as PNG"),
    (b"\xff\x0a", "JPEG XL", _CONVERT),
    (b"\0\0\0\x0cJXL ", "JPEG XL", _CONVERT),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "run: git lfs pull"),
    (b"\x93NUMPY", "a NumPy array", "load it with numpy.load and pass the array"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"SIMPLE  =", "FITS", "scale its values to 0..255 and save it as PNG"),
    (b"\x89HDF", "HDF5", "scale its values to 0..255 and save it as PNG"),
    (b"<!doctype html", "a web page", "download the picture itself"),
    (b"<html", "a web page", "download the picture itself"),
    (b"<svg", "SVG", "render it as PNG"),
    (b"<?xml", "XML, as SVG is", "render it as PNG"),
    (b"{", "JSON or text", "name the picture"),
)


def what_it_is(start: bytes) -> tuple[str, str]:
    """Words to put behind "not an image", and what to do, by a file's first bytes."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, what, remedy in _BEGINNINGS:
        if start.startswith(beginning) or text.startswith(beginning):
            return f": it is {what}", remedy
    return "", _CONVERT
