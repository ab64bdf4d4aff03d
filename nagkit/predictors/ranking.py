"""A ranking predictor of clean NAS-Bench-201 cells that runs the cell itself on a handful of channels.

A non-negative feature vector enters the cell; every edge applies the map learned for its operation (`none` is zero, `skip`
the identity) weighted by the operation's probability, feature maps add up, and a small head reads the output. So isomorphic
cells score alike, a dead edge counts for nothing, and the score is differentiable in relaxed cells, as guidance needs.
It is trained on the paper's own 4,630 (task, architecture, accuracy) triplets, whose tasks are 20-class subsets of ImageNet-32.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import io
from nagkit.data.upstream import Triplets
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream
from nagkit.spaces import nb201

CHECKPOINT = "checkpoints/ranking_nb201.safetensors"
_MARGIN = 1.0  # standard deviations of accuracy between a cell with convolutions, one without, and a disconnected one


class CellPropagation(nn.Module):
    """An ensemble of `members` propagation networks with `width` channels; its value is their mean."""

    def __init__(self, members: int = 5, width: int = 8, hidden: int = 32):
        super().__init__()
        self.source = nn.Parameter(torch.ones(members, 1, width))
        self.maps = nn.Parameter(torch.zeros(members, 3, width, width))
        self.head_in = nn.Parameter(torch.zeros(members, width, hidden))
        self.head_bias = nn.Parameter(torch.zeros(members, 1, hidden))
        self.head_out = nn.Parameter(torch.zeros(members, hidden, 1))
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def initialise(self, generator: torch.Generator) -> "CellPropagation":
        """Draw fresh weights."""
        width, hidden = self.head_in.shape[1:]
        with torch.no_grad():
            self.source.copy_(1 + 0.5 * torch.randn(self.source.shape, generator=generator))
            for weight, fan_in in ((self.maps, width), (self.head_in, width), (self.head_out, hidden)):
                weight.copy_(fan_in**-0.5 * torch.randn(weight.shape, generator=generator))
        return self

    def members(self, x: torch.Tensor) -> torch.Tensor:
        """Raw predictions of every member for centred codes `(B, 8, 7)`: standardised accuracy, `(members, B)`."""
        probability = (x[:, 1:7, 2:] + 1) / 2  # (B, 6, 5)
        features = {0: self.source.abs().expand(-1, len(x), -1)}  # (members, B, width)
        applied = {}
        for target in (1, 2, 3):
            previous = features[target - 1]
            mapped = F.relu(torch.einsum("mbi,mkij->mbkj", previous, self.maps))
            applied[target - 1] = torch.cat([previous[:, :, None], mapped], dim=2)  # skip, 1×1, 3×3, pool; `none` adds zero
            features[target] = sum(
                torch.einsum("bk,mbkj->mbj", probability[:, slot, 1:], applied[source])
                for slot, (source, end) in enumerate(nb201.EDGES)
                if end == target
            )
        hidden = F.silu(torch.log1p(features[3].clamp_min(0)) @ self.head_in + self.head_bias)
        return (hidden @ self.head_out)[..., 0]

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor = 0.0) -> torch.Tensor:
        """Score of clean or denoised codes in standard deviations over the whole space, `(B,)`; `sigma` is ignored."""
        return (self.members(x).mean(dim=0) - self.centre) / self.spread

    def rank(self, archs: np.ndarray, batch_size: int = 4096) -> np.ndarray:
        """Scores of cells, float64 `(B,)`."""
        codes = nb201.Space().encode(archs)
        with torch.inference_mode():
            return torch.cat([self(part) for part in codes.split(batch_size)]).double().numpy()


def fit(
    triplets: Triplets, *, members: int = 5, steps: int = 1500, batch: int = 512, seed: int = 0, progress: bool = True
) -> CellPropagation:
    """Train on the paper's (task, architecture, accuracy) triplets.

    The accuracy of a cell on a task is modelled as the cell's score plus the mean effect of the task's classes, fitted
    together with a ridge penalty: task difficulty carries as much variance as the architecture. The triplets hold hardly any
    bad cell, so two orderings known without data are added as hinge losses: a disconnected cell is worse than
    one whose live edges hold no convolution, and that is worse than the cells that somebody chose to train.
    """
    generator = torch_stream(seed, "predictors/ranking")
    space = nb201.Space()
    cells = space.encode(triplets.archs)
    accuracy = torch.as_tensor(np.asarray(triplets.accuracy), dtype=torch.float32)
    target = (accuracy - accuracy.mean()) / accuracy.std()
    classes = np.zeros((len(cells), 1 + int(triplets.classes.max())), np.float32)
    classes[np.arange(len(cells))[:, None], triplets.classes[triplets.task]] = triplets.classes.shape[1] ** -0.5
    classes = torch.from_numpy(classes)

    every = space.all()
    live = nb201.live_edges(every)
    convolves = (np.isin(every, (nb201.CONV1, nb201.CONV3)) & live).any(axis=1)
    codes = space.encode(every)
    dead, idle = codes[~live.any(axis=1)], codes[live.any(axis=1) & ~convolves]

    model = CellPropagation(members).initialise(generator)
    effects = nn.Parameter(torch.zeros(classes.shape[1], members))
    optimizer = torch.optim.AdamW(
        [{"params": model.parameters(), "weight_decay": 0.01}, {"params": effects, "weight_decay": 0.0, "lr": 0.009}], lr=0.003
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def draw(pool: torch.Tensor, n: int) -> torch.Tensor:
        return torch.randint(len(pool), (n,), generator=generator)

    bar = tqdm(range(steps), desc="ranking predictor", disable=not progress, mininterval=1.0)
    for _ in bar:
        rows = draw(cells, batch)
        chosen = model.members(cells[rows])
        error = chosen + (classes[rows] @ effects).T - target[rows]
        worst, poor = model.members(dead[draw(dead, 64)]), model.members(idle[draw(idle, 64)])
        order = F.relu(worst - poor + _MARGIN).mean(dim=1) + F.relu(poor - chosen[:, :64] + _MARGIN).mean(dim=1)
        ridge = 1e-3 * batch / len(cells) * effects.square().sum(dim=0)
        loss = (error.square().mean(dim=1) + order + ridge).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()) / members:.3f}", refresh=False)
    with torch.inference_mode():
        scores = model.members(codes).mean(dim=0)
        model.centre, model.spread = scores.mean(), scores.std()
    return model.eval().requires_grad_(False)


def save(model: CellPropagation, path: Path | None = None) -> Path:
    """Write the checkpoint atomically (default: the committed one)."""
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    return io.write_arrays(path or paths.DATA / CHECKPOINT, tensors, {"model": "CellPropagation", "space": "nb201"})


def load(path: Path | None = None) -> CellPropagation:
    """The committed ranking predictor, or the one at `path`; `NagkitError` when the file is not such a checkpoint."""
    path = path or paths.DATA / CHECKPOINT
    arrays, metadata = io.read_arrays(path)
    if metadata.get("model") != "CellPropagation":
        raise NagkitError(f"{path} is no checkpoint of the ranking predictor; `nagkit fit ranking` makes one")
    members, width, hidden = arrays["head_in"].shape
    model = CellPropagation(members, width, hidden)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return model.eval().requires_grad_(False)
