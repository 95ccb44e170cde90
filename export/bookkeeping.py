"""What training scripts keep beside the tensors: read as inert values, so that no class of the file is ever made.

torch's `weights_only` reader stops at every global that it does not know. These few are known to carry settings and
numbers only. Each name stands for a class here that keeps nothing it is given and runs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

_NAMES = (
    # numpy 2 and numpy 1: scalars, arrays, their types.
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    # Command lines, paths and times.
    "argparse.Namespace",
    "types.SimpleNamespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "datetime.datetime",
    "datetime.timedelta",
    # What a dictionary of defaults makes.
    "builtins.list",
    "builtins.dict",
    "builtins.int",
    "builtins.float",
    "builtins.str",
)
# Lightning's hyperparameters: dictionaries, and read as such.
_DICTIONARIES = (
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
)


class Bookkeeping:
    """Stands for a value that is not read."""

    def __new__(cls, *_: Any) -> Bookkeeping:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _defaults(*_: Any) -> OrderedDict[Any, Any]:
    """A dictionary of defaults, whose entries follow."""
    return OrderedDict()


ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((Bookkeeping, name) for name in _NAMES),
    *((OrderedDict, name) for name in _DICTIONARIES),
    (_defaults, "collections.defaultdict"),
]
