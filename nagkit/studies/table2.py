"""Table 2: transferable search in NAS-Bench-201, every method in one harness, and the audit of the factor 35."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from nagkit import paths
from nagkit.benchmarks.table import open_benchmark
from nagkit.data.upstream import table_path
from nagkit.report.exhibits import Exhibit, by_profile, paper_rows
from nagkit.report.statistics import Interval, mean_ci, paired_difference
from nagkit.search import transfer
from nagkit.spaces import nb201
from nagkit.studies import contenders, published
from nagkit.studies.contenders import DATASETS, EVERY, NULLS, OURS, PAPER, PUBLISHED, SEARCHES, SORTED, TNAS, TRAINED

SPACE = nb201.Space()
UNKNOWN = Interval(np.nan, np.nan, np.nan)
ALLOWANCE = 0.5
"""Regret in points below which a cell counts as good enough in the second kind of ratio."""


class Transfer(NamedTuple):
    """Table 2: the rows, and for each data set and method the best test accuracy so far, float64 `(n, budget)`.

    `n` counts what the method's intervals do: predictor training seeds, or search seeds where there is no predictor.
    """

    exhibit: Exhibit
    curves: dict[str, dict[str, np.ndarray]]
    optimum: dict[str, float]
    oracle: str
    """One line about the benchmark that was asked."""
    published: tuple[str, str]
    """Names of the rows as published, with 64 draws and with 256; they say so when the sampler has fewer steps."""
    first: dict[str, np.ndarray]
    """The first cells that our guided generation (trained prior) trains in its first run, int8 `(4, 6)`."""


def table2(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> Transfer:
    """Transfer to five data sets of NAS-Bench-201 (paper, Table 2): test accuracy by number of trained architectures.

    Searches stop after a budget; everything else is a list made before anything is trained, read from the top. A run
    that generates no valid cell counts as 0 %. Rows that use a predictor have `n` training seeds, each the mean over
    "sampling seeds" (a row of its own): the t interval over training seeds covers both sources. The other rows have
    `n` search or tie-breaking seeds. The quick profile has one training seed; its intervals cover sampling alone.

    Metrics, all on test data: "DATASET accuracy" and "DATASET regret" after as many trained architectures as `column`
    says; "DATASET difference" of the two rows of ours, paired by training seed; "trained until the optimum", "within 0.5
    points" of it and "its best", medians over all runs, without a value when fewer than half get there; "optimum reached";
    "architectures listed"; "time", CPU seconds of one pool. Ratios: see `_audit`.
    """
    setting = by_profile(profile, **contenders.SETTINGS)
    bench = open_benchmark("nb201")
    data = inputs()
    exhibit = Exhibit("table2", profile, seed=seed, seeds=setting.training * setting.seeds, oracle=bench.oracle, data=data)
    few = "" if setting.steps == published.STEPS else f" ({setting.steps} steps)"
    names = (f"{PUBLISHED}{few}, 64 draws", f"{PUBLISHED}{few}, 256 draws")
    options = {"data": data, "n_workers": n_workers, "progress": progress}
    lists, seconds = contenders.generated(setting, seed, names, options)
    every, curves, optimum, first, until = SPACE.all(), {}, {}, {}, {}
    for dataset in DATASETS:
        accuracy = bench.query(every, dataset, split="test")
        best = optimum[dataset] = bench.optimum(dataset, split="test")
        runs = contenders.ordered(dataset, lists[contenders.target(dataset)], setting, seed, names, options)
        values = {name: [[_values(accuracy, archs) for archs in block] for block in blocks] for name, blocks in runs.items()}
        until[dataset] = _counts(exhibit, dataset, values, best)
        _accuracies(exhibit, dataset, values, best, names)
        curves[dataset] = {name: _curves(name, blocks, setting.budget) for name, blocks in values.items()}
        first[dataset] = runs[TRAINED][0][0][:4]
    for name, value in seconds.items():
        exhibit.add(name, "one pool", "time", value, n=1, unit="s")
    _audit(exhibit, until, names)
    return Transfer(exhibit, curves, optimum, bench.describe(), names, first)


def inputs() -> tuple[Path, ...]:
    """The files that the numbers rest on."""
    table = table_path() if open_benchmark("nb201").oracle == "table" else paths.DATA / "surrogates" / "nb201.safetensors"
    rankers = sorted((paths.DATA / "checkpoints").glob("ranking_nb201_*.safetensors"))
    return (table, *published.inputs(), *rankers, paths.DATA / "presets.yaml")


# Rows ------------------------------------------------------------------------------------------------------------------


def _values(accuracy: np.ndarray, archs: np.ndarray) -> np.ndarray:
    return accuracy[SPACE.code(archs)] if len(archs) else np.zeros(1)


def _learned(row: str) -> bool:
    return row not in SEARCHES and row not in NULLS


def _estimate(row: str, blocks: Sequence[Sequence[float]]) -> tuple[Interval, int]:
    """Mean over runs, its 95 % t interval and the n of that interval: means of training seeds, or single runs."""
    if _learned(row) and len(blocks) > 1:
        return mean_ci([float(np.mean(block)) for block in blocks]), len(blocks)
    flat = np.concatenate(blocks)
    return mean_ci(flat), len(flat)


def _accuracies(exhibit: Exhibit, dataset: str, values: dict[str, list], best: float, names: Sequence[str]) -> None:
    reached = {row: [_after(block, transfer.COUNTS) for block in blocks] for row, blocks in values.items()}
    for row, blocks in reached.items():
        for i, count in enumerate(map(str, transfer.COUNTS)):
            mean, n = _estimate(row, [block[:, i] for block in blocks])
            exhibit.add(row, count, f"{dataset} accuracy", mean, n=n, unit="%")
            regret = Interval(best - mean.mean, best - mean.hi, best - mean.lo)
            exhibit.add(row, count, f"{dataset} regret", regret, n=n, unit="%")
    for row in OURS:
        for other in (*names, SORTED, *NULLS, EVERY):
            for i, count in enumerate(map(str, transfer.COUNTS)):
                ours, theirs = ([block[:, i] for block in reached[name]] for name in (row, other))
                gain, n = _gain(ours, theirs)
                exhibit.add(f"{row} minus {other}", count, f"{dataset} difference", gain, n=n, unit="%")


def _gain(ours: list[np.ndarray], theirs: list[np.ndarray]) -> tuple[Interval, int]:
    """Paired by training seed; with a single one by run, as far as both have runs."""
    if len(ours) > 1:
        means = [[block.mean() for block in blocks] for blocks in (ours, theirs)]
        return paired_difference(*means), len(ours)
    n = min(len(ours[0]), len(theirs[0]))
    return paired_difference(ours[0][:n], theirs[0][:n]), n


def _after(runs: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """Best value after each of `counts` in every run, float64 `(runs, counts)`; runs may differ in length."""
    return np.stack([transfer.after(values, counts) for values in runs])


def _counts(exhibit: Exhibit, dataset: str, values: dict[str, list], best: float) -> dict[str, dict[str, np.ndarray]]:
    """Adds the counts of trained architectures; returns them, `[goal][row]`, float64 `(training seeds, runs)`."""
    goals = {"the optimum": best, f"within {ALLOWANCE} points": best - ALLOWANCE}
    found: dict[str, dict[str, np.ndarray]] = {goal: {} for goal in goals}
    for row, blocks in values.items():
        flat = [run for block in blocks for run in block]
        n = len(flat)
        for goal, threshold in goals.items():
            count = found[goal][row] = np.array([[float(transfer.trained_until(run, threshold)) for run in b] for b in blocks])
            exhibit.add(row, dataset, f"trained until {goal}", _median(count), n=n, unit="count")
            exhibit.add(row, dataset, f"reached: {goal}", 100 * np.isfinite(count).mean(), n=n, unit="%")
        own = np.array([float(transfer.trained_until(run, run.max())) for run in flat])
        exhibit.add(row, dataset, "trained until its best", _median(own), n=n, unit="count")
        exhibit.add(row, dataset, "architectures listed", np.mean([len(run) for run in flat]), n=n, unit="count")
        exhibit.add(row, dataset, "sampling seeds", n // len(blocks), n=n, unit="count")
    return found


def _median(counts: np.ndarray) -> float:
    middle = float(np.median(counts))
    return middle if np.isfinite(middle) else np.nan


def _curves(row: str, blocks: list[list[np.ndarray]], budget: int) -> np.ndarray:
    curves = [_after(block, range(1, budget + 1)) for block in blocks]
    return np.stack([curve.mean(axis=0) for curve in curves]) if _learned(row) and len(curves) > 1 else np.concatenate(curves)


# The factor 35 ---------------------------------------------------------------------------------------------------------


def _audit(exhibit: Exhibit, until: dict[str, dict], names: Sequence[str]) -> None:
    """How many times as many architectures others train: in the paper's column, and in this harness.

    "paper's ratio": the paper's counts divided by DiffusionNAG's, by data set and for the sums over all four. "ratio until the
    optimum" and "ratio within 0.5 points": median counts, summed over CIFAR-10 and CIFAR-100, divided by those of the row
    of ours that `column` names. The geometric mean over training seeds with a t interval on the logarithm; without a
    value when for a training seed fewer than half of the runs get there.
    """
    for row, counts in paper_counts().iterrows():
        source = "ratio of the paper's numbers of trained architectures"
        ratios = (counts / paper_counts().loc["DiffusionNAG"]).to_dict()
        ratios["sum of four"] = counts.sum() / paper_counts().loc["DiffusionNAG"].sum()
        for column, value in ratios.items():
            exhibit.add(row, column, "paper's ratio", value, n=1, unit="×", source=source)
    for goal in until[PAPER[0]]:
        sums = {
            row: np.sum([np.median(until[dataset][goal][row], axis=1) for dataset in PAPER], axis=0)  # (training seeds,)
            for row in until[PAPER[0]][goal]
        }
        for ours in (*OURS, names[1]):
            for row in (*SEARCHES, TNAS, SORTED, *names, *NULLS, *OURS):
                if row != ours:
                    known = np.isfinite([*sums[row], *sums[ours]]).all()
                    ratio = Interval(*np.exp(mean_ci(np.log(sums[row] / sums[ours])))) if known else UNKNOWN
                    metric = f"ratio until {goal}" if goal.startswith("the") else f"ratio {goal}"
                    exhibit.add(row, ours, metric, ratio, n=len(sums[row]), unit="×")


def paper_counts() -> pd.DataFrame:
    """The paper's trained architectures of the methods that have a number on all four data sets, float `(methods, 4)`."""
    paper = paper_rows("table2")
    paper = paper[(paper["metric"] == "trained architectures") & np.isfinite(paper["hi"].fillna(0))]
    return paper.pivot(index="row", columns="column", values="value")[["cifar10", "cifar100", "aircraft", "pets"]].dropna()


