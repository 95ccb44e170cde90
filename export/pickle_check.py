"""Bounds on what a checkpoint's pickle may ask for, found out before torch's reader makes any of it.

That reader runs no code of the file, but a few bytes can have it fill the memory or compute for ever: a byte array of
any length, tensors of any shape over one number, one text copied by each of a thousand calls, keys that are tuples
nested in themselves or whose hashes are all the same. The pickle is walked as the reader would walk it, with names and
plain lists in the place of what they make, and each thing that the reader would do again and again has a budget.
"""

from __future__ import annotations

import os
import pickletools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from samrt.errors import BundleError

# A model has some thousands, its optimizer as many; a reader in Python takes seconds for so many. A log of the training
# has more, beside weights that are larger than the log: one more for each so many bytes of the file.
_MOST_STEPS, _BYTES_PER_STEP = 1 << 20, 16
# Numbers in keys, those in tuples too, each as often as it is hashed: their hashes are no secret, so that all can be
# the same, and a dictionary then compares each with each. The steps in a log have hashes of their own: a dictionary
# can still be made to look at each of them, but not where each is one more than the one before, which is not counted.
_MOST_KEYS, _MOST_SMALL_KEYS, _SMALL_KEY = 10_000, 1 << 15, 1 << 31
# How often a call may be given what stands in the file: text goes through two calls, as an array does.
_MOST_GIVEN = 4
# How many tensors may lie over one number: a model may be saved under several names.
_MOST_SHARED = 16
# For what a file of some hundred bytes holds.
_SMALL = 10_000

