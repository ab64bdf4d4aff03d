"""Bayesian optimisation: Figure 3 (proposers and methods), Figures 4 and 6 (acquisition functions × proposers), one harness."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau

from nagkit import cluster, paths
from nagkit.benchmarks import ofa
from nagkit.data.upstream import table_path
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.statistics import Interval, bootstrap_ci, iqm, mean_ci, paired_difference
from nagkit.rng import numpy_stream
from nagkit.search import methods
from nagkit.search.acquisition import ACQUISITIONS

OURS = "diffusionnag"
TITLES = {"ei": "EI", "pi": "PI", "ucb": "UCB", "its": "ITS"}
ORACLES = {
    "ofa": "predictor",
    "measured-surrogate": "measured",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cifar10-honest": "CIFAR-10, searched on validation",
    "cifar100-honest": "CIFAR-100, searched on validation",
}
"""How the oracles are called in rows, tables and figures."""
COUNTS = (40, 60, 80, 100)
SLOW = {"gp", "bohamiann"}
"""Methods with a tenth of a minute a run, which get the smaller number of seeds."""


class Setting(NamedTuple):
    """Sizes of a profile: search seeds (of slow methods and of Figure 6 in `few`), budget, and where methods are compared."""

    seeds: int
    few: int
    budget: int
    counts: tuple[int, ...]
    oracles: int
    """How many of a figure's oracles are asked."""


SETTINGS = {"quick": Setting(2, 1, 30, (25, 30), 1), "paper": Setting(30, 10, 100, COUNTS, 2)}


class Searches(NamedTuple):
    """One figure: its rows, and for each panel and row the incumbent's reported accuracy, percent `(seeds, budget)`."""

    exhibit: Exhibit
    curves: dict[str, dict[str, np.ndarray]]
    optimum: dict[str, float]
    """Best accuracy of each panel's space; NaN where the space cannot be listed."""
    oracles: tuple[str, ...]
    """One line about each oracle."""
    counts: tuple[int, ...]


def search(oracle: str, method: str, seed: int, budget: int, options: dict) -> dict[str, np.ndarray]:
    """One search, a job: its `incumbent` on the reported split (the architecture that is best where it is asked), float64
    `(budget,)`, `seconds` of CPU time, and for model-based methods, by round, the mean accuracy of the pool (`pool`), the
    accuracy of its best tenth (`top`) and Kendall's τ of the surrogate in it (`tau`)."""
    rounds: list[tuple[float, float, float]] = []
    watching = 0.0
    asked = methods.open_oracle(oracle)

    def watch(pool: np.ndarray, mean: np.ndarray) -> None:
        nonlocal watching
        begin = time.process_time()
        values = asked.query(pool)
        with np.errstate(invalid="ignore"):
            tau = kendalltau(mean, values).statistic
        rounds.append((float(values.mean()), float(np.quantile(values, 0.9)), float(tau)))
        watching += time.process_time() - begin

    start = time.process_time()
    history, _ = methods.run(oracle, method, seed, budget=budget, watch=watch, **options)
    seconds = time.process_time() - start - watching
    reported = history.values if asked.report is None else asked.report(history.archs)
    pool, top, tau = np.array(rounds).reshape(-1, 3).T
    return {"incumbent": reported[history.incumbents()], "seconds": np.array([seconds]), "pool": pool, "top": top, "tau": tau}


def figure3(profile: str = "quick", seed: int = 0, **options) -> Searches:
    """Figure 3: MobileNetV3, ImageNet top-1 by the published predictor at r = 224 as in the paper, and by our surrogate.

    Panels "proposers, ORACLE" (the process surrogate and EI throughout) and "methods, ORACLE". See `_sweep` for the metrics.
    """
    setting, runs = by_profile(profile, **SETTINGS), {}
    for oracle in ("ofa", "measured-surrogate")[: setting.oracles]:
        runs[f"proposers, {ORACLES[oracle]}"] = oracle, {
            label: (OURS, setting.seeds, {"proposer": name}) for name, label in methods.PROPOSERS.items()
        }
        runs[f"methods, {ORACLES[oracle]}"] = oracle, {
            label: (name, setting.few if name in SLOW else setting.seeds, {}) for name, label in methods.METHODS.items()
        }
    return _sweep("figure3", profile, seed, setting, runs, **options)


def figure4(profile: str = "quick", seed: int = 0, **options) -> Searches:
    """Figure 4: acquisition functions × proposers, NB201 CIFAR-100, asked on test accuracy as in the paper, and honestly."""
    return _acquisitions("figure4", ("cifar100", "cifar100-honest"), profile, seed, few=False, **options)


