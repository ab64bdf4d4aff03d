"""The benchmarks: their rows and their arithmetic (the figures themselves belong to the machine)."""

import json

import pytest

from nagkit import bench
from nagkit.errors import NagkitError


@pytest.fixture
def short(monkeypatch):
    for name, value in {"PAPER_STEPS": 20, "TIMED_STEPS": 2, "N_UNGUIDED": 64, "N_GUIDED": 4}.items():
        monkeypatch.setattr(bench, name, value)


def test_every_row_is_compared_to_the_reference_that_is_guided_likewise(short):
    rows = {row["name"]: row for row in bench.sampling_rows(repeats=1)}
    references = {"unguided": "published, unguided", "guided": "published, guided"}
    ours = {"unguided, exact prior", "guided, exact prior", "guided, score prior", "guided, masked diffusion"}
    assert set(rows) == ours | set(references.values())
    for name, row in rows.items():
        assert row["seconds_per_1000"] == pytest.approx(1000 * row["seconds"] / row["n"])
        assert row["peak_rss_mb"] > 50
        reference = rows[references.get(name.partition(",")[0], name)]
        assert row["ratio"] == pytest.approx(reference["seconds_per_1000"] / row["seconds_per_1000"])


def test_reference_is_extrapolated_to_all_steps(short, monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticks))
    rows = bench.sampling_rows(repeats=1)
    assert [row["seconds"] for row in rows] == [1, 1, 1, 1, 10, 10]
    assert rows[-1]["note"].startswith("20 steps, timed over 2")


def test_whole_commands_are_compared_to_importing_what_they_rest_on(monkeypatch):
    seconds = {"-c": 2.0, "--help": 0.5, "1000": 3.0}
    monkeypatch.setattr(bench, "_cpu_seconds", lambda command: seconds.get(command[-1], seconds.get(command[1])))
    rows = {row["name"]: row["ratio"] for row in bench.command_rows(repeats=1)}
    assert rows == {"import torch, pandas": 1, "nagkit --help": 0.25, "nagkit sample --guide cifar10 --n 1000": 1.5}


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
