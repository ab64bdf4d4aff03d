"""Searches as jobs, and what is measured of them."""

import numpy as np
import pytest

from nagkit.search import methods
from nagkit.study import searches
from nagkit.study.exhibit import Run


@pytest.fixture(autouse=True)
def embedded_data_only(tmp_path, monkeypatch):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    searches.oracle.cache_clear()


def run(column, incumbent):
    return Run("row", column, {}, {"incumbent": np.array(incumbent)}, np.empty((0, 6)), np.empty(0))


def test_regret_is_the_distance_to_the_best_of_a_space_that_can_be_listed():
    best = methods.open_oracle("cifar100").optimum
    one = run("cifar100 ei", [best - 3, best - 1, best])
    assert searches.regret((1, 3))(one) == pytest.approx({"1": 3, "3": 0})
    assert searches.at_optimum((2, 3))(one) == {"2": 0, "3": 1}


def test_a_space_that_cannot_be_listed_has_no_regret():
    one = run("ofa ei", [82.0, 83.0])
    assert searches.incumbent((1, 2))(one) == {"1": 82, "2": 83}
    assert searches.regret((1, 2))(one) == searches.at_optimum((1, 2))(one) == {}


def test_a_search_reports_its_incumbents_and_every_pool():
    arrays = searches.search("cifar100", "diffusionnag", 0, 30, proposer="mutation", acquisition="ei")
    assert arrays["incumbent"].shape == (30,) and (np.diff(arrays["incumbent"]) >= 0).all()
    assert arrays["pool"].shape == arrays["top"].shape == arrays["tau"].shape == (2,)
    assert (arrays["top"] > arrays["pool"]).all() and arrays["seconds"] > 0


def test_watching_the_pools_changes_no_search():
    history, _ = methods.run("cifar100", "diffusionnag", 0, budget=30, proposer="mutation")
    watched = searches.search("cifar100", "diffusionnag", 0, 30, proposer="mutation")["incumbent"]
    np.testing.assert_array_equal(watched, np.maximum.accumulate(history.values))


def test_an_honest_search_reports_the_split_that_it_does_not_see():
    arrays = searches.search("cifar100-honest", "random", 0, 30)
    history, asked = methods.run("cifar100-honest", "random", 0, budget=30)
    np.testing.assert_array_equal(arrays["incumbent"], asked.report(history.archs)[history.incumbents()])
    assert len(arrays["pool"]) == 0


def test_a_task_names_the_files_that_it_reads():
    names = {path.name for path in searches.by_method("gcn", ["ofa", "cifar100"], 30).files}
    assert {"presets.yaml", "score_mbv3.safetensors", "score_nb201.safetensors", "ofa_predictor.safetensors"} <= names
