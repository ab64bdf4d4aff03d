"""Distances, top fives and shares behind the exhibits on guidance."""

import numpy as np
import pytest

from nagkit.diffusion.tilted import tilted_law
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201
from nagkit.studies import exact_guidance, hardware, robustness

SPACE = nb201.Space()
UNIFORM = np.full(SPACE.size, 1 / SPACE.size)
POINT = np.eye(1, SPACE.size)[0]
INVALID = np.full((4, 6), -1, np.int8)


def test_distances_of_a_point_from_itself_and_from_the_uniform_law():
    pool = np.repeat(SPACE.all()[:1], 4, axis=0)
    assert exact_guidance.total_variation(pool, POINT) == pytest.approx(0)
    assert exact_guidance.divergence(pool, POINT) == pytest.approx(0)
    assert exact_guidance.total_variation(pool, UNIFORM) == pytest.approx(1 - 1 / SPACE.size)
    assert exact_guidance.divergence(pool, UNIFORM) == pytest.approx(np.log(SPACE.size))


def test_invalid_draws_are_mass_outside_the_law():
    half = np.concatenate([np.repeat(SPACE.all()[:1], 4, axis=0), INVALID])
    assert exact_guidance.total_variation(half, POINT) == pytest.approx(0.5)


def test_the_divergence_of_exact_draws_shrinks_to_nothing():
    """A law over 50 cells and 50,000 draws: the corrected estimate has a standard error below 10⁻³."""
    values = np.where(np.arange(SPACE.size) < 50, np.arange(SPACE.size) / 50, -np.inf)
    law = tilted_law(SPACE, values, 1.0)
    assert abs(exact_guidance.divergence(SPACE.all()[law.draw(50_000, numpy_stream(0, "test"))], law.law)) < 5e-3


def test_a_searchs_share_of_operations_adds_up_over_valid_draws():
    shares = robustness._shares(np.concatenate([SPACE.all()[:1], SPACE.all()[-1:], INVALID]))
    assert shares.tolist() == [50, 0, 0, 0, 50]


def test_searches_with_predictors_keep_to_their_budget_and_begin_alike(monkeypatch, tmp_path):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    limit = float(np.quantile(hardware.figures("latency_pixel3")[:, 1], hardware.LIMIT))
    found = [
        hardware.search("latency_pixel3", method, 0, 30, 1, 100.0, bound)["archs"]
        for method, bound in ((hardware.GUIDED, None), (hardware.RANKED, limit))
    ]
    for archs in found:
        assert archs.shape == (30, 6) and len(np.unique(SPACE.code(archs))) == 30
    np.testing.assert_array_equal(found[0][:15], found[1][:15])
