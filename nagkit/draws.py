"""Pools of any size: written as they are drawn, to one CSV or Parquet file, or in shards to a folder that Dask fills.

A shard is a fixed number of draws with a random stream of its own (`nagkit.sampling.SHARD`), so a folder holds the same
draws as a file, whoever made which part. A part appears whole or not at all and says what made it; an interrupted run
keeps the parts that are there.
"""

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TextIO

from tqdm.auto import tqdm

from nagkit import __version__, presets
from nagkit.data.io import replacing
from nagkit.errors import NagkitError
from nagkit.sampling import SHARD, Plan, Pool, joined, load_predictor, prepare

_BATCHES = 32
"""Batches of draws in a Parquet row group."""


def planned(
    space: str, *, objective: str | None = None, limit: str | None = None, weight: float = 1.0, minimise: bool = False,
    pairs: int = 100, guide: str | None = None, training_seed: int = 0, seed: int = 0, **how,
) -> tuple[Plan, list[str]]:  # fmt: skip
    """The plan behind the options of `nagkit sample`, which are plain, and what is to be said about it.

    With an `objective`, a benchmark column or a CSV of measured cells, a predictor is fitted to it first; `guide`, a data set,
    then is aimed at beside it.
    """
    from nagkit.predictors.task import CODED, HELD

    notes = []
    if guide is not None and guide not in (*CODED, HELD):
        notes = [f"{guide}: no dataset code; guided with the mean code of the training tasks"]
    if objective is None:
        if limit is not None or minimise:
            raise NagkitError("--limit and --minimise speak of an objective; add --objective NAME or a CSV file")
        return prepare(space, guide=guide, training_seed=training_seed, **how), notes
    from nagkit import objectives

    target = objectives.load(objective, space=space, pairs=pairs, seed=seed, minimise=minimise)
    bound = None if limit is None else objectives.parse_limit(limit, target.unit)
    accuracy = None if guide is None else load_predictor(space, guide, training_seed=training_seed)
    aim, warning = objectives.aim(target, accuracy=accuracy, weight=weight, limit=bound)
    notes = [*filter(None, [target.describe(), warning]), *notes]
    return prepare(space, guide=aim, scorers={target.name: target.fitted.value}, **how), notes


def best_first(pools: Iterable[Pool]) -> Pool:
    """All draws as one pool, best predicted first, invalid ones last; `NagkitError` without a prediction."""
    pool = joined(list(pools))
    if "predicted" not in pool.scores:
        raise NagkitError("--ranked needs a prediction; add --guide DATASET or --objective NAME")
    return pool[(-pool.scores["predicted"]).argsort(kind="stable")]


def write(pools: Iterable[Pool], out: Path | None) -> None:
    """Write draws as they come, as CSV to stdout or to a file, Parquet by its ending `.parquet`."""
    if out is None:
        _write_csv(pools, sys.stdout)
        return
    with replacing(out) as part:
        if out.suffix == ".parquet":
            _write_parquet(pools, part)
        else:
            with part.open("w", encoding="utf-8", newline="") as file:
                _write_csv(pools, file)


def write_parts(
    folder: Path, request: Mapping, n: int, *, n_workers: int = 1, scheduler: str | None = None, progress: bool = False
) -> int:
    """Draw `n` in shards into `folder`, `part-00000.parquet` and so on, and say how many parts were there before.

    `request` holds the options of `planned`. With `n_workers` > 1 shards are drawn in a local Dask cluster of that many
    processes, with `scheduler` on its workers. Raises `NagkitError` when `folder` holds parts of other draws.
    """
    sizes = [min(SHARD, n - start) for start in range(0, n, SHARD)]
    files = [folder / f"part-{number:05}.parquet" for number in range(len(sizes))]
    stamps = [_stamp(request, number, size) for number, size in enumerate(sizes)]
    kept = {number for number, file in enumerate(files) if file.is_file()}
    for file in sorted(folder.glob("part-*.parquet")):
        if file not in files or _said(file) != stamps[files.index(file)]:
            raise NagkitError(f"{file} holds other draws than these; delete it, or name another folder")
    todo = [(number, size) for number, size in enumerate(sizes) if number not in kept]
    with tqdm(total=n, initial=n - sum(size for _, size in todo), desc="draws", unit="draw", unit_scale=True,
              disable=not progress) as bar:  # fmt: skip
        for number, pool in _shards(request, todo, n_workers, scheduler):
            with replacing(files[number]) as part:
                _write_parquet([pool], part, stamps[number])
            bar.update(len(pool))
    return len(kept)


def shard(request: Mapping, number: int, size: int) -> Pool:
    """One shard of the draws that `request` describes, on any machine."""
    return joined(list(_plan(json.dumps(request)).draws(size, request["seed"], shard=number)))


@cache
def _plan(request: str) -> Plan:
    return planned(**json.loads(request))[0]


def _shards(request: Mapping, todo: list[tuple[int, int]], n_workers: int, scheduler: str | None) -> Iterator[tuple[int, Pool]]:
    if scheduler is None and n_workers == 1:
        yield from ((number, shard(request, number, size)) for number, size in todo)
        return
    from nagkit.study import jobs

    if not todo:
        return
    with jobs.connected(min(n_workers, len(todo)), scheduler) as client:
        from distributed import as_completed

        futures = {client.submit(shard, request, *one, pure=False, retries=3): one[0] for one in todo}
        for future in as_completed(list(futures)):
            yield futures.pop(future), future.result()
            future.release()


def _stamp(request: Mapping, number: int, size: int) -> str:
    """What decides the contents of a part: its options, the settings and the file that they refer to, and the code."""
    from nagkit.study import jobs

    objective = request.get("objective") or ""
    content = hashlib.sha256(Path(objective).read_bytes()).hexdigest() if Path(objective).is_file() else ""
    settings = presets.load().get(request["space"])
    said = [__version__, dict(request), number, size, content, settings, jobs.digest("nagkit.draws:shard")]
    return json.dumps(said, sort_keys=True)


def _said(file: Path) -> str:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return (parquet.read_schema(file).metadata or {}).get(b"nagkit", b"").decode()
    except pa.ArrowInvalid:
        raise NagkitError(f"{file} is damaged; delete it, and it is drawn again") from None


def _write_csv(pools: Iterable[Pool], file: TextIO) -> None:
    writer, headed = csv.writer(file, lineterminator="\n"), False
    for pool in pools:
        columns = pool.columns()
        if not headed:
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        headed = True


def _write_parquet(pools: Iterable[Pool], path: Path, stamp: str = "") -> None:
    import pyarrow as pa
    from pyarrow import parquet

    pools, schema = iter(pools), None
    with ExitStack() as stack:
        while some := list(islice(pools, _BATCHES)):
            pool = joined(some)
            if schema is None:
                kinds = {"arch": pa.string(), "error": pa.string()} | dict.fromkeys(pool.scores, pa.float64())
                schema = pa.schema(list(kinds.items()), {"nagkit": stamp})
                writer = stack.enter_context(parquet.ParquetWriter(path, schema))
            writer.write_table(pa.table(pool.columns(), schema))
