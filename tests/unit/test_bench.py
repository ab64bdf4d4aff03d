"""The benchmarks: their rows and their arithmetic (the figures themselves belong to the machine)."""

import json

import pytest

from nagkit import bench
from nagkit.diffusion.exact import exact_prior
from nagkit.errors import NagkitError
from nagkit.spaces.base import get_space


@pytest.fixture
def short(monkeypatch):
    for name, value in {"PAPER_STEPS": 20, "TIMED_STEPS": 1, "N_UNGUIDED": 64, "N_GUIDED": 4}.items():
        monkeypatch.setattr(bench, name, value)


def test_rows_without_guidance(short):
    rows = bench.sampling_rows(repeats=1)
    assert [row["name"] for row in rows] == ["unguided, exact prior", "paper preset, unguided"]
    for row in rows:
        assert row["seconds_per_1000"] == pytest.approx(1000 * row["seconds"] / row["n"])
        assert row["peak_rss_mb"] > 50
    assert rows[1]["ratio"] == 1
    assert rows[0]["ratio"] == pytest.approx(rows[1]["seconds_per_1000"] / rows[0]["seconds_per_1000"])


def test_guided_rows_are_compared_to_the_guided_reference(short):
    wrapped = []
    rows = bench.sampling_rows(
        {"exact": exact_prior(get_space("nb201"))}, repeats=1, guide_reference=lambda d: wrapped.append(d) or d
    )
    rows = {row["name"]: row for row in rows}
    assert len(rows) == 4 and len(wrapped) == 1
    expected = rows["paper preset, guided"]["seconds_per_1000"] / rows["guided, exact prior"]["seconds_per_1000"]
    assert rows["guided, exact prior"]["ratio"] == pytest.approx(expected)


def test_reference_is_extrapolated_to_all_steps(short, monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticks))
    rows = bench.sampling_rows(repeats=1)
    assert [row["seconds"] for row in rows] == [1, 20]
    assert rows[1]["note"].startswith("pc, 20 steps, timed over 1")


def test_no_repeats_is_refused():
    with pytest.raises(NagkitError, match="repeats must be at least 1, got 0"):
        bench.sampling_rows(repeats=0)


def test_measuring_is_compared_to_networks_taken_one_by_one(monkeypatch):
    """In this process: what the rows say is arithmetic, and every way measures every network."""
    calls = []

    class Pool:
        def __init__(self, *_, initializer, initargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def map(self, function, parts):
            calls.append([len(part) for part in parts])
            return []

    monkeypatch.setattr(bench, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 2)
    rows = bench.measuring_rows(n=10)
    assert calls == [[1, 1], *[[1]] * 10, [10], [5, 5]]
    assert [row["ratio"] for row in rows] == [pytest.approx(row["per_minute"] / rows[0]["per_minute"]) for row in rows]
    assert all(row["per_minute"] == pytest.approx(600 / row["seconds"]) for row in rows)


def test_what_notebooks_took_is_read_off_their_provenance(tmp_path, monkeypatch):
    monkeypatch.setattr(bench.paths, "root", lambda: tmp_path)
    with pytest.raises(NagkitError, match="no notebook was run: .*; run `make reproduce` first"):
        bench.notebook_rows()
    record = {"exhibit": "demo", "seconds": 3.5, "peak_rss_mb": 800, "oracle": "surrogate", "cpu": "Some CPU", "cores": 2}
    for name, jobs in (("a", {}), ("b", {"jobs": {"asked": 9, "finished by an earlier run": 4}})):
        path = tmp_path / "results" / "quick" / f"{name}.provenance.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record | jobs | {"commit": "abc"}))
    assert bench.notebook_rows() == [record | {"kept": 0}, record | {"kept": 4}]
