"""Table 1: what is said of given accuracies, and how favourites and images are chosen."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nagkit import presets
from nagkit.benchmarks import train_arch
from nagkit.data import images as data
from nagkit.errors import NagkitError
from nagkit.predictors import images, task
from nagkit.predictors.fit import Recipe
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201
from nagkit.study import table1
from nagkit.study.exhibit import Exhibit, Run
from nagkit.study.results import Results

OURS, OTHERS = ["ours-score", "ours-exact"], ["metad2a-style", "tnas-style", "random", "largest"]


def accuracies(gain: float) -> dict[str, np.ndarray]:
    """Thirty networks in three runs, alike for every row but *ours-score*, which has `gain` points more."""
    base = 50 + numpy_stream(0, "test/table1").normal(size=(3, 30))
    return {row: base + (gain if row == "ours-score" else 0.0) for row in OURS + OTHERS}


def results(accuracy, archs=None, images=1) -> Results:
    """The results of a grid with these accuracies for every data set, each further draw of images a point higher."""
    made = Results(Exhibit("table1", columns=["cifar10", "mnist"], oracle="supernet"))
    for column in made.exhibit.columns:
        for row, values in accuracy.items():
            for run, each in enumerate(values):
                arrays = {"accuracy": each + np.arange(images)[:, None], "archs": (archs or {}).get(row)}
                made.runs.append(Run(row, column, {"seed": run}, arrays, np.empty(0), np.empty(0)))
    return made


def test_both_welch_tests_say_what_they_count_and_more_draws_of_images_are_compared_image_by_image():
    accuracy = accuracies(0.25)
    found = results(accuracy, images=3)
    table1.compare(found, ours=OURS, others=OTHERS, best=5, n_tuned=0)
    row, (a, b) = "ours-score minus metad2a-style", (accuracy[row] for row in ("ours-score", "metad2a-style"))
    every, runs = (found.number(row, "cifar10", f"Welch p of {counted}") for counted in ("networks", "runs"))
    assert (every.n, runs.n) == (180, 6)
    assert every.value == pytest.approx(stats.ttest_ind(a.ravel(), b.ravel(), equal_var=False).pvalue)
    for column, metric in (("3", "mnist difference by draw"), ("mnist", "difference over draws")):
        gap = found.number(row, column, metric)
        assert (gap.value, gap.n) == (pytest.approx(0.25), 3)


def test_the_best_five_of_every_row_are_fine_tuned_and_a_network_counts_once():
    ours, favoured = (table1.SPACE.random(30, numpy_stream(i, "test/table1")) for i in (1, 2))
    worth = {name: i / 10 for i, name in enumerate(table1.SPACE.to_string(np.concatenate([ours, favoured])))}
    accuracy, asked = accuracies(1.0), []
    found = results(accuracy, {row: favoured if row == "metad2a-style" else ours for row in accuracy})

    def made_up(tasks):
        asked.extend(tasks)
        return [{"accuracy": np.array([60.0 + one.arguments["seed"] + worth[one.arguments["arch"]]])} for one in tasks]

    found.do = made_up
    table1.compare(found, ours=OURS, others=OTHERS, best=5, n_tuned=3)
    assert len(asked) == 2 * 10 * 3
    top = np.argsort(-accuracy["ours-score"][0])[:5]
    a, b = 61 + top / 10, 61 + (top + 30) / 10
    assert found.number("ours-score", "mnist", "fine-tuned accuracy").value == pytest.approx(a.mean())
    gap = found.number("ours-score minus metad2a-style", "mnist", "difference of fine-tuned accuracy")
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (gap.value, gap.lo, gap.hi, gap.n) == pytest.approx((-3, *welch, 10))
    assert found.number("fine-tuned", "mnist", "τ with fine-tuning").n == 10


def test_a_search_sees_other_images_than_those_reported_and_runs_take_predictors_in_turn(monkeypatch):
    asked, told = [], []

    class Bench:
        oracle = "supernet"

        def query(self, archs, dataset, *, split, draw):
            asked.append((len(archs), draw))
            return (archs >= 0).sum(axis=1) + 0.01 * archs[:, 0]

    class Predictor:
        def rank(self, archs):
            return archs[:, 0].astype(float)

    def predictor(space, dataset, *, training_seed):
        told.append(training_seed)
        return Predictor()

    monkeypatch.setattr(table1.measured, "open_supernet", lambda oracle, dataset: Bench())
    monkeypatch.setattr(table1, "load_predictor", predictor)
    how = {"n": 8, "draws": {}, "n_predictors": 3, "of": 50, "oracle": "supernet", "images": [1, 2]}
    found = table1.select("mnist", "search", seed=1001, **how)
    assert {draw for _, draw in asked[:-2]} == {0} and asked[-2:] == [(8, 1), (8, 2)]
    assert told == [2] and found["accuracy"].shape == (2, 8) and len(np.unique(found["archs"], axis=0)) == 8


def test_the_development_classes_of_mbv3_have_a_code_and_no_task_has_them():
    known, held = data.meta_classes()
    assert (len(known), len(held)) == (160, 40) and not set(known) & set(held)
    features = task.class_features(task.HELD)
    samples = images.codes()["tiny_imagenet/samples"]
    assert features.shape == (10, 40, 256)
    assert all((samples[held] == features[0].numpy()[:, None]).all(axis=2).any(axis=1))


def test_a_rule_without_a_chosen_strength_asks_for_one():
    with pytest.raises(NagkitError, match="no strength of xt was chosen for prior exact of mbv3; give one: --scale"):
        presets.strength("mbv3", "exact", "xt")


def test_a_recipe_with_fewer_images_trains_on_that_many():
    rng = numpy_stream(0, "test/table1/images")
    training = rng.integers(0, 256, (60, 32, 32, 3)).astype(np.uint8), np.arange(60) % 2
    test = training[0][:10], training[1][:10]
    settings = {"channels": 4, "cells": 1}
    recipe = Recipe(network="CellNetwork", settings=settings, epochs=1, batch=8, lr=0.1, momentum=0.9, images=16)
    cell = np.array([3, 3, 3, 3, 3, 3], np.int8)
    found = train_arch.train(nb201.Space(), cell, training, test, recipe, progress=False)
    assert len(found.curve) == 1
    whole = train_arch.train(nb201.Space(), cell, training, test, replace(recipe, images=None), progress=False)
    assert found.curve["train_loss"][0] != whole.curve["train_loss"][0]
