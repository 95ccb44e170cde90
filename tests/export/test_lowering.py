"""Every form of attention computes the same."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import onnxruntime
import pytest
import torch
from seeded import SMALL_TINY_VIT, SMALL_VIT, normal, seeded_attention, seeded_state
from torch import Tensor, nn

from samrt.bundle.contract import Graph
from samrt.bundle.manifest import Tensor as Spec
from samrt.bundle.precisions import PRECISIONS
from samrt.errors import InputError
from samrt_export.lowering import LOWERINGS, lower, resolve
from samrt_export.lowering.augmented import LARGEST_WIDTH, AugmentedAttention, augmented_width
from samrt_export.lowering.chunked import ChunkedAttention, ChunkedMlp
from samrt_export.lowering.plugin import PluginAttention
from samrt_export.lowering.stepwise import QUERIES_PER_STEP, SCORES_PER_STEP, Steps
from samrt_export.models.common import Mlp
from samrt_export.models.image_encoder_vit import Attention, ImageEncoderViT
from samrt_export.models.tiny_vit import TinyViT
from samrt_export.onnx_export import export_graph

BOUND = PRECISIONS["fp32"].tolerance.embedding_relative_l2

# head_dim, heads, grid, window
SHAPES = {
    "global, one step": (16, 2, 8, 0),
    "global, two steps": (16, 2, 20, 0),
    "global, row by row": (8, 2, 17, 0),
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


def lowered(module: nn.Module, lowering: str) -> nn.Module:
    holder = nn.Sequential(module)
    lower(holder, lowering)
    return holder[0]


@pytest.mark.parametrize(
    ("lowering", "shape"),
    [(lowering, shape) for lowering in ("chunked", "plugin") for shape in SHAPES]
    + [("augmented", shape) for shape in SHAPES if "global" in shape],
)
@pytest.mark.parametrize("batch", [1, 2])
def test_attention_equals_dense(lowering: str, shape: str, batch: int) -> None:
    head_dim, heads, grid, window = SHAPES[shape]
    dense = seeded_attention(head_dim, heads, grid, window)
    x = normal(batch, grid, grid, heads * head_dim)
    expected = dense(x)
    replaced = lowered(dense, lowering)
    assert not isinstance(replaced, Attention)
    assert relative_l2(replaced(x), expected) <= BOUND
    # Lowering copies what it changes: the dense form is still what it was.
    assert torch.equal(dense(x), expected)


@pytest.mark.parametrize(("dim", "hidden"), [(32, 128), (30, 100), (64, 64), (64, 48), (20, 47)])
def test_mlp_in_pieces_equals_the_whole(dim: int, hidden: int) -> None:
    whole = Mlp(dim, hidden, nn.GELU())
    whole.load_state_dict(seeded_state(whole, seed=1))
    pieces = lowered(whole.requires_grad_(False), "chunked")
    assert isinstance(pieces, ChunkedMlp)
    x = normal(50, dim)
    assert relative_l2(pieces(x), whole(x)) <= BOUND


# Of windowed and of global layers.
FORMS = {
    "dense": (Attention, Attention),
    "chunked": (ChunkedAttention, ChunkedAttention),
    "augmented": (Attention, AugmentedAttention),
    "plugin": (PluginAttention, PluginAttention),
}


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_lowers_every_layer_of_an_encoder(lowering: str) -> None:
    encoder = ImageEncoderViT(SMALL_VIT)
    encoder.load_state_dict(seeded_state(encoder, seed=0))
    encoder.eval().requires_grad_(False)
    changed = deepcopy(encoder)
    lower(changed, lowering)
    kinds = [type(block.attn) for block in changed.blocks]
    window, whole = FORMS[lowering]
    assert kinds == [whole if index in SMALL_VIT.global_blocks else window for index in range(SMALL_VIT.depth)]
    image = normal(2, 3, SMALL_VIT.image_size, SMALL_VIT.image_size)
    assert relative_l2(changed(image), encoder(image)) <= BOUND


@pytest.mark.parametrize(
    ("head_dim", "grid", "width"),
    [(64, 64, 192), (80, 64, 208), (64, 32, 128), (64, 96, 256), (20, 9, 48), (20, 6, 32)],
)
def test_augmented_width_is_the_narrowest_that_fuses(head_dim: int, grid: int, width: int) -> None:
    """docs/attention.md has what TensorRT-RTX makes of these widths."""
    with torch.device("meta"):
        layer = Attention(2 * head_dim, head_dim, grid, window_size=0)
    assert augmented_width(layer) == width <= LARGEST_WIDTH


def test_augmented_query_key_and_value_have_one_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT fuses attention only then."""
    products = []
    monkeypatch.setattr(Tensor, "__matmul__", lambda a, b: products.append((a.shape, b.shape)) or torch.matmul(a, b))
    lowered(seeded_attention(20, 1, 9, 0), "augmented")(normal(1, 9, 9, 20))
    scores, values = products[-2:]
    assert scores == ((1, 1, 81, 48), (1, 1, 48, 81))
    assert values == ((1, 1, 81, 81), (1, 1, 81, 48))


