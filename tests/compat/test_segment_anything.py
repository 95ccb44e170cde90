"""`samrt.compat.segment_anything` in the place of Meta's package: names, checkpoints, and what is refused."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
import torch
from oracle import segment_anything
from toy_bundle import rewrite_manifest, write_toy_bundle

import samrt
from samrt.bundle.manifest import Source
from samrt.compat import segment_anything as compat
from samrt.compat.segment_anything import frames
from samrt.errors import BackendError, BundleError, InputError, SamrtError
from samrt.files import sha256_of

pytest_plugins = ("toy_fixtures",)

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
SIZE = IMAGE.shape[:2]
BOXES = np.array([[10.0, 5.0, 60.0, 35.0]])
MODULES = (
    "automatic_mask_generator",
    "build_sam",
    "modeling",
    "modeling.sam",
    "predictor",
    "utils",
    "utils.amg",
    "utils.onnx",
    "utils.transforms",
)


@pytest.fixture(autouse=True)
def without_metas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has not imported Meta's package; other tests have."""
    for name in [*sys.modules]:
        if f"{name}.".startswith("segment_anything."):
            monkeypatch.delitem(sys.modules, name)
    yield
    compat.uninstall()


@pytest.fixture
def sam(toy_bundle: Path) -> Any:
    return compat.sam_model_registry["vit_b"](checkpoint=toy_bundle)


def test_names_are_metas_in_metas_modules() -> None:
    compat.install()
    assert importlib.import_module("segment_anything") is compat
    assert importlib.util.find_spec("segment_anything") is not None
    for name in MODULES:
        ours = importlib.import_module(f"segment_anything.{name}")
        assert ours.__name__ == f"samrt.compat.segment_anything.{name}"
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'segment_anything.other'"):
        importlib.import_module("segment_anything.other")
    compat.uninstall()
    metas = segment_anything.__wrapped__()
    assert metas is not compat
    for name in ("", *(f".{module}" for module in MODULES if module != "utils.onnx")):
        theirs = importlib.import_module(f"{metas.__name__}{name}")
        # Of a module what it defines, of a package also what it imports.
        origin = "segment_anything" if hasattr(theirs, "__path__") else theirs.__name__
        public = {
            key
            for key, value in vars(theirs).items()
            if key[0] != "_" and getattr(value, "__module__", "").startswith(origin)
        }
        assert public or name == ".utils"
        assert public <= {*dir(importlib.import_module(f"{compat.__name__}{name}"))}


def test_install_again_changes_the_bundle_and_uninstall_undoes_it(toy_bundle: Path, tmp_path: Path) -> None:
    other = write_toy_bundle(tmp_path / "other", image_size=128, stride=16)
    for bundle, side in ((toy_bundle, 64), (samrt.open_bundle(other), 128), (None, 512)):
        compat.install(bundle)
        assert compat.sam_model_registry["default"]().image_encoder.img_size == side
    compat.install(other, threads=1)
    shutil.rmtree(other)
    write_toy_bundle(other)
    assert compat.build_sam().image_encoder.img_size == 64
    compat.uninstall()
    assert "segment_anything.utils.transforms" not in sys.modules
    assert compat.build_sam_vit_l(None).image_size == 512
    compat.uninstall()


def test_settings_go_to_load(toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match="nonsense"):
        compat.install(backend="nonsense")
    with pytest.raises(BundleError, match="there is no bundle"):
        compat.install(toy_bundle / "missing")
    assert "segment_anything" not in sys.modules
    compat.install(toy_bundle, threads=0)
    with pytest.raises(InputError, match="threads"):
        compat.build_sam()
    compat.install(toy_bundle, precision="fp16")
    with pytest.raises(BackendError, match="fp16"):
        compat.build_sam(toy_bundle)


def test_metas_package_is_replaced_only_on_demand() -> None:
    metas = segment_anything.__wrapped__()
    transforms = sys.modules["segment_anything.utils.transforms"]
    with pytest.raises(SamrtError, match=rf"imported already, from {re.escape(metas.__file__)}; call install before"):
        compat.install()
    assert sys.modules["segment_anything"] is metas
    compat.install(replace=True)
    compat.install()
    assert sys.modules["segment_anything.utils.transforms"].__name__.startswith("samrt.")
    assert not [name for name in sys.modules if name == "segment_anything.modeling.transformer"]
    compat.uninstall()
    assert sys.modules["segment_anything"] is metas
    assert sys.modules["segment_anything.utils.transforms"] is transforms
    del sys.modules["segment_anything"]
    compat.uninstall()
    assert "segment_anything" not in sys.modules


