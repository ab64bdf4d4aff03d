"""A predictor of one's own: ridge regression on measured cells guides the generator, alone and with a written rule."""

import numpy as np
import torch

from nagkit import presets
from nagkit.benchmarks.table import open_benchmark
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201

SPACE = nb201.Space()


class Ridge:
    """`nagkit.guidance.Predictor`: one weight an operation and edge, in standard deviations over the space."""

    def __init__(self, archs: np.ndarray, values: np.ndarray, *, penalty: float = 1.0):
        features = SPACE.encode(archs).flatten(1).double()
        target = torch.as_tensor(values - values.mean()).double()
        gram = features.T @ features + penalty * torch.eye(features.shape[1])
        self.weights = torch.linalg.solve(gram, features.T @ target).float()
        over_space = SPACE.encode(SPACE.all()).flatten(1) @ self.weights
        self.centre, self.spread = over_space.mean(), over_space.std()

    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ self.weights - self.centre) / self.spread


def without_pooling(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """Any differentiable function will do: less weight on the pooling operation, so about one deviation an edge."""
    return -x[:, 1:7, 2 + nb201.POOL].sum(dim=1) / 2


def fitted(n: int = 200, *, seed: int = 0) -> Ridge:
    """The regression on the 12-epoch validation accuracies of `n` random cells."""
    archs = SPACE.random(n, numpy_stream(seed, "example"))
    return Ridge(archs, open_benchmark().query(archs, "imagenet16-120", split="validation12"))


def mean_accuracy(pool) -> float:
    valid = pool[pool.error == ""]
    return float(open_benchmark().query(SPACE.from_string(list(valid.arch)), "cifar10", split="test").mean())


if __name__ == "__main__":
    predictor = fitted()
    aims = {"unguided": None, "ridge": predictor, "ridge without pooling": lambda x, s: predictor(x, s) + without_pooling(x, s)}
    for name, aim in aims.items():
        pool = presets.sample("nb201", 1000, aim=aim, scale=None if aim is None else 3.0)
        print(f"{name:<22} mean accuracy {mean_accuracy(pool):.2f} %")
