"""Opening pictures with Pillow, and what went wrong."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO

import PIL.Image

from samrt.errors import InputError
from samrt.images.complete import complete_jpeg, lacks_rows, lacks_tiles
from samrt.images.formats import PLUGIN_ERRORS, identify, without_metadata
from samrt.images.limits import check_size
from samrt.images.metadata import bits_of_jpeg2000
from samrt.images.orientation import orientation_of, seen_size
from samrt.images.sources import FileSource, name_of, open_source, unreadable

# The formats that keep pixels as they were, and what of TIFF does not. Others may have been written with losses.
_LOSSLESS, _LOSSY_TIFF = ("PNG", "TIFF", "BMP", "GIF", "PPM"), ("jpeg", "tiff_jpeg", "webp")
PIL_IMAGE = "the PIL image"  # what errors call a caller's
# What every file is opened and decoded in. The command line keeps C libraries' own lines off stderr there.
AROUND: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar("AROUND", default=nullcontext)
# Python's filters of warnings are one list for all threads.
_FILTERS = threading.Lock()


@dataclass
class Picture:
    """An opened picture.

    Attributes:
        name: what errors call it.
        image: as Pillow opened it, or as the caller gave it; decoded after `load`.
        kind: Pillow's mode; with ";16" where the file has 16 bits per channel, of which Pillow keeps the high 8.
        file: the file, or what it holds; None for a PIL image of the caller that is decoded, or that is not at its
            first frame.
        as_it_is: no orientation is applied, as for a PIL image of the caller.
        decoded: `load` was called.
    """

    name: str
    image: PIL.Image.Image
    kind: str
    file: IO[bytes] | None = None
    as_it_is: bool = False
    decoded: bool = False

    @property
    def orientation(self) -> int:
        """1 to 8, as EXIF defines it."""
        if self.as_it_is:
            return 1
        if self.image.format == "PNG" and "exif" not in self.image.info:
            self.load()  # it may follow the pixels
        return orientation_of(self.image)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) as the picture is to be seen."""
        return seen_size(self.image, self.orientation)

    @property
    def lossless(self) -> bool:
        """Whether its format keeps pixels as they were."""
        return self.image.format in _LOSSLESS and self.image.info.get("compression") not in _LOSSY_TIFF

    def load(self) -> PIL.Image.Image:
        """Decode it, once. Errors are those of Pillow; `reporting` translates them."""
        if self.decoded:
            return self.image
        self._load()
        self.decoded = True
        if self.file is not None and self.image.format == "PNG":
            self.file.seek(0)
            if lacks_rows(self.image, self.file.read()):
                raise EOFError("its pixel data end before the last row")
        return self.image

    def _load(self) -> None:
        try:
            _decode(self.image)
        except Warning:
            if self.file is None:
                raise
            with _without_warnings():
                self.image = identify(self.file, self.name)
                _decode(self.image)
        except PLUGIN_ERRORS:
            whole = None if self.file is None else without_metadata(self.file, self.image.format, self.name)
            if whole is None:
                raise
            self.image = whole
        except OSError as error:
            if self.file is None or error.errno is not None or self.image.format not in ("JPEG", "MPO"):
                raise
            self.file.seek(0)
            whole = complete_jpeg(self.file.read())
            if whole is None:
                raise
            self.image = whole


@contextmanager
def open_picture(source: FileSource) -> Iterator[Picture]:
    """Open a picture's file, and report whatever opening it or the block raises.

    Raises:
        InputError: there is no such file, or it cannot be read or decoded.
    """
    name = name_of(source)
    with AROUND.get()(), reporting(name), open_source(source) as file:
        try:
            image = identify(file, name)
        except Warning:
            with _without_warnings():
                image = identify(file, name)
        with image:
            check_size(name, image, file)
            _check_whole(name, image)
            yield Picture(name, image, _kind(image, file), file)


