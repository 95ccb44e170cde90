"""Every form of attention computes the same."""

from __future__ import annotations

from copy import deepcopy

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from seeded import SMALL_TINY_VIT, SMALL_VIT, seeded_state
from torch import Tensor

from samrt.errors import InputError
from samrt_export.lowering import LOWERINGS, REPLACEMENTS, lower, resolve
from samrt_export.lowering.augmented import WIDTH_MULTIPLE, AugmentedAttention
from samrt_export.lowering.chunked import (
    HEADS_PER_STEP,
    QUERIES_PER_STEP,
    ChunkedAttention,
    attend_in_chunks,
    chunk_function,
    query_rows_per_step,
)
from samrt_export.models.image_encoder_vit import Attention, ImageEncoderViT
from samrt_export.models.tiny_vit import TinyViT
from samrt_export.onnx_export import OPSET
from samrt_export.tolerances import TOLERANCES

BOUND = TOLERANCES["fp32"].embedding_relative_l2

# head_dim, heads, grid, window
SHAPES = {
    "global, one step": (16, 2, 8, 0),
    "global, four steps": (16, 2, 20, 0),
    "global, row by row": (8, 2, 13, 0),
    "global, odd heads": (20, 3, 10, 0),
    "global, one head": (80, 1, 12, 0),
    "windows that fit": (16, 4, 12, 4),
    "padded windows": (16, 4, 16, 5),
    "padded windows, odd heads": (20, 3, 10, 7),
    "one padded window": (16, 2, 4, 14),
    "windows of one token": (16, 2, 3, 1),
}


def relative_l2(value: Tensor, truth: Tensor) -> float:
    assert value.shape == truth.shape
    return float((value.double() - truth.double()).norm() / truth.double().norm())


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attention(head_dim: int, heads: int, grid: int, window: int) -> Attention:
    module = Attention(heads * head_dim, head_dim, grid, window)
    module.load_state_dict(seeded_state(module, seed=4))
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("lowering", REPLACEMENTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 2])
def test_equals_dense(lowering: str, shape: str, batch: int) -> None:
    head_dim, heads, grid, window = SHAPES[shape]
    dense = attention(head_dim, heads, grid, window)
    x = normal(batch, grid, grid, heads * head_dim)
    expected = dense(x)
    assert relative_l2(REPLACEMENTS[lowering](dense)(x), expected) <= BOUND
    # Lowering copies what it changes: the dense form is still what it was.
    assert torch.equal(dense(x), expected)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_lowers_every_layer_of_an_encoder(lowering: str) -> None:
    encoder = ImageEncoderViT(SMALL_VIT)
    encoder.load_state_dict(seeded_state(encoder, seed=0))
    encoder.eval().requires_grad_(False)
    lowered = deepcopy(encoder)
    lower(lowered, lowering)
    kinds = {type(block.attn) for block in lowered.blocks}
    assert kinds == {{"dense": Attention, "chunked": ChunkedAttention, "augmented": AugmentedAttention}[lowering]}
    image = normal(2, 3, SMALL_VIT.image_size, SMALL_VIT.image_size)
    assert relative_l2(lowered(image), encoder(image)) <= BOUND


def test_augmented_query_key_and_value_have_one_aligned_width() -> None:
    """TensorRT fuses attention only then."""
    module = AugmentedAttention(attention(20, 3, 9, 0))
    assert module.width % WIDTH_MULTIPLE == 0
    assert module.position.shape == (81, module.width - 20)


@pytest.mark.parametrize(("side", "rows"), [(4, 4), (8, 8), (13, 1), (14, 7), (20, 5), (64, 2), (128, 1), (200, 1)])
def test_a_step_is_whole_rows_within_its_budget(side: int, rows: int) -> None:
    assert query_rows_per_step(side) == rows
    assert side % rows == 0
    assert rows == 1 or rows * side <= QUERIES_PER_STEP


# The ONNX function


def run_function(module: ChunkedAttention, inputs: dict[str, Tensor]) -> Tensor:
    """`AttendInChunks` alone, in ONNX Runtime; the axis of heads and batch is dynamic as in an encoder."""
    half = module.rel_h_table.dtype == torch.float16
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    infos = {
        name: helper.make_tensor_value_info(name, kind, ["n", *tensor.shape[1:]])
        for name, tensor in (inputs | {"out": inputs["v"]}).items()
    }
    out = infos.pop("out")
    node = helper.make_node("AttendInChunks", list(infos), ["out"], domain="samrt")
    model = helper.make_model(
        helper.make_graph([node], "one_layer", list(infos.values()), [out]),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("samrt", 1)],
        functions=[chunk_function(module)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])


