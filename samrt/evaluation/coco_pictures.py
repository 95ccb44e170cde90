"""The images that a COCO file lists: their ids, sizes and files, as many tools write them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from samrt.bundle.contract import Size
from samrt.bundle.json_reader import JsonReader, is_number, is_size
from samrt.errors import InputError, Remedy
from samrt.evaluation.reading import check_size

_REMEDY = "download the annotations again"
# "/x", "C:/x", "file:///x", "s3://x".
_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:/")
# So many of a list's first names are looked for when its folder is searched.
_LOOKED_FOR = 50


@dataclass(frozen=True)
class Picture:
    """An image as the file lists it; its size there, where it is given."""

    name: str
    width: int | None
    height: int | None

    def check(self, path: Path, size: Size) -> None:
        """Raises InputError where `path` lists it with another size than it has."""
        if self.height is not None and self.width is not None:
            check_size(f"{path} in its list", (self.height, self.width), size)


def read_pictures(reader: JsonReader, path: Path) -> tuple[dict[str, Picture], tuple[str, ...]]:
    """The images by id, and a line for what was not taken as it is written.

    Raises:
        InputError: two have one id, or one has no id or no name.
    """
    pictures: dict[str, Picture] = {}
    written = []
    for each in reader.list_of_children("images"):
        key = id_of(each, "id")
        if key in pictures:
            raise InputError(f"{path} lists two images with the id {key}; {_REMEDY}")
        written.append(each.text("file_name"))
        pictures[key] = Picture(name_inside(written[-1]), _side(each, "width"), _side(each, "height"))
    return pictures, outside_note("images", written)


def outside_note(what: str, written: Sequence[str]) -> tuple[str, ...]:
    """A line about those of the names of `what` that lead outside, if there are any."""
    outside = [name for name in written if leads_outside(name)]
    if not outside:
        return ()
    return (
        f"{len(outside)} of {len(written)} {what} are named by an absolute path or one with '..', which is not "
        f"followed: only its last part is looked for (such as {name_inside(outside[0])[:80]!r})",
    )


def id_of(reader: JsonReader, key: str) -> str:
    """An id, as text: the same number may stand as 7 in one list and as "7" or 7.0 in the other."""
    value = reader.raw(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise InputError(f"{key!r} of {reader.where} must be a number or text, not {str(value)[:80]!r}; {_REMEDY}")
    return str(value)


def leads_outside(written: str) -> bool:
    """Whether a name is absolute on any system, an address, or climbs."""
    # A drive without a slash, "C:x", is one on Windows only.
    absolute = _ABSOLUTE.match(written.replace("\\", "/")) is not None or PurePath(written).drive != ""
    return absolute or ".." in _parts(written)


def name_inside(written: str) -> str:
    """A name below the folder of the pictures, with slashes; of one that leads outside, only the last part.

    Raises:
        InputError: nothing is left of it.
    """
    parts = _parts(written)
    inside = "/".join(parts)
    if leads_outside(written):
        inside = PurePath(parts[-1]).name if parts else ""  # without the drive
    if inside in ("", ".."):
        raise InputError(f"{written!r} is not the name of a file; {_REMEDY}")
    return inside


def find_folder(path: Path, pictures: Mapping[str, Picture]) -> Path:
    """The folder of the pictures: where they lie beside the JSON, in the layouts of COCO, CVAT, FiftyOne and others.

    Raises:
        InputError: they are in none of these.
    """
    split, parent = path.stem.rpartition("_")[2], path.parent
    folders = list(
        dict.fromkeys(
            [
                parent, parent / "images", parent / "data", parent / split, parent / "images" / split,
                parent.parent / split, parent.parent / "images", parent.parent / "images" / split,
                parent.parent / "data",
            ]
        )
    )  # fmt: skip
    names = [picture.name for picture in pictures.values()][:_LOOKED_FOR]
    if not names:
        return parent
    unique = _unique_last_parts(pictures)
    for name in [*names, *(last for name in names if (last := PurePosixPath(name).name) in unique)]:
        for folder in folders:
            if _is_file(folder / name):
                return folder
    looked = ", ".join(str(folder) for folder in folders)
    raise InputError(
        f"the picture {names[0]} of {path} is in none of {looked}", Remedy("name the folder that it is in ({images})")
    )


def files_of(folder: Path, pictures: Mapping[str, Picture]) -> dict[str, Path]:
    """The file of each picture, by id; a folder in a name may be one of another machine."""
    unique = _unique_last_parts(pictures)
    files = {}
    for key, picture in pictures.items():
        file = folder / picture.name
        flat = folder / PurePosixPath(picture.name).name
        files[key] = flat if flat.name in unique and not _is_file(file) and _is_file(flat) else file
    return files


def _unique_last_parts(pictures: Mapping[str, Picture]) -> set[str]:
    counts = Counter(PurePosixPath(picture.name).name for picture in pictures.values())
    return {name for name, count in counts.items() if count == 1}


def _side(reader: JsonReader, key: str) -> int | None:
    """A side in pixels, which some tools write as 160.0 or "160", and some as 0 or null where they do not know it."""
    value: Any = reader.raw(key) if key in reader.names() else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    whole = is_number(value) and value == int(value)
    return int(value) if whole and is_size(int(value)) else None


def _parts(written: str) -> list[str]:
    return [part for part in written.replace("\\", "/").split("/") if part not in ("", ".")]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # of a name that no file can have
        return False
