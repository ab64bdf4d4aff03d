"""How fast sampling and measuring are, each beside what it replaces, timed in the same run; and what notebooks took here."""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median

import numpy as np
import torch

from nagkit import paths
from nagkit.benchmarks import measured, supernet
from nagkit.benchmarks.inherited import Inherited
from nagkit.devices import threads
from nagkit.errors import NagkitError
from nagkit.published import checkpoints, graphs, networks, sampler
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import PRIORS, prepare
from nagkit.spaces.base import get_space
from nagkit.study.jobs import peak_rss_mb

PAPER_STEPS, TIMED_STEPS = 1000, 10
N_UNGUIDED, N_GUIDED = 10_000, 256


def notebook_rows() -> list[dict]:
    """What the quick run of every notebook took on this machine: seconds, peak memory in MiB, oracle, and the processor.

    `kept` counts the jobs that an earlier run had finished, whose time and memory are not in it. `NagkitError` when nothing
    was run.
    """
    records = sorted(paths.results("quick").glob("*.provenance.json"))
    if not records:
        raise NagkitError(f"no notebook was run: {paths.results('quick')} holds no provenance; run `make reproduce` first")
    rows = []
    for record in (json.loads(path.read_text(encoding="utf-8")) for path in records):
        row = {name: record[name] for name in ("exhibit", "seconds", "peak_rss_mb", "oracle", "cpu", "cores")}
        rows.append(row | {"kept": record.get("jobs", {}).get("finished by an earlier run", 0)})
    return rows


def sampling_rows(*, repeats: int = 3, seed: int = 0) -> list[dict]:
    """Time sampling: 10,000 unguided cells, 256 ones guided towards CIFAR-10 by either prior, 10,000 by masked diffusion,
    which guides exactly, and the published method.

    The reference is the published score network with random weights under the 1,000 steps of the published sampler on a batch
    of 256, extrapolated from 10 steps, without guidance and with the published guide. Each row has `name`, `n`, `seconds`
    (median of `repeats`, after a warm-up), `seconds_per_1000`, `ratio` (how many times less time per architecture than its
    reference; 1 for a reference), `peak_rss_mb` (high-water mark of the process by the end of that row) and `note`.
    """
    if repeats < 1:
        raise NagkitError(f"repeats must be at least 1, got {repeats}")
    space = get_space()
    network, mask = networks.ScoreNetwork(space.n_nodes, space.n_ops).eval(), graphs.mask(space.name, "closure")
    aimed = checkpoints.bind(checkpoints.load("guide", 0), "cifar10", seed)
    published: dict[str, sampler.Score] = {"unguided": lambda x, sigma: network(x, sigma, mask)}
    published["guided"] = sampler.guided(published["unguided"], aimed, 10_000.0)
    plans = {prior: prepare(space, prior=prior, guide="cifar10") for prior in PRIORS}
    start = time.perf_counter()
    plans["masked"] = prepare(space, guide="cifar10", diffusion="masked")
    known = time.perf_counter() - start
    plans["unguided"] = prepare(space, sampler=plans["exact"].sampler)

    def ours(name: str, n: int) -> None:
        for _ in plans[name].draws(n, seed):
            pass

    def theirs(score: sampler.Score) -> None:
        stream, shape = torch_stream(seed, "bench"), (N_GUIDED, space.n_nodes, space.n_ops)
        with threads(1):
            sampler.sample(score, lambda: torch.randn(shape, generator=stream), steps=TIMED_STEPS)

    default = f"{plans['exact'].sampler}, {len(plans['exact'].sigmas) - 1} steps"
    extrapolated, factor = f"{PAPER_STEPS} steps, timed over {TIMED_STEPS}", PAPER_STEPS / TIMED_STEPS
    rows = [_row("unguided, exact prior", N_UNGUIDED, default, repeats, 1, partial(ours, "unguided", N_UNGUIDED))]
    for prior in PRIORS:
        rows.append(_row(f"guided, {prior} prior", N_GUIDED, default, repeats, 1, partial(ours, prior, N_GUIDED)))
    scored = f"one slot at a time, after {known:.1f} s that scored the whole space"
    rows.append(_row("guided, masked diffusion", N_UNGUIDED, scored, repeats, 1, partial(ours, "masked", N_UNGUIDED)))
    n_ours = len(rows)
    for name, score in published.items():
        rows.append(_row(f"published, {name}", N_GUIDED, extrapolated, repeats, factor, partial(theirs, score)))
    cost = {row["name"]: row["seconds_per_1000"] for row in rows}
    for row in rows[:n_ours]:
        row["ratio"] = cost[f"published, {row['name'].partition(',')[0]}"] / row["seconds_per_1000"]
    return rows


