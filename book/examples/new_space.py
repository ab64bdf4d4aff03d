"""A search space of one's own: the size space of NATS-Bench, five layers with one of eight numbers of channels each."""

import numpy as np
import torch

from nagkit.diffusion import exact, samplers
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream

CHANNELS = np.arange(8, 65, 8)


class Space:
    """`nagkit.spaces.base.SearchSpace`: 32,768 networks, written `8:16:24:32:64`; a row holds indices into `CHANNELS`."""

    name, laws, stages = "size", ("uniform",), None
    n_slots, n_nodes, n_ops, size = 5, 5, 8, 8**5
    adjacency = np.eye(5, k=1, dtype=bool)  # a chain
    allowed = np.ones((5, 8), bool)

    def random(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 8, (n, 5), dtype=np.int8)

    def mutate(self, archs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        archs, rows, slots = np.array(archs, np.int8), np.arange(len(archs)), rng.integers(0, 5, len(archs))
        archs[rows, slots] = (archs[rows, slots] + rng.integers(1, 8, len(archs))) % 8
        return archs

    def is_valid(self, archs: np.ndarray) -> np.ndarray:
        return ((archs >= 0) & (archs < 8)).all(axis=1)

    def encode(self, archs: np.ndarray) -> torch.Tensor:
        return 2 * torch.nn.functional.one_hot(torch.as_tensor(archs, dtype=torch.int64), 8).float() - 1

    def decode(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        count, finite = (x > 0).sum(dim=2).numpy(), torch.isfinite(x).all(dim=(1, 2)).numpy()
        failures = [~finite, (count == 0).any(axis=1), (count > 1).any(axis=1)]
        errors = np.select(failures, ["not finite", "no operation", "several operations"], default="")
        return np.where(errors[:, None] == "", self.decode_argmax(x), -1).astype(np.int8), errors

    def decode_argmax(self, x: torch.Tensor) -> np.ndarray:
        return x.argmax(dim=2).numpy().astype(np.int8)

    def to_string(self, archs: np.ndarray) -> list[str]:
        return [":".join(map(str, channels)) for channels in CHANNELS[archs]]

    def from_string(self, strings: list[str]) -> np.ndarray:
        index = {str(channels): i for i, channels in enumerate(CHANNELS)}
        try:
            return np.array([[index[part] for part in string.split(":")] for string in strings], np.int8).reshape(-1, 5)
        except (KeyError, ValueError):
            raise NagkitError("a network of the size space is five multiples of 8 up to 64, such as 8:16:24:32:64") from None


if __name__ == "__main__":
    space = Space()
    archs, errors = samplers.generate(space, exact.exact_prior(space), 100, generator=torch_stream(0, "sample"))
    print(f"{(errors == '').sum()} of 100 draws are valid, the first is {space.to_string(archs[:1])[0]}")
