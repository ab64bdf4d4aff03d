"""The transfer protocol of the paper's Tables 1 and 2: train a ranked list from the top and count.

"Training" is a look-up in a benchmark. The paper's code selects no top-k, so its "trained architectures" can only be
the rank at which a method's best value is first met; here the whole curve is kept. As in the paper, the incumbent is
the best *test* accuracy so far, for every method alike.
"""

from collections.abc import Sequence

import numpy as np

from nagkit.errors import NagkitError

COUNTS = (1, 3, 5, 10, 20)
"""Numbers of trained architectures at which methods are compared."""


def incumbent(values: np.ndarray) -> np.ndarray:
    """Best value so far, same shape, failed ones (NaN) passed over; the last axis counts trained architectures."""
    return np.fmax.accumulate(values, axis=-1)


def after(values: np.ndarray, counts: Sequence[int] = COUNTS) -> np.ndarray:
    """Best value after each of `counts` trained architectures, float64 `(..., len(counts))`.

    A list that ends before a count keeps its last incumbent, because there is nothing left to train.
    """
    values = np.asarray(values, np.float64)
    if values.shape[-1] == 0 or min(counts) < 1:
        raise NagkitError(f"need a trained architecture and counts of at least 1, got {values.shape[-1]} and {tuple(counts)}")
    return incumbent(values)[..., np.minimum(counts, values.shape[-1]) - 1]


def trained_until(values: np.ndarray, target: float) -> np.ndarray:
    """Number of architectures trained when `target` is first reached, float64 `(...,)`; inf where it never is.

    Values within half a thousandth of the target reach it: benchmarks print three decimals.
    """
    reached = np.asarray(values) >= target - 5e-4
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1.0, np.inf)