def given(image: PIL.Image.Image) -> Picture:
    """A caller's PIL image.

    Raises:
        InputError: its file was closed before it was decoded.
    """
    undecoded, file, content = getattr(image, "tile", None), getattr(image, "fp", None), None
    if undecoded and (file is None or getattr(file, "closed", False)):
        raise InputError(f"{PIL_IMAGE} was not decoded before its file was closed; call its load() first")
    if undecoded and file is not None and image.tell() == 0:
        # Its content, because Pillow closes a file that it opened itself as soon as it is decoded.
        place = file.tell()
        file.seek(0)
        content = io.BytesIO(file.read())
        file.seek(place)
    return Picture(PIL_IMAGE, image, _kind(image, content), content, as_it_is=True)


@contextmanager
def reporting(name: str) -> Iterator[None]:
    """Turn what Pillow, OpenCV and NumPy raise while they read a picture into errors that say what happened."""
    try:
        yield
    except InputError:
        raise
    except PIL.Image.DecompressionBombError as error:
        # Of the plugins that ask for Pillow's own limit, as WebP's.
        raise InputError(
            f"{name} has more pixels than Pillow decodes in this format ({error}); save it as PNG or JPEG, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Warning as error:
        raise InputError(
            f"a warning about {name} was raised as an error ({error}); exempt Pillow where this process turns warnings "
            'into errors: warnings.filterwarnings("default", module="PIL")'
        ) from error
    except MemoryError as error:
        raise _out_of_memory(name) from error
    except OSError as error:
        if error.errno is not None:
            raise unreadable(name, error) from error
        raise _undecodable(name, error) from error
    except Exception as error:
        # Pillow's decoders raise anything for a damaged file, from KeyError to NotImplementedError.
        raise _undecodable(name, error) from error


def _decode(image: PIL.Image.Image) -> None:
    tags = getattr(image, "tag_v2", None)
    if lacks_tiles(image):
        raise EOFError("strips or tiles of it are missing")
    if tags is not None and getattr(image, "tile", None):
        # With its own memory, a TIFF is not held against Pillow's limit.
        image.im = PIL.Image.new(image.mode, (tags[256], tags[257])).im
    image.load()


def _check_whole(name: str, image: PIL.Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    # NewSubfileType, whose first bit is a smaller version of another page; DNGVersion.
    if tags and (tags.get(0xC612) is not None or tags.get(0xFE, 0) == 1):
        raise InputError(
            f"{name} is a camera's raw file or begins with a preview, and Pillow reads the preview only; convert it to "
            "JPEG or PNG with a raw converter"
        )


def _kind(image: PIL.Image.Image, file: IO[bytes] | None) -> str:
    """The mode, with ";16" where Pillow's decoder will keep the high 8 of 16 bits."""
    if image.format == "JPEG2000" and file is not None and not image.mode.startswith("I"):
        file.seek(0)
        return f"{image.mode};16" if bits_of_jpeg2000(file.read()) == 16 else image.mode
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        raw = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
        if isinstance(raw, str) and raw.endswith((";16B", ";16L", ";16N")) and not image.mode.startswith("I"):
            return f"{raw.partition(';')[0]};16"
    return image.mode


@contextmanager
def _without_warnings() -> Iterator[None]:
    """For a process that turns warnings into errors: what is odd beside the pixels does not refuse a photograph."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _out_of_memory(name: str) -> InputError:
    return InputError(
        f"not enough memory to read {name}; close other programs, raise this process's limit, or shrink the image"
    )


def _undecodable(name: str, error: Exception) -> InputError:
    text = str(error) or type(error).__name__
    if "out of memory" in text.lower():
        return _out_of_memory(name)
    if "not available" in text:  # "decoder jpeg2k not available"
        return InputError(
            f"this Pillow was built without what {name} needs ({text}); pip install --force-reinstall pillow, or "
            "convert the image to PNG or JPEG"
        )
    if isinstance(error, EOFError) or any(words in text.lower() for words in ("truncated", "not enough image data")):
        return InputError(f"{name} is truncated: pixels are missing at its end ({text}); copy or save it again")
    return InputError(f"{name} cannot be decoded ({text}); open it in a viewer and save it again")
