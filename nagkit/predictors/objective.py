"""Predictors of one objective, fitted in seconds to measured (architecture, value) pairs.

Two models: "propagation", the network of the space's ranking predictor without a data set code, for what a trained network can
do; and "linear", one weight an operation and node, for costs that add up and that dead edges have too. Which one fits is
measured.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import nn

from nagkit.devices import get_device
from nagkit.errors import NagkitError, unknown
from nagkit.predictors.fit import fit as fit_network
from nagkit.predictors.fit import own_stream, recipes
from nagkit.predictors.ranking import get_ranker
from nagkit.predictors.task import TaskPredictor
from nagkit.rng import numpy_stream
from nagkit.spaces.base import DEFAULT, SearchSpace, get_space

MODELS = ("propagation", "linear")
FEWEST = 10
"""Pairs below which no predictor is fitted."""

_MEMBERS, _CODE = 5, 8
_RIDGE = 1.0


class LinearCost(nn.Module):
    """A weight for each entry of a code that is `free`, bool `(n_nodes, n_ops)`: `weights (n,)`."""

    def __init__(self, free: np.ndarray, weights: np.ndarray):
        super().__init__()
        self.register_buffer("free", torch.from_numpy(np.flatnonzero(free)))
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """`x (B, n_nodes, n_ops)` centred → `(B,)`; `sigma` and `code` are ignored."""
        return (x.flatten(1)[:, self.free] + 1) / 2 @ self.weights.to(x)


class Fitted(NamedTuple):
    """A predictor of an objective, and what is needed to speak in the objective's own unit."""

    predictor: TaskPredictor
    """Standard deviations over the space; larger where the objective is larger."""
    model: str
    agreement: float
    """Spearman correlation with the pairs that were held out to choose the model; nan when the model was given."""
    knots: tuple[np.ndarray, np.ndarray]
    """Increasing scores of the measured cells, in the unit of `predictor`, and their values."""

    def value(self, archs: np.ndarray) -> np.ndarray:
        """Predicted value of each architecture in the objective's own unit, float64 `(B,)`."""
        return self._line(self.predictor.rank(archs), *self.knots)

    def score(self, value: float) -> float:
        """The score of a cell whose predicted value is `value`."""
        return float(self._line(np.array([value], float), *self.knots[::-1])[0])

    def _line(self, x: np.ndarray, at: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Piecewise linear through the knots; a linear model also beyond them, the other one stays at the ends."""
        inside = np.interp(x, at, to)
        if self.model == "linear":
            slope = (to[-1] - to[0]) / (at[-1] - at[0])
            inside = inside + slope * (np.minimum(x - at[0], 0) + np.maximum(x - at[-1], 0))
        return inside


def fit(
    archs: np.ndarray, values: np.ndarray, *, space: str | SearchSpace = DEFAULT, model: str | None = None, seed: int = 0,
    device: str | None = "cpu",
) -> Fitted:  # fmt: skip
    """A predictor of one objective from measured pairs: architectures int8 `(n, n_slots)`, pairwise distinct, values `(n,)`.

    Without `model`, both are fitted to four fifths of the pairs, and the one whose ranking of the last fifth is nearer to
    the measured one is fitted to all. A few seconds on one core. Raises `NagkitError` for fewer than `FEWEST` pairs, a
    value that is not finite, values that are all equal, and an unknown model.
    """
    if model is not None and model not in MODELS:
        raise unknown("model of an objective", model, MODELS)
    check(archs, values)
    agreement = float("nan")
    if model is None:
        order = numpy_stream(seed, "objective/held-out").permutation(len(archs))
        kept, held = order[len(order) // 5 :], order[: len(order) // 5]
        parts = (_fit(name, archs[kept], values[kept, None], space, seed, device)[0] for name in MODELS)
        found = {fitted.model: fitted.predictor.rank(archs[held]) for fitted in parts}
        with np.errstate(invalid="ignore"):
            truth = _ranks(values[held])
            scores = {name: float(np.nan_to_num(np.corrcoef(_ranks(s), truth)[0, 1])) for name, s in found.items()}
        model = max(scores, key=scores.get)
        agreement = scores[model]
    return _fit(model, archs, values[:, None], space, seed, device)[0]._replace(agreement=agreement)


def fit_many(
    archs: np.ndarray, values: np.ndarray, *, space: str | SearchSpace = DEFAULT, model: str = "propagation", seed: int = 0,
    device: str | None = "cpu",
) -> list[Fitted]:  # fmt: skip
    """A predictor for each column of `values` `(n, k)`, all fitted at once, on the same architectures `(n, n_slots)`."""
    for column in values.T:
        check(archs, column)
    return _fit(model, archs, values, space, seed, device)


def check(archs: np.ndarray, values: np.ndarray) -> None:
    """`NagkitError` for pairs to which nothing can be fitted: too few, not finite, or constant."""
    if len(archs) != len(values) or len(archs) < FEWEST:
        raise NagkitError(f"an objective needs at least {FEWEST} measured cells, got {len(archs)}; measure more")
    if not np.isfinite(values).all():
        raise NagkitError(
            f"value {int(np.argmin(np.isfinite(values))) + 1} of an objective is not a finite number; leave it out"
        )
    if np.ptp(values) == 0:
        raise NagkitError(f"all {len(values)} values of an objective are {values[0]:g}; a constant gives no direction")


def _fit(model: str, archs: np.ndarray, values: np.ndarray, space: str | SearchSpace, seed: int, device) -> list[Fitted]:
    space = get_space(space)
    x = space.encode(archs)
    if model == "linear":
        targets = (values - values.mean(axis=0)) / values.std(axis=0)
        free = space.allowed & (space.allowed.sum(axis=1, keepdims=True) > 1)
        features = ((x.flatten(1)[:, free.ravel()] + 1) / 2).double().numpy()
        weights = np.linalg.solve(features.T @ features + _RIDGE * np.eye(features.shape[1]), features.T @ targets)
        models: Sequence[nn.Module] = [LinearCost(free, column) for column in weights.T]
    else:
        targets = ndtri((_ranks(values) - 0.5) / len(values))  # normal scores: a few useless cells do not rule the loss
        models = _networks(space, x, targets, seed, get_device(device))
    fitted = []
    for network, target, column in zip(models, targets.T, values.T, strict=True):
        predictor = TaskPredictor(network, torch.zeros(1, _CODE), space)
        knots = np.unique(np.stack([(target - predictor.centre) / predictor.spread, column], axis=1), axis=0).T
        fitted.append(Fitted(predictor, model, float("nan"), (knots[0], knots[1])))
    return fitted


def _networks(space: SearchSpace, x: torch.Tensor, targets: np.ndarray, seed: int, device: torch.device) -> list[nn.Module]:
    """Ensembles of the ranking predictor's kind, one for each column of `targets` `(n, k)`, trained side by side."""
    n_targets, code = targets.shape[1], torch.zeros(1, _CODE, device=device)
    target = torch.as_tensor(targets.T, dtype=torch.float32).repeat_interleave(_MEMBERS, dim=0).to(device)  # (members, n)
    with own_stream(seed, "objective", device):
        together = get_ranker(space, 1, members=_MEMBERS * n_targets, code=_CODE).to(device)
        trained = [value for name, value in together.named_parameters() if not name.startswith(("sets", "from_code"))]
        x = x.to(device)

        def loss(_: int) -> torch.Tensor:
            return (together.members(x, code) - target).square().mean(dim=1).sum()

        fit_network(together, recipes("predictor")["objective"], repeat, loss, groups=[{"params": trained}], progress=False)
        models = [get_ranker(space, 1, members=_MEMBERS, code=_CODE) for _ in range(n_targets)]
    for i, model in enumerate(models):
        own = {name: value[i * _MEMBERS : (i + 1) * _MEMBERS] for name, value in together.state_dict().items()}
        model.load_state_dict({name: value for name, value in own.items() if not name.startswith("sets")}, strict=False)
        model.eval().requires_grad_(False)
    return models


def _ranks(values: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata  # slow to import, and searches, which load this module, never need it

    return rankdata(values, axis=0)
