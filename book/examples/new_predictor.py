"""A predictor of one's own: a ridge regression guides, alone and with a written rule."""

import numpy as np
import torch

from nagkit import Pool, generate, open_benchmark
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201

SPACE = nb201.Space()


class Ridge:
    """`nagkit.guidance.Predictor`: a weight for each operation on each edge."""

    def __init__(self, archs: np.ndarray, values: np.ndarray, *, penalty: float = 1.0):
        x = SPACE.encode(archs).flatten(1).double()
        y = torch.as_tensor(values - values.mean()).double()
        gram = x.T @ x + penalty * torch.eye(x.shape[1])
        self.weights = torch.linalg.solve(gram, x.T @ y).float()
        everywhere = SPACE.encode(SPACE.all()).flatten(1) @ self.weights
        self.centre, self.spread = everywhere.mean(), everywhere.std()

    def __call__(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) @ self.weights - self.centre) / self.spread


def without_pooling(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """A rule: each edge that pools costs one."""
    return -x[:, 1:7, 2 + nb201.POOL].sum(dim=1) / 2


def fitted(n: int = 200, *, seed: int = 0) -> Ridge:
    """The regression on 12-epoch validation accuracies of `n` random cells."""
    archs, bench = SPACE.random(n, numpy_stream(seed, "example")), open_benchmark()
    return Ridge(archs, bench.query(archs, "imagenet16-120", split="validation12"))


def mean_accuracy(pool: Pool) -> float:
    """CIFAR-10 test accuracy of the valid draws, in percent."""
    return float(open_benchmark().query(pool.valid, "cifar10", split="test").mean())


if __name__ == "__main__":
    ridge = fitted()
    aims = {"ridge": ridge, "ridge, rule": lambda x, s: ridge(x, s) + without_pooling(x, s)}
    print(f"unguided     {mean_accuracy(generate('nb201', 1000)):.2f} %")
    for name, aim in aims.items():
        pool = generate("nb201", 1000, guide=aim, scale=3.0)
        print(f"{name:<12} {mean_accuracy(pool):.2f} %")
