"""Masked diffusion draws from the law that guidance aims at: Pearson's chi-square over the cells of NAS-Bench-201.

f are surrogate accuracies in standard deviations. Cells expected less than 20 times share bins with cells of about the same
f, so a law that is shifted in f, or wrong for likely cells, shows. A false alarm has probability 1e-5 a test.
"""

import numpy as np
import pytest
from scipy.stats import chi2

from nagkit.benchmarks.table import open_benchmark
from nagkit.diffusion import masked
from nagkit.diffusion.tilted import tilted_law
from nagkit.rng import torch_stream
from nagkit.spaces.base import get_space

SPACE = get_space("nb201")
FALSE_ALARM = 1e-5
EXPECTED = 20


@pytest.fixture(scope="module")
def f() -> np.ndarray:
    values = open_benchmark("nb201", "surrogate").query(SPACE.all(), "imagenet16-120", split="validation12")
    return (values - values.mean()) / values.std()


def p_value(archs: np.ndarray, law: np.ndarray, by: np.ndarray) -> float:
    """Of draws against `law`, in bins of neighbours in the order of `by`."""
    order = np.argsort(-by, kind="stable")
    expected, count = len(archs) * law[order], np.bincount(SPACE.code(archs), minlength=SPACE.size)[order]
    starts, total = [0], 0.0
    for cell, more in enumerate(expected):
        if total >= EXPECTED:
            starts.append(cell)
            total = 0.0
        total += more
    if total < EXPECTED and len(starts) > 1:
        starts.pop()
    observed, expected = np.add.reduceat(count, starts), np.add.reduceat(expected, starts)
    assert len(starts) > 1
    return chi2.sf(((observed - expected) ** 2 / expected).sum(), len(starts) - 1)


def draws(table, n=40_000, **how) -> np.ndarray:
    return masked.sample(table, n, generator=torch_stream(0, "test/masked"), **how)


@pytest.mark.parametrize("order", masked.ORDERS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 100.0])
def test_one_at_a_time_draws_from_the_tilted_law(f, scale, order):
    archs = draws(masked.partial_values(SPACE, f, scale), order=order)
    assert p_value(archs, tilted_law(SPACE, f, scale).law, f) > FALSE_ALARM


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_two_at_a_time_is_caught(f, scale):
    archs = draws(masked.partial_values(SPACE, f, scale), reveal=[2, 2, 2])
    assert p_value(archs, tilted_law(SPACE, f, scale).law, f) < 1e-9


@pytest.mark.parametrize("scale", [4.0, 10.0, 100.0])
def test_first_order_guidance_is_caught(f, scale):
    archs = draws(masked.partial_values(SPACE, f, scale, first_order=True))
    assert p_value(archs, tilted_law(SPACE, f, scale).law, f) < 1e-9


@pytest.mark.parametrize(("reveal", "order"), [([3, 3], "random"), ([2, 2, 2], "random"), ([1, 3, 2], "informed")])
def test_the_computed_law_is_the_law_that_is_drawn(f, reveal, order):
    table = masked.partial_values(SPACE, f, 4.0)
    law = masked.propagate(table, reveal, order=order).flatten().numpy()
    assert p_value(draws(table, reveal=reveal, order=order), law, f) > FALSE_ALARM
    assert p_value(draws(table), law, f) < 1e-9
