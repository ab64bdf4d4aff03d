"""Ranking predictors of clean architectures.

That of cells runs the cell itself on a handful of channels: a non-negative feature vector enters the cell; every edge applies
the map learned for its operation (`none` is zero, `skip` the identity) weighted by the operation's probability, feature maps
add up, and a small head reads the output and the data set code. So isomorphic cells score alike, a dead edge counts for
nothing, and the score is differentiable in relaxed cells, as guidance needs. That of any other space adds up what each node is
worth, and corrects the sum by a small network. Both are ensembles whose value is the mean of their members.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nagkit.predictors.sets import SetEncoder
from nagkit.spaces.base import SearchSpace
from nagkit.spaces.cell import EDGES, CellSpace


def get_ranker(space: SearchSpace, n_features: int, **options) -> nn.Module:
    """`CellPropagation` for a space of cells, `LayerSum` for any other."""
    if isinstance(space, CellSpace):
        return CellPropagation(n_features, n_maps=len(space.ops) - 2, **options)
    return LayerSum(n_features, n_inputs=space.n_nodes * space.n_ops, **options)


def _add_head(module: nn.Module, n_features: int, members: int, hidden: int, code: int, scale: float) -> None:
    module.from_code = nn.Parameter(torch.zeros(members, code, hidden))
    module.bias = nn.Parameter(torch.zeros(members, 1, hidden))
    module.out = nn.Parameter(scale * hidden**-0.5 * torch.randn(members, hidden, 1))
    module.sets = SetEncoder(n_features, width=32, code=code)


def _mean(self: nn.Module, x: Tensor, sigma: float | Tensor, code: Tensor) -> Tensor:
    """Score of clean or denoised codes, `(B,)`; `sigma` is ignored."""
    return self.members(x, code).mean(dim=0)


class CellPropagation(nn.Module):
    """An ensemble of `members` propagation networks with `width` channels and `n_maps` operations beside `none` and `skip`."""

    def __init__(
        self, n_features: int, *, n_maps: int = 3, members: int = 10, width: int = 8, hidden: int = 32, code: int = 8
    ):
        super().__init__()
        self.source = nn.Parameter(1 + 0.5 * torch.randn(members, 1, width))
        self.maps = nn.Parameter(width**-0.5 * torch.randn(members, n_maps, width, width))
        self.from_cell = nn.Parameter(width**-0.5 * torch.randn(members, width, hidden))
        _add_head(self, n_features, members, hidden, code, scale=1.0)

    def members(self, x: Tensor, code: Tensor) -> Tensor:
        """Standardised accuracy by each member, `(members, B)`, of `x (B, 8, ops + 2)` centred and `code (B or 1, code)`."""
        chance = ((x[:, 1:-1, 3:] + 1) / 2).permute(1, 2, 0).contiguous()  # (6, 1 + n_maps, B), skip first; long rows are fast
        maps = self.maps.transpose(2, 3).flatten(1, 2)  # (members, n_maps width, width)
        into = {0: self.source.abs().transpose(1, 2).expand(-1, -1, len(x))}  # (members, width, B) of each feature map
        for source in (0, 1, 2):
            mapped = F.relu(maps @ into[source]).unflatten(1, (self.maps.shape[1], -1))  # `none` adds zero
            for slot, (start, end) in enumerate(EDGES):
                if start == source:
                    flow = chance[slot, 0] * into[source] + (chance[slot, 1:, None] * mapped).sum(dim=1)
                    into[end] = into[end] + flow if end in into else flow
        cell = self.from_cell.transpose(1, 2) @ torch.log1p(into[3].clamp_min(0))  # (members, hidden, B)
        hidden = cell + (code @ self.from_code + self.bias).transpose(1, 2)
        return (self.out.transpose(1, 2) @ F.silu(hidden))[:, 0]

    forward = _mean


class LayerSum(nn.Module):
    """An ensemble of `members`: a weight for each operation in each node, and a network of `hidden` units for the rest."""

    def __init__(self, n_features: int, *, n_inputs: int, members: int = 10, hidden: int = 32, code: int = 8):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(members, n_inputs))
        self.from_layers = nn.Parameter(n_inputs**-0.5 * torch.randn(members, n_inputs, hidden))
        _add_head(self, n_features, members, hidden, code, scale=0.1)

    def members(self, x: Tensor, code: Tensor) -> Tensor:
        """Standardised accuracy by each member, `(members, B)`, of `x (B, nodes, ops)` centred and `code (B or 1, code)`."""
        flat = (x.flatten(1) + 1) / 2
        hidden = flat @ self.from_layers + code @ self.from_code + self.bias
        return self.weights @ flat.T + (F.silu(hidden) @ self.out)[..., 0]

    forward = _mean
