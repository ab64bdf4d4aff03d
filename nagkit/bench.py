"""How fast sampling and measuring are, each beside what it replaces, timed in the same run; and what notebooks took here."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median

import numpy as np
import torch

from nagkit import paths
from nagkit.benchmarks import supernet
from nagkit.benchmarks.inherited import Inherited
from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.samplers import Denoiser, generate
from nagkit.diffusion.score import PaperScoreNetwork, as_denoiser
from nagkit.diffusion.sde import paper_sigmas
from nagkit.errors import NagkitError
from nagkit.report.exhibits import peak_rss_mb
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import mbv3
from nagkit.spaces.base import get_space

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


def sampling_rows(
    guided: Mapping[str, Denoiser] | None = None,
    *,
    guide_reference: Callable[[Denoiser], Denoiser] | None = None,
    repeats: int = 3,
    seed: int = 0,
) -> list[dict]:
    """Time NB201 sampling: 10,000 unguided cells, 256 guided ones, and the paper's preset as the reference.

    The reference is the paper's network with random weights under 1,000 predictor-corrector steps on a batch of 256,
    extrapolated from 10 steps. `guided` adds a row for each of its denoisers, by the name of their prior; `guide_reference`
    wraps the reference denoiser as the paper guides it and adds a guided reference, to which they are then compared.
    Each row has `name`, `n`, `seconds` (median of `repeats`, after a warm-up), `seconds_per_1000`, `ratio` (how many times
    less time per cell than its reference; 1 for a reference), `peak_rss_mb` (high-water mark of the process by the end of
    that row) and `note`.
    """
    if repeats < 1:
        raise NagkitError(f"repeats must be at least 1, got {repeats}")
    space = get_space("nb201")
    network = PaperScoreNetwork(space.n_nodes, space.n_ops, space.adjacency)
    reference = as_denoiser(network, clamp=False)

    def ours(denoiser: Denoiser, n: int) -> None:
        generate(space, denoiser, n, generator=torch_stream(seed, "bench"))

    def papers(denoiser: Denoiser) -> None:
        levels = paper_sigmas(PAPER_STEPS)[: TIMED_STEPS + 1]
        generate(space, denoiser, N_GUIDED, sampler="pc", sigmas=levels, generator=torch_stream(seed, "bench"))

    default, extrapolated = "ancestral, 20 steps", f"pc, {PAPER_STEPS} steps, timed over {TIMED_STEPS}"
    factor = PAPER_STEPS / TIMED_STEPS
    rows = [_row("unguided, exact prior", N_UNGUIDED, default, repeats, 1, lambda: ours(exact_prior(space), N_UNGUIDED))]
    for prior, denoiser in (guided or {}).items():
        rows.append(_row(f"guided, {prior} prior", N_GUIDED, default, repeats, 1, partial(ours, denoiser, N_GUIDED)))
    rows.append(_row("paper preset, unguided", N_GUIDED, extrapolated, repeats, factor, lambda: papers(reference)))
    if guide_reference is not None:
        aimed = guide_reference(reference)
        rows.append(_row("paper preset, guided", N_GUIDED, extrapolated, repeats, factor, lambda: papers(aimed)))
    cost = {row["name"]: row["seconds_per_1000"] for row in rows}
    for row in rows:
        against = "paper preset, guided" if row["name"].startswith("guided") else "paper preset, unguided"
        if not row["name"].startswith("paper preset"):
            row["ratio"] = cost.get(against, cost["paper preset, unguided"]) / row["seconds_per_1000"]
    return rows


def measuring_rows(*, n: int = 100, seed: int = 0) -> list[dict]:
    """Time the measurement of MBv3 networks with inherited weights on 1,000 images, by the committed supernet.

    The networks are `n` neighbours among 1,000 random ones in lexicographic order, as the oracle takes them; the images are
    random. The reference takes them one by one, so that nothing is shared. Each row has `name`, `n`, `seconds`,
    `per_minute`, `ratio` (of its rate to the reference's) and `note`. Processes have one thread each.
    """
    networks = mbv3.Space().random(1000, numpy_stream(seed, "bench/networks"))
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
    rng, (network, card) = numpy_stream(seed, "bench/images"), supernet.load(supernet.CHECKPOINT)
    images = rng.integers(0, 256, (1000, 32, 32, 3)).astype(np.uint8)
    measured = Inherited(images, images, rng.integers(0, card.n_classes, 1000))
    _measuring = partial(measured.accuracy, network, progress=False)


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
    return {
        "name": name,
        "n": n,
        "seconds": seconds,
        "seconds_per_1000": 1000 * seconds / n,
        "ratio": 1.0,
        "peak_rss_mb": peak_rss_mb(),
        "note": f"{note}, {torch.get_num_threads()} threads",
    }
