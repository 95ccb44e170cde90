"""The mask decoder's two-way transformer, with the parameter names of Meta's checkpoints.

Source: Segment Anything (arXiv:2304.02643), section "Lightweight mask decoder" in appendix A, reference
`TwoWayTransformer`.

A prompt is a handful of tokens (7 for one point) and the image is thousands, so the attention between the two is
written for that: instead of projecting every image token to keys and values, the few prompt tokens are taken through
the projections' transposes. By associativity (q Wk)^T x = q^T (Wk^T x) the result is the same, the large operand is
read as it is, and no head ever has to be transposed out of it. It costs less up to about 16 prompt tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from samrt_export.models.common import Mlp, softmax
from samrt_export.models.config import DecoderConfig


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than the tokens' (reference `Attention`)."""

    def __init__(self, dim: int, inner_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = inner_dim // num_heads
        self.q_proj = nn.Linear(dim, inner_dim)
        self.k_proj = nn.Linear(dim, inner_dim)
        self.v_proj = nn.Linear(dim, inner_dim)
        self.out_proj = nn.Linear(inner_dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Plain attention: `[P, T, C]` each, to `[P, T, C]`."""
        q, k, v = self._heads(self.q_proj(q)), self._heads(self.k_proj(k)), self._heads(self.v_proj(v))
        weights = softmax(q * self.head_dim**-0.5 @ k.transpose(-2, -1))
        return self._merge(weights @ v)

    def from_image(self, tokens: Tensor, image_keys: Tensor, image: Tensor) -> Tensor:
        """Few tokens attend to the image: `[P, T, C]`, `[P, S, C]`, `[P, S, C]` to `[P, T, C]`."""
        q = self._heads(self.q_proj(tokens) * self.head_dim**-0.5)
        # q.(Wk x + bk): bk adds the same to every key of a query, which the softmax takes out again.
        q = self._flatten(q @ self._per_head(self.k_proj))  # [P, heads*T, C]
        weights = softmax(q @ image_keys.transpose(-2, -1))
        context = self._unflatten(weights @ image)  # [P, heads, T, C]
        v_bias = self.v_proj.bias.reshape(self.num_heads, 1, self.head_dim)
        return self._merge(context @ self._per_head(self.v_proj).transpose(-2, -1) + v_bias)

    def to_image(self, image_queries: Tensor, token_keys: Tensor, tokens: Tensor) -> Tensor:
        """The image attends to few tokens: `[P, S, C]`, `[P, T, C]`, `[P, T, C]` to `[P, S, C]`."""
        k = self._heads(self.k_proj(token_keys) * self.head_dim**-0.5)
        v = self._heads(self.v_proj(tokens))
        q_bias = self.q_proj.bias.reshape(self.num_heads, self.head_dim, 1)
        from_bias = (k @ q_bias).flatten(1)[:, None]  # [P, 1, heads*T]
        scores = image_queries @ self._flatten(k @ self._per_head(self.q_proj)).transpose(-2, -1) + from_bias
        weights = softmax(scores.unflatten(-1, (self.num_heads, -1))).flatten(2)  # [P, S, heads*T]
        out_weight = self.out_proj.weight.T.reshape(self.num_heads, self.head_dim, -1)
        return weights @ self._flatten(v @ out_weight) + self.out_proj.bias

    def _heads(self, x: Tensor) -> Tensor:
        # [P, T, heads*d] -> [P, heads, T, d]
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _merge(self, x: Tensor) -> Tensor:
        # [P, heads, T, d] -> [P, T, C]
        return self.out_proj(x.transpose(1, 2).flatten(2))

    def _per_head(self, projection: nn.Linear) -> Tensor:
        # [heads*d, C] -> [heads, d, C]
        return projection.weight.reshape(self.num_heads, self.head_dim, -1)

    def _flatten(self, x: Tensor) -> Tensor:
        # [P, heads, T, C] -> [P, heads*T, C]
        return x.flatten(1, 2)

    def _unflatten(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.num_heads, -1))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, then to the image; then the image attends to the tokens."""

    def __init__(self, config: DecoderConfig, skip_first_layer_pe: bool) -> None:
        super().__init__()
        dim, inner = config.embed_dim, config.embed_dim // 2
        self.self_attn = Attention(dim, dim, config.num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, inner, config.num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, config.mlp_dim, nn.ReLU())
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, inner, config.num_heads)
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[P, T, C]` and image `[P, S, C]`, with their position encodings, to the same."""
        if self.skip_first_layer_pe:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            with_pe = tokens + token_pe
            tokens = tokens + self.self_attn(with_pe, with_pe, tokens)
        tokens = self.norm1(tokens)
        image_with_pe = image + image_pe
        tokens = tokens + self.cross_attn_token_to_image.from_image(tokens + token_pe, image_with_pe, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token.to_image(image_with_pe, tokens + token_pe, tokens)
        return tokens, self.norm4(image)


class TwoWayTransformer(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(config, skip_first_layer_pe=i == 0) for i in range(config.depth))
        self.final_attn_token_to_image = Attention(config.embed_dim, config.embed_dim // 2, config.num_heads)
        self.norm_final_attn = nn.LayerNorm(config.embed_dim)

    def forward(self, tokens: Tensor, image: Tensor, image_pe: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """Tokens `[P, T, C]`, image `[P, S, C]` and its position encoding `[S, C]` to `[P, kept, C]` and image."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        # Nobody reads what the prompt's own tokens would become.
        tokens, token_pe = tokens[:, :kept], token_pe[:, :kept]
        attended = self.final_attn_token_to_image.from_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image