# Words -----------------------------------------------------------------------------------------------------------------


def audit(study: Transfer) -> str:
    """The arithmetic of the factor 35 from the paper's columns, and the same question asked here."""
    counts = paper_counts().astype(int)
    ours = counts.loc["DiffusionNAG"]
    lines = []
    for row in ("MetaD2A", "TNAS"):
        theirs = counts.loc[row]
        terms = " / ".join(f"({' + '.join(map(str, part))})" for part in (theirs, ours))
        ratio = theirs.sum() / ours.sum()
        lines.append(f"- Paper, {row} to DiffusionNAG: {terms} = {theirs.sum()} / {ours.sum()} = **{ratio:g}**")
    numbers = study.exhibit.frame(paper=False).set_index(["row", "column", "metric"])["value"]
    for row in (study.published[1], TRAINED):
        for goal in ("ratio until the optimum", f"ratio within {ALLOWANCE} points"):
            value = numbers[SORTED, row, goal]
            lines.append(
                f"- Here, {SORTED} to {row}, {goal}: {f'**{value:.1f}**' if np.isfinite(value) else _unknown(study, row, goal)}"
            )
    time = numbers.xs(("one pool", "time"), level=("column", "metric"))
    hours = paper_rows("cost").query("metric == 'score network training' and column == 'nb201'")["value"].item()
    lines.append(
        f"\nThe ratio counts trained architectures alone. One pool here took {time[study.published[1]]:.1f} s of CPU time as "
        f"published (256 draws), {time[TRAINED]:.2f} s guided by us and {time[SORTED]:.2f} s unguided, after the networks had "
        f"been trained; the paper's score network took {hours:g} GPU hours."
    )
    return "\n".join(lines)


