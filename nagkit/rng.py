"""Random streams: every role of every seed has its own, so adding one consumer never shifts another."""

from zlib import crc32

import numpy as np
import torch


def _sequence(seed: int, role: str) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, crc32(role.encode())])


def numpy_stream(seed: int, role: str) -> np.random.Generator:
    """NumPy generator for `role` (for example ``"search/random"``) under `seed`."""
    return np.random.default_rng(_sequence(seed, role))


def torch_stream(seed: int, role: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Torch generator for `role` under `seed`; another device has another stream."""
    return torch.Generator(device).manual_seed(int(_sequence(seed, role).generate_state(1, np.uint64)[0] >> np.uint64(1)))
