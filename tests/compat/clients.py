"""The own code of programs written for Meta's `segment_anything`, each with the masks that samrt's own API gives.

`real_clients.py` runs a function of these with the client's folder on the path, and its other imports stood in.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import torch
from real_clients import BOXES, IMAGE, LABELS, POINTS, SIZE, Given, same

from samrt.errors import InputError


def put(name: str, **attributes: Any) -> None:
    """Make a module of these attributes what an import of `name` finds."""
    module = sys.modules[name] = ModuleType(name)
    module.__dict__.update(attributes)


def boxes_of(given: Given) -> Any:
    return given.expected(box=BOXES, multimask_output=False).masks[:, 0]


def points_of(given: Given) -> Any:
    return given.expected(point_coords=POINTS, point_labels=LABELS)


def orthomasker(given: Given) -> str:
    from orthomasker.mask_generator import MaskGenerator

    try:
        MaskGenerator(sam_checkpoint=str(given.bundle))
    except NotImplementedError as error:
        return f"stops: {error}"
    raise AssertionError("the automatic generator was constructed")


def autodistill_grounded_sam(given: Given) -> None:
    import supervision as sv

    given.checkpoint(Path.home() / ".cache/autodistill/segment_anything/sam_vit_h_4b8939.pth")
    detector = MagicMock()
    detector.return_value.predict_with_classes.side_effect = lambda **_: sv.Detections(
        xyxy=BOXES.astype(np.float32), confidence=np.ones(2, np.float32), class_id=np.zeros(2, int)
    )
    put("groundingdino.util.inference", Model=detector)
    from autodistill.detection import CaptionOntology
    from autodistill_grounded_sam import GroundedSAM

    found = GroundedSAM(CaptionOntology({"a thing": "thing"})).predict(str(given.photo()))
    # It hands OpenCV's BGR to set_image as RGB.
    swapped = given.model.encode(IMAGE[..., ::-1])
    same(found.mask, given.model.predict(swapped, box=BOXES, multimask_output=False).masks[:, 0])


def sam_annotator(given: Given) -> None:
    from sam_annotator.core.predictor import SAM1Predictor

    predictor = SAM1Predictor("vit_h")
    predictor.initialize(str(given.bundle))
    predictor.set_image(IMAGE)
    masks, scores, _ = predictor.predict(point_coords=POINTS, point_labels=LABELS, multimask_output=True)
    same(masks, points_of(given).masks)
    np.testing.assert_array_equal(scores, points_of(given).iou_predictions)


def metaseg(given: Given) -> None:
    # It brings a copy of Meta's package, whose modules are replaced.
    for name in ("build_sam", "predictor", "automatic_mask_generator"):
        put(f"metaseg.generator.{name}", **vars(sys.modules[f"segment_anything.{name}"]))
    from metaseg import SegManualMaskPredictor
    from metaseg import sam_predictor as module

    module.download_model = lambda model_type: str(given.bundle)
    client = SegManualMaskPredictor()
    found = client.image_predict(str(given.photo()), "vit_l", BOXES.tolist())
    same(found, boxes_of(given))
    found = client.image_predict(str(given.photo()), "vit_l", BOXES[0].tolist(), POINTS, LABELS, False)
    same(found, given.expected(point_coords=POINTS, point_labels=LABELS, box=BOXES[0], multimask_output=False).masks)


def micro_sam(given: Given) -> str:
    from micro_sam import inference, util
    from micro_sam import prompt_based_segmentation as prompts
    from segment_anything import SamPredictor, sam_model_registry

    predictor = SamPredictor(sam_model_registry["vit_b"](checkpoint=given.bundle))
    predictor.model_type = predictor.model_name = "vit_b"
    predictor.set_image(IMAGE)
    embeddings = {
        "features": predictor.get_image_embedding().cpu().numpy(),
        "original_size": predictor.original_size,
        "input_size": predictor.input_size,
    }
    # micro-sam writes rows before columns.
    found = prompts.segment_from_box(predictor, BOXES[0][[1, 0, 3, 2]], image_embeddings=embeddings)
    same(found, given.expected(box=BOXES[0], multimask_output=False).masks)
    found = prompts.segment_from_points(predictor, POINTS[:, ::-1], LABELS, multimask_output=True)
    same(found, points_of(given).masks)
    batched, sizes, _ = util._compute_embeddings_batched(predictor, [IMAGE, IMAGE])
    assert sizes == [SIZE, SIZE]
    np.testing.assert_array_equal(batched[1:].numpy(), embeddings["features"])
    util.set_precomputed(predictor, embeddings)
    batch: dict[str, Any] = {"image": None, "batch_size": 1, "boxes": BOXES, "return_instance_segmentation": False}
    if given.model.image_size != 1024:
        try:
            inference.batched_inference(predictor, **batch)
        except InputError as error:
            return f"equal; batched_inference is refused: {error}"
        raise AssertionError("it resizes to 1024 by itself, and was not refused")
    records = inference.batched_inference(predictor, **batch)
    same([record["segmentation"] for record in records], boxes_of(given))
    mask = boxes_of(given)[0].astype(np.uint8)
    logits = prompts._compute_logits_from_mask(mask)
    found = prompts.segment_from_mask(predictor, mask, use_box=False, use_mask=True)
    same(found, given.expected(mask_input=logits, multimask_output=False).masks)
    return "equal"


def supervision(given: Given) -> None:
    import supervision as sv
    from segment_anything import SamPredictor, sam_model_registry

    predictor = SamPredictor(sam_model_registry["vit_h"](checkpoint=str(given.bundle)).to(device="cpu"))
    predictor.set_image(IMAGE)
    masks, scores, _ = predictor.predict(box=BOXES[0], multimask_output=True)
    detections = sv.Detections(xyxy=sv.mask_to_xyxy(masks=masks), mask=masks, class_id=np.arange(3), confidence=scores)
    same(detections.mask, given.expected(box=BOXES[0]).masks)
    largest = detections[detections.area == np.max(detections.area)]
    painted = sv.MaskAnnotator(color_lookup=sv.ColorLookup.INDEX).annotate(IMAGE.copy(), largest)
    assert (painted != IMAGE).any(axis=2)[largest.mask[0]].mean() > 0.9
    records = [{"segmentation": masks[0], "bbox": [0, 0, 9, 9], "area": int(masks[0].sum())}]
    same(sv.Detections.from_sam(records).mask, masks[:1])


def lang_segment_anything(given: Given) -> None:
    from lang_sam.lang_sam import LangSAM
    from PIL import Image

    LangSAM.build_groundingdino = lambda self: None
    client = LangSAM("vit_h", ckpt_path=str(given.bundle))
    same(client.predict_sam(Image.fromarray(IMAGE), torch.tensor(BOXES)), boxes_of(given))


def segment_geospatial(given: Given) -> None:
    from samgeo.samgeo import SamGeo, SamGeoPredictor

    client = SamGeo(model_type="vit_h", checkpoint=str(given.bundle), automatic=False)
    client.set_image(IMAGE)
    found, _, _ = client.predict(POINTS.tolist(), LABELS.tolist(), return_results=True)
    same(found, points_of(given).masks)
    predictor = SamGeoPredictor(client.sam)
    predictor.set_image(IMAGE)
    same(predictor.predict(point_coords=POINTS, point_labels=LABELS)[0], points_of(given).masks)


def grounded_segment_anything(given: Given) -> None:
    import supervision as sv

    given.checkpoint(given.work / "sam_vit_h_4b8939.pth")
    (given.work / "assets").mkdir()
    given.photo().rename(given.work / "assets" / "demo2.jpg")
    detector = MagicMock()
    detector.return_value.predict_with_classes.return_value = sv.Detections(
        xyxy=BOXES.astype(np.float32), confidence=np.ones(2, np.float32), class_id=np.zeros(2, int)
    )
    sv.BoxAnnotator = sv.MaskAnnotator = MagicMock()
    put("groundingdino.util.inference", Model=detector)
    put("torchvision", ops=SimpleNamespace(nms=lambda boxes, *_: torch.arange(len(boxes))))
    cv2.imwrite = MagicMock()
    found = runpy.run_path(str(given.code / "grounded_sam_simple_demo.py"))["detections"].mask
    expected = given.expected(box=BOXES)
    same(found, np.array([m[np.argmax(s)] for m, s in zip(expected.masks, expected.iou_predictions, strict=True)]))


def inpaint_anything(given: Given) -> None:
    from sam_segment import build_sam_model, predict_masks_with_sam

    found = predict_masks_with_sam(IMAGE, POINTS.tolist(), LABELS.tolist(), "vit_h", str(given.bundle), device="cpu")
    same(found[0], points_of(given).masks)
    predictor = build_sam_model("vit_b", str(given.bundle), "cpu")
    predictor.set_image(IMAGE)
    np.testing.assert_array_equal(predictor.features.numpy(), given.embedding.features["image_embeddings"])


def track_anything(given: Given) -> None:
    from tools.interact_tools import SamControler

    client = SamControler(str(given.bundle), "vit_h", "cpu")
    client.sam_controler.set_image(IMAGE)
    first = given.expected(point_coords=POINTS[::-1], point_labels=LABELS[::-1])
    best = first.low_res_masks[int(np.argmax(first.iou_predictions))][None]
    refined = given.expected(point_coords=POINTS[::-1], point_labels=LABELS[::-1], mask_input=best)
    found, _, _ = client.first_frame_click(IMAGE, POINTS[::-1], LABELS[::-1])
    same(found, refined.masks[int(np.argmax(refined.iou_predictions))])


def segment_anything_services(given: Given) -> None:
    from sam_serve.encode import get_embedding, initialize_model

    properties = {"model_dir": str(given.bundle.parent), "gpu_id": None}
    manifest = {"model": {"serializedFile": given.bundle.name}}
    predictor = initialize_model(SimpleNamespace(system_properties=properties, manifest=manifest))
    found = get_embedding(predictor, IMAGE)
    np.testing.assert_array_equal(found, given.embedding.features["image_embeddings"])


def salt(given: Given) -> None:
    from helpers.extract_embeddings import main

    (given.work / "images").mkdir()
    given.photo().rename(given.work / "images" / "photo.png")
    main(str(given.bundle), "default", "cpu", str(given.work / "images"), str(given.work))
    np.testing.assert_array_equal(np.load(given.work / "photo.npy"), given.embedding.features["image_embeddings"])


def perceptra_seg(given: Given) -> None:
    from perceptra_seg.backends.torch_sam_v1 import TorchSAMv1Backend

    runtime = SimpleNamespace(device="cuda", precision="fp32")
    model = SimpleNamespace(checkpoint_path=str(given.bundle), encoder_variant="vit_b")
    client = TorchSAMv1Backend(SimpleNamespace(runtime=runtime, model=model))
    client.load()
    same(client.infer_from_boxes_batch(IMAGE, BOXES.tolist())[0], boxes_of(given))
    found, _ = client.infer_from_points(IMAGE, [(*p, n) for p, n in zip(POINTS.tolist(), LABELS, strict=True)])
    same(found, given.expected(point_coords=POINTS, point_labels=LABELS, multimask_output=False).masks[0])


def label_studio_ml_backend(given: Given) -> None:
    kept: dict[str, Any] = {}
    cache = SimpleNamespace(get=kept.get, put=kept.__setitem__)
    os.environ["VITH_CHECKPOINT"] = str(given.bundle)
    put("label_studio_ml.utils", InMemoryLRUDictCache=lambda _: cache)
    from sam_predictor import SAMPredictor

    client = SAMPredictor("SAM")
    photo = str(given.photo())
    resolve = {"task": {"id": 1}, "path_resolver": lambda path, task_id: path}
    found = client.predict(photo, POINTS.tolist(), LABELS.tolist(), None, **resolve)["masks"]
    same(found, given.expected(point_coords=POINTS, point_labels=LABELS, multimask_output=False).masks)
    kept.clear()
    payload = client.set_image(photo, **resolve)
    np.testing.assert_array_equal(payload["image_embedding"], given.embedding.features["image_embeddings"])


def segment_anything_ui(given: Given) -> str:
    from segment_anything_ui.model_builder import build_model, get_mask_generator, get_predictor

    sam = build_model("vit_b", str(given.bundle), "cpu")
    predictor = get_predictor(sam)
    predictor.set_image(IMAGE)
    same(predictor.predict(POINTS, LABELS)[0], points_of(given).masks)
    try:
        get_mask_generator(sam)
    except NotImplementedError as error:
        return f"equal; the generator stops: {error}"
    raise AssertionError("the automatic generator was constructed")


def napari_sam4is(given: Given) -> None:
    from napari_sam4is._utils import load_model
    from segment_anything import SamPredictor

    given.checkpoint(Path.home() / ".cache/napari-SAM4IS/sam_vit_b_01ec64.pth")
    predictor = SamPredictor(load_model("vit_b"))
    predictor.set_image(IMAGE)
    same(predictor.predict(box=BOXES[0][None], multimask_output=False)[0][0], boxes_of(given)[0])


@dataclass(frozen=True)
class Client:
    """A client's version or commit, what is stood in, and where its modules lie in its folder."""

    run: Callable[[Given], str | None]
    version: str
    stood_in: tuple[str, ...] = ()
    path: str = "."


