"""A search space of one's own: the size space of NATS-Bench, 32,768 networks.

Each of five layers has one of eight numbers of channels: `8:16:24:32:64`.
"""

import numpy as np
import torch

from nagkit.diffusion import exact, samplers
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream

CHANNELS = [str(n) for n in range(8, 65, 8)]


class Space:
    """`nagkit.spaces.base.SearchSpace`, which has the types; rows index `CHANNELS`."""

    name, laws, stages = "size", ("uniform",), None
    n_slots, n_nodes, n_ops, size = 5, 5, 8, 8**5
    adjacency = np.eye(5, k=1, dtype=bool)  # a chain
    allowed = np.ones((5, 8), bool)

    def random(self, n, rng):
        return rng.integers(0, 8, (n, 5), dtype=np.int8)

    def mutate(self, archs, rng):
        slots = rng.integers(0, 5, (len(archs), 1)) == np.arange(5)
        return ((archs + slots * rng.integers(1, 8, (len(archs), 1))) % 8).astype(np.int8)

    def is_valid(self, archs):
        return ((archs >= 0) & (archs < 8)).all(axis=1)

    def encode(self, archs):
        return torch.from_numpy(archs[:, :, None] == np.arange(8)).float() * 2 - 1

    def decode(self, x):
        count, finite = (x > 0).sum(dim=2).numpy(), torch.isfinite(x).all(dim=(1, 2))
        failed = [~finite.numpy(), (count == 0).any(axis=1), (count > 1).any(axis=1)]
        errors = np.select(failed, ["not finite", "no operation", "several operations"], "")
        return np.where(errors[:, None] == "", self.decode_argmax(x), np.int8(-1)), errors

    def decode_argmax(self, x):
        return x.argmax(dim=2).numpy().astype(np.int8)

    def to_string(self, archs):
        return [":".join(CHANNELS[i] for i in arch) for arch in archs]

    def from_string(self, strings):
        rows = [string.split(":") for string in strings]
        if not all(len(row) == 5 and set(row) <= set(CHANNELS) for row in rows):
            raise NagkitError("networks are five multiples of 8 up to 64: 8:16:24:32:64")
        return np.array([[CHANNELS.index(n) for n in row] for row in rows], np.int8)


if __name__ == "__main__":
    space, generator = Space(), torch_stream(0, "sample")
    archs, errors = samplers.generate(space, exact.exact_prior(space), 100, generator=generator)
    print((errors == "").sum(), "of 100 draws are valid:", *space.to_string(archs[:3]))
