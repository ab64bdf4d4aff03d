"""The ranking predictor sees what a cell computes, not how it is written down."""

import numpy as np
import pytest
import torch

from nagkit.data import io
from nagkit.errors import NagkitError
from nagkit.predictors import ranking
from nagkit.spaces import nb201

SPACE = nb201.Space()


def fresh(seed=0):
    return ranking.CellPropagation(members=2).initialise(torch.Generator().manual_seed(seed))


def test_isomorphic_cells_score_alike():
    archs, classes = SPACE.all(), nb201.isomorphism_classes()
    with torch.inference_mode():
        scores = fresh()(SPACE.encode(archs)).numpy()
    first = scores[np.unique(classes, return_index=True)[1]]
    np.testing.assert_allclose(scores, first[classes], atol=1e-4)


def test_dead_edges_do_not_count():
    cells = np.array([[3, 0, 2, 1, 3, 0], [3, 0, 4, 1, 3, 0]], np.int8)
    assert not nb201.live_edges(cells)[:, 2].any()
    first, second = fresh().rank(cells)
    assert first == pytest.approx(second)


def test_committed_predictor_is_standardised_and_knows_the_worst_cells():
    model = ranking.load()
    scores = model.rank(SPACE.all())
    assert scores.mean() == pytest.approx(0, abs=1e-3)
    assert scores.std() == pytest.approx(1, abs=1e-3)
    live = nb201.live_edges(SPACE.all()).any(axis=1)
    assert scores[~live].max() < np.quantile(scores[live], 0.1)


def test_scores_are_differentiable_in_relaxed_cells():
    x = SPACE.encode(SPACE.random(4, np.random.default_rng(0))).requires_grad_()
    gradient = torch.autograd.grad(ranking.load()(x).sum(), x)[0]
    assert torch.isfinite(gradient).all()
    assert gradient[:, 1:7].abs().sum() > 0


def test_saving_and_loading_keeps_every_score(tmp_path):
    model = fresh()
    ranking.save(model, tmp_path / "r.safetensors")
    cells = SPACE.random(50, np.random.default_rng(1))
    np.testing.assert_array_equal(ranking.load(tmp_path / "r.safetensors").rank(cells), model.rank(cells))


def test_a_file_that_is_no_ranking_checkpoint_is_refused(tmp_path):
    io.write_arrays(tmp_path / "other.safetensors", {"a": np.zeros(2)}, {"model": "something else"})
    with pytest.raises(NagkitError, match="no checkpoint of the ranking predictor"):
        ranking.load(tmp_path / "other.safetensors")
    with pytest.raises(NagkitError, match="missing.safetensors"):
        ranking.load(tmp_path / "missing.safetensors")
