"""Table 4: what its rulers are, what becomes of draws, and that a network is trained once."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from nagkit.diffusion.exact import ExactDenoiser, exact_prior
from nagkit.diffusion.train import train_score
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import get_space, keys
from nagkit.study import figures, table4, trained_score
from nagkit.study.exhibit import Run

SPACE = get_space("mbv3")


def test_keys_are_equal_exactly_for_equal_rows():
    archs = numpy_stream(0, "test/keys").integers(-1, 2, (2000, 6))
    distinct = np.unique(archs, axis=0)
    assert len(np.unique(keys(archs))) == len(distinct)
    assert np.isin(keys(distinct), keys(archs)).all()
    assert not np.isin(keys(np.full((1, 6), 7)), keys(archs)).any()


@pytest.mark.parametrize(("row", "expected"), zip(table4.NULLS, (table4.PLATEAU / 100, (9 / 16 * 13 / 16) ** 5), strict=True))
def test_independent_slots_are_valid_as_often_as_the_formula_says(row, expected):
    """Binomial, false alarm 1e-5."""
    x = table4.independent(row, 5000, 0)
    low, high = binom.interval(1 - 1e-5, 5000, expected)
    assert low <= (SPACE.decode(x)[1] == "").sum() <= high
    assert pytest.approx(55.49, abs=0.01) == table4.PLATEAU


def test_the_mean_of_independent_slots_is_bayes():
    filled, sigma = table4.NULLS["independent-slots"], torch.tensor([0.7, 2.0])
    x = torch.randn((2, 20, 9), generator=torch_stream(0, "test"), dtype=torch.float64)
    mean = table4.independent_mean(x, sigma.double(), filled)
    codes = torch.cat([2 * torch.eye(9, dtype=torch.float64) - 1, -torch.ones(1, 9, dtype=torch.float64)])
    for b in range(2):
        for node in (2, 3):
            share = torch.tensor([filled[node] / 9] * 9 + [1 - filled[node]], dtype=torch.float64)
            p = (share.log() - (x[b, node] - codes).square().sum(dim=1) / (2 * sigma[b].double() ** 2)).softmax(dim=0)
            torch.testing.assert_close(mean[b, node], p @ codes)
    always = ExactDenoiser(np.ones((20, 9)))(x, sigma.double())
    torch.testing.assert_close(mean[:, [0, 1, 4]], always[:, [0, 1, 4]], atol=1e-3, rtol=0)


def test_the_less_a_denoiser_knows_the_larger_its_loss():
    losses = [table4.loss(SPACE, exact_prior(SPACE), 2000, 0)]
    for filled in table4.NULLS.values():
        losses.append(table4.loss(SPACE, lambda x, sigma, filled=filled: table4.independent_mean(x, sigma, filled), 2000, 0))
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] - losses[0] < 0.5 * (losses[2] - losses[1])  # the coupling is worth less than positions are


def test_a_job_counts_what_becomes_of_every_draw_and_a_seed_0_network_is_the_committed_one():
    size = {"n": 40, "steps": 3, "n_loss": 40}
    for kind, space in (("exact", "nb201"), ("positions", "nb201"), ("all-alike", "mbv3")):
        arrays = table4.judge(space, kind, {"nb201": 0.5, "mbv3": 1.0}, 0, **size)
        run = Run(kind, space, {}, arrays, np.empty(0), np.empty(0))
        assert sum(table4.fate(run).values()) == pytest.approx(100)
        assert table4.named("validity, arg-max")(run) == 100
        assert len(table4.slots(run)) == (5 if space == "mbv3" else 0)
        assert len(table4.curve(2)(run)) == (10 if kind == "positions" else 0)


def test_a_network_that_is_not_committed_is_trained_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    asked = []

    def short(space, *, network, share, seed, out, progress):
        asked.append(seed)
        return train_score(space, network=network, share=share, seed=seed, out=out, progress=progress, steps=2)

    monkeypatch.setattr(trained_score, "train_score", short)
    trained = [trained_score.score_network("nb201", "positions", 0.5, 7) for _ in range(2)]
    x, sigma = torch.zeros(1, 8, 7), torch.ones(1)
    assert asked == [7] and torch.equal(*(denoiser(x, sigma) for denoiser, _ in trained))
    assert trained[0][1]["step"].tolist() == [2] and not list((tmp_path / "training").iterdir())


def test_a_drawing_has_a_box_for_each_slot_and_needs_a_network():
    figure = figures.strip(SPACE, SPACE.random(2, numpy_stream(0, "test/draw")), ["one", "two"], wrap=1, size=(10.5, 2.0))
    assert [len(ax.patches) for ax in figure.axes] == [20, 20]
    with pytest.raises(NagkitError, match="row 0 is not valid"):
        figures.strip(SPACE, np.full((1, 20), -1))
