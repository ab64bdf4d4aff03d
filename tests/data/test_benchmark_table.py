"""Queries: every name is spelled, every number says its oracle, and no network is ever needed."""

import socket

import numpy as np
import pytest

from nagkit.benchmarks.table import Benchmark, open_benchmark
from nagkit.data import upstream
from nagkit.data.io import write_arrays
from nagkit.errors import NagkitError
from nagkit.spaces import nb201
from nagkit.spaces.base import get_space

SPACE = nb201.Space()


@pytest.fixture
def toy():
    columns = {
        "cifar10/test/accuracy": np.arange(15_625.0),
        "cifar10/test/latency_pixel3": np.where(np.arange(15_625) % 2, np.nan, 5.0),
        "darcy/test/accuracy": np.zeros(15_625),
    }
    return Benchmark(get_space("nb201"), "table", list(columns), columns.__getitem__)


def test_query_returns_the_row_of_each_cell(toy):
    archs = SPACE.random(100, np.random.default_rng(0))
    values = toy.query(archs, "cifar10", split="test")
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, SPACE.code(archs))
    assert len(toy.query(archs[:0], "cifar10", split="test")) == 0


def test_optimum_is_the_best_cell_in_the_direction_of_the_metric(toy):
    assert toy.optimum("cifar10", split="test") == 15_624
    assert toy.optimum("cifar10", split="test", metric="latency_pixel3") == 5


def test_split_must_be_spelled(toy):
    with pytest.raises(TypeError):
        toy.query(SPACE.all()[:1], "cifar10")


@pytest.mark.parametrize(
    ("dataset", "split", "metric", "message"),
    [
        ("cifar-10", "test", "accuracy", "unknown data set 'cifar-10'.*did you mean 'cifar10'"),
        ("darcy", "validation12", "accuracy", "unknown split of darcy 'validation12'"),
        ("cifar10", "test", "latency_pixel", r"unknown metric of cifar10/test \(table\) 'latency_pixel'.*latency_pixel3"),
    ],
)
def test_unknown_names_are_one_line_with_the_choices(toy, dataset, split, metric, message):
    with pytest.raises(NagkitError, match=message) as caught:
        toy.query(SPACE.all()[:1], dataset, split=split, metric=metric)
    assert "choose one of" in str(caught.value)


def test_an_invalid_row_is_named(toy):
    archs = SPACE.all()[:5].copy()
    archs[3] = -1
    with pytest.raises(NagkitError, match=r"row 3 is not valid in nb201: \[-1, -1"):
        toy.query(archs, "cifar10", split="test")
    with pytest.raises(NagkitError, match=r"got shape \(6,\)"):
        toy.query(archs[0], "cifar10", split="test")


def test_columns_cannot_be_changed_by_their_readers(toy):
    with pytest.raises(ValueError, match="read-only"):
        toy.column("cifar10", split="test")[0] = 100


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a benchmark opened the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_without_data_auto_is_the_surrogate(no_data, no_network):
    bench = open_benchmark()
    assert bench.oracle == "surrogate" and bench.describe().startswith("surrogate: ") and "\n" not in bench.describe()
    assert {"cifar10", "cifar100", "imagenet16-120", "ninapro", "darcy"} <= set(bench.datasets)


def test_without_data_the_table_is_an_error_with_the_remedy(no_data, no_network):
    with pytest.raises(NagkitError, match="nagkit data fetch.*NAGKIT_MIRROR"):
        open_benchmark(oracle="table")


def test_an_empty_mirror_is_an_error_not_a_silent_surrogate(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("NAGKIT_MIRROR", str(tmp_path))
    with pytest.raises(NagkitError, match="is missing at"):
        open_benchmark()


def test_a_converted_table_is_used_and_the_surrogate_can_be_forced(no_data, own_cache):
    write_arrays(upstream.table_path(), {"cifar10/test/accuracy": np.arange(15_625.0)})
    bench = open_benchmark()
    assert bench.oracle == "table" and bench.optimum("cifar10", split="test") == 15_624
    assert bench.fidelity("cifar10", split="test") is None
    assert open_benchmark(oracle="surrogate").oracle == "surrogate"


def test_a_damaged_converted_table_is_one_line(no_data):
    path = write_arrays(upstream.table_path(), {"cifar10/test/accuracy": np.arange(15_625.0)})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(NagkitError, match="cannot read .*delete it"):
        open_benchmark()


def test_unknown_space_and_oracle_are_named():
    with pytest.raises(NagkitError, match="unknown search space 'nb101'"):
        open_benchmark("nb101")
    with pytest.raises(NagkitError, match="unknown oracle 'real'"):
        open_benchmark(oracle="real")


def test_the_real_table_says_so(table):
    assert table.oracle == "table" and "15,625" in table.describe()
    assert table.datasets == ("cifar10", "cifar100", "darcy", "imagenet16-120", "ninapro")


def test_conversion_into_an_unwritable_cache_is_one_line(converted, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(upstream, "nats_bench", dict)
    for source in ("twelve_epochs", "nas_bench_360", "hardware", "robustness"):
        monkeypatch.setattr(upstream, source, dict)
    with pytest.raises(NagkitError, match="cannot write .*NAGKIT_CACHE"):
        open_benchmark()
