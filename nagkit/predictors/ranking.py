"""Ranking predictors of clean architectures.

That of NAS-Bench-201 runs the cell itself on a handful of channels: a non-negative feature vector enters the cell; every edge
applies the map learned for its operation (`none` is zero, `skip` the identity) weighted by the operation's probability, feature
maps add up, and a small head reads the output and the data set code. So isomorphic cells score alike, a dead edge counts for
nothing, and the score is differentiable in relaxed cells, as guidance needs. That of MBv3 adds up what each layer is worth, and
corrects the sum by a small network.
"""

import torch
import torch.nn.functional as F
from torch import nn

from nagkit.predictors.sets import SetEncoder
from nagkit.spaces import nb201


class CellPropagation(nn.Module):
    """An ensemble of `members` propagation networks with `width` channels; its value is their mean."""

    def __init__(self, n_features: int, *, members: int = 10, width: int = 8, hidden: int = 32, code: int = 8):
        super().__init__()
        self.source = nn.Parameter(1 + 0.5 * torch.randn(members, 1, width))
        self.maps = nn.Parameter(width**-0.5 * torch.randn(members, 3, width, width))
        self.from_cell = nn.Parameter(width**-0.5 * torch.randn(members, width, hidden))
        self.from_code = nn.Parameter(torch.zeros(members, code, hidden))
        self.bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.out = nn.Parameter(hidden**-0.5 * torch.randn(members, hidden, 1))
        self.sets = SetEncoder(n_features, width=32, code=code)

    def members(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Standardised accuracy by every member: `x (B, 8, 7)` centred, `code (B, code)` or `(1, code)` → `(members, B)`."""
        chance = ((x[:, 1:7, 3:] + 1) / 2).permute(1, 2, 0).contiguous()  # (6, 4, B): skip, 1×1, 3×3, pool; long rows are fast
        maps = self.maps.transpose(2, 3).flatten(1, 2)  # (members, 3 width, width)
        into = {0: self.source.abs().transpose(1, 2).expand(-1, -1, len(x))}  # (members, width, B) of each feature map
        for source in (0, 1, 2):
            mapped = F.relu(maps @ into[source]).unflatten(1, (3, -1))  # `none` adds zero
            for slot, (start, end) in enumerate(nb201.EDGES):
                if start == source:
                    flow = chance[slot, 0] * into[source] + (chance[slot, 1:, None] * mapped).sum(dim=1)
                    into[end] = into[end] + flow if end in into else flow
        cell = self.from_cell.transpose(1, 2) @ torch.log1p(into[3].clamp_min(0))  # (members, hidden, B)
        hidden = cell + (code @ self.from_code + self.bias).transpose(1, 2)
        return (self.out.transpose(1, 2) @ F.silu(hidden))[:, 0]

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Score of clean or denoised codes, `(B,)`; `sigma` is ignored."""
        return self.members(x, code).mean(dim=0)


class LayerSum(nn.Module):
    """An ensemble of `members`: a weight for each operation in each slot, and a network of `hidden` units for the rest."""

    def __init__(self, n_features: int, *, members: int = 10, hidden: int = 32, code: int = 8, n_inputs: int = 180):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(members, n_inputs))
        self.from_layers = nn.Parameter(n_inputs**-0.5 * torch.randn(members, n_inputs, hidden))
        self.from_code = nn.Parameter(torch.zeros(members, code, hidden))
        self.bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.out = nn.Parameter(0.1 * hidden**-0.5 * torch.randn(members, hidden, 1))
        self.sets = SetEncoder(n_features, width=32, code=code)

    def members(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Standardised accuracy by every member: `x (B, 20, 9)` centred, `code (B, code)` or `(1, code)` → `(members, B)`."""
        flat = (x.flatten(1) + 1) / 2
        hidden = flat @ self.from_layers + code @ self.from_code + self.bias
        return self.weights @ flat.T + (F.silu(hidden) @ self.out)[..., 0]

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Score of clean or denoised codes, `(B,)`; `sigma` is ignored."""
        return self.members(x, code).mean(dim=0)
