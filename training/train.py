"""Train the default model by a recipe.

    python -m training.train cpu --data .cache/packed.npz --decoder .cache/lite_medsam.pth -o training/runs/cpu

    python -m training.train gpu --seconds 540 --data ... --decoder ... -o training/runs/gpu    # ends within 540 s

The same command continues from the last checkpoint. OUT gets log.jsonl (a line every few steps), curves.png,
checkpoint.pt and model.pth, which `samrt export` reads; at the end also model.json. docs/training.md explains the files
and says how far a run can be repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from samrt.errors import BundleError, InputError, OutputError, SamrtError
from samrt.files import replacing_file, sha256_of
from samrt_export.checkpoint import read_checkpoint
from samrt_export.families.vit_blocks import PIXEL_MEAN, PIXEL_STD
from training.average import Average
from training.curves import draw_curves
from training.inputs import check_inputs
from training.log import Log
from training.model import PromptableModel, given_state, initial_state
from training.optimizer import optimizer_of
from training.recipes import RECIPES, Recipe
from training.rehearsal import plan, rehearse
from training.samples import Batch, BatchMaker, Makers
from training.schedule import LEAST_STEPS, BySteps, Schedule
from training.step import Gradients
from training.weights import write_weights

_GRADIENT_LIMIT = 1.0
_COMPILE_PART = 1 / 3  # of a call by the clock, in which torch may compile
_MOST_SKIPPED = 10  # steps in a row by the clock


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, metavar="PACKED.npz", help="what training.pack writes")
    parser.add_argument("--decoder", type=Path, metavar="FILE.pth", help="the decoder's first weights")
    parser.add_argument("--trunk", type=Path, metavar="FILE.pth", help="the trunk's first weights")
    parser.add_argument("--start", type=Path, metavar="FILE.pth", help="all first weights, in place of these parts")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument(
        "--processes", type=int, default=0, help="that make batches; with a GPU give one per core (default: one thread)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--stop-after", type=float, metavar="SECONDS", help="stop then; run again to continue")
    length.add_argument("--seconds", type=float, help="finish within this time, with learning rates of zero at the end")
    parser.add_argument("--started", type=float, metavar="UNIX_TIME", help="when --seconds began (default: now)")
    parser.add_argument("--eager", action="store_true", help="do not use torch.compile, which needs a C++ compiler")
    arguments = parser.parse_args()
    try:
        return Run(arguments).go()
    except SamrtError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training: stopped; the same command continues from the last checkpoint", file=sys.stderr)
        return 130


class Run:
    """One run of a recipe in its folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        check_inputs(arguments)
        self.folder: Path = arguments.output
        self.name: str = arguments.recipe
        self.recipe: Recipe = RECIPES[self.name]
        self.device = torch.device(arguments.device)
        self.seconds: float | None = arguments.seconds
        self.started = time.monotonic() - (time.time() - arguments.started if arguments.started else 0.0)
        self.stop_after: float | None = arguments.stop_after
        self.make = BatchMaker(arguments.data, self.recipe)
        self.make.check()
        self.processes: int = arguments.processes
        names = ("data", "decoder", "trunk", "start")
        self.files: dict[str, Path] = {name: path for name in names if (path := getattr(arguments, name))}
        self.sources = {name: sha256_of(path) for name, path in self.files.items()}
        self.gradients = Gradients(self.device)
        self.compiles = not arguments.eager
        self.models: dict[int, PromptableModel] = {}  # by side, from a rehearsal
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder}: {error.strerror}") from error

    def go(self) -> int:
        """Run all stages that are left. Exit status 0 at the end, 3 if the time of --stop-after is over."""
        kept = self._kept()
        if kept["stage"] < len(self.recipe.stages):
            with Makers(self.processes) as makers:
                # With --seconds, batches are made during the rehearsal.
                made = self._made(makers, kept)
                schedule = self._schedule(kept)
                while True:
                    kept = self._stage(kept, schedule, made)
                    if kept["step"]:
                        return 3
                    if kept["stage"] == len(self.recipe.stages):
                        break
                    made = self._made(makers, kept)
        self._finish(kept)
        return 0

    def _kept(self) -> dict[str, Any]:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return {"stage": 0, "step": 0, "state": self._first_weights(), "optimizer": None}
        try:
            kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises any exception for a damaged file
            raise BundleError(f"{path} is damaged ({error}); delete it to start again") from error
        parts = {"stage", "step", "state", "optimizer", "sources", "recipe"}
        if not isinstance(kept, dict) or not parts <= kept.keys():
            raise BundleError(f"{path} is no checkpoint of a training run; choose another folder, or delete it")
        if ("clock" in kept) != (self.seconds is not None):
            kinds = ("by steps (without --seconds)", "by the clock (with --seconds)")
            was = kinds["clock" in kept]
            raise InputError(f"{path} comes from a run {was}; continue it {was}, choose another folder, or delete it")
        if kept["sources"] != self.sources or kept["recipe"] != asdict(self.recipe):
            raise InputError(
                f"{path} comes from other data, other first weights or another recipe; choose another folder, or "
                "delete it"
            )
        return kept

    def _first_weights(self) -> dict[str, Tensor]:
        weights = {name: read_checkpoint(path).state for name, path in self.files.items() if name != "data"}
        if "start" in weights:
            return given_state(self.recipe, weights["start"])
        patches = None if self.recipe.trunk else _patches(self.make)
        return initial_state(self.recipe, weights["decoder"], patches, weights.get("trunk"))

    def _made(self, makers: Makers, kept: dict[str, Any]) -> Iterator[tuple[int, Batch]]:
        """The batches for the stage that a checkpoint continues."""
        left = range(kept["step"], self.recipe.stages[kept["stage"]].steps)
        return makers.batches(self.make, kept["stage"], count(kept["step"]) if self.seconds else left)

    def _schedule(self, kept: dict[str, Any]) -> Schedule:
        if self.seconds is None:
            return BySteps(self.recipe.stages, self.started + self.stop_after if self.stop_after else math.inf)

        def prepare(side: int, compiled: bool) -> tuple[PromptableModel, Callable[[int, Batch], object]]:
            model = self._fresh(kept["state"], side, compiled)
            optimizer = optimizer_of(model, self.recipe)

            def step(index: int, batch: Batch) -> object:
                model.begin(self.recipe.stages[index])
                return self._step(model, optimizer, (index, 0), batch, 0.0)

            return model, step

        compile_until = self.started + _COMPILE_PART * self.seconds if self.compiles else None
        rehearsed = rehearse(self.recipe, self.make, kept["stage"], prepare, compile_until)
        self.models = rehearsed.models
        return plan(self.recipe, rehearsed, kept, self.folder, self.started, self.seconds)

    def _fresh(self, state: dict[str, Tensor], side: int, compiled: bool) -> PromptableModel:
        model = PromptableModel(state, side, self.recipe.whole_half).to(self.device)
        if compiled:
            model.compile_parts(by_blocks=self.seconds is not None)
        return model

    def _stage(self, kept: dict[str, Any], schedule: Schedule, made: Iterator[tuple[int, Batch]]) -> dict[str, Any]:
        """Run the rest of a stage, or as much as there is time for. Returns what the next call continues from."""
        index = kept["stage"]
        stage = self.recipe.stages[index]
        if rehearsed := self.models.get(stage.side):
            model = rehearsed
            model.load_state_dict(PromptableModel(kept["state"], stage.side).state_dict())
        else:
            model = self._fresh(kept["state"], stage.side, self.compiles)
        model.begin(stage)
        average = Average(model, kept, self.recipe.averaged) if self.recipe.averaged else None
        optimizer = optimizer_of(model, self.recipe)
        if kept["optimizer"]:
            optimizer.load_state_dict(kept["optimizer"])
        log = Log(self.folder / "log.jsonl", index, kept["step"])
        skipped = 0
        for pace in schedule.paces(index, kept):
            begun = time.monotonic()
            _, batch = next(made)
            waited = time.monotonic() - begun
            if not pace.factor:
                log.write()  # the next line is of the finished weights alone
            figures = self._step(model, optimizer, (index, pace.step), batch, pace.factor)
            wrong = _not_finite(figures)
            skipped = skipped + 1 if wrong else 0
            if wrong and (self.seconds is None or skipped == _MOST_SKIPPED):
                raise InputError(
                    f"the {wrong} is {figures[wrong]} in step {pace.step} of stage {index}; lower the learning rate"
                )
            if self.seconds is not None:
                figures["skipped"] = float(wrong is not None)
            if average:
                average.add(model)
            log.add(pace.step, {**figures, **pace.figures, "wait": waited})
            done = schedule.to_keep(pace)
            if done is not None:
                if pace.last:
                    log.write()
                state = {name: tensor.detach().cpu() for name, tensor in model.sam.state_dict().items()}
                ahead = (
                    {"stage": index + 1, "step": 0, "optimizer": None}
                    if pace.last
                    else {"stage": index, "step": pace.step + 1, "optimizer": optimizer.state_dict()}
                )
                kept = {**ahead, "state": state, **(average.kept() if average else {}), **done}
                self._keep(kept)
                if not pace.last and schedule.is_over():
                    break
        return kept

    def _step(
        self,
        model: PromptableModel,
        optimizer: torch.optim.Optimizer,
        at: tuple[int, int],
        batch: Batch,
        factor: float,
    ) -> dict[str, float]:
        """Train one step; returns its figures. No weight changes if the loss or the gradient is not finite."""
        index, step = at
        stage = self.recipe.stages[index]
        rates = {"encoder": stage.encoder_lr, "decoder": stage.decoder_lr, "trunk": stage.trunk_lr}
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * factor
        generator = torch.Generator(self.device).manual_seed(hash((self.recipe.seed, index, step)) % 2**62)
        figures = self.gradients(model, batch, generator, stage)
        figures["gradient"] = torch.nn.utils.clip_grad_norm_(model.parameters(), _GRADIENT_LIMIT)
        # All values in one copy, because each copy from a GPU waits for it.
        read = dict(zip(figures, torch.stack([*figures.values()]).tolist(), strict=True))
        if not _not_finite(read):
            optimizer.step()
        return {"lr": rates["encoder"] * factor, **read}

    def _keep(self, kept: dict[str, Any]) -> None:
        with replacing_file(self.folder / "checkpoint.pt") as fresh:
            torch.save({**kept, "sources": self.sources, "recipe": asdict(self.recipe)}, fresh)
        write_weights(_best(kept), self.folder / "model.pth")  # can be exported before the end, too
        draw_curves(self.folder / "log.jsonl", self.folder / "curves.png")

    def _finish(self, kept: dict[str, Any]) -> None:
        """The weights in half precision, which `samrt export` reads, and what they were made from."""
        write_weights(_best(kept), self.folder / "model.pth")
        if (clock := kept.get("clock")) and clock["steps"][-1] < LEAST_STEPS:
            raise InputError(
                f"the steps became so slow that the last stage had {clock['steps'][-1]} of them, too few to lower the "
                f"rates: {self.folder / 'model.pth'} is not finished; start again in another folder, with more seconds"
            )
        record = {
            "recipe_name": self.name,
            "recipe": asdict(self.recipe),
            **{f"{name}_sha256": digest for name, digest in self.sources.items()},
            "versions": {
                "python": platform.python_version(),
                **{module.__name__: module.__version__ for module in (torch, np, cv2)},
            },
            "threads": torch.get_num_threads(),
            "compiled": _sides_compiled(clock) if clock else self.compiles,
            **({"clock": {**clock, "took_seconds": round(time.monotonic() - self.started, 2)}} if clock else {}),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "model_sha256": sha256_of(self.folder / "model.pth"),
        }
        with replacing_file(self.folder / "model.json") as fresh:
            fresh.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {self.folder / 'model.pth'}", file=sys.stderr)


def _not_finite(figures: dict[str, float]) -> str | None:
    return next((name for name in ("loss", "gradient") if not math.isfinite(figures[name])), None)


def _sides_compiled(clock: dict[str, Any]) -> list[int]:
    return sorted({int(side) for call in clock["calls"] for side in call["compile_seconds"]})


def _best(kept: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The weights' average, where a checkpoint has one."""
    best: Mapping[str, Tensor] = kept["average"] if "average" in kept else kept["state"]
    return best


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


if __name__ == "__main__":
    sys.exit(main())