def test_a_checkpoint_asks_for_its_bundle_and_then_takes_it(toy_bundle: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "my models" / "sam_vit_h_4b8939.pth"
    checkpoint.parent.mkdir()
    beside = checkpoint.with_suffix(".samrt")
    command = f"samrt export '{checkpoint}' -o '{beside}'"
    with pytest.raises(BundleError, match=f"does not exist.*with: {re.escape(command)}$"):
        compat.sam_model_registry["vit_h"](checkpoint=str(checkpoint))
    checkpoint.write_bytes(b"weights")
    with pytest.raises(BundleError, match=f"is a torch checkpoint.*with: {re.escape(command)}$"):
        compat.build_sam(checkpoint)
    shutil.copytree(toy_bundle, beside)
    with pytest.raises(BundleError, match=f"made from another checkpoint.*again: {re.escape(command)}$"):
        compat.build_sam(checkpoint)
    rewrite_manifest(beside, source=Source(checkpoint.name, sha256_of(checkpoint), 7, 1))
    assert compat.build_sam(checkpoint).image_size == 64
    checkpoint.unlink()
    assert compat.build_sam(checkpoint).image_size == 64
    other = beside.rename(beside.with_name("other.samrt")).with_suffix(".pth")
    with pytest.raises(BundleError, match="made from another checkpoint"):
        compat.build_sam(other)
    with pytest.raises(BundleError, match=r"there is no bundle at .*nowhere"):
        compat.build_sam(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"decoder\.onnx is a file, and a bundle is a folder"):
        compat.build_sam(toy_bundle / "decoder.onnx")


def test_what_samrt_does_not_have_says_so() -> None:
    from samrt.compat.segment_anything import modeling
    from samrt.compat.segment_anything.utils.onnx import SamOnnxModel

    with pytest.raises(NotImplementedError, match="samrt has no SamAutomaticMaskGenerator; masks of everything"):
        compat.SamAutomaticMaskGenerator(object(), points_per_side=32)
    for name in (modeling.PromptEncoder, modeling.MaskDecoder, modeling.ImageEncoderViT, modeling.TwoWayTransformer):
        with pytest.raises(SamrtError, match=f"samrt has no {name.__name__}; models are ONNX graphs"):
            name(depth=2)
    with pytest.raises(SamrtError, match="a bundle holds ONNX graphs already"):
        SamOnnxModel(None, return_single_mask=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("load_state_dict", "the weights are in the bundle"),
        ("parameters", "the weights are in the bundle"),
        ("prompt_encoder", "the graphs have no such part. Use SamPredictor"),
        ("nonsense", "has no attribute 'nonsense'$"),
    ],
)
def test_parts_of_a_torch_module_are_refused_by_name(sam: Any, name: str, reason: str) -> None:
    assert not hasattr(sam, name)
    with pytest.raises(AttributeError, match=reason):
        getattr(sam, name)


def test_sam_is_moved_like_a_module(sam: Any) -> None:
    assert isinstance(sam, samrt.Model)
    assert sam.cpu() is sam.float() is sam.eval() is sam.requires_grad_(False) is sam
    assert not sam.training
    for call in (sam.cuda, lambda: sam.cuda(1)):
        with pytest.raises(BackendError, match="runs on cpu with onnxruntime and cannot be moved to cuda"):
            call()
    with pytest.raises(AttributeError, match="cannot be trained"):
        sam.requires_grad_(True)


def test_preprocess_takes_one_image_or_several_and_refuses_larger_ones(sam: Any) -> None:
    images = torch.from_numpy(np.stack([IMAGE[:, :64], IMAGE[:, -64:]])).permute(0, 3, 1, 2)
    both = sam.preprocess(images)
    assert tuple(both.shape) == (2, 3, 64, 64)
    assert torch.equal(sam.preprocess(images[1]), both[1])
    assert not both[:, :, 40:].any()
    with pytest.raises(InputError, match=r"sides of at most 64, not \[3, 768, 1024\]"):
        sam.preprocess(torch.zeros(3, 768, 1024))


