"""Pools of any size: the same draws in a file and in a folder, whoever drew them, and only whole parts."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from nagkit import draws, sampling
from nagkit.errors import NagkitError
from nagkit.spaces import nb201

REQUEST = {"space": "nb201", "seed": 4, "guide": "cifar10"}


@pytest.fixture
def small(monkeypatch):
    """Shards of 512 draws, so that 1,300 draws are three."""
    for module in (sampling, draws):
        monkeypatch.setattr(module, "SHARD", sampling.BATCH)


def drawn(n):
    return draws.planned(**REQUEST)[0].draws(n, REQUEST["seed"])


def read(folder):
    return pd.concat([pd.read_parquet(part) for part in sorted(folder.iterdir())], ignore_index=True)


def test_a_csv_a_parquet_file_and_a_folder_hold_the_same_draws(small, tmp_path):
    for name in ("pool.csv", "pool.parquet"):
        draws.write(drawn(1300), tmp_path / name)
    assert draws.write_parts(tmp_path / "pool", REQUEST, 1300) == 0
    first = pd.read_csv(tmp_path / "pool.csv", keep_default_na=False)
    for other in (pd.read_parquet(tmp_path / "pool.parquet"), read(tmp_path / "pool")):
        pd.testing.assert_frame_equal(first, other, check_dtype=False)
    assert sorted(p.name for p in (tmp_path / "pool").iterdir()) == [f"part-0000{i}.parquet" for i in range(3)]


def test_draws_within_the_first_shard_are_those_of_one_stream():
    pool = sampling.generate("nb201", 1300, seed=4, guide="cifar10")
    assert (sampling.joined(list(drawn(1300))).archs == pool.archs).all()


def test_two_workers_draw_the_same_parts_as_one(tmp_path):
    pytest.importorskip("distributed")
    request = {"space": "nb201", "seed": 0}
    for folder, n_workers in (("one", 1), ("two", 2)):
        draws.write_parts(tmp_path / folder, request, sampling.SHARD + 100, n_workers=n_workers)
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    assert len(one) == sampling.SHARD + 100
    pd.testing.assert_frame_equal(one, two)


def test_an_interrupted_run_keeps_its_whole_parts(small, tmp_path, monkeypatch):
    draws.write_parts(tmp_path, REQUEST, 1300)
    whole = read(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    made = []
    monkeypatch.setattr(draws, "shard", lambda *a, **k: made.append(a[1]) or shard(*a, **k))
    assert draws.write_parts(tmp_path, REQUEST, 1300) == 2
    assert made == [1]
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in times.items())
    pd.testing.assert_frame_equal(read(tmp_path), whole)


shard = draws.shard


def test_a_folder_with_other_draws_is_left_alone(small, tmp_path):
    draws.write_parts(tmp_path, REQUEST, 1300)
    for request, n in ((REQUEST | {"seed": 5}, 1300), (REQUEST | {"scale": 3.0}, 1300), (REQUEST, 512), (REQUEST, 1200)):
        with pytest.raises(NagkitError, match=r"part-0000\d.parquet holds other draws than these; delete it, or name another"):
            draws.write_parts(tmp_path, request, n)


def test_a_damaged_part_is_named(small, tmp_path):
    draws.write_parts(tmp_path, REQUEST, 600)
    (tmp_path / "part-00000.parquet").write_bytes(b"torn")
    with pytest.raises(NagkitError, match="part-00000.parquet is damaged; delete it, and it is drawn again"):
        draws.write_parts(tmp_path, REQUEST, 600)


def test_a_failed_run_leaves_no_file(tmp_path):
    def failing():
        yield next(iter(drawn(5)))
        raise RuntimeError("no more")

    for name in ("pool.csv", "pool.parquet"):
        with pytest.raises(RuntimeError):
            draws.write(failing(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_parquet_file_has_typed_columns_and_nulls_where_a_draw_is_invalid(tmp_path):
    plan, _ = draws.planned("nb201", guide="cifar10", rule="xt", scale=30_000)
    draws.write(plan.draws(200), tmp_path / "pool.parquet")
    table = parquet.read_table(tmp_path / "pool.parquet")
    assert [str(kind) for kind in table.schema.types] == ["string", "string", "double"]
    invalid = np.array(table["error"].to_pylist()) != ""
    assert invalid.any() and table["predicted"].null_count == invalid.sum()


def test_best_first_sorts_by_prediction_with_invalid_draws_last():
    plan, _ = draws.planned("nb201", guide="cifar10", rule="xt", scale=30_000)
    pool = draws.best_first(plan.draws(200))
    predicted = pool.scores["predicted"]
    n_valid = len(pool.valid)
    assert (np.diff(predicted[:n_valid]) <= 0).all() and np.isnan(predicted[n_valid:]).all() and n_valid < 200


def test_an_objective_adds_its_own_column():
    plan, notes = draws.planned("nb201", objective="latency:pixel3", guide="cifar10", pairs=40)
    (pool,) = plan.draws(20)
    assert list(pool.columns()) == ["arch", "error", "predicted", "latency_pixel3"]
    assert "latency_pixel3: linear model of 40 measured cells" in notes[0]
    assert nb201.Space().is_valid(pool.valid).all()


def test_memory_does_not_grow_with_the_number_of_draws(tmp_path):
    """Ten times as many draws, and not ten bytes more for each: a table of them would hold two hundred."""
    peaks = []
    for n in (30_000, 300_000):
        code = (
            "import resource, pathlib; from nagkit import draws\n"
            f"draws.write(draws.planned('nb201')[0].draws({n}), pathlib.Path({str(tmp_path / 'pool.csv')!r}))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * (1 if sys.platform == "darwin" else 1024))
    assert peaks[1] - peaks[0] < 10 * 270_000