def command_rows(*, repeats: int = 5) -> list[dict]:
    """CPU seconds of whole commands, each started anew, and their `ratio` to importing torch and pandas in the same run."""
    main = [sys.executable, "-m", "nagkit.cli"]
    commands = {"import torch, pandas": [sys.executable, "-c", "import torch, pandas"]} | {
        f"nagkit {' '.join(options)}": [*main, *options]
        for options in (["--help"], ["sample", "--guide", "cifar10", "--n", "1000"])
    }
    times = {name: median(_cpu_seconds(command) for _ in range(repeats)) for name, command in commands.items()}
    reference = times["import torch, pandas"]
    note = f"whole command, CPU seconds, median of {repeats}"
    return [{"name": name, "n": 1, "seconds": t, "ratio": t / reference, "note": note} for name, t in times.items()]


def _cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measuring_rows(*, n: int = 100, seed: int = 0) -> list[dict]:
    """Time the measurement of MBv3 networks with inherited weights on 1,000 images, by the committed supernet.

    The networks are `n` neighbours among 1,000 random ones in lexicographic order, as the oracle takes them; the images are
    random. The reference takes them one by one, so that nothing is shared. Each row has `name`, `n`, `seconds`,
    `per_minute`, `ratio` (of its rate to the reference's) and `note`. Processes have one thread each.
    """
    networks = measured.SPACE.random(1000, numpy_stream(seed, "bench/networks"))
    networks = networks[np.lexsort(networks.T[::-1])][500 - n // 2 :][:n]
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(seed,)) as pool:
        list(pool.map(_measure, [networks[:1]] * cores))  # starts the processes
        ways = {
            "one by one, one process": (1, list(networks[:, None])),
            "sharing layers, one process": (1, [networks]),
            f"sharing layers, {cores} processes": (cores, np.array_split(networks, cores)),
        }
        rows = []
        for name, (together, parts) in ways.items():
            start = time.perf_counter()
            for first in range(0, len(parts), together):
                list(pool.map(_measure, parts[first : first + together]))
            seconds = time.perf_counter() - start
            rate = 60 * len(networks) / seconds
            row = {"name": name, "n": len(networks), "seconds": seconds, "per_minute": rate}
            rows.append(row | {"ratio": rate / (rows[0] if rows else row)["per_minute"], "note": "1,000 images"})
    return rows


_measuring: Callable[[np.ndarray], np.ndarray]


def _prepare(seed: int) -> None:
    """In a process of its own: images to measure on, and the supernet."""
    global _measuring
    torch.set_num_threads(1)
    rng, network = numpy_stream(seed, "bench/images"), supernet.load(supernet.CHECKPOINT)
    images = rng.integers(0, 256, (1000, 32, 32, 3)).astype(np.uint8)
    inherited = Inherited(images, images, rng.integers(0, network.n_classes, 1000))
    _measuring = partial(inherited.accuracy, network, progress=False)


def _measure(archs: np.ndarray) -> np.ndarray:
    return _measuring(archs)


def _row(name: str, n: int, note: str, repeats: int, factor: float, run: Callable[[], None]) -> dict:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    seconds = factor * median(times)
    row = {"name": name, "n": n, "seconds": seconds, "seconds_per_1000": 1000 * seconds / n, "ratio": 1.0}
    return row | {"peak_rss_mb": peak_rss_mb(), "note": f"{note}, {torch.get_num_threads()} threads"}
