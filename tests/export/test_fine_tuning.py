"""A fine-tuned part over the checkpoint that it began from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from export_reuse import reuse
from seeded import vit_state
from test_preparing import in_hugging_faces_names
from torch import Tensor

from samrt.bundle.folder import open_bundle
from samrt.errors import BundleError
from samrt.files import sha256_of
from samrt.progress import Lines
from samrt_export import export
from samrt_export.checkpoint import Checkpoint
from samrt_export.families import load_model
from samrt_export.fine_tuning import over_base

BASE = vit_state()
TUNED = {name: tensor + 0.01 for name, tensor in BASE.items()}
FREQUENCIES = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def checkpoint(name: str, state: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(Path(name), state, sha256="0" * 64, bytes=1)


def tuned(*prefixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in TUNED.items() if name.startswith(prefixes) and name != FREQUENCIES}


def merged(state: dict[str, Tensor], base: dict[str, Tensor] = BASE) -> tuple[Checkpoint, list[str]]:
    return over_base(checkpoint("fine.pth", state), checkpoint("base.pth", base))


@pytest.mark.parametrize(
    "prefixes",
    [("mask_decoder.",), ("mask_decoder.", "prompt_encoder."), ("image_encoder.",), ("image_encoder.neck.",)],
)
def test_takes_the_part_from_the_one_and_the_rest_from_the_other(prefixes: tuple[str, ...]) -> None:
    state = tuned(*prefixes)
    whole, notes = merged(state)
    assert whole.state.keys() == BASE.keys()
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, state.get(name, BASE[name])), name
    assert whole.base is not None
    assert whole.base.state.keys() == BASE.keys() - state.keys()
    assert [note.partition(":")[0] for note in notes] == ["taken from fine.pth", "taken from base.pth"]
    assert load_model(whole).variant == "vit_d64x4"


@pytest.mark.parametrize("part", ["mask_decoder.", "mask_decoder.transformer.", "image_encoder."])
def test_a_part_may_have_its_own_names(part: str) -> None:
    state = tuned(part)
    whole, _ = merged({name.removeprefix(part): tensor for name, tensor in state.items()})
    assert all(torch.equal(whole.state[name], tensor) for name, tensor in state.items())


def test_either_may_have_hugging_faces_names() -> None:
    state = tuned("mask_decoder.")
    for fine, base in ((in_hugging_faces_names(state), BASE), (state, in_hugging_faces_names(BASE))):
        whole, _ = merged(fine, base)
        assert whole.state.keys() == BASE.keys()
        assert torch.equal(whole.state["mask_decoder.iou_token.weight"], state["mask_decoder.iou_token.weight"])


def test_losses_and_normalisation_of_the_fine_tuning_are_no_strangers() -> None:
    extra = {"loss.weight": torch.ones(1), "pixel_mean": torch.full((3,), 99.0), "pixel_std": torch.full((3,), 9.0)}
    whole, _ = merged(tuned("mask_decoder.") | extra)
    assert load_model(whole).contract.geometry.normalization.mean == (99.0, 99.0, 99.0)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (BASE, r"holds a whole model.*; leave base out"),
        (
            tuned("mask_decoder.") | {"mask_decoder.hq.weight": torch.ones(1)},
            r"tensors that base\.pth lacks \(mask_decoder\.hq\.weight\)",
        ),
        ({"mask_decoder.iou_token.weight": torch.ones(1, 32)}, r"\[1, 32\] in fine\.pth and \[1, 64\] in base\.pth"),
        ({FREQUENCIES: BASE[FREQUENCIES] + 1}, "training never changes it.*the checkpoint that it began from"),
        ({"loss.weight": torch.ones(1)}, "it is no part of one"),
    ],
)
def test_what_is_no_part_of_the_base_is_refused(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        merged(state)


def test_weights_that_are_unrelated_to_the_base_are_said() -> None:
    other = vit_state(seed=1)
    _, notes = merged({name: tensor for name, tensor in other.items() if name.startswith("mask_decoder.")})
    assert "as unrelated ones do" in notes[-1]


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ("mask_decoder.", "only a part of a model: mask_decoder .120 tensors., without image_encoder"),
        ("image_encoder.", "mask_decoder.mask_tokens.weight is missing"),
    ],
)
def test_a_part_without_a_base_says_what_to_name(part: str, says: str) -> None:
    with pytest.raises(BundleError, match=rf"{says}.*name the checkpoint it began from \(base\)"):
        load_model(checkpoint("fine.pth", tuned(part)))


def test_export_records_both_files(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The bundle's graphs are of BASE: the comparison fails unless the decoder is the fine-tuning's.
    decoder = {name: tensor for name, tensor in BASE.items() if name.startswith("mask_decoder.")}
    torch.save({"model_state": decoder, "epoch": 3}, tmp_path / "fine.pth")
    torch.save(
        {name: tensor + 0.01 if name in decoder else tensor for name, tensor in BASE.items()}, tmp_path / "b.pth"
    )
    reuse(small_bundle, monkeypatch)
    lines: list[str] = []
    export(tmp_path / "fine.pth", tmp_path / "bundle", progress=Lines(lines.append), base=tmp_path / "b.pth")

    manifest = open_bundle(tmp_path / "bundle").manifest
    source = manifest.source
    assert source.base is not None
    assert (source.name, source.sha256) == ("fine.pth", sha256_of(tmp_path / "fine.pth"))
    assert (source.base.name, source.base.sha256) == ("b.pth", sha256_of(tmp_path / "b.pth"))
    assert source.base.tensors == len(BASE) - len(decoder)
    assert manifest.model_id == f"{source.sha256[:16]}+{source.base.sha256[:16]}@256"
    assert "found the model under model_state; left out: epoch" in lines
    assert f"taken from fine.pth: mask_decoder ({len(decoder)} tensors)" in lines
