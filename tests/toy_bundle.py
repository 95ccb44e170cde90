"""A bundle that obeys the real graph contract and computes in microseconds, with its mathematics again in NumPy.

Encoder: average pooling and a fixed 1x1 mixing of the colours. Decoder: a bump for each token, signed by its label, on
top of the mean feature and half of the mask input; four masks that differ by factor and offset.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from contracts import MEAN_STD, sam_contract
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from samrt.bundle.contract import IMAGE_ENCODER, MASK_DECODER, Graph, Normalization, Tensor
from samrt.bundle.manifest import FileEntry, Form, Manifest, Source
from samrt.files import sha256_of

S, STRIDE, C = 64, 4, 8
FILES = {IMAGE_ENCODER: "encoder.onnx", MASK_DECODER: "decoder.onnx"}
LABEL_WEIGHTS = {1: 8.0, 0: -8.0, 2: 5.0, 3: 6.0, -1: 0.0}
FACTORS = np.array([1.0, 0.8, 1.2, 0.9], np.float32)
OFFSETS = np.array([-1.0, -0.5, -2.0, 0.5], np.float32)
SCORE_OFFSETS = np.array([0.1, 0.2, -0.2, 0.3], np.float32)
MIX = np.random.default_rng(7).standard_normal((C, 3)).astype(np.float32)

_TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}


def write_toy_bundle(
    folder: Path, image_size: int = S, stride: int = STRIDE, normalization: Normalization = MEAN_STD
) -> Path:
    """Write the bundle; `stride` 4 makes L equal to S, 16 makes it a quarter."""
    folder.mkdir(parents=True, exist_ok=True)
    side = image_size // stride
    contract = sam_contract(image_size, (C, side, side), normalization)
    graphs = {role: contract.graph(role, file) for role, file in FILES.items()}
    onnx.save_model(
        _model(graphs["image_encoder"], _encoder_nodes(stride), {"mix": MIX[:, :, None, None]}),
        str(folder / "encoder.onnx"),
        save_as_external_data=True,
        location="encoder.weights",
        size_threshold=0,
    )
    onnx.save_model(
        _model(graphs["mask_decoder"], _decoder_nodes(), _decoder_constants(image_size, 4 * side)),
        str(folder / "decoder.onnx"),
    )
    manifest = Manifest(
        family="toy",
        variant="toy",
        geometry=contract.geometry,
        features=contract.features,
        masks=contract.masks,
        forms=(Form("fp32", "dense", graphs, verification={}),),
        files=entries(folder, "encoder.onnx", "encoder.weights", "decoder.onnx"),
        source=Source("toy.pth", "ab" * 32, 24, 24),
        exporter={"samrt": "0"},
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def entries(folder: Path, *names: str) -> dict[str, FileEntry]:
    """What a manifest says about files that are there."""
    return {name: FileEntry(sha256_of(folder / name), (folder / name).stat().st_size) for name in names}


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Change fields of the manifest in `folder`, and bring its hashes up to date."""
    path = folder / "manifest.json"
    manifest = Manifest.from_json(path.read_text())
    path.write_text(replace(manifest, **{"files": entries(folder, *manifest.files), **changes}).to_json())


