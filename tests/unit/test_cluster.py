"""Finished jobs are kept, and recomputed when damaged or when their data changed."""

import numpy as np
import pytest

from nagkit.cluster import map_jobs
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream

CALLS = []


def draw(seed, n=3):
    CALLS.append(seed)
    if seed == 13:
        raise KeyboardInterrupt
    return {"x": numpy_stream(seed, "test").normal(size=n), "n": n}


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    CALLS.clear()


def test_results_come_in_order_and_are_not_computed_twice():
    jobs = [{"seed": 2}, {"seed": 1}, {"seed": 3, "n": 5}]
    first = map_jobs(draw, jobs, progress=False)
    assert [len(result["x"]) for result in first] == [3, 3, 5]
    again = map_jobs(draw, jobs, progress=False)
    assert CALLS == [2, 1, 3]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_an_interrupted_run_keeps_what_was_finished():
    with pytest.raises(KeyboardInterrupt):
        map_jobs(draw, [{"seed": 1}, {"seed": 13}], progress=False)
    map_jobs(draw, [{"seed": 1}, {"seed": 2}], progress=False)
    assert CALLS == [1, 13, 2]


def test_a_damaged_file_is_recomputed(tmp_path):
    (first,) = map_jobs(draw, [{"seed": 1}], progress=False)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:20])
    (again,) = map_jobs(draw, [{"seed": 1}], progress=False)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert CALLS == [1, 1]


def test_changed_data_starts_anew(tmp_path):
    data = tmp_path / "checkpoint"
    for content in ("a", "b", "a"):
        data.write_text(content)
        map_jobs(draw, [{"seed": 1}], data=[data], progress=False)
    assert CALLS == [1, 1]


def test_two_processes_give_the_same_results(tmp_path, monkeypatch):
    jobs = [{"seed": seed} for seed in range(4)]
    here = map_jobs(draw, jobs, progress=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "other"))
    there = map_jobs(draw, jobs, n_workers=2, progress=False)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_no_worker_is_refused():
    with pytest.raises(NagkitError, match="n_workers must be at least 1, got 0"):
        map_jobs(draw, [{"seed": 1}], n_workers=0)
