"""The baseline of the paper's Table 4: a score network for graphs in the manner of GDSS (Jo et al., 2022)."""

import numpy as np
import torch
from torch import Tensor, nn

from nagkit.diffusion.score import mlp
from nagkit.errors import NagkitError


class GDSSScoreNetwork(nn.Module):
    """Score of the nodes by graph convolutions whose adjacency channels attention revises from layer to layer.

    The channels start as the powers 1 to `n_channels` of the undirected adjacency (GDSS knows no directed graphs). In each
    layer every channel convolves the nodes, and multi-head attention between convolved nodes, symmetrised, proposes new
    channels; the head reads the nodes of all layers. No positions, and as in the configuration that was published no
    dependence on the noise level: one function has to serve all of them. Two nodes that the graph does not tell apart
    therefore get the same law.
    """

    def __init__(
        self, n_nodes: int, n_ops: int, adjacency: np.ndarray, *, width: int = 32, n_blocks: int = 3, n_heads: int = 4,
        n_channels: int = 2,
    ):  # fmt: skip
        super().__init__()
        if np.shape(adjacency) != (n_nodes, n_nodes):
            raise NagkitError(f"adjacency must have shape {(n_nodes, n_nodes)}, got {np.shape(adjacency)}")
        undirected = torch.from_numpy(np.asarray(adjacency, bool) | np.asarray(adjacency, bool).T).float()
        powers = [torch.linalg.matrix_power(undirected, power) for power in range(1, n_channels + 1)]
        self.register_buffer("channels", torch.stack(powers), persistent=False)  # (n_channels, n_nodes, n_nodes)
        widths = [n_ops] + n_blocks * [width]
        self.layers = nn.ModuleList(_Layer(inputs, width, n_heads, n_channels) for inputs in widths[:-1])
        wide = 2 * sum(widths)
        self.head = mlp(sum(widths), wide, wide, n_ops, activation=nn.ELU)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Score of `x` `(B, n_nodes, n_ops)`, same shape; `sigma` is not used."""
        channels = self.channels.expand(len(x), -1, -1, -1)
        outputs = [x]
        for layer in self.layers:
            h, channels = layer(outputs[-1], channels)
            outputs.append(h)
        return self.head(torch.cat(outputs, dim=2))


class _Layer(nn.Module):
    def __init__(self, inputs: int, width: int, n_heads: int, n_channels: int):
        super().__init__()
        self.n_heads, self.width, self.n_channels = n_heads, width, n_channels
        self.qkv = nn.Linear(inputs, 3 * width * n_channels)
        self.join = mlp(n_channels * width, width, width, activation=nn.ELU)
        self.revise = mlp(2 * n_channels, 8, n_channels, activation=nn.ELU)

    def forward(self, x: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes `(B, n_nodes, inputs)` and channels `(B, n_channels, n_nodes, n_nodes)` to the next of both."""
        looped = channels + torch.eye(x.shape[1], device=x.device)
        degree = looped.sum(dim=3).clamp_min(1).rsqrt()
        looped = degree[..., None] * looped * degree[..., None, :]
        qkv = self.qkv(x).unflatten(2, (self.n_channels, 3 * self.width)).transpose(1, 2)  # (B, n_channels, n_nodes, 3 width)
        query, key, value = (looped @ qkv).split(self.width, dim=3)
        query, key = (part.unflatten(3, (self.n_heads, -1)).transpose(2, 3) for part in (query, key))
        weights = torch.tanh(query @ key.transpose(3, 4) * self.width**-0.5).mean(dim=2)  # (B, n_channels, n_nodes, n_nodes)
        pairs = torch.cat([(weights + weights.transpose(2, 3)) / 2, channels], dim=1)
        revised = self.revise(pairs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return torch.tanh(self.join(value.transpose(1, 2).flatten(2))), revised + revised.transpose(2, 3)
