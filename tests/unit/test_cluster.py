"""Finished jobs are kept, and recomputed when damaged or when their data changed; a real cluster changes nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nagkit import cluster
from nagkit.cluster import map_jobs
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream

CALLS = []


def draw(seed, n=3):
    CALLS.append(seed)
    if seed == 13:
        raise KeyboardInterrupt
    return {"x": numpy_stream(seed, "test").normal(size=n), "n": n}


def slow(seed):
    """A fifth of a second, as a job of a real sweep takes longer than its bookkeeping."""
    time.sleep(0.2)
    return {"x": numpy_stream(seed, "test").normal(size=4)}


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


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


def test_jobs_that_an_earlier_run_finished_are_counted():
    before = dict(cluster.tally)
    map_jobs(draw, [{"seed": 1}, {"seed": 2}], progress=False)
    map_jobs(draw, [{"seed": 2}, {"seed": 3}], progress=False)
    assert cluster.tally["asked"] - before["asked"] == 4
    assert cluster.tally["kept"] - before["kept"] == 1


def test_a_damaged_file_is_recomputed_and_said_so(tmp_path, capsys):
    (first,) = map_jobs(draw, [{"seed": 1}], progress=False)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:20])
    (again,) = map_jobs(draw, [{"seed": 1}], progress=False)
    np.testing.assert_array_equal(first["x"], again["x"])
    assert CALLS == [1, 1]
    assert f"{file} is damaged; computing it anew" in capsys.readouterr().err


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


def listens(address):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rsplit(":", 1)[1]))) == 0


@pytest.fixture
def scheduler():
    """A Dask scheduler and two workers, each a process of its own on the loopback: (address, processes of the workers)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = {"env": os.environ | {"PYTHONPATH": path}, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", address, "--dashboard-address", ":0"]
    work = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard", "--nthreads", "1"]
    processes = [subprocess.Popen(command, **options) for command in (start, work, work)]
    until(lambda: listens(address))
    yield address, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


def test_a_worker_killed_in_mid_sweep_changes_nothing(scheduler, tmp_path, monkeypatch):
    address, workers = scheduler
    jobs = [{"seed": seed} for seed in range(12)]
    here = map_jobs(slow, jobs, progress=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "other"))

    def kill():
        until(lambda: any((tmp_path / "other").rglob("*.safetensors")))
        workers[0].kill()

    monkeypatch.setattr("nagkit.cluster.TIMEOUT", 60.0)  # importing Dask takes a while on a busy machine
    killer = threading.Thread(target=kill)
    killer.start()
    there = map_jobs(slow, jobs, scheduler=address, progress=False)
    killer.join()
    assert workers[0].wait() == -signal.SIGKILL
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_a_sweep_that_was_interrupted_goes_on_where_it_stopped(tmp_path):
    program = "import nagkit.cluster, test_cluster as t; nagkit.cluster.map_jobs(t.slow, [{'seed': i} for i in range(30)])"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE)
    until(lambda: len(list(tmp_path.rglob("*.safetensors"))) >= 2)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert 2 <= len(kept) < 30
    found = map_jobs(slow, [{"seed": seed} for seed in range(30)], progress=False)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    np.testing.assert_array_equal(found[29]["x"], slow(29)["x"])


def test_a_scheduler_that_does_not_answer_is_reported_within_ten_seconds():
    with socket.socket() as silent:  # listens, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(NagkitError, match=f"no Dask scheduler answers at {address} within 6 s"):
            map_jobs(draw, [{"seed": 1}], scheduler=address, progress=False)
        assert time.monotonic() - start < 10
    with pytest.raises(NagkitError, match="no Dask scheduler answers at nonsense"):
        map_jobs(draw, [{"seed": 1}], scheduler="nonsense", progress=False)