def figure6(profile: str = "quick", seed: int = 0, **options) -> Searches:
    """Figure 6: the remaining combinations, MobileNetV3 by the published predictor and NB201 CIFAR-10."""
    return _acquisitions("figure6", ("ofa", "cifar10"), profile, seed, few=True, **options)


def _acquisitions(name: str, oracles: Sequence[str], profile: str, seed: int, *, few: bool, **options) -> Searches:
    setting = by_profile(profile, **SETTINGS)
    seeds = setting.few if few else setting.seeds
    runs = {
        f"{TITLES[acquisition]}, {ORACLES[oracle]}": (
            oracle,
            {label: (OURS, seeds, {"proposer": who, "acquisition": acquisition}) for who, label in methods.PROPOSERS.items()},
        )
        for oracle in oracles[: setting.oracles]
        for acquisition in ACQUISITIONS
    }
    return _sweep(name, profile, seed, setting, runs, **options)


def _sweep(
    name: str, profile: str, seed: int, setting: Setting, panels: Mapping[str, tuple], *,
    n_workers: int = 1, scheduler: str | None = None, progress: bool = True,
) -> Searches:  # fmt: skip
    """Run every (row, seed) of every panel as a job of its own and add the rows of the exhibit.

    Metrics, all of the incumbent after as many evaluations as `column` says, `n` search seeds: "PANEL accuracy", mean and
    95 % t interval; "PANEL IQM", interquartile mean and bootstrap; "PANEL regret" where the optimum is known; "PANEL
    difference" of the reference row minus each other row, paired by seed, and "PANEL probability of improvement" (ties count
    half).
    Column "run": "PANEL time", CPU seconds of a run per iteration, "PANEL pool mean" and "PANEL surrogate τ", means over all
    rounds of the accuracy of the pool and of the rank correlation in it.
    """
    oracles = {oracle: methods.open_oracle(oracle) for oracle, _ in panels.values()}
    exhibit = Exhibit(
        name, profile, seed=seed, seeds=setting.seeds, oracle=", ".join(dict.fromkeys(o.source for o in oracles.values())),
        data=inputs(oracles.values()),
    )  # fmt: skip
    jobs, place = [], []
    for panel, (oracle, rows) in panels.items():
        for row, (method, seeds, choices) in rows.items():
            for number in range(seeds):
                jobs.append({"oracle": oracle, "method": method, "seed": 1000 * seed + number, "budget": setting.budget,
                             "options": choices})  # fmt: skip
                place.append((panel, row))
    made = cluster.map_jobs(
        search, jobs, data=inputs(oracles.values()), n_workers=n_workers, scheduler=scheduler, progress=progress
    )
    found: dict[str, dict[str, list]] = {}
    for (panel, row), result in zip(place, made, strict=True):
        found.setdefault(panel, {}).setdefault(row, []).append(result)
    curves = {}
    for panel, rows in found.items():
        asked = oracles[panels[panel][0]]
        curves[panel] = {row: np.stack([result["incumbent"] for result in results]) for row, results in rows.items()}
        _rows(exhibit, panel, curves[panel], rows, setting, asked)
    optimum = {panel: oracles[oracle].optimum for panel, (oracle, _) in panels.items()}
    return Searches(exhibit, curves, optimum, tuple(dict.fromkeys(o.description for o in oracles.values())), setting.counts)


def _rows(exhibit: Exhibit, panel: str, curves: dict, results: dict, setting: Setting, asked: methods.Oracle) -> None:
    ours = reference(curves)
    for row, values in curves.items():
        where = {"n": len(values), "oracle": asked.source}
        rng = numpy_stream(0, f"searches/{panel}/{row}")
        for count in setting.counts:
            at, column = values[:, count - 1], str(count)
            mean = mean_ci(at)
            exhibit.add(row, column, f"{panel} accuracy", mean, unit="%", **where)
            exhibit.add(row, column, f"{panel} IQM", bootstrap_ci(at, rng, statistic=iqm), unit="%", **where)
            if np.isfinite(asked.optimum):
                regret = Interval(*(asked.optimum - np.array(mean)[[0, 2, 1]]))
                exhibit.add(row, column, f"{panel} regret", regret, unit="%", **where)
            if row != ours:
                n = min(len(values), len(curves[ours]))
                pair, paired = (curves[ours][:n, count - 1], at[:n]), where | {"n": n}
                gain = paired_difference(*pair)
                exhibit.add(f"{ours} minus {row}", column, f"{panel} difference", gain, unit="%", **paired)
                wins = 100 * ((pair[0] > pair[1]) + 0.5 * (pair[0] == pair[1]))
                chance = bootstrap_ci(wins, rng)
                metric = f"{panel} probability of improvement"
                exhibit.add(f"{ours} over {row}", column, metric, chance, unit="%", **paired)
        seconds = np.concatenate([result["seconds"] for result in results[row]]) / (setting.budget - methods.DESIGN)
        exhibit.add(row, "run", f"{panel} time", mean_ci(seconds), unit="s", **where)
        if len(results[row][0]["pool"]):
            for metric, key, unit in (("pool mean", "pool", "%"), ("pool top tenth", "top", "%"), ("surrogate τ", "tau", "τ")):
                means = np.array([np.nanmean(result[key]) for result in results[row]])
                exhibit.add(row, "run", f"{panel} {metric}", mean_ci(means), unit=unit, **where)


