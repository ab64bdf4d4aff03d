"""Predictors of objectives and the pools that they guide, as jobs, and what is measured of them."""

import numpy as np
import pytest

from nagkit.benchmarks.table import open_benchmark
from nagkit.spaces.base import get_space
from nagkit.study import objective
from nagkit.study.exhibit import Run

SPACE, OPERATIONS = get_space("nb201"), ("none", "skip", "1×1", "3×3", "pool")
INVALID = np.full((4, 6), -1, np.int8)


@pytest.fixture(autouse=True)
def embedded_data_only(tmp_path, monkeypatch):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))


def run(row, **arrays):
    return Run(row, "", {}, arrays, np.empty((0, 6)), np.empty(0))


def test_a_job_makes_two_pools_of_every_objective_from_the_same_cells():
    task = objective.guided("nb201", "cifar10", ["robust_clean", "fog_sev2"], 30, pairs=50)
    made = task.function(**task.arguments, seed=0)
    assert set(made) == {name + kind for name in ("robust_clean", "fog_sev2") for kind in ("", " tilted", " spearman")}
    assert made["fog_sev2"].shape == made["fog_sev2 tilted"].shape == (30, 6)
    assert 0.5 < objective.spearman(run("fog_sev2 tilted", **made)) <= 1
    bench, every = open_benchmark("nb201"), objective.judged_by_all
    by = every(bench, "cifar10", ["robust_clean", "fog_sev2"], np.mean, 20)
    found = by(run("own-guide", **made))
    assert found["mean"] == pytest.approx((found["robust_clean"] + found["fog_sev2"]) / 2)
    assert found["fog_sev2"] == by(run("fog_sev2", **made))["fog_sev2"]
    uniform = bench.column("cifar10", split="test", metric="robust_clean").mean()
    assert by(run("robust_clean", **made))["robust_clean"] > uniform


def test_a_share_of_operations_adds_up_over_valid_draws():
    pool = np.concatenate([SPACE.all()[:1], SPACE.all()[-1:], INVALID])
    shares = objective.operation_shares(OPERATIONS)(run("fog_sev2", fog_sev2=pool))
    assert list(shares.values()) == [50, 0, 0, 0, 50]


def test_pools_of_other_operations_are_all_of_the_way_apart():
    pools = {"fog_sev2": SPACE.all()[:1], "robust_clean": SPACE.all()[-1:]}
    distance = objective.distance_to("robust_clean", OPERATIONS)
    assert distance(run("fog_sev2", **pools)) == {"robust_clean": 100}
    assert distance(run("robust_clean", **pools)) == {"robust_clean": 0}
