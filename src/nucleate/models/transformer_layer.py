"""One layer of a transformer whose attention follows a given pattern of visibility."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nucleate.shapes import Bool, Float


class TransformerLayer(nn.Module):
    """Attention and a two-layer perceptron, each normalised before and added: ``x + A(N x)``, then ``x + M(N x)``."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(
        self, tokens: Float[Tensor, "n tokens width"], visible: Bool[Tensor, "n tokens tokens"]
    ) -> Float[Tensor, "n tokens width"]:
        """The tokens after one layer; each row of ``visible`` has at least one True."""
        n, length, width = tokens.shape
        parts = self.qkv(self.norm_attention(tokens)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = _attention(query, key, value, visible[:, None])
        tokens = tokens + self.drop(self.out(mixed.transpose(1, 2).reshape(n, length, width)))
        return tokens + self.drop(self.mlp(self.norm_mlp(tokens)))


def _attention(
    query: Float[Tensor, "n heads tokens d"],
    key: Float[Tensor, "n heads tokens d"],
    value: Float[Tensor, "n heads tokens d"],
    visible: Bool[Tensor, "n 1 tokens tokens"],
) -> Float[Tensor, "n heads tokens d"]:
    """Attention, on a CPU in float32 at least: torch's backward pass takes eight times as long there in bfloat16."""
    dtype = query.dtype
    if query.device.type == "cpu" and dtype == torch.bfloat16:
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast(query.device.type, enabled=False):
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
    return mixed.to(dtype)
