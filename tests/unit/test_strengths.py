"""Guidance strengths are chosen on the development set that a space names."""

import copy

import numpy as np
import pytest

from nagkit import presets, sampling, strengths
from nagkit.errors import NagkitError
from nagkit.predictors import task


class Predictor:
    """Likes large networks."""

    def __call__(self, x, sigma):
        return (x.flatten(1).sum(dim=1) - 20) / 8

    def rank(self, archs):
        return (archs >= 0).sum(axis=1).astype(float)


@pytest.fixture
def written(monkeypatch):
    """What a sweep would write, with a predictor that needs no checkpoint."""
    kept: dict = {}
    monkeypatch.setattr(sampling, "load_predictor", lambda *_, **__: Predictor())
    monkeypatch.setattr(presets, "write", kept.update)
    return kept


@pytest.mark.parametrize(("worth", "chosen"), [(1, 10.0), (-1, 3.0)])
def test_the_strength_is_the_smallest_that_is_as_good_as_any_on_the_development_classes(monkeypatch, written, worth, chosen):
    """Two scales, and a bench that likes large or small networks."""

    class Bench:
        def query(self, archs, dataset, *, split):
            assert (dataset, split) == (task.HELD, "test")
            return worth * (archs >= 0).sum(axis=1).astype(float)

    monkeypatch.setattr(strengths, "open_benchmark", lambda space, oracle, dataset: Bench())
    sweep = strengths.choose("mbv3", scales=(3.0, 10.0), n=60, progress=False)
    assert list(sweep.columns) == strengths.SWEEP and len(sweep) == 2 * 3 * 3
    assert written["mbv3"]["scale"]["x0"]["exact"] == chosen
    assert written["nb201"] == presets.load()["nb201"]


def test_a_diverse_strength_is_the_best_that_keeps_most_distinct_cells(written):
    """Of 40 draws of 15,625 cells nearly all differ at the smallest scale, and few at one that ends at the best cell."""
    sweep = strengths.choose("nb201", scales=(0.1, 1000.0), n=40, progress=False)
    assert set(sweep["rule"]) == {"x0", "xt", "objective"}
    assert written["nb201"]["diverse"]["x0"] == {"exact": 0.1, "score": 0.1}
    assert set(written["nb201"]["scale"]["objective"]) == {"exact", "score"}


def test_among_equally_good_scales_the_smallest_is_chosen():
    pools = {1.0: np.array([60.0, 61, 62]), 3.0: np.array([70.0, 72, 74]), 10.0: np.array([71.0, 73, 74])}
    assert strengths.smallest_good(pools) == 3.0


def test_a_space_without_a_development_set_says_where_to_name_one(monkeypatch):
    settings = copy.deepcopy(presets.load())
    del settings["mbv3"]["development"]
    monkeypatch.setattr(presets, "load", lambda: settings)
    with pytest.raises(NagkitError, match="mbv3 names no development set; add a block development to data/presets.yaml"):
        strengths.choose("mbv3")
    with pytest.raises(NagkitError, match="no block for search space 'macro'"):
        strengths.choose("macro")
