"""Data set codes: a Set Transformer (Lee et al., 2019) over class features, as the paper encodes its tasks."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention block MAB of the Set Transformer, without layer norm as in the published predictor."""

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))

    def forward(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """`target (B, T, d)` attends to `source (B, S, d)`."""
        query, key, value = (
            layer(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, d / heads)
            for layer, part in ((self.query, target), (self.key, source), (self.value, source))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        hidden = (query + attended).transpose(1, 2).flatten(2)
        return hidden + F.relu(self.mix(hidden))


class SetEncoder(nn.Module):
    """Features of a data set's classes `(B, classes, features)` → its code `(B, code)`, whatever the order of the classes.

    Linear - two self-attention blocks - pooling by a learned query - linear (paper, appendix B.5). The published encoder
    runs once over twenty images of each class and once over the class prototypes; here one vector stands for a class.
    """

    def __init__(self, n_features: int, width: int = 56, code: int = 56):
        super().__init__()
        self.embed = nn.Linear(n_features, width)
        self.first, self.second, self.pool = Attention(width), Attention(width), Attention(width)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.out = nn.Linear(width, code)
        nn.init.xavier_uniform_(self.query)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        h = self.embed(features)
        h = self.first(h, h)
        h = self.second(h, h)
        return self.out(self.pool(self.query.expand(len(h), -1, -1), h)[:, 0])