def _unknown(study: Transfer, ours: str, goal: str) -> str:
    """Why a ratio has no value: how many runs of either row reach the goal."""
    frame = study.exhibit.frame(paper=False)
    metric = f"reached: {goal.removeprefix('ratio ').removeprefix('until ')}"
    shares = frame[(frame["metric"] == metric) & frame["column"].isin(PAPER)].groupby("row")["value"].mean()
    return f"no number, since too few runs get there ({shares[SORTED]:.0f} % of {SORTED}, {shares[ours]:.0f} % of the other)"


def verdict(study: Transfer) -> str:
    """What the numbers of `study` say about the paper's claim, in words."""
    frame = study.exhibit.frame()
    here = frame[frame["origin"] == "ours"].set_index(["row", "column", "metric"])
    paper = frame[frame["origin"] == "paper"].set_index(["row", "column", "metric"])["value"]
    parts = []
    for dataset in PAPER:
        claim, theirs = (paper["DiffusionNAG", dataset, metric] for metric in ("trained architectures", "accuracy"))
        best = study.optimum[dataset]
        claimed = f"The paper has {theirs:.2f} % after training {claim:.0f}; here the optimum is {best:.2f} %."
        lines = [f"**{DATASETS[dataset]}.** {claimed}"]
        for row in (study.published[1], study.published[0], *OURS):
            first, twenty = (here.loc[row, count, f"{dataset} accuracy"].value for count in ("1", "20"))
            until, share = (here.loc[row, dataset, metric] for metric in ("trained until the optimum", "reached: the optimum"))
            found = f"the optimum is in {share.value:.0f} % of {share.n} lists"
            found += f", after a median of {until.value:.0f} trained" if np.isfinite(until.value) else ""
            lines.append(f"- *{row}*: {first:.2f} % after one, {twenty:.2f} % after 20; {found}.")
        parts.append("\n".join(lines))
    lines = [
        "**Is it better than what it replaces?** Best test accuracy after so many trained; *open*: the interval holds zero.\n"
    ]
    for dataset, title in DATASETS.items():
        for row in OURS if dataset in PAPER else (TRAINED,):
            others = (*study.published, SORTED, *NULLS, EVERY)
            said = "; ".join(f"{short(other)}: {_compared(here, row, other, dataset)}" for other in others)
            lines.append(f"- {title}, *{short(row)}* against {said}.")
    parts.append("\n".join(lines))
    n = here.loc[TRAINED, "1", "cifar10 accuracy"].n
    counted = f"{n} predictor training seeds" if study.exhibit.profile == "paper" else f"{n} sampling seeds of one predictor"
    return "\n\n".join([*parts, f"Intervals of rows with a predictor are over {counted}."])


def short(row: str) -> str:
    """A row's name where it is clear that DiffusionNAG is meant."""
    return row.removeprefix("DiffusionNAG ")


def _compared(here: pd.DataFrame, row: str, other: str, dataset: str) -> str:
    words: dict[str, list[str]] = {}
    for count in map(str, transfer.COUNTS):
        gain = here.loc[f"{row} minus {other}", count, f"{dataset} difference"]
        sure = "equal" if gain.lo == gain.hi == 0 else "better" if gain.lo > 0 else "worse" if gain.hi < 0 else "open"
        words.setdefault(sure, []).append(count)
    return ", ".join(f"{word} after {'/'.join(counts)}" for word, counts in words.items())