@pytest.mark.parametrize(("grid", "kind"), [(96, AugmentedAttention), (97, Attention)])
def test_grids_whose_augmented_width_does_not_fuse_stay_dense(grid: int, kind: type[nn.Module]) -> None:
    layer = Attention(64, 64, grid, window_size=0)
    assert type(lowered(layer, "augmented")) is kind


@pytest.mark.parametrize(("side", "heads"), [(8, 2), (64, 12), (64, 5), (20, 3), (17, 4), (14, 300), (300, 4)])
def test_steps_divide_the_grid_and_the_heads(side: int, heads: int) -> None:
    steps = Steps.plan(side, heads)
    assert side % steps.rows == heads % steps.heads == 0
    assert steps.rows == 1 or steps.rows * side <= QUERIES_PER_STEP
    assert steps.heads == 1 or steps.heads * steps.rows * side**3 <= SCORES_PER_STEP


# In ONNX Runtime


def run_layer(module: nn.Module, x: Tensor, folder: Path) -> Tensor:
    """Export one layer with a dynamic batch, as an encoder is, and run it on the batch `x`."""
    shape = ("batch", *x.shape[1:])
    graph = Graph("layer.onnx", inputs=(Spec("x", "float32", shape),), outputs=(Spec("y", "float32", shape),))
    export_graph(module, graph, (torch.zeros(2, *x.shape[1:]),), folder)
    session = onnxruntime.InferenceSession(folder / "layer.onnx", providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


class InHalf(nn.Module):
    """A layer in half precision that takes and returns float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.half()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x.half())
        return out.float()


@pytest.mark.parametrize(
    "shape",
    ["global, one step", "global, two steps", "global, row by row", "global, odd heads", "padded windows, odd heads"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_chunked_in_onnx_runtime_equals_dense_in_torch(shape: str, batch: int, tmp_path: Path) -> None:
    """In the graph the loop is a function of its own: what torch computed above says nothing about it."""
    head_dim, heads, grid, window = SHAPES[shape]
    dense = seeded_attention(head_dim, heads, grid, window)
    x = normal(batch, grid, grid, heads * head_dim)
    assert relative_l2(run_layer(lowered(dense, "chunked"), x, tmp_path), dense(x)) <= BOUND


# test_plugin_node.py has the plugin's node, which ONNX Runtime does not know.
@pytest.mark.parametrize("lowering", [each for each in LOWERINGS if each != "plugin"])
def test_in_half_precision(lowering: str, tmp_path: Path) -> None:
    dense = seeded_attention(16, 2, 20, 0)
    x = normal(2, 20, 20, 32)
    expected = dense(x)
    error = relative_l2(run_layer(InHalf(lowered(dense, lowering)), x, tmp_path), expected)
    assert 1e-5 < error <= PRECISIONS["fp16"].tolerance.embedding_relative_l2


# Batch norms


def test_folds_every_batch_norm_of_a_tiny_vit() -> None:
    encoder = TinyViT(SMALL_TINY_VIT)
    encoder.load_state_dict(seeded_state(encoder, seed=0))
    encoder.eval().requires_grad_(False)
    folded = deepcopy(encoder)
    lower(folded, "dense")
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    image = normal(1, 3, SMALL_TINY_VIT.image_size, SMALL_TINY_VIT.image_size)
    assert relative_l2(folded(image), encoder(image)) <= BOUND


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


@pytest.mark.parametrize("lowering", ["chunked", "augmented", "plugin"])
def test_refuses_a_lowering_that_the_encoder_does_not_have(lowering: str) -> None:
    with pytest.raises(InputError, match=f"lowering '{lowering}' .* TinyViT has none; use lowering='auto'"):
        resolve(lowering, TinyViT(SMALL_TINY_VIT), "fp32")


@pytest.mark.parametrize("lowering", ["", "Dense", "auto,plugin"])
def test_refuses_an_unknown_lowering(lowering: str) -> None:
    with (
        torch.device("meta"),
        pytest.raises(InputError, match=r"unknown lowering .*auto, dense, chunked, augmented, plugin"),
    ):
        resolve(lowering, ImageEncoderViT(SMALL_VIT), "fp32")
