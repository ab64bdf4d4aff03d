"""How far masked diffusion ends from the law it aims at, computed, by strength and steps, for `notebooks/masked_guidance`."""

import numpy as np

from nagkit.diffusion import masked
from nagkit.spaces.base import get_space
from nagkit.study import exact_guidance

GUIDES = {"exact": (False, "random"), "informed": (False, "informed"), "first-order": (True, "random")}
"""Ways of guiding: whether to first order only, and the order of the slots."""


def errors(space: str, dataset: str, training_seed: int, scale: float, steps: int) -> dict[str, np.ndarray]:
    """A job: "GUIDE total variation", "GUIDE divergence" (nats) and "GUIDE mean of f" (standard deviations) of the law drawn.

    f is the ranking predictor's score of clean architectures, mean 0 and standard deviation 1 over the space. One number each.
    """
    home, (f, _) = get_space(space), exact_guidance.values(space, dataset, "ranking", training_seed)
    aim, places = masked.partial_values(home, f, scale), tuple(home.all().T.astype(np.int64))
    found = {}
    for name, (first_order, order) in GUIDES.items():
        table = masked.partial_values(home, f, scale, first_order=True) if first_order else aim
        law = masked.propagate(table, masked.schedule(home.n_slots, steps), order=order)
        measured = masked.error(aim, law) | {"mean of f": law.numpy()[places] @ f}
        # what sums in float64 round off is no error of the law
        found |= {f"{name} {metric}": np.array([round(float(value), 9)]) for metric, value in measured.items()}
    return found
