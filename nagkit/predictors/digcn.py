"""The paper's noise-aware predictor: a directed graph convolution over the noisy cell, a time embedding and a data set code."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nagkit.diffusion.score import attention_mask, mlp, sinusoid
from nagkit.predictors.sets import SetEncoder


class DirectedGCN(nn.Module):
    """Predicts the standardised accuracy of a (noisy) cell on a data set.

    Layer: mean of ReLU(A H W₁) along the edges and ReLU(Aᵀ H W₂) against them, A the row-normalised graph with self-loops
    (Wen et al., 2020); four layers of width 144, mean over the nodes, plus the embedding of the noise level, then a
    head that also reads the data set code (paper, appendix B.4; sizes as in the published code). `graph` is
    "adjacency", "closure", or "flat": no graph at all, a multilayer perceptron on the flattened code, for the ablation.
    """

    def __init__(
        self, adjacency: np.ndarray, n_ops: int, n_features: int, *, graph: str = "closure", width: int = 144,
        layers: int = 4, hidden: int = 32, dropout: float = 0.1,
    ):  # fmt: skip
        super().__init__()
        nodes = len(adjacency)
        self.flat, self.width, self.dropout = graph == "flat", width, dropout
        mask = torch.as_tensor(attention_mask(adjacency, "closure" if self.flat else graph)).float() + torch.eye(nodes)
        self.register_buffer("forward_graph", mask / mask.sum(dim=1, keepdim=True), persistent=False)
        self.register_buffer("backward_graph", mask.T / mask.T.sum(dim=1, keepdim=True), persistent=False)
        sizes = [nodes * n_ops if self.flat else n_ops] + [width] * layers
        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.downstream = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairs)
        self.upstream = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in ([] if self.flat else pairs))
        self.time = mlp(width, 4 * width, width)
        self.embed = nn.Linear(width, 128, bias=False)
        self.sets = SetEncoder(n_features)
        self.head = mlp(128 + 56, hidden, 1, activation=nn.Tanh)

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """`x (B, nodes, ops)` centred, `sigma` a number or `(B,)`, `code (B, 56)` or `(1, 56)` → `(B,)`."""
        h = x.flatten(1) if self.flat else x.transpose(0, 1)  # (nodes, B, ops): a graph step is then one matrix product
        for i, along in enumerate(self.downstream):
            if self.flat:
                h = F.relu(along(h))
            else:
                back = self.upstream[i](h)
                h = (F.relu(_mix(self.forward_graph, along(h))) + F.relu(_mix(self.backward_graph, back))) / 2
            h = F.dropout(h, self.dropout, self.training)
        h = h if self.flat else h.mean(dim=0)
        level = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
        h = self.embed(h + self.time(sinusoid(level, self.width)))
        h = F.dropout(h, self.dropout, self.training)
        return self.head(torch.cat([h, code.expand(len(h), -1)], dim=1))[:, 0]


def _mix(graph: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """`graph (nodes, nodes)` applied to `h (nodes, B, width)`."""
    return (graph @ h.flatten(1)).view_as(h)
