"""What code written for Meta's `Sam` asks of a `Model`: to move, its device, its encoder."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_bundle import rewrite_manifest, toy_encoder

import samrt
from samrt.device.session import DeviceOptions
from samrt.errors import BackendError, InputError, Reason
from samrt.model import Model

pytest_plugins = ("toy_fixtures",)


@pytest.fixture
def on_gpu(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model that says it runs in engines in fp16 on the second GPU."""
    model = samrt.load(toy_bundle, device_options=DeviceOptions(device=1))
    choice = model.choice
    half = replace(choice.form, precision="fp16")
    engines: Any = object()
    monkeypatch.setattr(model._session, "choice", replace(choice, backend="tensorrt", form=half, engines=engines))
    return model


@pytest.mark.parametrize(
    "arguments",
    [
        ("cpu",),
        (torch.device("cpu"),),
        (torch.float32,),
        ("cpu", torch.float32, True),
        (torch.zeros(1),),
        (None,),
        (),
        ({"device": "cpu"},),
        ({"device": torch.device("cpu"), "dtype": torch.float, "non_blocking": True},),
        ({"memory_format": torch.channels_last},),
        (torch.channels_last,),
    ],
    ids=str,
)
def test_a_model_on_the_cpu_stays_there(toy_model: Model, arguments: tuple[Any, ...]) -> None:
    keywords = arguments[0] if arguments and isinstance(arguments[0], dict) else {}
    assert toy_model.to(*(() if keywords else arguments), **keywords) is toy_model
    assert toy_model.eval() is toy_model


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0", 0, 1, torch.device("cuda"), torch.device("cuda", 1)], ids=str)
def test_a_model_on_the_cpu_does_not_move_to_a_gpu(toy_model: Model, wanted: Any) -> None:
    for call in (lambda: toy_model.to(wanted), lambda: toy_model.to(device=wanted)):
        with pytest.raises(BackendError, match=r"runs on cpu with onnxruntime and cannot be moved to cuda") as caught:
            call()
        assert str(caught.value).endswith(
            "leave it on the CPU (a program that chooses for itself does so with CUDA_VISIBLE_DEVICES=''), or make "
            "engines for the GPU with samrt.build_bundle and load them with backend='tensorrt'"
        )


def test_why_engines_were_skipped_is_said(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = samrt.load(toy_bundle)
    skipped = (Reason("they are of another GPU"),)
    monkeypatch.setattr(model._session, "choice", replace(model.choice, skipped=skipped))
    with pytest.raises(BackendError, match="cannot be moved to cuda; its engines were skipped: they are of another"):
        model.to("cuda")


def test_other_devices_and_precisions_are_refused(toy_model: Model) -> None:
    with pytest.raises(BackendError, match=r"cannot be moved to mps; leave it on the CPU$"):
        toy_model.to(torch.device("mps"))
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(BackendError, match=rf"computes in fp32 and cannot be converted to {dtype}; keep it as"):
            toy_model.to("cpu", dtype)
    with pytest.raises(BackendError, match="cannot be moved to meta"):
        toy_model.to(torch.zeros(1, device="meta"))
    with pytest.raises(TypeError, match=r"Model.to\(\) got an unexpected keyword argument 'devices'"):
        toy_model.to(devices="cpu")


def test_a_model_on_a_gpu_stays_there(on_gpu: Model) -> None:
    assert on_gpu.to("cuda") is on_gpu.to("cuda:1") is on_gpu.to(1) is on_gpu.to(torch.float16) is on_gpu
    for wanted in ("cuda:0", 0):
        with pytest.raises(BackendError, match="runs on cuda:1 with tensorrt and cannot be moved to cuda:0; leave it"):
            on_gpu.to(wanted)
    with pytest.raises(BackendError, match=r"cannot be moved to cpu; .* load the bundle with backend='onnxruntime'$"):
        on_gpu.to("cpu")


def test_device_is_where_torch_can_put_tensors(
    toy_model: Model, on_gpu: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert toy_model.device == torch.device("cpu")
    assert on_gpu.device == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert toy_model.device == torch.device("cpu")
    assert on_gpu.device == samrt.SamPredictor(on_gpu).device == torch.device("cuda", 1)
    monkeypatch.delitem(sys.modules, "torch")
    assert (toy_model.device, on_gpu.device) == ("cpu", "cuda:1")


def test_attributes_of_metas_sam(toy_model: Model, own_bundle: Path) -> None:
    rewrite_manifest(own_bundle, masks=replace(toy_model.manifest.masks, threshold=0.5))
    assert (toy_model.mask_threshold, samrt.load(own_bundle).mask_threshold) == (0.0, 0.5)
    assert toy_model.image_encoder.img_size == toy_model.image_size == 64
    assert toy_model.image_format == "RGB"


@pytest.mark.parametrize("count", [1, 3])
def test_image_encoder_is_called_with_prepared_images(toy_model: Model, count: int) -> None:
    images = np.random.default_rng(0).standard_normal((count, 3, 64, 64)).astype(np.float32)
    found = toy_model.image_encoder(images)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, toy_encoder(images), atol=1e-5)
    tensor = toy_model.image_encoder(torch.from_numpy(images).double())
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), found)
    for shape in ((3, 64, 64), (1, 3, 64, 32), (0, 3, 64, 64)):
        with pytest.raises(InputError, match=r"image_encoder needs \[B, 3, 64, 64\], not"):
            toy_model.image_encoder(torch.zeros(shape))
