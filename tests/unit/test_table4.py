"""Table 4: what its rulers are, and that its figures and its text draw what they are given."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

from nagkit.diffusion.exact import ExactDenoiser, exact_prior
from nagkit.errors import NagkitError
from nagkit.report import generation
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import get_space, keys
from nagkit.studies import table4
from nagkit.study import figures

SPACE = get_space("mbv3")


def test_keys_are_equal_exactly_for_equal_rows():
    archs = numpy_stream(0, "test/keys").integers(-1, 2, (2000, 6))
    distinct = np.unique(archs, axis=0)
    assert len(np.unique(keys(archs))) == len(distinct)
    assert np.isin(keys(distinct), keys(archs)).all()
    assert not np.isin(keys(np.full((1, 6), 7)), keys(archs)).any()


@pytest.mark.parametrize(("row", "expected"), zip(table4.NULLS, (table4.PLATEAU, (9 / 16 * 13 / 16) ** 5), strict=True))
def test_independent_slots_are_valid_as_often_as_the_formula_says(row, expected):
    """Binomial, false alarm 1e-5."""
    x = table4._independent(table4.NULLS[row], 5000, numpy_stream(0, "test/independent"))
    low, high = binom.interval(1 - 1e-5, 5000, expected)
    assert low <= (SPACE.decode(x)[1] == "").sum() <= high
    assert pytest.approx(0.5549, abs=1e-4) == table4.PLATEAU


def test_the_mean_of_independent_slots_is_bayes():
    filled, sigma = np.array([1.0, 1.0, 2 / 3, 1 / 3]), torch.tensor([0.7, 2.0])
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


def test_the_paper_prints_what_the_data_file_says():
    printed = table4.printed()
    assert printed["mbv3"] == {"GDSS-style": 0.0, "Without positions": 42.17, "With positions": 100.0}
    assert set(printed["nb201"]) == set(table4.KINDS.values())


def test_figures_are_drawn_for_any_number_of_seeds_and_rows():
    curves = pd.DataFrame(
        [(space, row, seed, step, step / 100, 10.0 * seed) for space in ("nb201", "mbv3") for row in ("a", "b")
         for seed in range(2) for step in (100, 200)],
        columns=["space", "row", "seed", "step", "minutes", "valid"],
    )  # fmt: skip
    drawn = generation.validity_curves(curves, plateau={"mbv3": 55.5}, paper={"mbv3": {"a": 42.0}})
    assert len(drawn.axes) == 2
    assert any("55.5" in text.get_text() for text in drawn.axes[1].texts)
    rows = [("mbv3", "a", "validity", 60.0), ("mbv3", "a", "error: not finite", 0.0), ("mbv3", "a", "error: odd", 40.0)]
    frame = pd.DataFrame(rows, columns=["column", "row", "metric", "value"]).assign(origin="ours")
    bars = generation.error_bars(frame).axes[0]
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["valid", "odd"]


def test_a_drawing_has_a_box_for_each_slot_and_needs_a_network():
    figure = figures.strip(SPACE, SPACE.random(2, numpy_stream(0, "test/draw")), ["one", "two"], wrap=1, size=(10.5, 2.0))
    assert [len(ax.patches) for ax in figure.axes] == [20, 20]
    with pytest.raises(NagkitError, match="row 0 is not valid"):
        figures.strip(SPACE, np.full((1, 20), -1))
