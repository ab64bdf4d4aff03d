"""Independent jobs, here or on a Dask cluster, each kept as a small file when it is done: an interrupted run goes on there."""

import hashlib
import json
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError

TIMEOUT = 6.0
"""Seconds to wait for a scheduler before giving up."""

Arrays = Mapping[str, np.ndarray]

tally = {"asked": 0, "kept": 0}
"""Jobs asked for by this process, and how many of them an earlier run had finished."""


def map_jobs(
    function: Callable[..., Arrays],
    jobs: Sequence[Mapping],
    *,
    data: Iterable[Path] = (),
    n_workers: int = 1,
    scheduler: str | None = None,
    progress: bool = True,
) -> list[dict[str, np.ndarray]]:
    """`function(**job)` for every job, in order; named arrays each.

    A finished job lies in this machine's cache folder under a hash of the function's name, the job (JSON) and the contents of
    the `data` files it reads, so a change of a checkpoint or preset starts anew. A damaged file is recomputed, and said so.
    With `n_workers` > 1 the jobs run in a local Dask cluster of that many processes of one thread, with `scheduler`
    ("tcp://host:8786") on the workers of that one; a job whose worker dies runs again elsewhere, and results are the same.
    """
    if n_workers < 1:
        raise NagkitError(f"n_workers must be at least 1, got {n_workers}")
    stamp = [hashlib.sha256(path.read_bytes()).hexdigest() for path in data]
    name = f"{function.__module__}.{function.__qualname__}"
    folder = paths.cache() / "jobs" / name
    files = [folder / f"{_digest([name, job, stamp])}.safetensors" for job in jobs]
    found = [_read(file) for file in files]
    missing = [i for i, result in enumerate(found) if result is None]
    tally["asked"] += len(jobs)
    tally["kept"] += len(jobs) - len(missing)
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=function.__name__, unit="job", disable=not progress)
    with bar:
        for i, result in _results(partial(_run, function), {i: jobs[i] for i in missing}, n_workers, scheduler):
            found[i] = result
            io.write_arrays(files[i], result)
            bar.update()
    return found


def _run(function: Callable, job: Mapping) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in function(**job).items()}


def _run_alone(function: Callable, job: Mapping) -> dict[str, np.ndarray]:
    """In a worker: one thread, whatever the machine has, so that sums are added in the same order everywhere."""
    torch.set_num_threads(1)
    return function(job)


def _results(run: Callable, todo: dict[int, Mapping], n_workers: int, scheduler: str | None) -> Iterator[tuple[int, dict]]:
    if not todo or (scheduler is None and (n_workers == 1 or len(todo) == 1)):
        yield from ((i, run(job)) for i, job in todo.items())
        return
    with _client(min(n_workers, len(todo)), scheduler) as client:
        from distributed import as_completed

        futures = {client.submit(_run_alone, run, job, pure=False, retries=3): i for i, job in todo.items()}
        for future in as_completed(list(futures)):
            yield futures[future], future.result()
            future.release()


@contextmanager
def _client(n_workers: int, scheduler: str | None):
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise NagkitError("several workers need Dask: pip install 'nagkit[cluster]', or use n_workers=1") from None
    if scheduler is None:
        with LocalCluster(n_workers, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
            yield client
        return
    try:
        _greeted(scheduler)
        client = Client(scheduler, timeout=TIMEOUT)
    except (OSError, ValueError) as error:  # timeouts are OSErrors
        reason = str(error).split("\n")[0] or type(error).__name__
        remedy = f"start one with `dask scheduler` and workers with `dask worker {scheduler}`, or leave the address out"
        raise NagkitError(f"no Dask scheduler answers at {scheduler} within {TIMEOUT:g} s ({reason}); {remedy}") from error
    with client:
        yield client


def _greeted(scheduler: str) -> None:
    """Wait for the first byte of a scheduler, which speaks first: Dask itself waits for ever on a port that stays silent."""
    address = urlsplit(scheduler)
    if address.scheme == "tcp":
        with socket.create_connection((address.hostname, address.port), TIMEOUT) as connection:
            if not connection.recv(1):
                raise ConnectionError("the connection was closed")


def _read(file: Path) -> dict[str, np.ndarray] | None:
    if not file.is_file():
        return None
    try:
        return io.read_arrays(file)[0]
    except NagkitError:
        tqdm.write(f"{file} is damaged; computing it anew", file=sys.stderr)
        return None


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
