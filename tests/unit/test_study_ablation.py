"""What predictors owe to codes, graphs and training: correlations, exchanged codes, and training jobs on made-up triplets."""

import numpy as np
import pytest

from nagkit import open_benchmark
from nagkit.data.triplets import Triplets
from nagkit.spaces.base import get_space
from nagkit.study import ablation, measures
from nagkit.study.exhibit import Run

SPACE = get_space("nb201")
TARGETS = ["cifar10", "cifar100"]


@pytest.fixture(autouse=True)
def benchmark(monkeypatch, tmp_path):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    return open_benchmark("nb201")


@pytest.fixture
def triplets(monkeypatch):
    rng, n = np.random.default_rng(0), 600
    classes = np.stack([rng.permutation(600)[:20] + 1 for _ in range(40)])
    made = Triplets(SPACE.all()[rng.integers(0, SPACE.size, n)], rng.uniform(50, 80, n), rng.integers(0, 40, n), classes,
                    rng.permutation(n))  # fmt: skip
    monkeypatch.setattr(ablation.upstream, "triplets", lambda: made)
    return made


def run_of(arrays: dict, column: str = "cifar10") -> Run:
    return Run("row", column, {}, arrays, np.empty((0, 6), np.int8), np.empty(0))


@pytest.mark.parametrize("name", ablation.CORRELATIONS)
def test_correlations_of_the_truth_with_itself_are_one(name, benchmark):
    truth = benchmark.column("cifar10", split="test")
    run = run_of({"cifar10": truth})
    assert ablation.quality(name, benchmark)(run) == pytest.approx(1)
    assert ablation.quality(name, benchmark, truth > 90)(run) == pytest.approx(1)


def test_the_truth_of_another_data_set_agrees_as_far_as_the_two_are_alike(benchmark):
    run = run_of(ablation.score_by_accuracy("nb201", "cifar100", ["cifar10"]))
    assert 0.9 < ablation.agreement()(run) < 1
    assert ablation.change(benchmark)(run) == pytest.approx(ablation.agreement()(run) - 1)


def test_rules_rank_alike_for_every_data_set_and_no_worse_than_chance(benchmark):
    for name in ("params", "hand-rule"):
        scores = ablation.score_by_rule("nb201", name, TARGETS)
        assert (scores["cifar10"] == scores["cifar100"]).all()
        assert ablation.quality("Spearman", benchmark)(run_of(scores)) > 0.5


def test_a_predictor_told_its_own_data_set_agrees_with_itself(benchmark):
    run = run_of(ablation.score("nb201", "ranking", ["cifar10"], 0, told="cifar10"))
    assert ablation.agreement()(run) == pytest.approx(1) and ablation.change(benchmark)(run) == 0


def test_training_jobs_score_every_cell_and_draw_with_what_they_learnt(triplets, benchmark):
    made = ablation.train_and_score("nb201", "noise-aware", TARGETS, 0, 1, code="mean", graph="flat", draws=3)
    assert made["cifar10"].shape == (SPACE.size,) and made["cifar10/archs"].shape == (3, 6)
    np.testing.assert_array_equal(made["cifar10"], made["cifar100"])  # the mean code knows no data set
    assert ablation.of_pool(measures.distinct, benchmark)(run_of(made)) <= 3


def test_validation_is_on_triplets_that_were_held_out(triplets):
    held = ablation.train_and_validate("nb201", "ranking", 0, 1, "official")
    assert len(held["predicted"]) == 400 and set(held["accuracy"]) == set(triplets.accuracy[triplets.order[:400]])
    assert -1 <= ablation.of_held_out("Spearman")(run_of(held)) <= 1
