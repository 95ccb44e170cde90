"""TinyViT against an independent computation of the same network: plain loops over windows and heads, in float64."""

from __future__ import annotations

from math import erf, sqrt

import pytest
import torch
import torch.nn.functional as F
from seeded import seeded_state
from torch import Tensor

from samrt_export.models.config import TinyVitConfig
from samrt_export.models.tiny_vit import TinyViT

# Grids of 20, 10, 5 and 5 tokens: windows that are padded by 2 and by 1, and one that is the whole grid.
CONFIG = TinyVitConfig(
    image_size=20,
    embed_dims=(8, 12, 16, 20),
    depths=(1, 1, 2, 1),
    num_heads=(0, 2, 4, 5),
    window_sizes=(0, 4, 3, 5),
    out_chans=16,
)


def build(config: TinyVitConfig = CONFIG) -> TinyViT:
    model = TinyViT(config)
    model.load_state_dict(seeded_state(model, seed=3))
    return model.eval().requires_grad_(False)


def images(number: int) -> Tensor:
    return torch.rand(number, 3, CONFIG.image_size, CONFIG.image_size, generator=torch.Generator().manual_seed(1))


class Reference:
    """The network as the paper and LiteMedSAM's code describe it, straight from a state dict."""

    def __init__(self, state: dict[str, Tensor], config: TinyVitConfig) -> None:
        self.state = {name: tensor.double() for name, tensor in state.items()}
        self.config = config

    def __call__(self, image: Tensor) -> Tensor:
        x = self.conv("patch_embed.seq.2", gelu(self.conv("patch_embed.seq.0", image.double())))
        last = len(self.config.depths) - 1
        for stage, depth in enumerate(self.config.depths):
            for block in range(depth):
                name = f"layers.{stage}.blocks.{block}"
                x = self.conv_block(name, x) if stage == 0 else self.attention_block(name, x, stage)
            if stage < last:
                name = f"layers.{stage}.downsample"
                # The last merging keeps the resolution.
                stride = 1 if stage == last - 1 else 2
                x = gelu(self.conv(f"{name}.conv1", x))
                x = gelu(self.conv(f"{name}.conv2", x, stride=stride, depthwise=True))
                x = self.conv(f"{name}.conv3", x)
        x = F.conv2d(x, self.state["neck.0.weight"])
        x = self.norm("neck.1", x.movedim(1, -1), eps=1e-6).movedim(-1, 1)
        x = F.conv2d(x, self.state["neck.2.weight"], padding=1)
        return self.norm("neck.3", x.movedim(1, -1), eps=1e-6).movedim(-1, 1)

    def conv(self, name: str, x: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = self.state[f"{name}.c.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=x.shape[1] if depthwise else 1)
        mean, var, gain, bias = (
            self.state[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * gain + bias

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return centred / deviation * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def conv_block(self, name: str, x: Tensor) -> Tensor:
        out = gelu(self.conv(f"{name}.conv1", x))
        out = gelu(self.conv(f"{name}.conv2", out, depthwise=True))
        return gelu(self.conv(f"{name}.conv3", out) + x)

    def attention_block(self, name: str, x: Tensor, stage: int) -> Tensor:
        tokens = x.movedim(1, -1)
        attended = torch.stack([self.attention(f"{name}.attn", one, stage) for one in tokens])
        tokens = (tokens + attended).movedim(-1, 1)
        tokens = self.conv(f"{name}.local_conv", tokens, depthwise=True).movedim(1, -1)
        hidden = gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.mlp.norm", tokens)))
        return (tokens + self.linear(f"{name}.mlp.fc2", hidden)).movedim(-1, 1)

    def attention(self, name: str, grid: Tensor, stage: int) -> Tensor:
        side, window = grid.shape[0], self.config.window_sizes[stage]
        out = torch.zeros_like(grid)
        for top in range(0, side, window):
            for left in range(0, side, window):
                # What lies outside the grid is zero before the LayerNorm.
                tokens = torch.zeros(window, window, grid.shape[-1], dtype=grid.dtype)
                inside = grid[top : top + window, left : left + window]
                height, width, _ = inside.shape
                tokens[:height, :width] = inside
                attended = self.attend(name, tokens.reshape(window * window, -1), stage)
                out[top : top + height, left : left + width] = attended.reshape(window, window, -1)[:height, :width]
        return out

    def attend(self, name: str, tokens: Tensor, stage: int) -> Tensor:
        heads, window = self.config.num_heads[stage], self.config.window_sizes[stage]
        places = [(y, x) for y in range(window) for x in range(window)]
        qkv = self.linear(f"{name}.qkv", self.norm(f"{name}.norm", tokens))
        outputs = []
        for head, part in enumerate(qkv.chunk(heads, dim=-1)):
            q, k, v = part.chunk(3, dim=-1)
            table = self.state[f"{name}.attention_biases"][head]
            bias = torch.stack(
                [torch.stack([table[abs(y - j) * window + abs(x - i)] for j, i in places]) for y, x in places]
            )
            outputs.append((q @ k.T / sqrt(q.shape[-1]) + bias).softmax(dim=-1) @ v)
        return self.linear(f"{name}.proj", torch.cat(outputs, dim=-1))


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / sqrt(2)))


def test_reference_gelu_is_the_exact_one() -> None:
    assert gelu(torch.tensor(0.7, dtype=torch.float64)).item() == pytest.approx(0.35 * (1 + erf(0.7 / sqrt(2))))


def test_equals_the_reference() -> None:
    model, image = build(), images(2)
    expected = Reference(model.state_dict(), CONFIG)(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(model.double()(image.double()), expected, rtol=1e-10, atol=1e-10)


def test_float32_is_close_to_the_reference() -> None:
    model, image = build(), images(1)
    expected = Reference(model.state_dict(), CONFIG)(image)
    assert (model(image) - expected).norm() / expected.norm() < 1e-5


def test_images_of_a_batch_do_not_mix() -> None:
    model, image = build(), images(3)
    torch.testing.assert_close(model(image)[1:2], model(image[1:2]), rtol=1e-5, atol=1e-5)


def test_exports_with_a_dynamic_batch() -> None:
    model = build()
    program = torch.export.export(model, (images(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for number in (1, 3):
        torch.testing.assert_close(program.module()(images(number)), model(images(number)), rtol=1e-5, atol=1e-5)


def test_released_size() -> None:
    """LiteMedSAM's encoder at its 256 pixels: the counts are those of its checkpoint."""
    config = TinyVitConfig(256, (64, 128, 160, 320), (2, 2, 6, 2), (0, 4, 5, 10), (0, 7, 14, 7), 256)
    with torch.device("meta"):
        model = TinyViT(config)
        embedding = model.eval()(torch.empty(2, 3, 256, 256))
    assert embedding.shape == (2, 256, 64, 64)
    state = model.state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (298, 5_736_623)