def reference(rows: Mapping) -> str:
    """The row that all others of a panel are compared with: DiffusionNAG + BO, or guided generation by the clean surrogate."""
    return next(row for row in (methods.METHODS[OURS], methods.PROPOSERS["guided"]) if row in rows)


def inputs(oracles) -> tuple[Path, ...]:
    """The files that the numbers rest on."""
    files = {paths.DATA / "presets.yaml"}
    for asked in oracles:
        files.add(paths.DATA / "checkpoints" / f"score_{asked.space}.safetensors")
        if asked.space == "mbv3":
            files.update(ofa.data(asked.source))
        else:
            table = asked.source == "table"
            files.add(table_path() if table else paths.DATA / "surrogates" / "nb201.safetensors")
    return tuple(sorted(files))


# Words -----------------------------------------------------------------------------------------------------------------------


def verdict(study: Searches) -> str:
    """What the numbers of `study` say, in words: who wins at the full budget, against whom for sure, and why."""
    frame = study.exhibit.frame(paper=False).set_index(["row", "column", "metric"])
    last = str(study.counts[-1])
    parts, tally = [], {}
    for panel, rows in study.curves.items():
        ours, found = reference(rows), {"better": [], "worse": [], "open": []}
        for row in rows:
            if row != ours:
                gain = frame.loc[(f"{ours} minus {row}", last, f"{panel} difference")]
                sure = "better" if gain["lo"] > 0 else "worse" if gain["hi"] < 0 else "open"
                found[sure].append(f"{row} ({gain['value']:+.2f})")
                tally.setdefault(ours, {}).setdefault(row, []).append(sure)
        best = max(rows, key=lambda row: frame.loc[(row, last, f"{panel} accuracy"), "value"])
        lines = [f"**{panel[0].upper() + panel[1:]}**, after {last} evaluations: highest mean {best}, "
                 f"{frame.loc[(best, last, f'{panel} accuracy'), 'value']:.2f} %."]  # fmt: skip
        words = {"better": "above", "worse": "below", "open": "not distinguishable from"}
        said = [f"{words[sure]} {', '.join(names)}" for sure, names in found.items() if names]
        lines.append(f"{ours} is {'; '.join(said)} (paired difference in points, 95 % interval).")
        parts.append(" ".join(lines))
    return "\n\n".join([*_claims(tally, last), *parts, _why(study, frame)])


def _claims(tally: Mapping[str, Mapping[str, Sequence[str]]], last: str) -> list[str]:
    """For each reference row, against whom it is ahead by the interval of the paired difference, and in how many panels."""
    lines = []
    for ours, rivals in tally.items():
        words = []
        for row, found in rivals.items():
            behind = f" (behind in {found.count('worse')})" if "worse" in found else ""
            words.append(f"{row} {found.count('better')} of {len(found)}{behind}")
        lines.append(f"**{ours}, panels in which it is surely ahead** after {last} evaluations: {', '.join(words)}.")
    return lines


def _why(study: Searches, frame) -> str:
    """Pool quality at a fixed surrogate, and surrogate quality in the pools of the methods."""
    lines = ["**Why.** Means over the rounds of all seeds, of the whole pool and not of what was chosen from it."]
    for panel, rows in study.curves.items():
        known = [row for row in rows if (row, "run", f"{panel} pool mean") in frame.index]
        pools = {row: frame.loc[(row, "run", f"{panel} pool mean"), "value"] for row in known}
        taus = {row: frame.loc[(row, "run", f"{panel} surrogate τ"), "value"] for row in known}
        high, low = max(pools, key=pools.get), min(pools, key=pools.get)
        keen, dull = max(taus, key=taus.get), min(taus, key=taus.get)
        lines.append(
            f"- {panel}: the best pool is that of {high} ({pools[high]:.2f} %), the poorest that of {low} ({pools[low]:.2f} "
            f"%); the surrogate ranks its pool best with {keen} (τ = {taus[keen]:.2f}), worst with {dull} ({taus[dull]:.2f})."
        )
    return "\n".join(lines)
