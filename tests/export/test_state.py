"""A model is found under whatever keys and prefixes training scripts save it, and what is left out is named."""

from __future__ import annotations

import argparse
import io
import pathlib
import re
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from samrt.errors import BundleError
from samrt_export.checkpoint import Checkpoint, read_checkpoint

MODEL = {
    "image_encoder.pos_embed": torch.arange(4.0),
    "prompt_encoder.no_mask_embed.weight": torch.ones(2),
    "mask_decoder.iou_token.weight": torch.full((3,), 2.0),
}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(4), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}


def behind(prefix: str, state: dict[str, Tensor] = MODEL) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def read(folder: Path, content: Any) -> Checkpoint:
    torch.save(content, folder / "model.pth")
    return read_checkpoint(folder / "model.pth")


def assert_is_model(checkpoint: Checkpoint, state: dict[str, Tensor] = MODEL) -> None:
    assert list(checkpoint.state) == list(state)
    assert all(torch.equal(checkpoint.state[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "prefix", ["", "model.", "module.", "sam.", "net.model.", "_orig_mod.", "model.sam_model.module.", "a.b.c.d.e."]
)
@pytest.mark.parametrize("key", ["", "model_state", "model_state_dict", "params", "module", "net"])
def test_any_key_and_any_prefix(tmp_path: Path, key: str, prefix: str) -> None:
    state = behind(prefix)
    checkpoint = read(tmp_path, {key: state, "optimizer": OPTIMIZER, "epoch": 3} if key else state)
    assert_is_model(checkpoint)
    assert checkpoint.root == ".".join(filter(None, (key, prefix.rstrip("."))))
    assert checkpoint.left_out == (("optimizer", "epoch") if key else ())


def nested(*keys: str) -> Any:
    content: Any = MODEL
    for key in reversed(keys):
        content = {key: content, "version": 1}
    return content


@pytest.mark.parametrize(
    "content",
    [
        nested("model", "state_dict"),
        nested("checkpoint", "model", "state_dict"),
        OrderedDict(MODEL),
        {name.partition(".")[0]: {name.partition(".")[2]: tensor} for name, tensor in MODEL.items()},
        {"mask_decoder": behind("", {"iou_token.weight": MODEL["mask_decoder.iou_token.weight"]}), **MODEL},
        {"epoch": 1, "ema": {name: 2 * tensor for name, tensor in MODEL.items()}, "model": MODEL},
        {"state_dict": {**behind("model."), **behind("ema_model."), "criterion.weight": torch.ones(2)}},
        {"state_dict": {**behind("teacher.sam."), **behind("student.sam.")}},
        {"optimizer": {"state": behind("")}, "sam": MODEL},
        {"decoder_only": {k: v for k, v in MODEL.items() if "decoder" in k}, "model": MODEL},
        {"model": MODEL, "best": MODEL},
        {"model": MODEL, "state_dict": dict(MODEL), "net": behind("module.")},
        {"model": MODEL, "log": defaultdict(list, loss=[0.5])},
        behind("", {k.replace(".", ".module.", 1): v for k, v in MODEL.items()}),
        {"state_dict": {k.replace(".", "._orig_mod.", 1): v for k, v in behind("sam.").items()}},
    ],
)
def test_nested_split_copied_and_wrapped_models(tmp_path: Path, content: Any) -> None:
    checkpoint = read(tmp_path, content)
    assert {k: v.tolist() for k, v in checkpoint.state.items()} == {k: v.tolist() for k, v in MODEL.items()}


def test_a_lightning_checkpoint_with_all_that_it_keeps(tmp_path: Path) -> None:
    content = {
        "state_dict": {**behind("model."), "loss.class_weights": torch.ones(3)},
        "hyper_parameters": {"lr": np.float64(1e-4), "sizes": np.arange(3), "args": argparse.Namespace(epochs=3)},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "path": pathlib.PurePosixPath("a")}},
        "optimizer_states": [OPTIMIZER],
        "epoch": np.int64(4),
        "pytorch-lightning_version": "2.4.0",
    }
    checkpoint = read(tmp_path, content)
    assert_is_model(checkpoint)
    assert checkpoint.left_out == ("state_dict.loss", *list(content)[1:])


def test_names_that_are_longer_than_any_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="was not read: the names in it are of more than"):
        read(tmp_path, {"a" * 100_000: dict.fromkeys(map(str, range(200)))})


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_values_of_either_version_are_passed_over(tmp_path: Path, module: str) -> None:
    buffer = io.BytesIO()
    # The older form writes the pickle into the file as it is, so the module's name can be another version's.
    torch.save({"model": MODEL, "best": np.float32(0.5)}, buffer, _use_new_zipfile_serialization=False)
    written = re.sub(rb"cnumpy\._?core\.multiarray\n", b"c" + module.encode() + b"\n", buffer.getvalue())
    path = tmp_path / "model.pth"
    path.write_bytes(written)
    assert b"c" + module.encode() in written
    assert_is_model(read_checkpoint(path))


class Settings:
    """Of a training script."""


def test_objects_of_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"it asks for \S*test_state\.Settings.*save the state dict"):
        read(tmp_path, {"model": MODEL, "settings": Settings()})


def test_arrays_that_claim_much_memory_are_never_made(tmp_path: Path) -> None:
    class Huge:
        def __reduce__(self) -> Any:
            return np.zeros(0).__reduce__()[0], (np.ndarray, (2**62,), b"b")

    assert_is_model(read(tmp_path, {"model": MODEL, "huge": Huge()}))


@pytest.mark.parametrize(
    "name",
    [
        "image_encoder.blocks.0.attn.qkv.lora_A.default.weight",
        "image_encoder.blocks.0.attn.qkv.linear_a_q.weight",
        "image_encoder.blocks.0.Adapter.fc1.weight",
        "image_encoder.prompt_generator.shared_mlp.weight",
        "w_a_000",
        "lora.layers.0.weight",
    ],
)
def test_weights_added_to_layers_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match=rf"LoRA or an adapter \(model\.{re.escape(name)}\).*merge_and_unload"):
        read(tmp_path, {"model": {**MODEL, name: torch.ones(1)}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"a": MODEL, "b": {name: 2 * tensor for name, tensor in MODEL.items()}},
            r"several models, under a, b; save the state dict",
        ),
        (
            {"model": {**MODEL, "image_encoder.x": np.ones(2)}},
            r"image_encoder\.x, a numpy array or setting, among its",
        ),
        ({"image_encoder.x": np.ones(2)}, r"no tensors, but numpy arrays or settings: image_encoder\.x"),
        ({"config": {"a": 1}, "epoch": 3}, r"holds no tensors, but config\.a, epoch"),
        ({"models": [MODEL]}, "holds no tensors, but models"),
    ],
)
def test_refusals_say_what_was_found(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read(tmp_path, content)


def test_a_container_within_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": dict(MODEL)}
    content["again"] = content
    assert_is_model(read(tmp_path, content))


def test_tensors_spread_over_processes_are_named(tmp_path: Path) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.tensor import DeviceMesh, Replicate, distribute_tensor

    init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        mesh = DeviceMesh("cpu", [0])
        torch.save(
            {"model": {name: distribute_tensor(t, mesh, [Replicate()]) for name, t in MODEL.items()}},
            tmp_path / "model.pth",
        )
    finally:
        destroy_process_group()
    with pytest.raises(BundleError, match=r"spread over several processes.*full_state_dict=True"):
        read_checkpoint(tmp_path / "model.pth")
