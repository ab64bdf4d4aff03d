"""The score networks of GDSS (Jo et al., 2022) as the published code has them: the baseline of the paper's Table 4.

Neither reads the noise level. The published code hands them the directed mask as it is; GDSS knows undirected graphs only.
"""

import math

import torch
from torch import Tensor, nn

from nagkit.published.networks import _perceptron, _run


class GraphScore(nn.Module):
    """`ScoreNetworkX`: graph convolutions, whose outputs a perceptron reads together with the input.

    `directed` False makes the mask symmetric, as GDSS assumes.
    """

    def __init__(self, n_ops: int, *, width: int = 32, n_layers: int = 3, directed: bool = True):
        super().__init__()
        self.directed = directed
        sizes = [n_ops] + [width] * n_layers
        self.layers = nn.ModuleList(_convolution(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.final = _perceptron(sum(sizes), 2 * sum(sizes), n_ops, depth=3)

    def forward(self, x: Tensor, sigma: float | Tensor, mask: Tensor) -> Tensor:
        """Score, shaped like `x` `(B, n_nodes, n_ops)`; `sigma` is not used."""
        graph, outputs = _graph(x, mask, self.directed), [x]
        for layer in self.layers:
            outputs.append(torch.tanh(_convolve(layer, outputs[-1], graph)))
        return _run(self.final, torch.cat(outputs, dim=2))


class AttentionScore(nn.Module):
    """`ScoreNetworkX_GMH`: powers of the mask are channels, which attention between convolved nodes revises in every layer.

    `channels` counts them at the start, inside, and at the end; `directed` as in `GraphScore`.
    """

    def __init__(
        self, n_ops: int, *, width: int = 32, n_layers: int = 3, n_heads: int = 4,
        channels: tuple[int, int, int] = (2, 8, 4), directed: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.n_heads, self.powers, self.directed = n_heads, channels[0], directed
        sizes = [n_ops] + [width] * n_layers
        counts = [channels[0]] + [channels[1]] * (n_layers - 1) + [channels[2]]
        pairs = zip(zip(sizes, sizes[1:], strict=False), zip(counts, counts[1:], strict=False), strict=True)
        self.layers = nn.ModuleList(_attention(a, b, before, after) for (a, b), (before, after) in pairs)
        self.final = _perceptron(sum(sizes), 2 * sum(sizes), n_ops, depth=3)

    def forward(self, x: Tensor, sigma: float | Tensor, mask: Tensor) -> Tensor:
        """Score, shaped like `x` `(B, n_nodes, n_ops)`; `sigma` is not used."""
        graph = _graph(x, mask, self.directed)
        graphs = torch.stack([torch.linalg.matrix_power(graph, power) for power in range(1, self.powers + 1)], dim=1)
        outputs = [x]
        for layer in self.layers:
            h, graphs = _revise(layer, outputs[-1], graphs, self.n_heads)
            outputs.append(torch.tanh(h))
        return _run(self.final, torch.cat(outputs, dim=2))


def _graph(x: Tensor, mask: Tensor, directed: bool) -> Tensor:
    mask = mask.to(x)
    return (mask if directed else torch.maximum(mask, mask.T)).expand(len(x), -1, -1)


def _convolution(inputs: int, outputs: int) -> nn.ParameterDict:
    weight = nn.Parameter(torch.empty(inputs, outputs))
    nn.init.xavier_uniform_(weight)
    return nn.ParameterDict({"weight": weight, "bias": nn.Parameter(torch.zeros(outputs))})


def _convolve(layer: nn.ParameterDict, x: Tensor, graph: Tensor) -> Tensor:
    """Kipf and Welling's convolution with self-loops; degrees below 1 count as 1."""
    eye = torch.eye(graph.shape[1], dtype=x.dtype, device=x.device)
    looped = graph * (1 - eye) + eye
    degree = looped.sum(dim=2).clamp_min(1).rsqrt()
    return degree[..., None] * looped * degree[:, None] @ (x @ layer["weight"]) + layer["bias"]


def _attention(inputs: int, width: int, before: int, after: int) -> nn.ModuleDict:
    heads = nn.ModuleList(
        nn.ModuleDict({name: _convolution(inputs, width) for name in ("gnn_q", "gnn_k", "gnn_v")}) for _ in range(before)
    )
    hidden = 2 * max(before, after)
    parts = {"attn": heads, "mlp": _perceptron(2 * before, hidden, after, depth=3)}
    return nn.ModuleDict(parts | {"multi_channel": _perceptron(before * width, hidden, width)})


def _revise(layer: nn.ModuleDict, x: Tensor, graphs: Tensor, n_heads: int) -> tuple[Tensor, Tensor]:
    """Nodes `(B, n_nodes, inputs)` and graphs `(B, channels, n_nodes, n_nodes)` to the next of both."""
    nodes, proposals = [], []
    for channel, maps in enumerate(layer["attn"]):
        query, key, value = (_convolve(maps[name], x, graphs[:, channel]) for name in ("gnn_q", "gnn_k", "gnn_v"))
        query, key = (part.unflatten(2, (n_heads, -1)).transpose(1, 2) for part in (query, key))
        likeness = torch.tanh(query @ key.transpose(2, 3) / math.sqrt(value.shape[2])).mean(dim=1)
        nodes.append(value)
        proposals.append((likeness + likeness.transpose(1, 2)) / 2)
    both = torch.cat([torch.stack(proposals, dim=3), graphs.permute(0, 2, 3, 1)], dim=3)
    revised = _run(layer["mlp"], both).permute(0, 3, 1, 2)
    return torch.tanh(_run(layer["multi_channel"], torch.cat(nodes, dim=2))), revised + revised.transpose(2, 3)
