"""Finished jobs are kept, and made anew when their data or code changed; a real cluster changes nothing."""

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

from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream
from nagkit.study import jobs
from nagkit.study.jobs import Task

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


def run(function, arguments, files=(), **options):
    """The arrays of `function(**each)` for each of `arguments`."""
    tasks = [Task(function, one, tuple(files)) for one in arguments]
    return [done.arrays for done in jobs.run(tasks, progress=False, **options)]


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
    wanted = [{"seed": 2}, {"seed": 1}, {"seed": 3, "n": 5}]
    first = run(draw, wanted)
    assert [len(result["x"]) for result in first] == [3, 3, 5]
    again = run(draw, wanted)
    assert CALLS == [2, 1, 3]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_an_interrupted_run_keeps_what_was_finished():
    with pytest.raises(KeyboardInterrupt):
        run(draw, [{"seed": 1}, {"seed": 13}])
    run(draw, [{"seed": 1}, {"seed": 2}])
    assert CALLS == [1, 13, 2]


def test_equal_jobs_are_done_once_and_a_job_file_says_who_made_it():
    first, second = jobs.run([Task(draw, {"seed": 1}), Task(draw, {"seed": 1})], progress=False)
    assert CALLS == [1] and first is second
    record = jobs.run([Task(draw, {"seed": 1})], progress=False)[0].record
    assert record.keys() == {"function", *jobs.RECORD}
    assert record["function"] == "test_jobs:draw" and record["code"] == jobs.digest("test_jobs:draw")
    assert record["threads"] == 1 and record["processor"] == jobs.processor()


@pytest.fixture
def source(monkeypatch):
    """Set the text of a module as the digests see it."""
    texts, real = {}, jobs._source.__wrapped__
    monkeypatch.setattr(jobs, "_source", lambda module: texts.get(module, real(module)))

    def change(module, old, new):
        assert old in (text := texts.get(module) or real(module))
        texts[module] = text.replace(old, new)
        jobs._tree.cache_clear()

    jobs._tree.cache_clear()
    yield change
    jobs._tree.cache_clear()


POOL, SEARCH = "nagkit.study.pool:sample", "nagkit.search.baselines:run"


def test_a_changed_line_changes_the_digest_of_what_runs_it_and_of_nothing_else(source):
    before = jobs.digest(POOL), jobs.digest(SEARCH)
    source("nagkit.guidance", "scale * variance * gradient", "2 * scale * variance * gradient")
    after = jobs.digest(POOL), jobs.digest(SEARCH)
    assert after[0] != before[0] and after[1] == before[1]


def test_a_space_that_is_loaded_by_name_is_part_of_the_code(source):
    before = jobs.digest(POOL)
    source("nagkit.spaces.mbv3", "KERNELS, EXPANDS, DEPTHS = (3, 5, 7)", "KERNELS, EXPANDS, DEPTHS = (3, 5, 9)")
    assert jobs.digest(POOL) != before


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("nagkit.guidance", "        shifted =", "        # both\n        shifted ="),
        ("nagkit.guidance", '"""Predictor guidance:', '"""Guidance by a predictor:'),
        ("nagkit.study.tidy", "COLUMNS = (", "COLUMNS = COLUMNS = ("),
        ("nagkit.cli", "import click", "import click\nimport this"),
    ],
    ids=["a comment", "a docstring", "reporting", "the command line"],
)
def test_comments_docstrings_and_reporting_change_no_digest(source, module, old, new):
    before = jobs.digest(POOL)
    source(module, old, new)
    assert jobs.digest(POOL) == before


def test_changed_code_makes_the_job_anew(source):
    run(draw, [{"seed": 1}])
    source("nagkit.rng", "np.random.SeedSequence([seed", "np.random.SeedSequence([1 + seed")
    run(draw, [{"seed": 1}])
    run(draw, [{"seed": 1}])
    assert CALLS == [1, 1]


def test_what_no_worker_could_run_is_refused():
    with pytest.raises(NagkitError, match="is no importable function, so no worker can run it"):
        run(lambda seed: {}, [{"seed": 1}])
    with pytest.raises(NagkitError, match="the arguments of test_jobs:draw must be plain"):
        run(draw, [{"seed": np.zeros(3)}])


def test_a_damaged_file_is_recomputed_and_said_so(tmp_path, capsys):
    (first,) = run(draw, [{"seed": 1}])
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:20])
    (again,) = run(draw, [{"seed": 1}])
    np.testing.assert_array_equal(first["x"], again["x"])
    assert CALLS == [1, 1]
    assert f"{file} is damaged; computing it anew" in capsys.readouterr().err


def test_changed_data_starts_anew(tmp_path):
    data = tmp_path / "checkpoint"
    for content in ("a", "b", "a"):
        data.write_text(content)
        run(draw, [{"seed": 1}], files=[data])
    assert CALLS == [1, 1]


def test_two_processes_give_the_same_results(tmp_path, monkeypatch):
    wanted = [{"seed": seed} for seed in range(4)]
    here = run(draw, wanted)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "other"))
    there = run(draw, wanted, n_workers=2)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_no_worker_is_refused():
    with pytest.raises(NagkitError, match="n_workers must be at least 1, got 0"):
        run(draw, [{"seed": 1}], n_workers=0)


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
    wanted = [{"seed": seed} for seed in range(12)]
    here = run(slow, wanted)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "other"))

    def kill():
        until(lambda: any((tmp_path / "other").rglob("*.safetensors")))
        workers[0].kill()

    monkeypatch.setattr(jobs, "TIMEOUT", 60.0)  # importing Dask takes a while on a busy machine
    killer = threading.Thread(target=kill)
    killer.start()
    there = run(slow, wanted, scheduler=address)
    killer.join()
    assert workers[0].wait() == -signal.SIGKILL
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one["x"], other["x"])


def test_a_sweep_that_was_interrupted_goes_on_where_it_stopped(tmp_path):
    program = "import test_jobs as t; t.run(t.slow, [{'seed': i} for i in range(30)])"
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE)
    until(lambda: len(list(tmp_path.rglob("*.safetensors"))) >= 2)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert 2 <= len(kept) < 30
    found = run(slow, [{"seed": seed} for seed in range(30)])
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    np.testing.assert_array_equal(found[29]["x"], slow(29)["x"])


def test_a_scheduler_that_does_not_answer_is_reported_within_ten_seconds():
    with socket.socket() as silent:  # listens, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(NagkitError, match=f"no Dask scheduler answers at {address} within 6 s"):
            run(draw, [{"seed": 1}], scheduler=address)
        assert time.monotonic() - start < 10
    with pytest.raises(NagkitError, match="no Dask scheduler answers at nonsense"):
        run(draw, [{"seed": 1}], scheduler="nonsense")