def toy_encoder(pixels: NDArray[np.float32], stride: int = STRIDE) -> NDArray[np.float32]:
    """float32 [1, 3, S, S] to float32 [1, C, h, w]."""
    batch, channels, height, width = pixels.shape
    blocks = pixels.reshape(batch, channels, height // stride, stride, width // stride, stride)
    return np.einsum("kc,bchw->bkhw", MIX, blocks.mean(axis=(3, 5)))


def toy_decoder(
    features: NDArray[np.float32],
    coords: NDArray[Any],
    labels: NDArray[Any],
    mask_input: NDArray[Any] | None = None,
    image_size: int = S,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features and tokens [B, N, 2], [B, N] in pixels of the resized image to masks [B, 4, L, L] and scores [B, 4]."""
    low_res = 4 * features.shape[2]
    weights = np.select([labels == k for k in LABEL_WEIGHTS], list(LABEL_WEIGHTS.values()))
    grid = (np.arange(low_res) + 0.5) * image_size / low_res
    x, y = (coords[..., axis, None, None] + 0.5 for axis in (0, 1))
    bumps = np.exp(-((x - grid) ** 2 + (y - grid[:, None]) ** 2) / (2 * (image_size / 8) ** 2))
    total = (weights[..., None, None] * bumps).sum(axis=1, keepdims=True)
    total = total + features.mean(axis=1, keepdims=True).repeat(4, axis=2).repeat(4, axis=3)
    scores = 0.1 * weights.sum(axis=1, keepdims=True) + SCORE_OFFSETS
    if mask_input is not None:
        total = total + 0.5 * mask_input
        scores = scores + 0.3
    masks = total * FACTORS[:, None, None] + OFFSETS[:, None, None]
    return masks.astype(np.float32), (1 / (1 + np.exp(-scores))).astype(np.float32)


def _encoder_nodes(stride: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("Conv", ["pooled", "mix"], ["image_embeddings"]),
    ]


def _decoder_constants(image_size: int, low_res: int) -> dict[str, NDArray[Any]]:
    grid = ((np.arange(low_res) + 0.5) * image_size / low_res).astype(np.float32)
    constants = {
        "half_pixel": np.float32(0.5),
        "zero": np.int64(0),
        "one": np.int64(1),
        "axis_1": np.array([1]),
        "axes_23": np.array([2, 3]),
        "axes_123": np.array([1, 2, 3]),
        "grid_x": grid[None, None, None, :],
        "grid_y": grid[None, None, :, None],
        "falloff": np.float32(-1 / (2 * (image_size / 8) ** 2)),
        "scales": np.array([1, 1, 4, 4], np.float32),
        "factors": FACTORS[None, :, None, None],
        "offsets": OFFSETS[None, :, None, None],
        "score_offsets": SCORE_OFFSETS[None],
        "tenth": np.float32(0.1),
        "mask_score": np.float32(0.3),
    }
    for label, weight in LABEL_WEIGHTS.items():
        constants[f"label_{label}"] = np.int32(label)
        constants[f"weight_{label}"] = np.float32(weight)
    return {name: np.asarray(value) for name, value in constants.items()}


def _decoder_nodes() -> list[onnx.NodeProto]:
    def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs.split(), [output], **attributes)

    nodes = []
    for label in LABEL_WEIGHTS:
        nodes += [
            node("Equal", f"point_labels label_{label}", f"is_{label}"),
            node("Cast", f"is_{label}", f"as_number_{label}", to=TensorProto.FLOAT),
            node("Mul", f"as_number_{label} weight_{label}", f"weighted_{label}"),
        ]
    for axis, index in (("x", "zero"), ("y", "one")):
        nodes += [
            node("Gather", f"shifted {index}", axis, axis=2),
            node("Unsqueeze", f"{axis} axes_23", f"{axis}_wide"),
            node("Sub", f"{axis}_wide grid_{axis}", f"d{axis}"),
            node("Mul", f"d{axis} d{axis}", f"d{axis}2"),
        ]
    return [
        node("Add", "point_coords half_pixel", "shifted"),
        *nodes,
        node("Sum", " ".join(f"weighted_{label}" for label in LABEL_WEIGHTS), "weights"),
        node("Add", "dx2 dy2", "d2"),
        node("Mul", "d2 falloff", "exponent"),
        node("Exp", "exponent", "bumps"),
        node("Unsqueeze", "weights axes_23", "weights_wide"),
        node("Mul", "weights_wide bumps", "signed"),
        node("ReduceSum", "signed axis_1", "points_total", keepdims=1),
        node("ReduceMean", "image_embeddings axis_1", "mean", keepdims=1),
        helper.make_node("Resize", ["mean", "", "scales"], ["mean_wide"], mode="nearest"),
        node("Unsqueeze", "has_mask_input axes_123", "has_wide"),
        node("Mul", "mask_input has_wide", "mask_used"),
        node("Mul", "mask_used half_pixel", "mask_half"),
        node("Sum", "points_total mean_wide mask_half", "total"),
        node("Mul", "total factors", "scaled"),
        node("Add", "scaled offsets", "low_res_masks"),
        node("ReduceSum", "weights axis_1", "weight_sum", keepdims=1),
        node("Mul", "weight_sum tenth", "weight_score"),
        node("Unsqueeze", "has_mask_input axis_1", "has_column"),
        node("Mul", "has_column mask_score", "mask_bonus"),
        node("Sum", "weight_score mask_bonus score_offsets", "score"),
        node("Sigmoid", "score", "iou_predictions"),
    ]


def _model(graph: Graph, nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    def info(tensor: Tensor) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], list(tensor.shape))

    body = helper.make_graph(
        nodes,
        graph.file,
        [info(tensor) for tensor in graph.inputs],
        [info(tensor) for tensor in graph.outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
