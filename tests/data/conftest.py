"""Fixtures of the data layer: every test has its own cache; tests of the real tables share one converted copy."""

import os

import pytest

from nagkit.benchmarks.table import open_benchmark
from nagkit.data import upstream


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """Folder of the converted real tables."""
    if "NAGKIT_MIRROR" not in os.environ:
        pytest.skip("NAGKIT_MIRROR is not set: no real tables to test against")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAGKIT_CACHE", str(tmp_path_factory.mktemp("tables")))
        return upstream.convert(progress=False).parent


@pytest.fixture
def real_tables(converted, monkeypatch):
    """Point the cache at the converted real tables."""
    monkeypatch.setenv("NAGKIT_CACHE", str(converted))
    return converted


@pytest.fixture
def table(real_tables):
    return open_benchmark(oracle="table")


@pytest.fixture
def no_data(monkeypatch):
    """A machine without mirror and without converted tables."""
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
