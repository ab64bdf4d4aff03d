"""The embedded surrogate is small, fast, structural, and as good as its card says on cells it never saw."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from nagkit import paths
from nagkit.benchmarks import embedded, surrogate
from nagkit.benchmarks.table import open_benchmark
from nagkit.data.io import write_arrays
from nagkit.errors import NagkitError
from nagkit.rng import torch_stream
from nagkit.spaces import nb201

FOLDER = paths.DATA / "surrogates"


@pytest.fixture
def bench():
    return open_benchmark(oracle="surrogate")


@pytest.fixture
def fresh():
    """No cached predictions, before and after."""
    embedded.card.cache_clear()
    surrogate._predictions.cache_clear()
    yield
    embedded.card.cache_clear()
    surrogate._predictions.cache_clear()


def test_the_committed_files_are_small_and_say_how_to_rebuild_them():
    assert (FOLDER / "nb201.safetensors").stat().st_size < 1_500_000
    card = json.loads((FOLDER / "nb201.json").read_text(encoding="utf-8"))
    assert card["rebuild"] == "nagkit fit surrogate"


def test_every_data_set_split_and_robustness_target_of_the_study_is_there(bench):
    for dataset in ("cifar10", "cifar100", "imagenet16-120"):
        assert bench.splits(dataset) == ("test", "test12", "validation12")
        assert "latency_pixel3" in bench.metrics(dataset, split="test")
    assert bench.splits("ninapro") == bench.splits("darcy") == ("test",)
    metrics = bench.metrics("cifar10", split="test")
    assert {"robust_clean", "apgd_ce_eps1.0", "glass_blur_sev2", "gaussian_noise_sev2"} <= set(metrics)
    assert sum(metric.endswith("_sev2") for metric in metrics) == 15


def test_predicting_every_column_of_every_cell_takes_half_a_second(fresh):
    surrogate.card()
    seconds = []
    for _ in range(3):  # the code's own time is the smallest: what a busy machine adds to one run is not the code's
        surrogate._predictions.cache_clear()
        start = time.process_time()
        surrogate.column("cifar10/test/accuracy")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5 * max(1, torch.get_num_threads())


def test_isomorphic_cells_get_the_same_accuracy(bench):
    classes = nb201.isomorphism_classes()
    _, first = np.unique(classes, return_index=True)
    for dataset in bench.datasets:
        values = bench.column(dataset, split="test")
        np.testing.assert_allclose(values, values[first][classes], atol=2e-4)


def test_cells_without_a_path_are_at_chance(bench):
    dead = ~nb201.live_edges(nb201.Space().all()).any(axis=1)
    for dataset, chance in (("cifar10", 10), ("cifar100", 1), ("imagenet16-120", 0.83)):
        np.testing.assert_allclose(bench.column(dataset, split="test")[dead], chance, atol=1.5)


def test_accuracies_are_plausible_and_the_optimum_is_the_largest(bench):
    for dataset, best in (("cifar10", 94.37), ("cifar100", 73.51), ("imagenet16-120", 47.31)):
        column = bench.column(dataset, split="test")
        assert bench.optimum(dataset, split="test") == column.max() == pytest.approx(best, abs=1.5)


def test_the_card_promises_a_faithful_surrogate(bench):
    for dataset in ("cifar10", "cifar100", "imagenet16-120"):
        fidelity = bench.fidelity(dataset, split="test")
        assert fidelity["r2"] > 0.97 and fidelity["kendall_tau"] > 0.85
        assert surrogate.card()["columns"][f"{dataset}/test/accuracy"]["above_90"]["kendall_tau"] > 0.75


def test_the_card_is_what_the_held_out_cells_of_the_table_give(bench, table):
    card = surrogate.card()
    test = surrogate.held_out(card["seed"])
    assert test.sum() == card["split"]["held_out_cells"]
    good = test & (table.column("cifar10", split="test") > 90)
    for name, figures in card["columns"].items():
        dataset, split, metric = name.split("/")
        predicted = bench.column(dataset, split=split, metric=metric)
        measured = table.column(dataset, split=split, metric=metric)
        for part, rows in (("all", test), ("above_90", good)):
            if part in figures:
                assert embedded.evaluate(predicted[rows], measured[rows]) == pytest.approx(figures[part], abs=2e-3)


def test_held_out_cells_share_no_class_with_training_cells():
    test, classes = surrogate.held_out(0), nb201.isomorphism_classes()
    assert not set(classes[test]) & set(classes[~test])
    assert 0.07 < test.mean() < 0.13
    assert (surrogate.held_out(1) != test).any()


def test_perfect_and_reversed_predictions_score_as_they_should():
    y = np.arange(10.0)
    assert embedded.evaluate(y, y) == {"n": 10, "r2": 1, "kendall_tau": 1, "rmse": 0}
    assert embedded.evaluate(-y, y)["kendall_tau"] == -1


def test_weights_come_from_their_own_stream():
    draws = [surrogate.Network(2, 2).initialise(torch_stream(seed, "toy")).state_dict() for seed in (0, 0, 1)]
    for name in draws[0]:
        torch.testing.assert_close(draws[0][name], draws[1][name], rtol=0, atol=0)
    assert not torch.equal(draws[0]["start"], draws[2]["start"])


def test_the_same_seed_gives_the_same_files(tmp_path, monkeypatch, fresh):
    rng = np.random.default_rng(0)
    names = ["cifar10/test/accuracy", "cifar10/test/robust_clean", "cifar10/test/apgd_ce_eps1.0", "cifar10/test/latency_fpga"]
    columns = {name: rng.uniform(50, 95, 15_625) for name in names}
    source = write_arrays(tmp_path / "table.safetensors", columns)
    monkeypatch.setattr(surrogate, "convert", lambda progress: source)
    monkeypatch.setattr(surrogate, "_EPOCHS", 1)
    monkeypatch.setattr(surrogate, "_BATCH", 2048)
    made = []
    for attempt in "ab":
        file = tmp_path / f"{attempt}.safetensors"
        monkeypatch.setattr(embedded, "weights_of", lambda name, file=file: file)
        card = surrogate.fit(progress=False, seed=3)
        assert list(card["columns"]) == names
        assert np.isfinite(surrogate.column(names[0])).all()
        made.append((file.read_bytes(), file.with_suffix(".json").read_text()))
    assert made[0] == made[1]


def test_weights_and_card_that_do_not_belong_together_are_refused(tmp_path, monkeypatch, fresh):
    weights = shutil.copy(FOLDER / "nb201.safetensors", tmp_path)
    (tmp_path / "nb201.json").write_text(json.dumps(surrogate.card() | {"weights_sha256": "0"}))
    embedded.card.cache_clear()
    monkeypatch.setattr(embedded, "weights_of", lambda name: Path(weights))
    with pytest.raises(NagkitError, match="do not belong together"):
        surrogate.column("cifar10/test/accuracy")


def test_a_missing_card_is_one_line_with_the_remedy(tmp_path, monkeypatch, fresh):
    monkeypatch.setattr(embedded, "weights_of", lambda name: tmp_path / "absent.safetensors")
    with pytest.raises(NagkitError, match="absent.json: restore it .*nagkit fit surrogate"):
        surrogate.columns()


def test_fitting_without_tables_is_one_line_with_the_remedy(no_data):
    with pytest.raises(NagkitError, match="nagkit data fetch"):
        surrogate.fit(progress=False)
