"""Table 1: what its rows say of given accuracies, and how pools, favourites and images are chosen."""

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
from nagkit.report.exhibits import Exhibit
from nagkit.rng import numpy_stream
from nagkit.spaces import nb201
from nagkit.studies import table1

ROWS = (*table1.UNGUIDED, *table1.GUIDED)


def accuracies(gain: float) -> dict[str, np.ndarray]:
    """Thirty networks in three runs, alike for every row but *ours, trained prior*, which has `gain` points more."""
    base = 50 + numpy_stream(0, "test/table1").normal(size=(3, 30))
    return {row: base + (gain if row == table1.TRAINED else 0.0) for row in ROWS}


def study(gain: float) -> table1.Transfer:
    exhibit = Exhibit("table1", "quick")
    accuracy = {dataset: accuracies(gain) for dataset in table1.DATASETS}
    for dataset, each in accuracy.items():
        table1._accuracies(exhibit, dataset, each)
        table1._comparisons(exhibit, dataset, each, table1.PUBLISHED)
    return table1.Transfer(exhibit, accuracy, None, "", table1.PUBLISHED)


def test_differences_are_paired_by_run_and_both_welch_tests_say_what_they_count():
    frame = study(0.25).exhibit.frame(paper=False).set_index(["row", "column", "metric"])
    key = f"{table1.TRAINED} minus {table1.SORTED}"
    gap = frame.loc[key, "cifar10", "difference of means"]
    assert (gap.value, gap.lo, gap.hi) == pytest.approx((0.25, 0.25, 0.25)) and gap.n == 3
    every, runs = (frame.loc[key, f"cifar10 {counted}", "Welch p"] for counted in ("architectures", "seeds"))
    assert (every.n, runs.n) == (180, 6)
    a, b = (accuracies(0.25)[row] for row in (table1.TRAINED, table1.SORTED))
    assert every.value == pytest.approx(stats.ttest_ind(a.ravel(), b.ravel(), equal_var=False).pvalue)
    top = frame.loc[table1.TRAINED, "cifar10 max", "accuracy"]
    assert top.value == pytest.approx(a.max(axis=1).mean())


@pytest.mark.parametrize(("gain", "higher"), [(0.25, 4), (-0.25, 0)])
def test_the_verdict_follows_the_numbers(gain, higher):
    said = table1.verdict(study(gain))
    assert f"*{table1.TRAINED}* against unguided generation with the same ranking: higher on {higher} of 4" in said
    assert f"*{table1.EXACT}* against unguided generation with the same ranking: higher on 0 of 4" in said
    assert "Nothing was fine-tuned" in said


def test_the_best_five_of_every_row_are_fine_tuned_and_a_network_counts_once(monkeypatch):
    example = study(1.0)
    ours, sorted_ = (table1.SPACE.random(30, numpy_stream(i, "test/table1")) for i in (1, 2))
    worth = {name: i / 10 for i, name in enumerate(table1.SPACE.to_string(np.concatenate([ours, sorted_])))}
    asked = []

    def made_up(function, jobs, **options):
        asked.extend(jobs)
        return [{"accuracy": np.array([60.0 + job["seed"] + worth[job["arch"]]])} for job in jobs]

    monkeypatch.setattr(table1.cluster, "map_jobs", made_up)
    chosen = {row: [sorted_ if row == table1.SORTED else ours] for row in ROWS}
    pairs = table1._fine_tuned(example.exhibit, dict.fromkeys(table1.DATASETS, chosen), example.accuracy, 3, 0, {})
    assert len(asked) == 4 * 7 * 5 * 3 and len(pairs) == 4 * 7 * 5
    top = np.argsort(-example.accuracy["mnist"][table1.TRAINED][0])[:5]
    a, b = 61 + top / 10, 61 + (top + 30) / 10
    mine = pairs[(pairs["dataset"] == "mnist") & (pairs["row"] == table1.TRAINED)]
    assert mine["tuned"].to_numpy() == pytest.approx(a)
    frame = example.exhibit.frame(paper=False).set_index(["row", "column", "metric"])
    gap = frame.loc[f"{table1.TRAINED} minus {table1.SORTED}", "mnist", "difference of fine-tuned means"]
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (gap.value, gap.lo, gap.hi, gap.n) == pytest.approx((-3, *welch, 10))
    assert frame.loc["measured and fine-tuned", "mnist", "Kendall τ"].n == 10
    said = table1.verdict(example._replace(pairs=pairs))
    assert f"the best 5 networks of *{table1.TRAINED}* minus those of {table1.SORTED}: CIFAR-10 -3.00 [" in said


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