def function_inputs(heads: int, side: int, head_dim: int, batch: int) -> dict[str, Tensor]:
    n, tokens = batch * heads, side * side
    shapes = {
        "q": (tokens, head_dim),
        "k": (tokens, head_dim),
        "v": (tokens, head_dim),
        "rel_h": (side, side, side),
        "rel_w": (side, side, side),
    }
    return {name: normal(n, *shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}


@pytest.mark.parametrize(
    ("head_dim", "heads", "side"),
    [
        pytest.param(16, 2, 8, id="one step"),
        pytest.param(16, 4, 20, id="four steps, two pairs of heads"),
        pytest.param(8, 2, 13, id="row by row"),
        pytest.param(20, 3, 10, id="odd heads"),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_function_equals_torch(head_dim: int, heads: int, side: int, batch: int) -> None:
    module = ChunkedAttention(attention(head_dim, heads, side, 0))
    inputs = function_inputs(heads, side, head_dim, batch)
    expected = attend_in_chunks(*inputs.values())
    assert relative_l2(run_function(module, inputs), expected) <= BOUND
    # Both agree with attention written out, not only with each other.
    bias = inputs["rel_h"][..., :, None] + inputs["rel_w"][..., None, :]
    bias = bias.reshape(batch * heads, side * side, side * side)
    scores = inputs["q"] @ inputs["k"].transpose(1, 2) + bias
    assert relative_l2(scores.softmax(dim=-1) @ inputs["v"], expected) <= BOUND


def test_onnx_function_in_half_precision() -> None:
    module = ChunkedAttention(attention(16, 2, 10, 0)).half()
    inputs = {name: tensor.half() for name, tensor in function_inputs(2, 10, 16, batch=2).items()}
    result = run_function(module, inputs)
    assert result.dtype == torch.float16
    expected = attend_in_chunks(*(tensor.float() for tensor in inputs.values()))
    assert relative_l2(result, expected) <= TOLERANCES["fp16"].embedding_relative_l2


def test_heads_go_in_pairs_where_they_can() -> None:
    """In one step of the outer Scan: what the cost of the loop was measured with."""
    assert HEADS_PER_STEP == 2
    for heads, together in ((4, 2), (3, 1)):
        function = chunk_function(ChunkedAttention(attention(8, heads, 4, 0)))
        outer = next(node for node in function.node if node.op_type == "Scan")
        body = next(attribute.g for attribute in outer.attribute if attribute.name == "body")
        assert body.input[0].type.tensor_type.shape.dim[0].dim_value == together


# Choosing


@pytest.mark.parametrize(
    ("lowering", "precision", "chosen"),
    [
        ("auto", "fp32", "chunked"),
        ("auto", "fp16", "augmented"),
        ("dense", "fp32", "dense"),
        ("chunked", "fp16", "chunked"),
        ("augmented", "fp32", "augmented"),
    ],
)
def test_resolves_for_a_vit(lowering: str, precision: str, chosen: str) -> None:
    with torch.device("meta"):
        assert resolve(lowering, ImageEncoderViT(SMALL_VIT), precision) == chosen


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("lowering", ["auto", "dense"])
def test_encoders_without_relative_position_are_dense(lowering: str, precision: str) -> None:
    assert resolve(lowering, TinyViT(SMALL_TINY_VIT), precision) == "dense"


@pytest.mark.parametrize("lowering", ["chunked", "augmented"])
def test_refuses_a_lowering_that_the_encoder_does_not_have(lowering: str) -> None:
    with pytest.raises(InputError, match=f"lowering '{lowering}' .* TinyViT has none: use --lowering auto or dense"):
        resolve(lowering, TinyViT(SMALL_TINY_VIT), "fp32")


@pytest.mark.parametrize("lowering", ["", "Dense", "plugin"])
def test_refuses_an_unknown_lowering(lowering: str) -> None:
    with (
        torch.device("meta"),
        pytest.raises(InputError, match=r"unknown lowering .*auto, dense, chunked, augmented"),
    ):
        resolve(lowering, ImageEncoderViT(SMALL_VIT), "fp32")
