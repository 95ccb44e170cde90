"""Bounds on what a checkpoint's pickle may ask for, found out before torch's reader makes any of it.

That reader runs no code of the file, but a few bytes can have it fill the memory or compute for ever: a byte array of
any length, codecs applied to each other's results, tensors of any shape over one number, keys that are tuples nested
in themselves. The pickle is walked as the reader would walk it, with names in the place of what they make.
"""

from __future__ import annotations

import os
import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO

from samrt.errors import BundleError

# What the values of a nested tuple may count, each as often as it is reached: it is hashed where it is a key.
_LARGEST_TUPLE = 10_000
_PIECES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OPAQUE = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}
_NUMBERS_AND_TEXT = {"BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True, "EMPTY_TUPLE": ()}
_REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
# No checkpoint of a model needs them, and they copy tensors or make new ones.
_REFUSED = ("_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_nested_tensor")


@dataclass(frozen=True)
class _Global:
    name: str


class _Made:
    """Stands for what is not followed: containers that change, and what functions return."""


class _Tuple(tuple[Any, ...]):
    weight: int


def check_pickle(file: BinaryIO, size: int, pickles: int = 1) -> None:
    """Walk the pickles that `file` begins with, of a checkpoint of `size` bytes in all.

    What torch's reader does not know ends the walk, as it ends the reading.

    Raises:
        BundleError: it asks for more than the file can hold; the text says what, and has no name of the file.
        Exception: of any kind, where it is damaged.
    """
    for _ in range(pickles):
        if not file.read(1):
            return
        file.seek(-1, os.SEEK_CUR)
        if not _Walk(size).walk(file):
            return


class _Walk:
    def __init__(self, size: int) -> None:
        self._size = size
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def walk(self, file: BinaryIO) -> bool:
        """Whether the pickle was walked to its end."""
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return True
            if not self._step(opcode.name, argument):
                return False
        return False

    def _step(self, name: str, argument: Any) -> bool:
        return self._push(name, argument) or self._pop(name) or name == "PROTO"

    def _push(self, name: str, argument: Any) -> bool:
        stack = self._stack
        if name in _NUMBERS_AND_TEXT:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _OPAQUE:
            stack.append(_Made())
        elif name == "GLOBAL":
            stack.append(_Global(argument.replace(" ", ".")))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._outer.append(stack)
            self._stack = []
        else:
            return False
        return True

    def _pop(self, name: str) -> bool:
        stack = self._stack
        if name == "TUPLE":
            self._stack = self._outer.pop()
            self._stack.append(_tuple(stack))
        elif name in _PIECES:
            stack[-_PIECES[name] :] = [_tuple(stack[-_PIECES[name] :])]
        elif name in ("APPENDS", "SETITEMS"):
            self._stack = self._outer.pop()
        elif name in ("APPEND", "BUILD", "SETITEM"):
            del stack[-2 if name == "SETITEM" else -1 :]
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            self._check_call(function, arguments)
            # Encoded text is followed, because arrays of bytes are made of it.
            stack.append(arguments[0] if function == _Global("_codecs.encode") else _Made())
        elif name == "BINPERSID":
            self._check_storage(stack.pop())
            stack.append(_Made())
        else:
            return False
        return True

    def _check_call(self, function: Any, arguments: Any) -> None:
        name = function.name if isinstance(function, _Global) else ""
        short = name.rpartition(".")[2]
        if short in _REFUSED:
            raise BundleError(f"it calls {short}, which copies tensors")
        given = arguments if isinstance(arguments, tuple) else None
        if short == "_rebuild_from_type_v2" and given is not None and len(given) > 2:
            self._check_call(given[0], given[2])
        elif short in _REBUILT:
            self._check_shape(given)
        elif short == "encode" and not (given and isinstance(given[0], str) and given[1:] == ("latin1",)):
            raise BundleError(f"it encodes something else than text in latin1 ({name})")
        elif short == "bytearray" and given != () and not (given and isinstance(given[0], str)):
            raise BundleError("it makes an array of bytes that are not in the file (bytearray)")
        elif short.endswith(("Tensor", "Storage")) and name.startswith("torch") and given != ():
            raise BundleError(f"it makes memory that is not in the file ({name})")

    def _check_shape(self, given: tuple[Any, ...] | None) -> None:
        shape = given[2] if given is not None and len(given) > 2 else None
        if not isinstance(shape, tuple) or not all(type(side) is int for side in shape):
            raise BundleError("it has a tensor whose shape is not written out")
        self._check_count(shape)

    def _check_storage(self, given: Any) -> None:
        # ("storage", type, key, device, how many elements, view)
        if isinstance(given, tuple) and len(given) > 4 and type(given[4]) is int:
            self._check_count((given[4],))

    def _check_count(self, shape: tuple[int, ...]) -> None:
        count = 1
        for side in shape:
            count *= side
            # No element has less than half a byte.
            if abs(count) > 2 * self._size:
                raise BundleError(
                    f"the tensors claim {abs(count):,} numbers and more, but the file has {self._size:,} bytes"
                )


def _tuple(values: list[Any]) -> _Tuple:
    made = _Tuple(values)
    made.weight = 1 + sum(getattr(value, "weight", 1) for value in values)
    nested = any(isinstance(value, _Tuple) for value in values)
    if nested and made.weight > _LARGEST_TUPLE:
        raise BundleError(f"it has a tuple of more than {_LARGEST_TUPLE:,} values within tuples")
    return made
