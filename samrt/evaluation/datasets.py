"""Finding data sets: folders with an index.json, folders of such folders, and COCO's JSON files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import numpy as np

from samrt.bundle.contract import Size
from samrt.errors import InputError, Remedy
from samrt.evaluation.coco import CROWD, open_coco
from samrt.evaluation.coco_pictures import leads_outside
from samrt.evaluation.reading import as_input_errors, read_frame, read_id_map, read_json
from samrt.evaluation.record_check import Surveyed
from samrt.evaluation.truths import MOST_NAMED, DataSet, Item, Truths, instances_of
from samrt.files import sha256_of
from samrt.progress import SILENT, Progress

INDEX = "index.json"
# Two million images with a mask each.
_LARGEST_INDEX = 2**28
_REMEDY = 'write it as {"images": [{"file": "a.jpg", "masks": ["a.png"]}]}'


@dataclass(frozen=True)
class Survey:
    """What there is to evaluate in a data set, found out before the model runs.

    Attributes:
        instances: how many.
        median_area: of all instances, in pixels.
        left_out: annotations that are not evaluated, by reason.
        named: the first of those, by reason.
        turned: how many images are turned or mirrored by their EXIF orientation.
        images: what the record of each image must agree with, by name.
    """

    instances: int
    median_area: float
    left_out: dict[str, int]
    named: dict[str, list[str]]
    turned: int
    images: dict[str, Surveyed] = field(default_factory=dict, repr=False)


def open_data_sets(
    data: Path, images: Path | None = None, masks: Path | None = None, limit: int | None = None
) -> list[DataSet]:
    """The data sets that `data` names; only their lists are read.

    Args:
        data: a folder with an index.json; a folder of such folders, of which each is a data set; or a JSON file in
            COCO's format, instances or panoptic.
        images: where the pictures of a JSON file lie, if not near it.
        masks: where the maps of a panoptic JSON file lie, if not in the folder of its name.
        limit: the first so many images of each data set only.

    Raises:
        InputError: there is nothing of that kind, or a list is damaged or empty.
    """
    try:
        os.stat(data)
    except OSError as error:
        raise InputError(
            f"there is no data set at {data} ({error.strerror}); name a folder with an {INDEX}, or a COCO JSON file"
        ) from error
    if data.is_file():
        found = [open_coco(data, images, masks)]
    elif images is not None or masks is not None:
        raise InputError(
            f"{data} is not a COCO JSON file, and only such a file has folders of its own for images and masks",
            Remedy("leave {images} and {masks} out"),
        )
    elif (data / INDEX).is_file():
        found = [_open_folder(data)]
    elif data.is_dir():
        found = [_open_folder(index.parent) for index in sorted(data.glob(f"*/{INDEX}"))]
        if not found:
            raise InputError(f"{data} holds neither {INDEX} nor folders with one; name a data set's folder")
    else:
        raise InputError(f"there is no data set at {data}; name a folder with an {INDEX}, or a COCO JSON file")
    for each in found:
        if each.name in (".", ".."):
            # Its results would lie in the folder of this name.
            raise InputError(f"{each.index} gives its data set the name {each.name!r}; rename the file")
        if not each.items:
            raise InputError(f"{each.index} lists no images; there is nothing to evaluate")
        twice = _repeated(item.name for item in each.items)
        if twice:
            raise InputError(f"{each.index} lists {twice} twice; list each image once, with all that is known of it")
    return [replace(each, items=each.items[:limit]) for each in found]


def survey(data_set: DataSet, progress: Progress = SILENT) -> Survey:
    """Read every annotation once, so that what is missing or damaged is found before hours of work.

    Raises:
        InputError: an image or an annotation is missing or damaged, they differ in size, two instances of an image
            share a name, or there is no instance.
    """
    areas: list[int] = []
    left_out = Counter({reason: len(names) for reason, names in data_set.left_out.items()})
    named = {reason: names[:MOST_NAMED] for reason, names in data_set.left_out.items()}
    turned, images = 0, {}
    what, total = f"annotations of {data_set.name}", len(data_set.items)
    progress.step(what, 0, total)
    for done, item in enumerate(data_set.items, start=1):
        frame = read_frame(item.image)
        truths = item.read(frame.size)
        twice = _repeated(truth.name for truth in truths.instances)
        if twice:
            raise InputError(f"{data_set.index} lists the instance {twice} of {item.name} twice; list it once")
        turned += frame.turned
        images[item.name] = Surveyed.of(frame.size, truths.instances)
        areas += [truth.area for truth in truths.instances]
        left_out += truths.left_out
        for reason, names in truths.named.items():
            named[reason] = [*named.get(reason, []), *names][:MOST_NAMED]
        progress.step(what, done, total)
    if not areas:
        raise _nothing(data_set, left_out, named)
    return Survey(
        instances=len(areas),
        median_area=float(np.median(areas)),
        left_out=dict(sorted(left_out.items())),
        named=dict(sorted(named.items())),
        turned=turned,
        images=images,
    )


def _nothing(data_set: DataSet, left_out: Counter[str], named: dict[str, list[str]]) -> InputError:
    """The error of a data set without an instance: why, where annotations were left out."""
    facts = f"{data_set.index} has no instance in {len(data_set.items)} images; nothing can be evaluated"
    if left_out:
        reasons = ", ".join(f"{count} {reason} (such as {named[reason][0]})" for reason, count in left_out.items())
        facts += f": all its annotations are left out: {reasons}"
    if CROWD in left_out:
        facts += (
            '. A crowd region ("iscrowd": 1) marks many objects as one; if each of these is one object, as in exports '
            'of brush masks, set its "iscrowd" to 0'
        )
    return InputError(facts)


def fingerprint(data_set: DataSet) -> str:
    """Changes with the list of images and with the size of any file: SHA-256, hexadecimal.

    Raises:
        InputError: a file is missing.
    """
    digest = hashlib.sha256(sha256_of(data_set.index).encode())
    for item in data_set.items:
        for path in (item.image, *item.files):
            try:
                size = path.stat().st_size
            except (OSError, ValueError) as error:
                # A ValueError is of a name that no file can have: with a NUL, or half of a surrogate pair.
                reason = error.strerror if isinstance(error, OSError) else error
                raise InputError(
                    f"{data_set.index} lists {item.name}, and {path} cannot be read ({reason}); complete the data set"
                ) from error
            digest.update(f"{item.name}\0{path.name}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _open_folder(folder: Path) -> DataSet:
    index = folder / INDEX
    with as_input_errors():
        items = tuple(_items(folder))
    # Links are not followed: two of them may lead to folders of one name.
    return DataSet(Path(os.path.abspath(folder)).name or "data", items, index, len(items))


def _items(folder: Path) -> Iterator[Item]:
    for entry in read_json(folder / INDEX, _REMEDY, _LARGEST_INDEX).list_of_children("images"):
        name = entry.text("file")
        names = entry.items("masks", lambda value: isinstance(value, str) and value != "", "file names")
        for each in (name, *names):
            if leads_outside(each):
                raise InputError(
                    f"{folder / INDEX} names {each!r}, which leads out of its folder; put the file, or a link to it, "
                    "into the folder and name it there"
                )
        reader = _MapReader(folder / "masks", tuple(names))
        yield Item(name, folder / "images" / name, reader, reader.files)


@dataclass(frozen=True)
class _MapReader:
    """Reads the instances of all maps of an image; several maps are several people's annotations."""

    folder: Path
    names: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in self.names)

    def __call__(self, size: Size) -> Truths:
        found = Truths()
        for name, path in zip(self.names, self.files, strict=True):
            # As it is listed, because maps in two folders may share the last part; without "./", for they may not all.
            for truth in instances_of(read_id_map(path, size), PurePath(name).as_posix()):
                found.add(truth)
        return found


def _repeated(names: Iterable[str]) -> str | None:
    """The first name that is there twice."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
