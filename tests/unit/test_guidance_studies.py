"""Distances, top fives and shares behind the exhibits on guidance."""

import numpy as np
import pytest

from nagkit.diffusion.tilted import tilted_law
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201
from nagkit.studies import exact_guidance, hardware, robustness, strength

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


def test_the_top_five_are_distinct_valid_cells_in_the_order_of_the_scores():
    scores = np.arange(SPACE.size, dtype=float)
    pool = np.concatenate([SPACE.all()[[9, 9, 8, 7, 6, 5, 4]], INVALID])
    assert strength.top_five(pool, 10 * scores, scores).tolist() == [90, 80, 70, 60, 50]
    assert len(strength.top_five(INVALID, scores, scores)) == 0


def test_a_published_strength_is_turned_into_deviations_of_the_predictor():
    unit = exact_guidance.values("noise-aware", 0, "cifar10")[1]
    assert strength.in_deviations(10_000, 0, "cifar10") == pytest.approx(100 * unit)


@pytest.mark.parametrize("name", strength.INPUTS)
def test_every_guide_returns_codes_of_its_input(name):
    x = SPACE.encode(SPACE.all()[::4000])
    assert strength.denoiser(name, "cifar10", 0, 3.0)(x, 1.0).shape == x.shape


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
