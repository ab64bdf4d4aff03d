"""Surrogates: what a model-based search has learnt from the architectures evaluated so far.

Each has `fit(archs, scores)` and `posterior(archs) -> (mean, sd)`, float64 `(B,)`; those that can guide a generator also have
`value(x)`, the posterior mean of codes `(B, n_nodes, n_ops)` between architectures, differentiable. Scores are normal scores of
the observed values. Networks are trained from scratch at every fit, all members of an ensemble at once.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nagkit.diffusion.score import attention_mask
from nagkit.errors import NagkitError
from nagkit.predictors.process import Kernel, Process
from nagkit.search import encoding
from nagkit.spaces.base import SearchSpace

NOISES = (0.01, 0.03, 0.1, 0.3, 1.0)
LINEAR = ((0.0, 1.0),)
"""Kernels of a Bayesian linear regression."""
MATERN = tuple((scale, linear) for scale in (0.5, 1.0, 2.0) for linear in (0.3, 3.0))

Posterior = tuple[np.ndarray, np.ndarray]


class ProcessSurrogate:
    """A Gaussian process on the structural features; with `LINEAR` kernels a ridge regression with its posterior."""

    def __init__(self, space: SearchSpace, *, kernels: Sequence[Kernel] = MATERN):
        self._space, self._process = space, Process(kernels, NOISES)

    def fit(self, archs: np.ndarray, scores: np.ndarray) -> None:
        self._process.fit(encoding.encode(self._space, archs), torch.from_numpy(scores))

    def posterior(self, archs: np.ndarray) -> Posterior:
        return tuple(part.numpy() for part in self._process.posterior(encoding.encode(self._space, archs)))

    def value(self, x: Tensor) -> Tensor:
        return self._process(encoding.features(self._space, x))


class BotorchProcess:
    """BoTorch's single-task Gaussian process on the code, in the unit cube, fitted by maximum marginal likelihood."""

    def __init__(self, space: SearchSpace):
        try:
            import botorch
        except ImportError:
            raise NagkitError("the method gp needs BoTorch: pip install 'nagkit[bo]'") from None
        self._botorch, self._space = botorch, space

    def fit(self, archs: np.ndarray, scores: np.ndarray) -> None:
        from gpytorch.mlls import ExactMarginalLogLikelihood

        with warnings.catch_warnings():  # normal scores with ties are a little narrower than the unit variance it asks for
            warnings.simplefilter("ignore", self._botorch.exceptions.warnings.InputDataWarning)
            self._model = self._botorch.models.SingleTaskGP(
                self._cube(archs), torch.from_numpy(scores)[:, None], outcome_transform=None
            )
        self._botorch.fit.fit_gpytorch_mll(ExactMarginalLogLikelihood(self._model.likelihood, self._model))

    @torch.no_grad()
    def posterior(self, archs: np.ndarray) -> Posterior:
        found = self._model.posterior(self._cube(archs))
        return found.mean[:, 0].numpy(), found.variance[:, 0].sqrt().numpy()

    def _cube(self, archs: np.ndarray) -> Tensor:
        return (self._space.encode(archs).double().flatten(1) + 1) / 2


# Networks ---------------------------------------------------------------------------------------------------------------------


class Perceptrons(nn.Module):
    """`members` independent multilayer perceptrons in one batch: inputs `(B, F)` → `(members, B)`."""

    def __init__(self, n_features: int, generator: torch.Generator, *, members: int, width: int, depth: int):
        super().__init__()
        sizes = [n_features] + [width] * depth + [1]
        self.weights = nn.ParameterList(
            torch.randn(members, a, b, generator=generator) * (2 / a) ** 0.5 for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, b) for b in sizes[1:])

    def hidden(self, x: Tensor) -> Tensor:
        """Last hidden layer, `(members, B, width)`."""
        h = x.expand(len(self.weights[0]), *x.shape[-2:])
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.relu(torch.baddbmm(bias, h, weight))
        return h

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.biases[-1], self.hidden(x), self.weights[-1])[..., 0]


