"""Distances between draws and the laws that they should follow."""

import numpy as np
import pytest
import torch

from nagkit.diffusion.tilted import tilted_law
from nagkit.rng import numpy_stream
from nagkit.spaces.base import get_space
from nagkit.study import exact_guidance, samplers

SPACE = get_space("nb201")
UNIFORM = np.full(SPACE.size, 1 / SPACE.size)
POINT = np.eye(1, SPACE.size)[0]
ONE = np.zeros(4, int)


def test_distances_of_a_point_from_itself_and_from_the_uniform_law():
    assert exact_guidance.total_variation(ONE, 4, POINT) == pytest.approx(0)
    assert exact_guidance.divergence(ONE, 4, POINT) == pytest.approx(0)
    assert exact_guidance.total_variation(ONE, 4, UNIFORM) == pytest.approx(1 - 1 / SPACE.size)
    assert exact_guidance.divergence(ONE, 4, UNIFORM) == pytest.approx(np.log(SPACE.size))


def test_invalid_draws_are_mass_outside_the_law():
    assert exact_guidance.total_variation(ONE, 8, POINT) == pytest.approx(0.5)


def test_the_divergence_of_exact_draws_shrinks_to_nothing():
    """A law over 50 cells and 50,000 draws: the corrected estimate has a standard error below 10⁻³."""
    values = np.where(np.arange(SPACE.size) < 50, np.arange(SPACE.size) / 50, -np.inf)
    law = tilted_law(SPACE, values, 1.0)
    codes = SPACE.code(SPACE.all()[law.draw(50_000, numpy_stream(0, "test"))])
    assert abs(exact_guidance.divergence(codes, 50_000, law.law)) < 5e-3


def test_total_variation_over_slots_counts_invalid_draws_as_mass_off_the_law():
    law = np.c_[np.zeros(6), np.full((6, 5), 0.2)]  # no slot is ever absent
    balanced, fine = np.repeat(np.arange(5)[:, None], 6, axis=1), np.full(5, "", object)
    assert samplers.total_variation(balanced, fine, law) == pytest.approx(0)
    assert samplers.total_variation(balanced, np.full(5, "no operation", object), law) == pytest.approx(1)
    assert samplers.total_variation(np.zeros((5, 6), int), fine, law) == pytest.approx(0.8)


def test_the_law_to_be_drawn_is_that_of_the_denoiser():
    space, denoiser, law = samplers.target("skewed", "nb201", "dirichlet")
    archs, errors = space.decode(denoiser.sample(200_000, torch.Generator().manual_seed(0)))
    assert samplers.total_variation(archs, errors, law) < 3e-3
