"""The statistics of the supernet's validity, on measurements whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from nagkit.benchmarks import supernet, validity
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3
from nagkit.study import supernet as study
from nagkit.study.exhibit import Exhibit
from nagkit.study.jobs import Done


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function: how `alone` and `inherited` follow from cost, and the noise of a draw → the results."""

    def made(alone, inherited, noise, shift=0.0):
        rng = numpy_stream(0, "test/supernet study")

        class Bench:
            def __init__(self, **_):
                pass

            def query(self, archs, dataset, *, split, draw=0, n_images=1000):
                blur = noise * rng.standard_normal(len(archs)) if n_images == 1000 else 0
                return inherited(_cost(archs)) + blur + shift * draw

        monkeypatch.setattr(validity, "Measured", Bench)

        def done(tasks, **_):
            archs = [mbv3.Space().from_string([task.arguments["arch"]]) for task in tasks]
            return [Done({"accuracy": alone(_cost(arch))}, {}) for arch in archs]

        monkeypatch.setattr(validity, "run", done)
        for name, owner in (("FILE", validity), ("CHECKPOINT", supernet), ("CURVE", study)):
            monkeypatch.setattr(owner, name, tmp_path / f"{name}.csv")
        monkeypatch.setattr(validity.table, "__defaults__", (validity.FILE,))
        supernet.CHECKPOINT.write_text("weights")
        pd.DataFrame({"epoch": [1, 2], "loss": [5.0, 4.0], "smallest": [2.0, 3.0], "largest": [2.5, 4.0]}).to_csv(study.CURVE)
        validity.build(validity.FILE)
        results = Exhibit("supernet", oracle="supernet").run()
        results.compute(study.assess, resamples=200)
        return results

    return made


def _cost(archs):
    return supernet.multiply_accumulates(archs) / 3e5


def _value(found, row, column, metric):
    return found.number(row, column, metric)["value"]


def test_a_perfect_oracle_ranks_perfectly_and_equals_the_null_it_is(run):
    found = run(lambda cost: 5 + cost, lambda cost: 10 + cost / 2, 0.0, shift=3.0)
    assert _value(found, study.ALL, "all", study.TAU) == _value(found, study.DRAWN, "all", study.TAU) == 1
    assert _value(found, study.NULLS[0], "all", study.TAU) == 1
    assert _value(found, "inherited-1000 minus macs", "all", f"difference of {study.TAU}") == 0
    assert _value(found, study.DRAWN, "all", "τ between draws") == 1


def test_a_shift_common_to_a_draw_is_noise_of_the_level_and_not_of_the_ranking(run):
    found = run(lambda cost: 5 + cost, lambda cost: 10 + cost, 0.0, shift=3.0)
    assert _value(found, "as-measured", "five draws", "repeat noise") == pytest.approx(3 * np.std(range(5), ddof=1), abs=1e-3)
    assert _value(found, "means-off", "five draws", "repeat noise") == pytest.approx(0, abs=1e-3)


def test_the_noise_of_a_draw_is_found(run):
    """100 independent normal numbers have a standard deviation within a quarter of the true one (false alarm below 0.1 %)."""
    found = run(lambda cost: 5 + cost, lambda cost: 10 + cost, 2.0)
    for row in ("as-measured", "means-off"):
        assert _value(found, row, "five draws", "repeat noise") == pytest.approx(2.0, rel=0.25)
    assert _value(found, "fresh", "two draws", "within the noise") >= 70


def test_an_oracle_worse_than_its_null_is_called_so(run):
    found = run(lambda cost: 5 + cost, lambda cost: 10 - cost, 0.0)
    assert _value(found, study.ALL, "all", study.TAU) == -1
    assert found.number("inherited-4000 minus macs", "all", f"difference of {study.TAU}").hi < 0


def test_each_depth_has_its_depth_and_no_group_repeats_another():
    groups = validity.groups()
    for depth in mbv3.DEPTHS:
        archs = groups[f"depth {depth}"]
        assert mbv3.Space().is_valid(archs).all() and (mbv3.depths(archs) == depth).all()
    every = np.concatenate(list(groups.values()))
    assert len(np.unique(every, axis=0)) == len(every)
