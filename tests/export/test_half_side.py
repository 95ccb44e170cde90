"""A family unlike SAM goes through the whole product: export, bundle, runtime, engines, evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_data import write_data_set
from half_side import family as half_side
from half_side.model import HalfSide, HalfSideEncoder
from oracle import photograph
from seeded import seeded_state
from torch.nn import functional as F

import samrt
from samrt.bundle.contract import ROLES
from samrt.cli import main
from samrt.engines.builder.bundle import BuildRequest, build_bundle
from samrt.engines.builder.engine import BuildOptions
from samrt.errors import InputError
from samrt.evaluation import Contender, Options, evaluate
from samrt.geometry import normalize_and_pad, resize_image
from samrt_export import families
from samrt_export.models.config import DecoderConfig
from samrt_export.pipeline import ExportOptions, export

EARLY_DIM, EMBED_DIM = 8, 32
IMAGE = photograph(90, 200)
BOX = [40.0, 20.0, 150.0, 80.0]
POINTS, LABELS = [[100.0, 45.0], [5.0, 5.0]], [1, 0]


@pytest.fixture(scope="module", autouse=True)
def registered() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "_FAMILIES", (*families._FAMILIES, half_side))
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    decoder = DecoderConfig(EMBED_DIM, 256, 16, 16, 2, 64, 5, 32, 3)
    with torch.device("meta"):
        model = HalfSide(HalfSideEncoder(EARLY_DIM, EMBED_DIM), decoder, EARLY_DIM)
    path = tmp_path_factory.mktemp("half_side") / "half_side.pth"
    torch.save(seeded_state(model, seed=0), path)
    return path


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "half_side"
    manifest = export(checkpoint, target, ExportOptions(precisions=("fp32", "fp16")))
    assert [form.name for form in manifest.forms] == ["fp32-dense", "fp16-dense"]
    return target


@pytest.fixture(scope="module")
def model(bundle: Path) -> samrt.Model:
    return samrt.load(bundle)


def in_torch(checkpoint: Path, tokens: list[list[float]], labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What torch makes of the image and one prompt in pixels of the prompts' frame: all five masks and scores."""
    loaded = families.build_model(torch.load(checkpoint, weights_only=True), None)
    pixels = torch.from_numpy(
        normalize_and_pad(resize_image(IMAGE, loaded.contract.geometry), loaded.contract.geometry)
    )
    prompt = (
        torch.tensor([tokens]),
        torch.tensor([labels], dtype=torch.int32),
        torch.zeros(1, 1, 64, 64),
        torch.zeros(1),
    )
    encoder, decoder = (loaded.module(role) for role in ROLES)
    with torch.inference_mode():
        masks, scores = decoder(*encoder(pixels), *prompt)
    return masks.numpy()[0], scores.numpy()[0]


def test_a_prediction_is_torchs(model: samrt.Model, checkpoint: Path) -> None:
    embedding = model.encode(IMAGE)
    assert {name: feature.shape for name, feature in embedding.features.items()} == {
        "image_embeddings": (1, EMBED_DIM, 16, 16),
        "early": (1, 32, 32, EARLY_DIM),
    }
    assert (embedding.input_size, model.image_size, model.geometry.prompt_side) == ((256, 256), 128, 256)
    scale = np.array([256 / 200, 256 / 90])
    masks, scores = in_torch(checkpoint, (np.array(BOX).reshape(2, 2) * scale).tolist(), [2, 3])
    best = 1 + int(np.argmax(scores[1:4]))
    for multimask_output, chosen in ((False, 0), (True, best)):
        found = model.predict(embedding, box=BOX, multimask_output=multimask_output, return_logits=True)
        low_res = masks[chosen] + masks[4]
        np.testing.assert_allclose(found.low_res_masks, low_res[None], atol=1e-3 * np.abs(low_res).max())
        np.testing.assert_allclose(found.iou_predictions, scores[chosen : chosen + 1], atol=1e-4)
        # Straight from the low-res square to the image, which filled it.
        upscaled = F.interpolate(torch.from_numpy(found.low_res_masks)[None], (90, 200), mode="bilinear")[0]
        np.testing.assert_allclose(found.masks, upscaled.numpy(), atol=1e-3 * np.abs(low_res).max())


