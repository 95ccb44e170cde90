"""The recipes: everything that decides what a run learns, besides the code and the data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from samrt_export.models.config import DecoderConfig, TrunkConfig, VitConfig
from training.efficientnet import TRUNK


@dataclass(frozen=True)
class Stage:
    """A part of a run at one image side; position tables are resized between stages.

    Attributes:
        side: of the square input in pixels, a multiple of the patch.
        images: per step.
        objects: prompted per image.
        steps: of the optimizer; by the clock (training.schedule), in proportion to those of the other stages.
        encoder_lr, decoder_lr: reached after `warmup` steps and held, as this is what a later stage starts from; the
            last stage lets both fall to zero over its last `cooldown` steps.
        synthetic: probability that an image is a drawn scene instead of a photograph.
        smallest: area of an object that is prompted, as a part of the square image.
        iou_weight: of the loss of the predicted IoU, beside that of the masks.
        trunk_lr: of the trunk's coarser stages, likewise; 0 leaves all of the trunk as it is. Its stem and first two
            stages, whose gradients cost most and whose features are the most general, are never trained.
        zoomed: probability that a photograph is cut to the surroundings of one object, so that small ones are seen
            large; crowded: that four of them share the image, so that large ones are seen small.
        edge_weight: of the cross entropy at an object's edge, beside focal and dice loss: sharper masks.
        task: "grouping", the encoder alone (training.grouping); "familiar", what LiteMedSAM's decoder was trained
            for: boxes, one round, the single mask; or "prompts", all of SAM's training.
    """

    side: int
    images: int
    objects: int
    steps: int
    encoder_lr: float
    decoder_lr: float
    synthetic: float = 0.35
    warmup: int = 100
    cooldown: int = 0
    smallest: float = 2e-4
    iou_weight: float = 1.0
    trunk_lr: float = 0.0
    zoomed: float = 0.0
    crowded: float = 0.0
    edge_weight: float = 0.0
    task: str = "prompts"


@dataclass(frozen=True)
class Recipe:
    """Sizes of the encoder and the stages of its training; the decoder is LiteMedSAM's.

    Attributes:
        rounds: probabilities of one, two, ... rounds of prompts in a step; each after the first adds a point where the
            mask was wrong and feeds the mask back.
        sources: probability of each data set among the photographs.
        trunk: of a pretrained trunk in the place of the patch embedding; None: SAM's ViT alone.
        held_out: how many photographs of each data set no step sees, to validate with (training.validate).
        whole_half: whether additions and norms are in bfloat16 too, which autocast leaves in float32: a third less time
            on a CPU.
        averaged: how much of the averaged weights a step keeps, the rest being its own; 0 takes the last step's.
    """

    width: int
    depth: int
    head_dim: int
    patch: int
    window: int
    global_blocks: tuple[int, ...]
    stages: tuple[Stage, ...]
    rounds: tuple[float, ...] = (0.55, 0.3, 0.15)
    sources: tuple[tuple[str, float], ...] = (("coco", 0.33), ("bsds", 0.34), ("clothing", 0.18), ("carparts", 0.15))
    weight_decay: float = 0.05
    seed: int = 0
    trunk: TrunkConfig | None = None
    held_out: int = 0
    averaged: float = 0.0
    whole_half: bool = False

    def encoder(self, side: int) -> VitConfig:
        """The sizes of the encoder, or of what follows its trunk, at an image side."""
        return VitConfig(
            image_size=side,
            patch_size=self.patch,
            embed_dim=self.width,
            depth=self.depth,
            head_dim=self.head_dim,
            mlp_dim=4 * self.width,
            out_chans=256,
            window_size=self.window,
            global_blocks=self.global_blocks,
        )

    def decoder(self, side: int) -> DecoderConfig:
        """LiteMedSAM's decoder, which is SAM's, at an image side."""
        return DecoderConfig(
            embed_dim=256,
            image_size=side,
            embedding_size=side // self.patch,
            mask_in_chans=16,
            depth=2,
            mlp_dim=2048,
            num_mask_tokens=4,
            iou_head_hidden_dim=256,
            iou_head_depth=3,
        )


def _growing(
    side: int, images: int, objects: int, steps: int, edge_weight: float = 0.0, cooldown: int = 0, rate: float = 1.0
) -> Stage:
    """A stage that trains everything, on objects of all sizes; `rate` times the rates for a few images per step."""
    return Stage(
        side,
        images,
        objects,
        steps,
        encoder_lr=2e-4 * rate,
        decoder_lr=1e-4 * rate,
        trunk_lr=5e-5 * rate,
        zoomed=0.25,
        crowded=0.15,
        edge_weight=edge_weight,
        cooldown=cooldown,
        iou_weight=5.0,
    )


RECIPES = {
    # For one H100, with --seconds. Its speed and its memory have not been measured there.
    "gpu": Recipe(
        width=192,
        depth=12,
        head_dim=64,
        patch=8,
        window=8,
        global_blocks=(3, 7, 11),
        stages=(
            Stage(128, 96, 8, 1500, encoder_lr=3e-4, decoder_lr=0.0, synthetic=0.7, smallest=1e-2, task="grouping"),
            Stage(128, 96, 8, 1500, encoder_lr=3e-4, decoder_lr=5e-5, synthetic=0.6, smallest=2e-3, task="familiar"),
            Stage(128, 96, 8, 2000, encoder_lr=3e-4, decoder_lr=1e-4, smallest=1e-3, iou_weight=5.0),
            Stage(256, 24, 8, 4000, encoder_lr=2e-4, decoder_lr=1e-4, iou_weight=5.0),
            Stage(512, 8, 8, 2500, encoder_lr=2e-4, decoder_lr=1e-4, cooldown=2000, iou_weight=5.0),
        ),
    ),
    # For two cores and two hours: the model that comes with samrt.
    "cpu": Recipe(
        width=192,
        depth=8,
        head_dim=64,
        patch=8,
        window=8,
        global_blocks=(3, 7),
        stages=(
            Stage(128, 24, 8, 500, encoder_lr=1.5e-4, decoder_lr=0.0, synthetic=0.7, smallest=1e-2, task="grouping"),
            Stage(128, 24, 6, 800, encoder_lr=1.5e-4, decoder_lr=5e-5, synthetic=0.6, smallest=2e-3, task="familiar"),
            Stage(128, 24, 6, 1000, encoder_lr=1.5e-4, decoder_lr=1e-4, smallest=1e-3, iou_weight=5.0),
            Stage(256, 8, 6, 900, encoder_lr=1.5e-4, decoder_lr=1e-4, iou_weight=5.0),
            Stage(384, 4, 8, 300, encoder_lr=1e-4, decoder_lr=7e-5, warmup=20, cooldown=280, iou_weight=5.0),
        ),
    ),
    # For two cores, from the decoder of the `cpu` recipe's model. It has not been run to its end.
    "trunk": Recipe(
        width=192,
        depth=5,
        head_dim=64,
        patch=8,
        window=8,
        global_blocks=(2,),
        trunk=TRUNK,
        held_out=12,
        averaged=0.999,
        whole_half=True,
        rounds=(0.5, 0.25, 0.15, 0.1),
        stages=(
            Stage(256, 6, 5, 300, encoder_lr=3e-4, decoder_lr=1e-4, iou_weight=5.0),
            _growing(256, 6, 5, 6000),
            _growing(384, 4, 6, 3000, edge_weight=0.3),
            _growing(512, 4, 6, 2000, edge_weight=1.0, cooldown=1600),
        ),
    ),
}

# The network of `trunk` for one H100 and six minutes, with --seconds and --eager, from weights that `trunk` has begun.
# Without compiling, a step of 48 images is bound by the GPU, not by the start of its 3,000 kernels, by estimate; the
# steps of all stages then cost about the same. The average is over 300 steps. Each photograph is seen about 60 times,
# so that there are more drawn scenes than in `trunk`, and fewer from COCO, whose 88 would be seen 500 times.
RECIPES["trunk_gpu"] = replace(
    RECIPES["trunk"],
    averaged=0.997,
    sources=(("coco", 0.25), ("bsds", 0.37), ("clothing", 0.22), ("carparts", 0.16)),
    stages=tuple(
        replace(stage, synthetic=0.45)
        for stage in (
            _growing(256, 48, 8, 2600, rate=2.0),
            _growing(384, 24, 8, 900, edge_weight=0.3, rate=1.5),
            _growing(512, 16, 6, 1600, edge_weight=1.0, rate=1.5, cooldown=1300),
        )
    ),
)

# From the weights of `trunk_gpu`, for two cores: 4 images per step instead of 24 and 16, so a third of its rates, and
# the edge term from the first step, as these weights have learned with it. The average is over a thousand steps.
RECIPES["trunk_cpu"] = replace(
    RECIPES["trunk_gpu"],
    averaged=0.999,
    stages=tuple(
        replace(stage, synthetic=0.45)
        for stage in (
            _growing(384, 4, 6, 1500, edge_weight=1.0, rate=0.5),
            _growing(512, 4, 6, 2500, edge_weight=1.0, rate=0.5, cooldown=2000),
        )
    ),
)

# The `gpu` recipe's stages on small images, one per step, with a third of its layers: shows on a CPU, in a minute, that
# a run with --seconds ends as it should. The window's side differs from that of every grid, because a table of the same
# length would be taken for a global layer's.
_DRY = tuple(replace(stage, side=stage.side // 4, images=1, objects=2) for stage in RECIPES["gpu"].stages)
RECIPES["dry"] = replace(RECIPES["gpu"], depth=4, global_blocks=(1, 3), window=3, stages=_DRY)
# `trunk_gpu` likewise, with all its layers and windows, as it starts from given weights; and with two rounds at most.
_TRUNK_DRY = tuple(
    replace(stage, side=side, images=1, objects=2)
    for stage, side in zip(RECIPES["trunk_gpu"].stages, (96, 128, 160), strict=True)
)
RECIPES["trunk_dry"] = replace(RECIPES["trunk_gpu"], rounds=(0.5, 0.5), stages=_TRUNK_DRY)
