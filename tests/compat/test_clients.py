"""Programs written for Meta's `segment_anything`: their calls, in their order, give the masks of `samrt.Model`.

The programs' own code runs in `real_clients.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import build_meta_sam, photograph, segment_anything
from seeded import SMALL_VIT, vit_decoder, vit_state

import samrt
from samrt.compat import segment_anything as compat

pytest_plugins = ("toy_fixtures",)

IMAGE = photograph(100, 200)
SIZE = IMAGE.shape[:2]
POINTS, LABELS = np.array([[80, 30], [20, 90]]), np.array([1, 0])
BOXES = np.array([[60, 20, 140, 60], [5.5, 50.25, 90, 99]])
Client = Callable[[Any], Any]


def predictor_of(checkpoint: Any) -> Any:
    from segment_anything import SamPredictor, sam_model_registry

    sam = sam_model_registry["vit_h"](checkpoint=checkpoint)
    sam.to(device=torch.device("cpu"))
    return SamPredictor(sam)


def autodistill_grounded_sam(checkpoint: Any) -> Any:
    from segment_anything import SamPredictor, sam_model_registry

    predictor = SamPredictor(sam_model_registry["vit_h"](checkpoint=checkpoint).to(device=torch.device("cpu")))
    predictor.set_image(IMAGE)
    masks = []
    for box in BOXES:
        found, scores, _ = predictor.predict(box=box, multimask_output=False)
        masks.append(found[np.argmax(scores)])
    return np.array(masks)


def sam_annotator(checkpoint: Any) -> Any:
    predictor = predictor_of(checkpoint)
    predictor.set_image(IMAGE)
    return predictor.predict(point_coords=POINTS, point_labels=LABELS, box=None, multimask_output=True)[0]


def perceptra_seg(checkpoint: Any) -> Any:
    predictor = predictor_of(checkpoint)
    predictor.set_image(IMAGE)
    boxes = predictor.transform.apply_boxes_torch(torch.tensor(BOXES, device=predictor.device), SIZE)
    masks, _, _ = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False)
    return np.array([masks[i, 0].cpu().numpy().astype(np.uint8) for i in range(masks.shape[0])]).astype(bool)


def lang_segment_anything(checkpoint: Any) -> Any:
    from segment_anything import SamPredictor, sam_model_registry

    predictor = SamPredictor(sam_model_registry["vit_b"](checkpoint))
    predictor.set_image(IMAGE)
    boxes = predictor.transform.apply_boxes_torch(torch.tensor(BOXES), SIZE)
    masks, _, _ = predictor.predict_torch(
        point_coords=None, point_labels=None, boxes=boxes.to(predictor.device), multimask_output=False
    )
    return masks.cpu().squeeze(1).numpy()


def segment_geospatial(checkpoint: Any) -> Any:
    import segment_anything
    from segment_anything.utils.transforms import ResizeLongestSide

    class Predictor(segment_anything.SamPredictor):  # type: ignore[name-defined,misc]
        def __init__(self, sam: Any) -> None:  # and not super().__init__
            self.model = sam
            self.transform = ResizeLongestSide(sam.image_encoder.img_size)

    predictor = Predictor(segment_anything.build_sam_vit_l(checkpoint=checkpoint))
    predictor.set_image(IMAGE)
    return predictor.predict(POINTS, LABELS, None, None, True, False)[0]


def micro_sam(checkpoint: Any) -> Any:
    from segment_anything.utils import amg
    from segment_anything.utils.transforms import ResizeLongestSide

    predictor = predictor_of(checkpoint)
    predictor.model_type = "vit_b"
    predictor.set_image(IMAGE)
    features = predictor.get_image_embedding().cpu().numpy()
    kept = predictor.original_size, predictor.input_size
    predictor.reset_image()
    predictor.features = torch.from_numpy(features).to(predictor.device)
    (predictor.original_size, predictor.input_size), predictor.is_image_set = map(list, kept), True
    boxes = ResizeLongestSide(predictor.model.image_encoder.img_size).apply_boxes(BOXES, predictor.original_size)
    logits, _, _ = predictor.predict_torch(
        None, None, torch.tensor(boxes, dtype=torch.float32), None, multimask_output=False, return_logits=True
    )
    data = amg.MaskData(masks=logits.flatten(0, 1) > predictor.model.mask_threshold)
    return data["masks"].numpy()


def micro_sam_batched_embeddings(checkpoint: Any) -> Any:
    predictor = predictor_of(checkpoint)
    tensor = torch.as_tensor(predictor.transform.apply_image(IMAGE), device=predictor.device)
    tensor = tensor.permute(2, 0, 1).contiguous()[None, :, :, :]
    features = predictor.model.image_encoder(torch.cat([predictor.model.preprocess(tensor)] * 2))
    predictor.original_size, predictor.input_size = SIZE, tensor.shape[-2:]
    predictor.features, predictor.is_image_set = features[-1:], True
    return predictor.predict(POINTS, LABELS)[0]


def track_anything(checkpoint: Any) -> Any:
    predictor = predictor_of(checkpoint)
    with torch.no_grad():
        predictor.set_image(IMAGE)
    _, scores, logits = predictor.predict(point_coords=POINTS, point_labels=LABELS, multimask_output=True)
    best = logits[np.argmax(scores), :, :][None, :, :]
    return predictor.predict(point_coords=POINTS, point_labels=LABELS, mask_input=best, multimask_output=True)[0]


def segment_anything_ui(checkpoint: Any) -> Any:
    from segment_anything import SamPredictor, automatic_mask_generator, sam_model_registry
    from segment_anything.build_sam import Sam

    sam: Sam = sam_model_registry["vit_b"](checkpoint=checkpoint)
    sam.eval()
    assert isinstance(sam, Sam)
    assert automatic_mask_generator.SamAutomaticMaskGenerator
    predictor = SamPredictor(sam.to("cpu"))
    predictor.set_image(IMAGE[..., ::-1], image_format="BGR")
    return predictor.predict(POINTS, LABELS, multimask_output=True)[0]


def metas_notebook(checkpoint: Any) -> Any:
    from segment_anything.build_sam import sam_model_registry
    from segment_anything.modeling import Sam
    from segment_anything.utils.transforms import ResizeLongestSide

    sam = sam_model_registry["default"](checkpoint=checkpoint)
    assert isinstance(sam, Sam)
    resize = ResizeLongestSide(sam.image_encoder.img_size)
    image = torch.as_tensor(resize.apply_image(IMAGE), device=sam.device).permute(2, 0, 1).contiguous()
    boxes = resize.apply_boxes_torch(torch.tensor(BOXES), SIZE)
    batched_input = [{"image": image, "boxes": boxes, "original_size": SIZE}]
    (output,) = sam(batched_input, multimask_output=False)
    upscaled = sam.postprocess_masks(output["low_res_logits"], image.shape[-2:], SIZE) > sam.mask_threshold
    assert torch.equal(upscaled, output["masks"])
    return output["masks"].squeeze(1).numpy()


# What each asks for: one mask for each box, or three for the two points.
CLIENTS: dict[Client, str] = {
    autodistill_grounded_sam: "boxes",
    sam_annotator: "points",
    perceptra_seg: "boxes",
    lang_segment_anything: "boxes",
    segment_geospatial: "points",
    micro_sam: "boxes",
    micro_sam_batched_embeddings: "points",
    track_anything: "refined",
    segment_anything_ui: "points",
    metas_notebook: "boxes",
}


def native(model: samrt.Model, kind: str) -> Any:
    embedding = model.encode(IMAGE)
    if kind == "boxes":
        return model.predict(embedding, box=BOXES, multimask_output=False).masks[:, 0]
    points = {"point_coords": POINTS, "point_labels": LABELS}
    first = model.predict(embedding, **points)
    if kind == "points":
        return first.masks
    best = first.low_res_masks[int(np.argmax(first.iou_predictions))][None]
    return model.predict(embedding, **points, mask_input=best).masks


@pytest.fixture
def installed(small_bundle: Path) -> Iterator[Path]:
    compat.install(replace=True)  # other tests import Meta's
    yield small_bundle
    compat.uninstall()


@pytest.fixture(scope="module")
def expected(small_bundle: Path) -> dict[str, Any]:
    with samrt.load(small_bundle) as model:
        return {kind: native(model, kind) for kind in ("boxes", "points", "refined")}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_masks_are_the_native_ones(client: Client, installed: Path, expected: dict[str, Any]) -> None:
    found = client(str(installed))
    assert found.dtype == bool
    assert 0 < found.mean() < 1
    np.testing.assert_array_equal(found, expected[CLIENTS[client]])


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_masks_are_metas(client: Client, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same calls on Meta's package, with the same weights."""
    metas = segment_anything()
    sam = build_meta_sam(SMALL_VIT, vit_decoder())
    sam.load_state_dict(vit_state())
    sam.eval().requires_grad_(False)
    for name in metas.sam_model_registry:
        monkeypatch.setitem(metas.sam_model_registry, name, lambda checkpoint=None: sam)
    monkeypatch.setattr(metas, "build_sam_vit_l", lambda checkpoint=None: sam)
    found = client("ignored")
    # Equal where it was measured; on another CPU a logit next to the threshold may get the other sign.
    assert (found != expected[CLIENTS[client]]).mean() <= 1e-4