class GraphNetwork(nn.Module):
    """A graph convolutional network (Kipf & Welling, 2017) that reads nodes, their places and the graph.

    Inputs are node features `(B, nodes, ops)`; each layer mixes along the edges, against them and in place; the mean over nodes
    goes to a hidden layer. Output `(1, B)`, as an ensemble of one.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator, *, width: int, depth: int):
        super().__init__()
        edges = attention_mask(space.adjacency, "adjacency").float()
        self.register_buffer("edges", edges / edges.sum(dim=1, keepdim=True).clamp_min(1))
        self.register_buffer("back", edges.T / edges.sum(dim=0)[:, None].clamp_min(1))
        sizes = [space.n_nodes + space.n_ops] + [width] * depth
        self.maps = nn.ParameterList(
            torch.randn(3 * a, b, generator=generator) * (2 / (3 * a)) ** 0.5 for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.head = Perceptrons(width, generator, members=1, width=width, depth=1)

    def hidden(self, x: Tensor) -> Tensor:
        """Last hidden layer, `(1, B, width)`."""
        return self.head.hidden(self._pooled(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._pooled(x))

    def _pooled(self, x: Tensor) -> Tensor:
        h = torch.cat([x, torch.eye(x.shape[1]).expand(len(x), -1, -1)], dim=2)  # (B, nodes, features)
        for weight in self.maps:
            h = torch.relu(torch.cat([h, self.edges @ h, self.back @ h], dim=2) @ weight)
        return h.mean(dim=1)


class NetworkSurrogate:
    """An ensemble of networks, or the last layer of one under Bayesian linear regression.

    `encode(archs)` makes the inputs and `build(inputs)` the networks, which full-batch AdamW with a cosine schedule fits.
    With `bayesian_head` the mean and deviation are those of a linear regression on the hidden layer (DNGO: Snoek et al., 2015);
    else those over the members.
    """

    def __init__(self, encode: Callable, build: Callable, *, bayesian_head: bool, steps: int):
        self._encode, self._build, self._steps = encode, build, steps
        self._head = Process(LINEAR, NOISES) if bayesian_head else None

    def fit(self, archs: np.ndarray, scores: np.ndarray) -> None:
        x, y = self._encode(archs).float(), torch.from_numpy(scores)
        self._network = network = self._build(x)
        optimiser = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self._steps)
        for _ in range(self._steps):
            loss = (network(x) - y.float()).square().mean(dim=1).sum()  # every member is fitted to all scores
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if self._head is not None:
            self._head.fit(self._basis(x), y)

    @torch.no_grad()
    def posterior(self, archs: np.ndarray) -> Posterior:
        x = self._encode(archs).float()
        if self._head is not None:
            return tuple(part.numpy() for part in self._head.posterior(self._basis(x)))
        return _across(self._network(x))

    @torch.no_grad()
    def _basis(self, x: Tensor) -> Tensor:
        hidden = self._network.hidden(x)[0].double()
        return hidden / hidden.shape[1] ** 0.5


class HamiltonianSurrogate:
    """BOHAMIANN (Springenberg et al., 2016): networks sampled by stochastic-gradient Hamiltonian Monte Carlo.

    Several chains run side by side; after the burn-in every `keep`-th state of each joins the ensemble. The step is adapted
    to the gradients' running second moment during the burn-in, as in the original; the noise of the observations is fixed.
    """

    def __init__(
        self, encode: Callable, build: Callable, generator: torch.Generator, *,
        burn_in: int = 200, steps: int = 200, keep: int = 40, rate: float = 1e-2, friction: float = 0.05, noise: float = 0.1,
    ):  # fmt: skip
        self._encode, self._build, self._generator = encode, build, generator
        self._burn_in, self._steps, self._keep = burn_in, steps, keep
        self._rate, self._friction, self._noise = rate, friction, noise

    def fit(self, archs: np.ndarray, scores: np.ndarray) -> None:
        x, y = self._encode(archs).float(), torch.from_numpy(scores).float()
        network = self._build(x)
        weights = list(network.parameters())
        momentum, second = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
        self._samples, self._network = [], network
        for step in range(self._burn_in + self._steps):
            misfit = (network(x) - y).square().sum() / (2 * self._noise**2)
            energy = misfit + sum(weight.square().sum() for weight in weights) / 2  # Gaussian prior on the weights
            gradients = torch.autograd.grad(energy, weights)
            with torch.no_grad():
                for weight, gradient, v, moment in zip(weights, gradients, momentum, second, strict=True):
                    if step < self._burn_in:
                        moment.lerp_(gradient.square(), 1 / (1 + min(step, 100)))
                    scale = self._rate / moment.sqrt().add(1e-6).sqrt()  # preconditioned step, constant after the burn-in
                    kick = torch.randn(weight.shape, generator=self._generator) * (2 * self._friction) ** 0.5
                    v.mul_(1 - self._friction).sub_(scale * gradient).add_(kick)
                    weight.add_(scale * v)
                if step >= self._burn_in and (step - self._burn_in) % self._keep == self._keep - 1:
                    self._samples.append([weight.clone() for weight in weights])

    @torch.no_grad()
    def posterior(self, archs: np.ndarray) -> Posterior:
        x, found = self._encode(archs).float(), []
        for sample in self._samples:
            for weight, value in zip(self._network.parameters(), sample, strict=True):
                weight.copy_(value)
            found.append(self._network(x))
        return _across(torch.cat(found))


def _across(found: Tensor) -> Posterior:
    """Mean and deviation over members `(members, B)`; a single one is certain."""
    found = found.double()
    return found.mean(dim=0).numpy(), found.std(dim=0, correction=0).clamp_min(1e-3).numpy()
