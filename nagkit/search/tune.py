"""Settings of the search methods, chosen on the development oracles with the same effort for each."""

import numpy as np
import pandas as pd

from nagkit import presets
from nagkit.search import methods
from nagkit.study import jobs

BUDGET, COUNTS = 60, (30, 40, 50, 60)
SEEDS = tuple(range(10_000, 10_003))


def development_run(oracle: str, method: str, seed: int, settings: dict) -> dict[str, np.ndarray]:
    """The incumbent of one search on a development oracle, a job: float64 `incumbent (BUDGET,)`."""
    history, _ = methods.run(oracle, method, seed, budget=BUDGET, **settings)
    return {"incumbent": np.fmax.accumulate(history.values)}


def choose(*, n_workers: int = 1, scheduler: str | None = None, progress: bool = True) -> pd.DataFrame:
    """Try every candidate setting of every method, write the best of each to data/presets.yaml, and show the sweep.

    A setting is worth the mean over `COUNTS` and seeds of the incumbent. The first of equals is kept.
    """
    runs = [
        {"oracle": oracle, "method": method, "seed": seed, "settings": settings}
        for oracle in methods.DEVELOPMENT.values()
        for method, candidates in methods.CANDIDATES.items()
        for settings in candidates
        for seed in SEEDS
    ]
    tasks = [jobs.Task(development_run, run) for run in runs]
    found = jobs.run(tasks, n_workers=n_workers, scheduler=scheduler, progress=progress, label="searches")
    rows = [
        {"oracle": job["oracle"], "method": job["method"], "setting": str(job["settings"]), "seed": job["seed"],
         **{str(n): done.arrays["incumbent"][n - 1] for n in COUNTS}}
        for job, done in zip(runs, found, strict=True)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    settings = presets.load()
    for space, oracle in methods.DEVELOPMENT.items():
        best = settings.setdefault(space, {})["search"] = {}
        for method, candidates in methods.CANDIDATES.items():
            part = frame[(frame["oracle"] == oracle) & (frame["method"] == method)]
            tried = [part[part["setting"] == str(setting)] for setting in candidates]
            worth = [each[list(map(str, COUNTS))].to_numpy().mean() for each in tried]
            best[method] = dict(candidates[int(np.argmax(np.round(worth, 6)))])
    presets.write(settings)
    return frame
