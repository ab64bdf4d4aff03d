"""A search space of one's own: the size space of NATS-Bench, 32,768 networks.

Each of five layers has one of eight numbers of channels: `8:16:24:32:64`.
"""

import numpy as np

from nagkit.diffusion import exact, samplers
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream
from nagkit.spaces import base

CHANNELS = [str(n) for n in range(8, 65, 8)]


class Space:
    """`nagkit.spaces.base.SearchSpace`, which has the types; rows index `CHANNELS`."""

    name, title, laws = "size", "NATS-Bench, sizes", ("uniform",)
    n_slots, n_nodes, n_ops, size = 5, 5, 8, 8**5
    adjacency = np.eye(5, k=1, dtype=bool)  # a chain
    allowed = np.ones((5, 8), bool)
    all, code, is_valid = base.every, base.code, base.is_valid
    encode, decode, decode_argmax = base.encode, base.decode, base.decode_argmax
    random, mutate, neighbours = base.random, base.mutate, base.neighbours
    prior, features, draw = base.prior, base.features, base.draw
    null_rankings = {"widest": lambda archs, rng: base.ranked(archs, archs.sum(axis=1), rng=rng)}

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