def test_embeddings_are_saved_with_all_features(model: samrt.Model, tmp_path: Path) -> None:
    embedding = model.encode(IMAGE)
    embedding.save(tmp_path / "a.npz")
    loaded = samrt.Embedding.load(tmp_path / "a.npz")
    expected, found = (model.predict(each, POINTS, LABELS) for each in (embedding, loaded))
    np.testing.assert_array_equal(found.masks, expected.masks)
    with samrt.load() as other, pytest.raises(InputError, match="was made by model"):
        other.predict(loaded, POINTS, LABELS)


def test_the_predictor_gives_the_same(model: samrt.Model) -> None:
    predictor = samrt.SamPredictor(model)
    predictor.set_image(IMAGE)
    assert set(predictor.get_image_embedding()) == {"image_embeddings", "early"}
    expected = model.predict(model.encode(IMAGE), POINTS, LABELS)
    for found in (
        predictor.predict(np.array(POINTS), np.array(LABELS)),
        [
            each[0]
            for each in predictor.predict_torch(
                predictor.transform.apply_coords(np.array([POINTS]), IMAGE.shape[:2]), np.array([LABELS])
            )
        ],
    ):
        np.testing.assert_array_equal(found[0], expected.masks)
        np.testing.assert_array_equal(found[1], expected.iou_predictions)
    resized = torch.from_numpy(predictor.transform.apply_image(IMAGE)).permute(2, 0, 1)[None]
    predictor.set_torch_image(resized, IMAGE.shape[:2])
    assert isinstance(predictor.features["early"], torch.Tensor)
    np.testing.assert_array_equal(predictor.predict(np.array(POINTS), np.array(LABELS))[0], expected.masks)


def test_a_region_is_the_image_cut_to_it(model: samrt.Model) -> None:
    region = 20, 10, 160, 85
    whole = model.encode(IMAGE, region=region)
    cut = model.encode(np.ascontiguousarray(IMAGE[10:85, 20:160]))
    inside = model.predict(cut, box=np.array(BOX) - [20, 10, 20, 10])
    found = model.predict(whole, box=BOX)
    np.testing.assert_array_equal(found.masks[:, 10:85, 20:160], inside.masks)
    assert found.masks.sum() == inside.masks.sum() > 0


def test_engines_are_built(bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    request = BuildRequest("tensorrt_rtx", "fp16", options=BuildOptions(compute_capabilities=("8.9",)))
    engines = build_bundle(bundle, request)
    decoder = engines.engines["mask_decoder"]
    assert decoder.ranges["early"].maximum == (1, 32, 32, EARLY_DIM)
    assert [tensor.shape[1] for tensor in decoder.graph.outputs] == [5, 5]


def test_it_is_evaluated(bundle: Path, tmp_path: Path) -> None:
    write_data_set(tmp_path / "shapes", images=2)
    found = evaluate(tmp_path / "shapes", Contender(bundle), tmp_path / "out", Options(prompts="box,points:2"))
    assert {row.prompt for row in found.rows} == {"box", "points:1", "points:2"}
    lines = (tmp_path / "out" / "shapes" / "instances.jsonl").read_text().splitlines()
    (prompts, *_) = (instance["prompts"] for line in lines[1:2] for instance in json.loads(line)["instances"])
    # The single mask and the best of the ambiguous, each with the last mask's logits added.
    assert len(prompts["box"]["iou"]) == 2


def test_the_commands_take_it(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    words = ["segment", str(tmp_path / "photo.png"), "--bundle", str(bundle), "--box", "40,20,150,80"]
    assert main([*words, "-o", str(tmp_path / "masks.png")]) == 0
    assert main(["info", str(bundle)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "feature early, 32 x 32 x 8" in out
    assert "masks 5 of 64 x 64 logits, mask above 0; one by hq" in out
    assert "128 x 128, stretched to the square" in out