def test_a_client_that_resizes_to_1024_is_refused(sam: Any) -> None:
    """Each of its ways to a smaller model."""
    from samrt.compat.segment_anything.utils.transforms import ResizeLongestSide

    metas = ResizeLongestSide(1024)
    predictor = compat.SamPredictor(sam)
    predictor.set_image(IMAGE)
    boxes = torch.from_numpy(BOXES)
    moves: list[Any] = [
        lambda: metas.apply_coords(BOXES.reshape(-1, 2), SIZE),
        lambda: metas.apply_boxes(BOXES, SIZE),
        lambda: metas.apply_coords_torch(boxes.reshape(-1, 2), SIZE),
        lambda: metas.apply_boxes_torch(boxes, SIZE),
    ]
    for move in moves:
        with pytest.raises(InputError, match=r"ResizeLongestSide\(1024\) would move prompts to a frame of 1024 pixels"):
            move()
    image = torch.as_tensor(metas.apply_image(IMAGE)).permute(2, 0, 1)[None]
    padded = torch.zeros(1, 3, 1024, 1024)
    refused: list[tuple[Any, str]] = [
        (lambda: predictor.set_torch_image(image, SIZE), "the longer side 64"),
        (lambda: predictor.set_torch_image(padded, SIZE), "the longer side 64"),
        (lambda: sam([{"image": image[0], "original_size": SIZE, "boxes": boxes}], False), "the longer side 64"),
        (lambda: sam.preprocess(image), "sides of at most 64"),
        (lambda: sam.image_encoder(padded), r"needs \[B, 3, 64, 64\], not \[1, 3, 1024, 1024\]"),
        (lambda: predictor.predict_torch(None, None, boxes * 1024 / 90), "this model's frame has 64 pixels"),
        (lambda: predictor.predict_torch(boxes[:, None, :2] * 1024 / 90, torch.ones(1, 1)), "frame has 64 pixels"),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
    predictor.input_size = (455, 1024)
    with pytest.raises(InputError, match=r"input_size \(455, 1024\), not the longer side 64"):
        predictor.predict(box=BOXES)


@pytest.mark.parametrize(
    "load",
    [
        compat.build_sam,
        lambda path: pickle.loads(pickle.dumps(compat.build_sam(path))),
        lambda path: compat.SamPredictor(samrt.load(path)),
    ],
    ids=["built", "pickled", "predictor"],
)
def test_models_count_as_long_as_they_live(load: Any, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from samrt.compat.segment_anything.utils.transforms import ResizeLongestSide

    monkeypatch.setattr(frames, "_models", WeakSet())
    metas = ResizeLongestSide(1024)
    loaded = load(toy_bundle)
    with pytest.raises(InputError, match="the loaded model's has 64"):
        metas.apply_boxes(BOXES, SIZE)
    del loaded
    gc.collect()
    assert metas.apply_boxes(BOXES, SIZE).max() == pytest.approx(60 * 1024 / 90)


def test_prompts_a_little_outside_are_taken_as_metas_does(sam: Any) -> None:
    predictor = compat.SamPredictor(sam)
    predictor.set_image(IMAGE)
    boxes = predictor.transform.apply_boxes(np.array([[-20.0, 5, 93, 41]]), SIZE)
    assert predictor.predict_torch(None, None, boxes)[0].shape == (1, 3, *SIZE)


def test_a_client_without_torch(toy_bundle: Path) -> None:
    """In a fresh process that cannot import torch."""
    script = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from samrt.compat import segment_anything
segment_anything.install({str(toy_bundle)!r})
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
sam = sam_model_registry["vit_b"]().to("cpu").eval()
predictor = SamPredictor(sam)
predictor.set_image(np.zeros((40, 90, 3), np.uint8))
assert type(predictor.get_image_embedding()) is np.ndarray
assert predictor.device == sam.device == "cpu"
boxes = ResizeLongestSide(64).apply_boxes(np.array([[1, 2, 60, 30]]), (40, 90))
masks, scores, low_res = predictor.predict_torch(None, None, boxes=boxes)
assert type(masks) is type(predictor.predict_torch(None, None)[0]) is np.ndarray
image = predictor.transform.apply_image(np.zeros((40, 90, 3), np.uint8)).transpose(2, 0, 1)
(output,) = sam([dict(image=image, original_size=(40, 90), boxes=boxes)], multimask_output=True)
assert np.array_equal(output["masks"], masks) and np.array_equal(output["low_res_logits"], low_res)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