_PIECES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONTAINERS = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"}
_NUMBERS_AND_TEXT = {"BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True, "EMPTY_TUPLE": ()}
_REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
_WRAPPING = ("_rebuild_parameter", "_rebuild_parameter_with_state", "Parameter")
# Go through what they are given, and all but the last make keys of it.
_ITERATING = ("OrderedDict", "AttributeDict", "Counter", "set", "Size")
# Bytes of an element.
_STORAGES = {
    **dict.fromkeys(("Untyped", "Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4"), 1),
    **{"Short": 2, "Half": 2, "BFloat16": 2, "Int": 4, "Float": 4, "QInt32": 4},
    **{"Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16},
}
# No checkpoint of a model needs them, and they copy tensors or make new ones.
_REFUSED = ("_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_nested_tensor")


@dataclass(frozen=True)
class _Global:
    name: str


class _Made(list[Any]):
    """Stands for a container, with what was put into it, and for what a function returns, with what it was given.

    `numbers` is how many a tensor has.
    """

    numbers: int | None = None


def check_pickle(file: BinaryIO, size: int, records: Mapping[str, set[int]]) -> None:
    """Walk the pickle of a zip checkpoint of `size` bytes in all.

    `records` are the sizes in bytes of what storages are made of, by key, in small letters. torch does not look at them
    where it maps the file: a larger storage would be made of what lies behind its record.

    What torch's reader does not know ends the walk, as it ends the reading.

    Raises:
        BundleError: it asks for more than the file can hold; the text says what, and has no name of the file.
        Exception: of any kind, where it is damaged.
    """
    _Walk(size, records).walk(file)


def check_old_pickles(file: BinaryIO, size: int) -> None:
    """Walk the pickles that a checkpoint from before torch 1.6 begins with. As `check_pickle`."""
    named: set[str] = set()
    made: list[Any] = []
    # A mark, a version, the machine's sizes, the content, the names of the storages whose numbers follow.
    for _ in range(5):
        if not file.read(1):
            return
        file.seek(-1, os.SEEK_CUR)
        walk = _Walk(size, None)
        if not walk.walk(file):
            return
        named |= walk.storages.keys()
        made.append(walk.made)
    mark, version, _, _, names = made
    # torch quotes in its error what it finds in the place of these: a list within lists can be longer than any memory.
    if type(mark) is not int or type(version) is not int or type(names) is not _Made:
        raise BundleError("it does not begin as a checkpoint does")
    if not all(type(name) is str for name in names):
        raise BundleError("it has a storage whose name is no text")
    # torch would take the numbers of a storage that is not among them from memory as it finds it.
    if named - set(names):
        raise BundleError("it has storages whose numbers are not in the file")


class _Walk:
    def __init__(self, size: int, records: Mapping[str, set[int]] | None) -> None:
        self._size, self._records = size, records
        self._most_steps = _MOST_STEPS + size // _BYTES_PER_STEP
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, int] = {}
        self.made: Any = None
        self._read = self._given = self._keys = self._small_keys = self._last_key = 0
        self._numbers = self._stored = 0

    def walk(self, file: BinaryIO) -> bool:
        """Whether the pickle was walked to its end; then `made` stands for what it makes."""
        start: int | None = None
        for step, (opcode, argument, place) in enumerate(pickletools.genops(file)):
            start = place if start is None else start
            self._read = (place or 0) - (start or 0)
            if step > self._most_steps:
                raise BundleError(f"its pickle has more than {self._most_steps:,} steps, and a model's has thousands")
            if opcode.name == "STOP":
                self.made = self._stack[-1]
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
        elif name in _CONTAINERS:
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
            self._stack.append(tuple(stack))
        elif name in _PIECES:
            stack[-_PIECES[name] :] = [tuple(stack[-_PIECES[name] :])]
        elif name in ("APPENDS", "SETITEMS"):
            self._stack = self._outer.pop()
            self._put(stack, keys=name == "SETITEMS")
        elif name in ("APPEND", "SETITEM"):
            count = 2 if name == "SETITEM" else 1
            items = stack[-count:]
            del stack[-count:]
            self._put(items, keys=name == "SETITEM")
        elif name == "BUILD":
            state = stack.pop()
            self._check_state(stack[-1], state)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        else:
            return False
        return True

    def _put(self, items: list[Any], keys: bool) -> None:
        """Into the container on top."""
        for key in items[::2] if keys else ():
            self._hash(key)
        container = self._stack[-1]
        if isinstance(container, _Made):
            container.extend(items)

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Global):
            # The reader would quote it: a list within lists can be longer than any memory.
            raise BundleError("it calls what is no function")
        if not isinstance(arguments, tuple):
            raise BundleError(f"it calls {function.name} with arguments that are not written out")
        self._give(arguments, function.name)
        made = _Made([arguments])
        made.numbers = self._check_call(function.name, arguments)
        # Encoded text is followed, because arrays of bytes are made of it.
        return arguments[0] if function.name == "_codecs.encode" else made

    def _check_call(self, name: str, given: tuple[Any, ...]) -> int | None:
        """How many numbers a tensor has that the call makes; None if it makes none."""
        short = name.rpartition(".")[2]
        if short in _REFUSED:
            raise BundleError(f"it calls {short}, which copies tensors")
        if short == "_rebuild_from_type_v2" and len(given) > 2:
            inner, arguments = given[0], given[2]
            if not isinstance(inner, _Global) or not isinstance(arguments, tuple):
                raise BundleError(f"it calls {short} without a function")
            return self._check_call(inner.name, arguments)
        if short in _REBUILT:
            return self._check_view(given[1:4])
        if short == "_rebuild_sparse_tensor":
            # Indices of less than 64 bits are copied.
            return self._claim(sum(part.numbers or 0 for part in _inside(given) if isinstance(part, _Made)))
        if short == "encode" and not (given and isinstance(given[0], str) and given[1:] == ("latin1",)):
            raise BundleError(f"it encodes something else than text in latin1 ({name})")
        if short == "bytearray" and given != () and not (given and isinstance(given[0], str)):
            raise BundleError("it makes an array of bytes that are not in the file (bytearray)")
        if short.endswith(("Tensor", "Storage")) and name.startswith("torch") and given != ():
            raise BundleError(f"it makes memory that is not in the file ({name})")
        if short in _ITERATING:
            for each in given:
                _check_no_tensor(each, name)
                for key in each if isinstance(each, tuple | _Made) else (each,):
                    self._hash(key)
        if short in _WRAPPING or short.endswith("Tensor"):
            return next((part.numbers for part in given if isinstance(part, _Made) and part.numbers is not None), 0)
        return None

    def _check_state(self, target: Any, state: Any) -> None:
        self._give(state, "BUILD")
        if not isinstance(target, _Made) or target.numbers is None:
            _check_no_tensor(state, "BUILD")
        elif isinstance(state, tuple) and len(state) == 4:
            # (storage, offset, shape, strides), as tensors of the first years of torch have it
            target.numbers = self._check_view(state[1:])
        elif not (isinstance(state, tuple) and (len(state) == 5 or [type(each) for each in state[:1]] == [bool])):
            # (data, ...), or (requires_grad, ...), as its parameters
            raise BundleError("it changes a tensor in another way than torch does")

    def _check_view(self, given: tuple[Any, ...]) -> int:
        """Of offset, shape and strides: how many numbers there are, and how many lie from the first to the last."""
        if len(given) != 3 or type(given[0]) is not int or not all(map(_is_shape, given[1:])):
            raise BundleError("it has a tensor whose shape is not written out")
        offset, shape, strides = given
        numbers = self._claim(self._count(shape))
        # torch makes the memory of a tensor larger where it ends beyond it.
        ends = [(side - 1) * stride for side, stride in zip(shape, strides, strict=True)]
        self._count((abs(offset) + sum(map(abs, ends)),))
        return numbers

    def _claim(self, numbers: int) -> int:
        self._numbers += max(1, numbers)
        if self._numbers > _MOST_SHARED * self._size:
            raise BundleError(f"its tensors claim {self._numbers:,} numbers, but the file has {self._size:,} bytes")
        return numbers

    def _storage(self, given: Any) -> _Made:
        # ("storage", type, key, device, how many elements, view)
        kinds = (str, _Global, str, str, int)
        if not isinstance(given, tuple) or not tuple(map(type, given))[:5] == kinds:
            raise BundleError("it names a storage in another way than torch does")
        count = self._count((given[4],))
        element = _STORAGES.get(given[1].name.rpartition(".")[2].removesuffix("Storage"), 0)
        found = set() if self._records is None else self._records.get(given[2].casefold(), set())
        if found - {count * element}:
            raise BundleError(
                f"a storage of {count:,} numbers of {element} bytes lies in a record of {min(found):,} bytes"
            )
        before = self.storages.get(given[2], 0)
        self.storages[given[2]] = max(before, count)
        self._stored += self.storages[given[2]] - before
        self._count((self._stored,))
        return _Made()

    def _count(self, shape: tuple[int, ...]) -> int:
        count = 1
        for side in shape:
            count *= side
            # No element has less than half a byte.
            if abs(count) > 2 * self._size:
                raise BundleError(
                    f"the tensors claim {abs(count):,} numbers and more, but the file has {self._size:,} bytes"
                )
        return count

    def _give(self, value: Any, name: str) -> None:
        """Count what a function copies or quotes: all that it is given, text by its length."""
        most = _MOST_GIVEN * self._read + _SMALL
        for part in _inside(value):
            self._given += 1 + (len(part) if isinstance(part, str | bytes) else 0)
            if self._given > most:
                raise BundleError(f"it gives the same values to functions again and again ({name})")

    def _hash(self, key: Any) -> None:
        if type(key) is int and abs(key) < _SMALL_KEY:
            self._small_keys += key != self._last_key + 1
            self._last_key = key
            if self._small_keys > _MOST_SMALL_KEYS:
                raise BundleError(f"it has more than {_MOST_SMALL_KEYS:,} keys that are numbers")
            return
        for part in _inside(key):
            # Python's hashes of text are secret, and kept.
            self._keys += not isinstance(part, str)
            if self._keys > _MOST_KEYS:
                raise BundleError(f"it has more than {_MOST_KEYS:,} keys that are numbers or lie in a tuple")


def _inside(value: Any) -> Iterator[Any]:
    """A value and all values in it, each as often as it is reached: without an end where it is in itself."""
    rest = [iter((value,))]
    while rest:
        for part in rest[-1]:
            yield part
            if isinstance(part, tuple | _Made):
                rest.append(iter(part))
                break
        else:
            rest.pop()


def _check_no_tensor(value: Any, name: str) -> None:
    """Python would go through it and make a tensor of each of its rows: not of those within a list, or in pairs."""
    parts = value if isinstance(value, tuple | _Made) else ()
    if any(isinstance(part, _Made) and part.numbers is not None for part in (value, *parts)):
        raise BundleError(f"it gives a tensor to what takes none ({name})")


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(side) is int for side in value)
