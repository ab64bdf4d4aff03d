"""Independent jobs, each kept as a small file when it is done: an interrupted run goes on where it stopped."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError

Arrays = Mapping[str, np.ndarray]


def map_jobs(
    function: Callable[..., Arrays],
    jobs: Sequence[Mapping],
    *,
    data: Iterable[Path] = (),
    n_workers: int = 1,
    progress: bool = True,
) -> list[dict[str, np.ndarray]]:
    """`function(**job)` for every job, in order; named arrays each.

    A finished job lies in the cache folder under a hash of the function's name, the job (JSON) and the contents of the
    `data` files it reads, so a change of a checkpoint or preset starts anew. A damaged file is recomputed. With
    `n_workers` > 1 the jobs run in that many processes of one thread; the results are the same.
    """
    if n_workers < 1:
        raise NagkitError(f"n_workers must be at least 1, got {n_workers}")
    stamp = [hashlib.sha256(path.read_bytes()).hexdigest() for path in data]
    name = f"{function.__module__}.{function.__qualname__}"
    folder = paths.cache() / "jobs" / name
    files = [folder / f"{_digest([name, job, stamp])}.safetensors" for job in jobs]
    found = [_read(file) for file in files]
    missing = [i for i, result in enumerate(found) if result is None]
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=function.__name__, unit="job", disable=not progress)
    todo = [(jobs[i], files[i]) for i in missing]
    with bar:
        for i, result in zip(missing, _results(partial(_finish, function), todo, n_workers), strict=True):
            found[i] = result
            bar.update()
    return found


def _results(finish: Callable, todo: list, n_workers: int):
    if n_workers == 1 or len(todo) < 2:
        yield from map(finish, todo)
        return
    context = get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(finish, todo)


def _finish(function: Callable, item: tuple[Mapping, Path]) -> dict[str, np.ndarray]:
    job, file = item
    result = {key: np.asarray(value) for key, value in function(**job).items()}
    io.write_arrays(file, result)
    return result


def _read(file: Path) -> dict[str, np.ndarray] | None:
    if not file.is_file():
        return None
    try:
        return io.read_arrays(file)[0]
    except NagkitError:
        return None


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