CLIENTS = {
    "orthomasker": Client(orthomasker, "1.0.2", ("rasterio", "shapely", "geopandas")),
    "autodistill-grounded-sam": Client(autodistill_grounded_sam, "0.1.2", ("groundingdino", "roboflow", "sklearn")),
    "sam-annotator": Client(sam_annotator, "0.1.1", ("ultralytics", "pandas", "PyQt5", "pycocotools")),
    "metaseg": Client(metaseg, "0.7.8", ("sahi", "fal", "fal_serverless", "gradio", "torchvision")),
    "micro-sam": Client(micro_sam, "1.8.14", ("elf", "pooch", "xxhash", "zarr", "torchvision", "napari", "peft")),
    "supervision": Client(supervision, "0.31.2"),
    "segment-geospatial": Client(segment_geospatial, "0.8.0", ("shapely", "pyproj", "rasterio", "geopandas")),
    "perceptra-seg": Client(perceptra_seg, "0.2.1", ("pydantic", "pydantic_settings", "shapely")),
    "napari-sam4is": Client(napari_sam4is, "1.2.0", ("napari",)),
    "lang-segment-anything": Client(lang_segment_anything, "a1a9557", ("groundingdino", "huggingface_hub")),
    "Grounded-Segment-Anything": Client(grounded_segment_anything, "126abe6", ("groundingdino", "torchvision")),
    "Inpaint-Anything": Client(inpaint_anything, "3879750"),
    "Track-Anything": Client(track_anything, "e6e1592"),
    "segment-anything-services": Client(segment_anything_services, "8455981", ("ts",), "src"),
    "salt": Client(salt, "e431b6e"),
    "label-studio-ml-backend": Client(label_studio_ml_backend, "ce0d8d7", ("label_studio_ml",)),
    "segment-anything-ui": Client(segment_anything_ui, "44f9724", ("PySide6", "efficientvit", "sam2", "hydra")),
}
