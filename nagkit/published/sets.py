"""The published set encoder: images of a class to its prototype, prototypes to the code of a data set (Lee et al., 2019)."""

import torch
from torch import nn
from torch.nn import functional

from nagkit.errors import unknown

SCALES = ("set", "head")


def add_set_encoders(model: nn.Module, n_features: int, width: int, scale: str = "set") -> None:
    """Give `model` the two encoders under their published names: over images of a class, and over prototypes."""
    model.intra_setpool, model.inter_setpool = SetPool(n_features, width, scale), SetPool(width, width, scale)


def prototypes(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Prototypes `(..., classes, width)` of classes given by features of their images `(..., classes, images, n_features)`."""
    return model.intra_setpool(features.flatten(0, -3)).unflatten(0, features.shape[:-2])


def set_code(model: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Codes `(B, width)` of data sets from the features of their images `(B, classes, images, n_features)`."""
    return model.inter_setpool(prototypes(model, features))


class SetPool(nn.Module):
    """A set `(B, members, n_features)` to one vector `(B, width)`: two self-attention blocks, a learned query, a linear map.

    `scale` divides attention logits by the square root of the whole width ("set", published) or of one head's ("head").
    """

    def __init__(self, n_features: int, width: int, scale: str = "set"):
        super().__init__()
        if scale not in SCALES:
            raise unknown("scale of attention logits", scale, SCALES)
        self.enc = nn.Sequential(_Block(n_features, width, scale), _Block(width, width, scale))
        self.dec = nn.Sequential(_Block(width, width, scale, query=True), nn.Linear(width, width))

    def forward(self, members: torch.Tensor) -> torch.Tensor:
        return self.dec(self.enc(members))[:, 0]


class _Block(nn.Module):
    """Attention of a set to itself, or of a learned query to it."""

    def __init__(self, n_inputs: int, width: int, scale: str, *, query: bool = False):
        super().__init__()
        self.mab = _Attention(n_inputs, width, scale)
        if query:
            self.S = nn.Parameter(torch.empty(1, 1, width))
            nn.init.xavier_uniform_(self.S)

    def forward(self, members: torch.Tensor) -> torch.Tensor:
        return self.mab(self.S.expand(len(members), -1, -1) if hasattr(self, "S") else members, members)


class _Attention(nn.Module):
    """Multi-head attention with separate maps for query, key and value, and without layer norm."""

    def __init__(self, n_inputs: int, width: int, scale: str, heads: int = 4):
        super().__init__()
        self.fc_q, self.fc_k, self.fc_v = (nn.Linear(n_inputs, width) for _ in range(3))
        self.fc_o = nn.Linear(width, width)
        self.heads, self.scale = heads, (width if scale == "set" else width // heads) ** -0.5

    def forward(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(part).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, members, width / heads)
            for layer, part in ((self.fc_q, target), (self.fc_k, source), (self.fc_v, source))
        )
        weights = torch.softmax(query @ key.transpose(2, 3) * self.scale, dim=3)
        hidden = (query + weights @ value).transpose(1, 2).flatten(2)
        return hidden + functional.relu(self.fc_o(hidden))
