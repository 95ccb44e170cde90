"""Train the default model by a recipe.

    python -m training.train cpu --data .cache/packed.npz --decoder .cache/lite_medsam.pth -o training/runs/cpu

Run again, it goes on from its last checkpoint. OUT gets log.jsonl (a line every few steps), curves.png, checkpoint.pt
to go on from, and at the end model.pth, which `samrt export` takes. The batch and the random numbers of a step follow
from the recipe's seed, the stage and the step's number alone; docs/training.md says how far a run repeats another.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from samrt.errors import BundleError, InputError, OutputError, SamrtError
from samrt.files import replacing_file, sha256_of
from samrt_export.checkpoint import read_checkpoint
from samrt_export.families.sam import PIXEL_MEAN, PIXEL_STD
from training.average import Average
from training.curves import draw_curves
from training.grouping import grouping_loss
from training.model import PromptableModel, initial_state
from training.recipes import RECIPES, Recipe, Stage
from training.rounds import Objects, run_rounds
from training.samples import Batch, BatchMaker, batches
from training.weights import write_weights

_LOGGED_EVERY, _KEPT_EVERY = 20, 100
_KEPT_SECONDS = 240.0  # where a hundred steps take longer
_GRADIENT_LIMIT = 1.0
_TRUNK_REMEDY = "fetch the trunk's weights with `python -m training.efficientnet` and name them with --trunk"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, metavar="PACKED.npz", help="what training.pack wrote")
    parser.add_argument("--decoder", type=Path, required=True, metavar="FILE.pth", help="LiteMedSAM's checkpoint")
    parser.add_argument("--trunk", type=Path, metavar="FILE.pth", help="what training.efficientnet wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument(
        "--processes", type=int, default=0, help="that make batches; beside a GPU one per core (default: a thread)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stop-after", type=float, metavar="SECONDS", help="stop there, to be run again")
    parser.add_argument("--eager", action="store_true", help="without torch.compile, which needs a C++ compiler")
    arguments = parser.parse_args()
    try:
        return Run(arguments).go()
    except SamrtError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: stopped; run again to go on from the last checkpoint", file=sys.stderr)
        return 130


class Run:
    """One run of a recipe in its folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        _check_inputs(arguments)
        self.folder: Path = arguments.output
        self.name: str = arguments.recipe
        self.recipe: Recipe = RECIPES[self.name]
        self.device = torch.device(arguments.device)
        self.deadline = time.monotonic() + arguments.stop_after if arguments.stop_after else float("inf")
        self.make = BatchMaker(arguments.data, self.recipe)
        self.make.check()
        self.processes: int = arguments.processes
        self.sources = {"data": sha256_of(arguments.data), "decoder": sha256_of(arguments.decoder)}
        self.decoder, self.trunk = arguments.decoder, arguments.trunk
        if self.recipe.trunk:
            self.sources["trunk"] = sha256_of(self.trunk)
        self.compiles = not arguments.eager
        self.kept_at = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder}: {error.strerror}") from error

    def go(self) -> int:
        """All stages, or those that are left. Exit status 3 where the time ran out before the end."""
        kept = self._kept()
        for index in range(kept["stage"], len(self.recipe.stages)):
            if not self._stage(index, kept):
                return 3
            kept = {
                "stage": index + 1,
                "step": 0,
                "state": self.state,
                "optimizer": None,
                "average": self.average.state(),
            }
        self._finish(kept["average"])
        return 0

    def _kept(self) -> dict[str, Any]:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            decoder = read_checkpoint(self.decoder).state
            trunk = read_checkpoint(self.trunk).state if self.recipe.trunk else None
            state = initial_state(self.recipe, decoder, _patches(self.make), trunk)
            return {"stage": 0, "step": 0, "state": state, "optimizer": None, "average": state}
        try:
            kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises anything for a damaged file
            raise BundleError(f"{path} is damaged ({error}); delete it to begin again") from error
        parts = {"stage", "step", "state", "optimizer", "average", "sources", "recipe"}
        if not isinstance(kept, dict) or not parts <= kept.keys():
            raise BundleError(f"{path} is no checkpoint of a training run; choose another folder, or delete it")
        if kept["sources"] != self.sources or kept["recipe"] != asdict(self.recipe):
            raise InputError(
                f"{path} comes from other data, another decoder or another recipe; choose another folder, or delete it"
            )
        return kept

    def _stage(self, index: int, kept: dict[str, Any]) -> bool:
        """The rest of a stage; False where the time ran out."""
        stage = self.recipe.stages[index]
        model = PromptableModel(kept["state"], stage.side, stage.edge_weight, self.recipe.whole_half).to(self.device)
        model.freeze_trunk(wholly=not stage.trunk_lr)
        before = sum(each.steps for each in self.recipe.stages[:index]) + kept["step"]
        self.average = Average(model, kept["average"], self.recipe.averaged, before)
        if self.compiles:
            model.compile_parts()
        optimizer = _optimizer(model, self.recipe)
        if kept["optimizer"]:
            optimizer.load_state_dict(kept["optimizer"])
        log = Log(self.folder / "log.jsonl", index, kept["step"])
        for step, batch in batches(self.make, index, kept["step"], self.processes):
            figures = self._step(model, optimizer, stage, (index, step), batch)
            last = step + 1 == stage.steps
            self.average.add(model)
            log.add(step, figures, write=last)
            due = (step + 1) % _KEPT_EVERY == 0 or time.monotonic() - self.kept_at > _KEPT_SECONDS
            if last or due or time.monotonic() > self.deadline:
                self.state = {name: tensor.detach().cpu() for name, tensor in model.sam.state_dict().items()}
                done = {"stage": index, "step": step + 1, "state": self.state, "optimizer": optimizer.state_dict()}
                self._keep({**done, "average": self.average.state()})
                draw_curves(self.folder / "log.jsonl", self.folder / "curves.png")
                if not last and time.monotonic() > self.deadline:
                    # Of use before the end, too.
                    write_weights(self.average.state(), self.folder / "model.pth")
                    return False
        if kept["step"] >= stage.steps:
            self.state = kept["state"]
        return True

    def _step(
        self,
        model: PromptableModel,
        optimizer: torch.optim.Optimizer,
        stage: Stage,
        at: tuple[int, int],
        batch: Batch,
    ) -> dict[str, float]:
        index, step = at
        rates = learning_rates(stage, step)
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        generator = torch.Generator(self.device).manual_seed(hash((self.recipe.seed, index, step)) % 2**62)
        with torch.autocast(self.device.type, torch.bfloat16):
            objects = encode_batch(model, batch, self.device)
            if stage.task == "grouping":
                figures = grouping_loss(objects, stage.side, stage.objects)
            else:
                figures = run_rounds(model, objects, batch.rounds, generator, stage)
        loss = figures["loss"]
        if not torch.isfinite(loss):
            raise InputError(f"the loss is {loss.item()} in step {step} of stage {index}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _GRADIENT_LIMIT)
        if not torch.isfinite(norm):
            raise InputError(f"the gradient is {norm.item()} in step {step} of stage {index}; lower the learning rate")
        optimizer.step()
        figures["gradient"] = norm
        return {"lr": rates["encoder"], **{name: float(value.detach()) for name, value in figures.items()}}

    def _keep(self, done: dict[str, Any]) -> None:
        with replacing_file(self.folder / "checkpoint.pt") as fresh:
            torch.save({**done, "sources": self.sources, "recipe": asdict(self.recipe)}, fresh)
        self.kept_at = time.monotonic()

    def _finish(self, state: dict[str, Tensor]) -> None:
        """The weights in half precision, which `samrt export` reads, and what they were made from."""
        write_weights(state, self.folder / "model.pth")
        record = {
            "recipe_name": self.name,
            "recipe": asdict(self.recipe),
            **{f"{name}_sha256": digest for name, digest in self.sources.items()},
            "versions": {
                "python": platform.python_version(),
                **{module.__name__: module.__version__ for module in (torch, np, cv2)},
            },
            "threads": torch.get_num_threads(),
            "compiled": self.compiles,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "model_sha256": sha256_of(self.folder / "model.pth"),
        }
        with replacing_file(self.folder / "model.json") as fresh:
            fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {self.folder / 'model.pth'}", file=sys.stderr)


def _check_inputs(arguments: argparse.Namespace) -> None:
    for path, remedy in (
        (arguments.data, "make it with `python -m training.pack`"),
        (arguments.decoder, "fetch it with `python training/lite_medsam.py`"),
        *([(arguments.trunk, _TRUNK_REMEDY)] if RECIPES[arguments.recipe].trunk else []),
    ):
        if path is None or not path.is_file():
            raise InputError(f"there is no file {path}; {remedy}")
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        raise InputError("torch sees no GPU here; leave --device out to train on the CPU")


def encode_batch(model: PromptableModel, batch: Batch, device: torch.device) -> Objects:
    """Encode each image once, and pair every object with its image's tokens."""
    tokens = model.encode(*images_of(batch, device))
    targets, points, boxes, boxed = (
        torch.from_numpy(array).to(device).flatten(0, 1)
        for array in (batch.targets, batch.points, batch.boxes, batch.boxed)
    )
    return Objects(tokens.repeat_interleave(batch.points.shape[1], 0), targets.float() / 255, points, boxes, boxed)


def images_of(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The images, uint8 `[B, 3, S, S]`, and where they are not padding, bool `[B, 1, S, S]`."""
    images = torch.from_numpy(batch.images).to(device)
    line = torch.arange(images.shape[-1], device=device)
    sizes = torch.from_numpy(batch.sizes).to(device)
    valid = (line[None, :, None] < sizes[:, 0, None, None]) & (line < sizes[:, 1, None, None])
    return images, valid[:, None]


def learning_rates(stage: Stage, step: int) -> dict[str, float]:
    """Rising over the warm-up, then constant, then, where there is a cooldown, linearly to zero."""
    factor = min(1.0, (step + 1) / stage.warmup)
    if stage.cooldown:
        factor = min(factor, (stage.steps - step) / stage.cooldown)
    rates = {"encoder": stage.encoder_lr, "decoder": stage.decoder_lr, "trunk": stage.trunk_lr}
    return {name: rate * factor for name, rate in rates.items()}


def _optimizer(model: PromptableModel, recipe: Recipe) -> torch.optim.Optimizer:
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, parameter in model.sam.named_parameters():
        if not parameter.requires_grad:
            continue
        half = "encoder" if name.startswith("image_encoder.") else "decoder"
        if name.startswith("image_encoder.trunk."):
            half = "trunk"
        # Decay is for matrices: not for biases, norms, positions and what stands for a token.
        apart = ("pos_embed", "rel_pos", "token.weight", "tokens.weight", "embed.weight", "point_embeddings.")
        decays = parameter.ndim >= 2 and not any(part in name for part in apart)
        groups.setdefault((half, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "name": half, "weight_decay": recipe.weight_decay if decays else 0.0}
            for (half, decays), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
    )


def _patches(make: BatchMaker) -> Tensor:
    """Patches of training images, normalised: float [N, 3, patch, patch]."""
    recipe = make.recipe
    rng = np.random.default_rng([recipe.seed, 2**20])
    side, size = recipe.stages[0].side, recipe.patch
    found = [make.draw(rng, 0).images for _ in range(max(1, 256 // recipe.stages[0].images))]
    images = torch.from_numpy(np.concatenate(found)).float()
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    cut = ((images - mean) / std).unfold(2, size, size).unfold(3, size, size)
    return cut.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, size, size)[:: max(1, side // 128)]


class Log:
    """Means over the steps since the last line, one JSON object a line, on the disk and on stderr."""

    def __init__(self, path: Path, stage: int, step: int) -> None:
        self._path, self._stage = path, stage
        self._seen: list[dict[str, float]] = []
        self._since = time.monotonic()
        if path.exists():
            # Lines of steps after the checkpoint that the run goes on from: they are done again.
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if _place(line) <= (stage, step)]
            with replacing_file(path) as fresh:
                fresh.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, step: int, figures: dict[str, float], write: bool = False) -> None:
        """A step's figures; those since the last line are written every few steps, or now."""
        self._seen.append(figures)
        if (step + 1) % _LOGGED_EVERY and not write:
            return
        seen: dict[str, list[float]] = {}
        for name, value in (pair for each in self._seen for pair in each.items()):
            if np.isfinite(value):  # a step without boxes has no figure for them
                seen.setdefault(name, []).append(value)
        means = {name: float(np.mean(values)) for name, values in sorted(seen.items())}
        seconds = (time.monotonic() - self._since) / len(self._seen)
        line = {"stage": self._stage, "step": step + 1, **{k: round(v, 6) for k, v in means.items()}}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "seconds": round(seconds, 3)}) + "\n")
        shown = " ".join(f"{name} {value:.3g}" for name, value in means.items())
        print(f"stage {self._stage} step {step + 1}: {shown} ({seconds:.2f} s a step)", file=sys.stderr, flush=True)
        self._seen, self._since = [], time.monotonic()


def _place(line: str) -> tuple[int, int]:
    entry = json.loads(line)
    return entry["stage"], entry["step"]


if __name__ == "__main__":
    sys.exit(main())
