"""From measurements to a pool: fitted predictors, aims, and every kind of bad input."""

import numpy as np
import pytest
import torch

from nagkit import generate, objectives
from nagkit.errors import NagkitError
from nagkit.predictors import objective
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201

SPACE = nb201.Space()
EVERY = SPACE.all()
CELLS = EVERY[numpy_stream(0, "test/objectives").permutation(SPACE.size)[:100]]
COST = (CELLS == nb201.CONV3).sum(axis=1) + 0.1 * (CELLS == nb201.CONV1).sum(axis=1)


@pytest.fixture(autouse=True)
def embedded_data_only(tmp_path, monkeypatch):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def additive():
    """A cost that is exactly a sum over edges, in milliseconds."""
    fitted = objective.fit(CELLS, COST, model="linear")
    return objectives.Objective("latency_test", "ms", True, fitted, CELLS, COST)


def write(path, rows, header="arch,value"):
    path.write_text("\n".join([header, *(f"{arch},{value}" for arch, value in rows)]) + "\n")
    return path


def rows_of(archs, values):
    return list(zip(SPACE.to_string(archs), values, strict=True))


def test_a_linear_model_recovers_an_additive_cost_in_its_own_unit():
    truth = (EVERY == nb201.CONV3).sum(axis=1) + 0.1 * (EVERY == nb201.CONV1).sum(axis=1)
    fitted = objective.fit(CELLS, COST, model="linear")
    assert np.abs(fitted.value(EVERY) - truth).max() < 0.35  # of a range of 6: the ridge shrinks
    assert fitted.score(fitted.value(EVERY[:1])[0]) == pytest.approx(fitted.predictor.rank(EVERY[:1])[0], abs=1e-4)


def test_the_model_is_chosen_by_how_it_ranks_held_out_pairs():
    assert objective.fit(CELLS, COST).model == "linear"
    live = nb201.live_edges(CELLS)
    accuracy = 90.0 * live.any(axis=1) + ((CELLS == nb201.CONV3) & live).sum(axis=1)
    fitted = objective.fit(CELLS, accuracy)
    assert fitted.model == "propagation" and fitted.agreement > 0.5


def test_predictors_fitted_side_by_side_have_an_objective_each():
    values = np.stack([COST, -COST], axis=1)
    up, down = objective.fit_many(CELLS, values)
    assert np.corrcoef(up.predictor.rank(CELLS), COST)[0, 1] > 0.7
    assert np.corrcoef(down.predictor.rank(CELLS), COST)[0, 1] < -0.7


def test_a_cost_is_pushed_down_a_quality_up_and_accuracy_weighs_in(additive):
    x = SPACE.encode(EVERY[::100])
    score = additive.fitted.predictor(x, 0.0)
    torch.testing.assert_close(objectives.aim(additive)[0](x, 0.0), -score)
    torch.testing.assert_close(objectives.aim(additive._replace(minimise=False))[0](x, 0.0), score)
    both, _ = objectives.aim(additive, accuracy=lambda x, sigma: 5 + 0 * score, weight=2.0)
    torch.testing.assert_close(both(x, 0.0), 5 - 2 * score)


def test_a_limit_costs_nothing_within_and_much_beyond(additive):
    aim, warning = objectives.aim(additive, limit=2.0)
    value, score = additive.fitted.value(EVERY), aim(SPACE.encode(EVERY), 0.0).numpy()
    assert warning == ""
    assert (score[value < 1.99] == 0).all() and (score[value > 2.01] < 0).all()


def test_guidance_keeps_a_limit_that_random_cells_break(additive):
    """Of random cells a good half are above the limit; of 300 guided draws at most a tenth, far outside chance."""
    aim, _ = objectives.aim(additive, limit=1.0)
    value = additive.fitted.value(generate("nb201", 300, guide=aim).valid)
    assert (additive.fitted.value(EVERY) > 1.05).mean() > 0.5
    assert (value > 1.05).mean() < 0.1


def test_a_limit_that_no_cell_keeps_is_refused_and_one_that_all_keep_is_mentioned(additive):
    with pytest.raises(NagkitError, match="no cell is predicted to keep latency_test below -50 ms.*relax the limit"):
        objectives.aim(additive, limit=-50.0)
    assert "every cell is predicted to keep" in objectives.aim(additive, limit=50.0)[1]


@pytest.mark.parametrize(("text", "number"), [("5ms", 5.0), (" 0.5 ms ", 0.5), ("2e1", 20.0)])
def test_limits_are_numbers_with_or_without_the_unit(text, number):
    assert objectives.parse_limit(text, "ms") == number


@pytest.mark.parametrize("text", ["5us", "fast", "", "1.2.3ms"])
def test_other_limits_are_refused(text):
    with pytest.raises(NagkitError, match="is not a number of ms"):
        objectives.parse_limit(text, "ms")


def test_a_users_pairs_are_read_and_equal_rows_count_once(tmp_path):
    rows = rows_of(CELLS[:20], COST[:20])
    archs, values = objectives.read_pairs(write(tmp_path / "my.csv", rows + rows[:3]))
    np.testing.assert_array_equal(archs, CELLS[:20])
    np.testing.assert_allclose(values, COST[:20])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:5], "at least 10 measured cells, got 5"),
        (lambda rows: [*rows, (rows[0][0], 99)], "rows 1 and 21 give one architecture two values"),
        (lambda rows: [(rows[0][0], "nan"), *rows[1:]], "row 1: value 'nan' is not a finite number"),
        (lambda rows: [(rows[0][0], "n/a"), *rows[1:]], "row 1: value 'n/a' is not a finite number"),
        (lambda rows: [("conv", 1), *rows], "'conv' is not a NAS-Bench-201 cell"),
        (lambda rows: [(arch, 7) for arch, _ in rows], "all 20 values of an objective are 7"),
    ],
)
def test_bad_pairs_are_refused_with_the_row_or_the_value(tmp_path, change, message):
    path = write(tmp_path / "my.csv", change(rows_of(CELLS[:20], COST[:20])))
    with pytest.raises(NagkitError, match=message):
        objectives.read_pairs(path)


def test_a_file_without_the_columns_or_without_contents_is_refused(tmp_path):
    with pytest.raises(NagkitError, match="needs the columns arch and value, found arch, score"):
        objectives.read_pairs(write(tmp_path / "my.csv", [], header="arch,score"))
    with pytest.raises(NagkitError, match="cannot read"):
        objectives.read_pairs(tmp_path / "none.csv")


def test_an_unknown_objective_names_the_nearest_one():
    with pytest.raises(NagkitError, match="'latency:pixel' .did you mean 'latency:pixel3'"):
        objectives.load("latency:pixel")


def test_a_column_of_the_benchmark_is_measured_at_random_cells():
    target = objectives.load("energy:eyeriss", pairs=60)
    assert (target.name, target.unit, target.minimise, len(target.values)) == ("energy_eyeriss", "mJ", True, 60)
    assert target.fitted.model == "linear" and "Spearman" in target.describe()


def test_too_many_pairs_are_refused():
    with pytest.raises(NagkitError, match="pairs must be 10 to 15625"):
        objectives.load("apgd_ce_eps1.0", pairs=20_000)
