"""One layer of a transformer whose attention follows a given pattern of visibility."""

from __future__ import annotations

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
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None])
        tokens = tokens + self.drop(self.out(mixed.transpose(1, 2).reshape(n, length, width)))
        return tokens + self.drop(self.mlp(self.norm_mlp(tokens)))
