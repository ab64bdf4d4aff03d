"""Distances, top fives and shares behind the exhibits on guidance."""

import numpy as np

from nagkit.spaces import nb201
from nagkit.studies import hardware

SPACE = nb201.Space()
UNIFORM = np.full(SPACE.size, 1 / SPACE.size)
POINT = np.eye(1, SPACE.size)[0]
INVALID = np.full((4, 6), -1, np.int8)


def test_searches_with_predictors_keep_to_their_budget_and_begin_alike(monkeypatch, tmp_path):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    limit = float(np.quantile(hardware.figures("latency_pixel3")[:, 1], hardware.LIMIT))
    found = [
        hardware.search("latency_pixel3", method, 0, 30, 1, 100.0, bound)["archs"]
        for method, bound in ((hardware.GUIDED, None), (hardware.RANKED, limit))
    ]
    for archs in found:
        assert archs.shape == (30, 6) and len(np.unique(SPACE.code(archs))) == 30
    np.testing.assert_array_equal(found[0][:15], found[1][:15])
