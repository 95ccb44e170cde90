"""Seeded mutations of pickles as torch writes them: of single steps, so that most of the result is still one."""

from __future__ import annotations

import io
import pickletools
import random
import struct

_LIMIT = 1 << 17
_INTS = (0, 1, 2, 3, 7, 64, 255, 1000, 2**16, 2**20, 2**31 - 1, -1, -(2**31))
_GLOBALS = (
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v3"),
    *("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state", "torch._utils _rebuild_qtensor"),
    *("torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_meta_tensor_no_storage", "torch Tensor"),
    *("torch._utils _rebuild_wrapper_subclass", "torch._tensor _rebuild_from_type_v2", "torch.nn.parameter Parameter"),
    *("torch Size", "torch device", "torch float32", "torch sparse_coo", "torch.serialization _get_layout"),
    *("torch FloatStorage", "torch HalfStorage", "torch DoubleStorage", "torch ByteStorage", "torch QInt8Storage"),
    *("torch.storage UntypedStorage", "torch.storage TypedStorage", "torch FloatTensor", "torch.sparse FloatTensor"),
    *("collections OrderedDict", "collections Counter", "builtins set", "builtins complex", "__builtin__ bytearray"),
    *("_codecs encode", "argparse Namespace", "numpy ndarray", "numpy._core.multiarray _reconstruct", "os system"),
    *("torch per_tensor_affine", "torch.float8_e4m3fn", "torch bfloat16", "torch ComplexFloatStorage", "builtins eval"),
)
_KEYS = (
    "image_encoder.x",
    "mask_decoder",
    "model",
    "state_dict",
    "ema",
    "a.b",
    "",
    ".",
    "\ud800",
    "\x1b[2J",
    "x" * 999,
)
# Steps that make something in the place of a value.
_VALUES = (
    *(b"N", b"\x88", b"\x89", b"]", b"}", b")", b"\x8f", b"G\x7f\xf0" + bytes(6), b"G\x7f\xf8" + bytes(6), b"U\x01a"),
    *(b"\x8a\x09" + (k * (2**61 - 1)).to_bytes(9, "little") for k in (1, 2, 3)),
    *(b"ccollections\nOrderedDict\n)R", b"cbuiltins\nset\n](K\1K\2e\x85R", b"K\1K\2\x86", b"(K\1K\1K\1t", b"}K\1K\2s"),
    *(b"ctorch\nTensor\n)\x81", b"cargparse\nNamespace\n)\x81}b", b"cbuiltins\ncomplex\nG" + bytes(16)[:8] + b"\x85R"),
)
_LOOSE = (b"\x85", b"\x86", b"\x87", b"(", b"t", b"R", b"\x81", b"b", b"a", b"e", b"s", b"u", b"Q", b"0", b"2")

Step = tuple[str, bytes]


def steps_of(data: bytes) -> tuple[list[Step], bytes]:
    """The steps of the pickle that `data` begins with, by name, and what lies behind it.

    Raises ValueError, or another error of `pickletools`, where it is none.
    """
    file = io.BytesIO(data)
    found = [(opcode.name, place or 0) for opcode, _, place in pickletools.genops(file)]
    places = [place for _, place in found] + [file.tell()]
    steps = [(name, data[place:end]) for (name, place), end in zip(found, places[1:], strict=True)]
    return steps, data[file.tell() :]


def mutate_steps(data: bytes, rng: random.Random) -> bytes:
    """Change some steps of the pickle that `data` begins with; what lies behind it stays.

    Raises as `steps_of`.
    """
    steps, rest = steps_of(data)
    for _ in range(min(rng.randint(1, 5), rng.randint(1, 5))):
        _change(steps, rng)
    return (b"".join(step for _, step in steps) + rest)[:_LIMIT]


def _change(steps: list[Step], rng: random.Random) -> None:
    kind = rng.randrange(10)
    # Numbers, text and names are in the minority, and matter most.
    wanted = {0: ("BININT", "BININT1", "BININT2"), 1: ("BINUNICODE",), 2: ("GLOBAL",), 3: ("BINGET", "LONG_BINGET")}
    places = [at for at, (name, _) in enumerate(steps) if name in wanted.get(kind, (name,))]
    at = rng.choice(places) if places else rng.randrange(len(steps))
    if kind == 0:
        steps[at] = "BININT", b"J" + struct.pack("<i", rng.choice(_INTS))
    elif kind == 1:
        text = rng.choice(_KEYS).encode("utf-8", "surrogatepass")
        steps[at] = "BINUNICODE", b"X" + struct.pack("<I", len(text)) + text
    elif kind == 2:
        module, _, name = rng.choice(_GLOBALS).partition(" ")
        steps[at] = "GLOBAL", f"c{module}\n{name}\n".encode()
    elif kind == 3:
        steps[at] = "LONG_BINGET", b"j" + struct.pack("<I", rng.randrange(60))
    elif kind == 4:
        del steps[at : at + rng.choice((1, 1, 2, rng.randint(1, 30)))]
        steps.append(("STOP", b"."))
    elif kind == 5:
        end = at + rng.choice((1, 2, rng.randint(1, 40)))
        steps[at:at] = steps[at:end] * rng.choice((1, 1, 2, 30, 500))
    elif kind == 6:
        steps[at] = "", rng.choice(_VALUES)
    elif kind == 7:
        steps.insert(at, ("", rng.choice((*_VALUES, *_LOOSE))))
    elif kind == 8:
        # A value within itself, or twice the one before, again and again.
        name, block = rng.choice(((b"\x86", b"h\x3ah\x3a"), (b"a", b"]h\x3a"), (b"\x85", b""), (b"e", b"](h\x3ah\x3a")))
        steps.insert(at, ("", b"".join([b"q\x3a", block, name]) * rng.choice((1, 5, 60, 2000))))
    else:
        source = rng.randrange(len(steps))
        steps[at : at + 1] = steps[source : source + rng.randint(1, 20)]
