"""Table 1: transferable search among MobileNetV3 networks, every method in one harness, accuracies measured on 32×32 images."""

from functools import partial
from itertools import product
from pathlib import Path
from time import process_time
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nagkit import cluster, paths, presets
from nagkit.benchmarks import measured, supernet, supernet_train, train_arch
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import paper_sigmas
from nagkit.guidance import guide
from nagkit.predictors import images
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.plots import NAMES
from nagkit.report.statistics import kendall_ci, mean_ci, paired_difference, welch_difference
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import load_predictor, load_prior
from nagkit.search import baselines, methods
from nagkit.spaces import mbv3
from nagkit.spaces.base import ranked
from nagkit.studies import pools

SPACE = mbv3.Space()
DATASETS = ("cifar10", "cifar100", "fashion_mnist", "mnist")
RANDOM, LARGEST, SORTED, TNAS = "Random networks", "Largest networks", "MetaD2A-style", "TNAS-style"
PUBLISHED, TRAINED, EXACT = "DiffusionNAG as published", "DiffusionNAG ours, trained prior", "DiffusionNAG ours, exact prior"
GUIDED, UNGUIDED = (PUBLISHED, TRAINED, EXACT), (RANDOM, LARGEST, SORTED, TNAS)
SELECTED, BEST = 30, 5
"""Networks that a method selects and has measured, as in the paper; of these, how many are fine-tuned."""
DRAWS = (1, 2, 3)
"""Draws of test images: the first is that of the table, the others say how much of a difference hangs on it."""
FAVOURITES = 5
"""Networks that the TNAS-style search takes from the predictor's ranking; it finds the other ones by itself."""
_SAMPLE = {
    TRAINED: {"prior_name": "score"},
    EXACT: {"prior_name": "exact"},
    SORTED: {"prior_name": "score"},
}


class Setting(NamedTuple):
    """Sizes of a profile."""

    runs: int
    """Runs of every method, each with another predictor training seed and other streams."""
    draws: int
    published: int
    """Draws of the method as published, whose `steps` sampler steps are slow."""
    steps: int
    tuned: int
    """Seeds of a fine-tuning; 0: none."""


SETTINGS = {"quick": Setting(2, 300, 40, 20, 0), "paper": Setting(3, 5000, 128, 1000, 3)}


class Transfer(NamedTuple):
    """Table 1: the rows, and what the figure shows."""

    exhibit: Exhibit
    accuracy: dict[str, dict[str, np.ndarray]]
    """Accuracies of the selected networks in percent, `[data set][row]`, float64 `(runs, 30)`."""
    pairs: pd.DataFrame | None
    """Of the fine-tuned networks, if any: `dataset`, `row`, `arch`, `measured` and `tuned` (mean over seeds) in percent."""
    oracle: str
    """One line about the benchmark that was asked."""
    published: str
    """Name of the row of the method as published; it says with how many draws, and with how many steps when fewer."""


def table1(profile: str = "quick", seed: int = 0, *, n_workers: int = 1, progress: bool = True) -> Transfer:
    """Every method selects 30 networks for each data set; their accuracies are measured on 1,000 test images (paper, Table 1).

    A row has `n` runs, each with another training seed of the predictors. Methods that look at accuracies while they search
    see other test images than those that are reported. The quick profile asks the embedded surrogate.

    Metrics: "accuracy" (columns "DATASET max", "mean", "min" of the selected); "draws", "valid draws" and "distinct
    networks" of the pool; "difference of means", paired by run; "Welch p" of the accuracies of all selected networks
    (column "DATASET architectures"; n counts both rows) and of the runs' means ("DATASET seeds"); "difference on other
    images", the mean over runs by draw of test images, and "difference over draws", whose n counts these; "fine-tuned
    accuracy" of the best five of the first run, "difference of fine-tuned means" with a Welch interval over these networks,
    and "Kendall τ" of measured and fine-tuned accuracies over all fine-tuned networks; "trained architectures"; "time",
    CPU seconds of one pool.
    """
    setting = by_profile(profile, **SETTINGS)
    bench = measured.Surrogate() if profile == "quick" else measured.Measured(n_workers=n_workers, progress=progress)
    asked = measured.file_of if profile == "quick" else supernet.adapted
    data = [*inputs(), *map(asked, DATASETS)]
    exhibit = Exhibit("table1", profile, seed=seed, seeds=setting.runs, oracle=bench.oracle, data=data)
    options = {"n_workers": n_workers, "progress": progress}
    few = "" if setting.steps == 1000 else f", {setting.steps} steps"
    published = f"{PUBLISHED}, {setting.published} draws{few}"
    drawn = _generated(exhibit, setting, seed, published, options)
    accuracy, selected = {}, {}
    for dataset in DATASETS:
        selected[dataset] = chosen = _selected(dataset, drawn, setting, seed, bench.oracle, options)
        archs = np.concatenate([archs for row in chosen.values() for archs in row])
        ends = np.cumsum([len(archs) for row in chosen.values() for archs in row])[:-1]
        values = iter(np.split(_query(bench, archs, dataset, DRAWS[0]), ends))
        accuracy[dataset] = {row: np.stack([next(values) for _ in runs]) for row, runs in chosen.items()}
        _accuracies(exhibit, dataset, accuracy[dataset])
        _comparisons(exhibit, dataset, accuracy[dataset], published)
        if bench.oracle == measured.ORACLE:
            _other_images(exhibit, bench, dataset, chosen, accuracy[dataset])
    pairs = _fine_tuned(exhibit, selected, accuracy, setting.tuned, seed, options) if setting.tuned else None
    for row in accuracy[DATASETS[0]]:
        exhibit.add(row, "each data set", "trained architectures", SELECTED, n=setting.runs, unit="count")
    return Transfer(exhibit, accuracy, pairs, bench.describe(), published)


def inputs() -> list[Path]:
    """The committed files that the pools rest on."""
    checkpoints = paths.DATA / "checkpoints"
    predictors = sorted([*checkpoints.glob("ranking_mbv3_*.safetensors"), *checkpoints.glob("noise-aware_mbv3_*.safetensors")])
    return [checkpoints / "score_mbv3.safetensors", *predictors, images.CODES, paths.DATA / "presets.yaml"]


# Jobs -----------------------------------------------------------------------------------------------------------------


def generate(dataset: str, method: str, training_seed: int, seed: int, n: int, steps: int | None) -> dict[str, np.ndarray]:
    """`n` raw draws by `method`, a job: int8 `archs (n, 20)`, -1 where invalid; CPU `seconds`. No `dataset`: unguided."""
    aim = {"dataset": dataset, "training_seed": training_seed} if dataset else {}
    start = process_time()
    if method == PUBLISHED:
        predictor = load_predictor(SPACE, dataset, rule="xt", training_seed=training_seed)
        law = guide(load_prior(SPACE, "score"), predictor, 1000.0, rule="xt")
        how = {"sampler": "euler_maruyama", "sigmas": paper_sigmas(steps, sigma_max=1.0).float()}
        archs, _ = samplers.generate(SPACE, law, n, generator=torch_stream(seed, "sample"), **how)
    else:
        archs = presets.sample("mbv3", n, seed=seed, steps=steps, **_SAMPLE[method], **aim).archs
    return {"archs": archs, "seconds": np.array([process_time() - start])}


def search(dataset: str, training_seed: int, seed: int, n: int, oracle: str) -> dict[str, np.ndarray]:
    """Bayesian optimisation that starts with the predictor's favourites among `n` random networks, a job: `archs (30, 20)`."""
    bench = measured.open_supernet(oracle, dataset)
    drawn = SPACE.random(n, numpy_stream(seed, f"table1/{dataset}/favourites"))
    start = _ranked(dataset, drawn, training_seed)[:FAVOURITES]
    streams = (make(seed, f"table1/{dataset}/search") for make in (numpy_stream, torch_stream))
    searcher = methods.build("diffusionnag", SPACE, *streams, proposer="mutation+random")
    query = partial(_query, bench, dataset=dataset, draw=0)
    return {"archs": baselines.run(searcher, query, SELECTED, batch=FAVOURITES, design=start).archs}


def fine_tune(dataset: str, arch: str, seed: int) -> dict[str, np.ndarray]:
    """Percent of all test images after a short fine-tuning from the supernet's weights, a job: `accuracy (1,)`."""
    training, test, _ = train_arch.load_sets(supernet_train.ADAPTED[dataset])
    recipe = train_arch.preset("mbv3", "short")
    found = train_arch.train(SPACE, SPACE.from_string([arch])[0], training, test, recipe, seed=seed, progress=False)
    found.checkpoint.unlink()
    return {"accuracy": np.array([found.accuracy])}


# Pools and selections -------------------------------------------------------------------------------------------------


def _generated(exhibit: Exhibit, setting: Setting, seed: int, published: str, options: dict) -> dict[tuple, list[np.ndarray]]:
    """Raw draws by (row, data set), one array a run; unguided ones under data set ""."""
    draws = {method: {"n": setting.draws, "steps": None} for method in (SORTED, TRAINED, EXACT)}
    draws[PUBLISHED] = {"n": setting.published, "steps": setting.steps}
    keys = [(SORTED, ""), *product((PUBLISHED, TRAINED, EXACT), DATASETS)]
    jobs = [
        {"dataset": dataset, "method": method, "training_seed": run, "seed": 100 * seed + run} | draws[method]
        for method, dataset in keys
        for run in range(setting.runs)
    ]
    made = iter(cluster.map_jobs(generate, jobs, data=inputs(), **options))
    found, seconds = {}, {}
    for method, dataset in keys:
        row = published if method == PUBLISHED else method
        results = [next(made) for _ in range(setting.runs)]
        found[row, dataset] = [result["archs"] for result in results]
        seconds.setdefault(row, []).extend(float(result["seconds"][0]) for result in results)
        valid = [archs[archs[:, 0] >= 0] for archs in found[row, dataset]]
        counts = {
            "draws": [len(archs) for archs in found[row, dataset]],
            "valid draws": [len(archs) for archs in valid],
            "distinct networks": [len(np.unique(archs, axis=0)) for archs in valid],
        }
        for metric, values in counts.items():
            exhibit.add(row, dataset or "every data set", metric, mean_ci(values), n=setting.runs, unit="count")
    for row, values in seconds.items():
        exhibit.add(row, "one pool", "time", np.mean(values), n=len(values), unit="s")
    return found


def _selected(
    dataset: str, drawn: dict[tuple, list[np.ndarray]], setting: Setting, seed: int, oracle: str, options: dict
) -> dict[str, list[np.ndarray]]:
    """The networks that each row has measured, int8 `(30, 20)` a run (fewer when a pool has fewer distinct ones)."""
    runs = range(setting.runs)
    streams = [numpy_stream(100 * seed + run, "table1/random") for run in runs]
    chosen = {RANDOM: [SPACE.random(SELECTED, stream) for stream in streams]}
    unguided = [archs[archs[:, 0] >= 0] for archs in drawn[SORTED, ""]]
    chosen[LARGEST] = [ranked(archs, supernet.multiply_accumulates(archs))[:SELECTED] for archs in unguided]
    asked = [supernet.adapted(dataset) if oracle == measured.ORACLE else measured.file_of(dataset), *inputs()]
    common = {"dataset": dataset, "n": setting.draws, "oracle": oracle}
    jobs = [common | {"training_seed": run, "seed": 100 * seed + run} for run in runs]
    searched = [result["archs"] for result in cluster.map_jobs(search, jobs, data=asked, **options)]
    for row, name in drawn:
        if name in ("", dataset):
            valid = [archs[archs[:, 0] >= 0] for archs in drawn[row, name]]
            chosen[row] = [_ranked(dataset, archs, run)[:SELECTED] for run, archs in enumerate(valid)]
        if row == SORTED:
            chosen[TNAS] = searched
    return chosen


def _ranked(dataset: str, archs: np.ndarray, training_seed: int) -> np.ndarray:
    """The distinct networks of a pool, by the ranking predictor."""
    return ranked(archs, presets.predictor("mbv3", dataset, seed=training_seed).rank(archs))


def _query(bench: measured.Measured, archs: np.ndarray, dataset: str, draw: int) -> np.ndarray:
    """Accuracies; `draw` chooses the test images where there are any."""
    how = {"draw": draw} if bench.oracle == measured.ORACLE else {}
    return bench.query(archs, dataset, split="test", **how)


# Rows -----------------------------------------------------------------------------------------------------------------


def _accuracies(exhibit: Exhibit, dataset: str, accuracy: dict[str, np.ndarray]) -> None:
    for row, values in accuracy.items():
        for name, found in (("max", values.max(axis=1)), ("mean", values.mean(axis=1)), ("min", values.min(axis=1))):
            exhibit.add(row, f"{dataset} {name}", "accuracy", mean_ci(found), n=len(found), unit="%")


def _comparisons(exhibit: Exhibit, dataset: str, accuracy: dict[str, np.ndarray], published: str) -> None:
    for ours, other in product((published, TRAINED, EXACT), (*UNGUIDED, published)):
        if ours == other:
            continue
        a, b = accuracy[ours], accuracy[other]
        gap = paired_difference(a.mean(axis=1), b.mean(axis=1))
        row = f"{ours} minus {other}"
        exhibit.add(row, dataset, "difference of means", gap, n=len(a), unit="%")
        for counted, values in (("architectures", (a.ravel(), b.ravel())), ("seeds", (a.mean(axis=1), b.mean(axis=1)))):
            p = stats.ttest_ind(*values, equal_var=False).pvalue
            exhibit.add(row, f"{dataset} {counted}", "Welch p", p, n=sum(map(len, values)), unit="p")


def _other_images(exhibit: Exhibit, bench: measured.Measured, dataset: str, chosen: dict, accuracy: dict) -> None:
    for other in (SORTED, RANDOM):
        row, gaps = f"{TRAINED} minus {other}", [accuracy[TRAINED].mean(axis=1) - accuracy[other].mean(axis=1)]
        for draw in DRAWS[1:]:
            means = [[_query(bench, archs, dataset, draw).mean() for archs in chosen[name]] for name in (TRAINED, other)]
            gaps.append(np.subtract(*means))
        for draw, gap in zip(DRAWS, gaps, strict=True):
            exhibit.add(row, f"{dataset}, draw {draw}", "difference on other images", mean_ci(gap), n=len(gap), unit="%")
        over = mean_ci([gap.mean() for gap in gaps])
        exhibit.add(row, dataset, "difference over draws", over, n=len(DRAWS), unit="%")


def _fine_tuned(
    exhibit: Exhibit, selected: dict, accuracy: dict, n_seeds: int, seed: int, options: dict
) -> pd.DataFrame:
    """Fine-tune the best five networks of the first run of every row."""
    best, rng = [], numpy_stream(seed, "table1/bootstrap")
    for dataset in DATASETS:
        for row, values in accuracy[dataset].items():
            top = np.argsort(-values[0], kind="stable")[:BEST]
            names = SPACE.to_string(selected[dataset][row][0][top])
            best += zip([dataset] * BEST, [row] * BEST, names, values[0][top], strict=True)
    pairs = pd.DataFrame(best, columns=["dataset", "row", "arch", "measured"])
    wanted = pairs[["dataset", "arch"]].to_dict("records")
    jobs = [network | {"seed": number} for network in wanted for number in range(n_seeds)]
    made = cluster.map_jobs(fine_tune, jobs, data=[supernet.CHECKPOINT], **options)
    pairs["tuned"] = np.reshape([result["accuracy"] for result in made], (len(pairs), n_seeds)).mean(axis=1)
    for dataset, part in pairs.groupby("dataset", sort=False):
        rows = {row: values["tuned"].to_numpy() for row, values in part.groupby("row", sort=False)}
        for row, tuned in rows.items():
            exhibit.add(row, dataset, "fine-tuned accuracy", mean_ci(tuned), n=BEST, unit="%")
        for other in [row for row in rows if row != TRAINED]:
            gap = welch_difference(rows[TRAINED], rows[other])
            exhibit.add(f"{TRAINED} minus {other}", dataset, "difference of fine-tuned means", gap, n=2 * BEST, unit="%")
        once = part.drop_duplicates("arch")
        tau = kendall_ci(once["measured"].to_numpy(), once["tuned"].to_numpy(), rng, resamples=2000)
        exhibit.add("measured and fine-tuned", dataset, "Kendall τ", tau, n=len(once), unit="τ")
    return pairs


# Words ----------------------------------------------------------------------------------------------------------------


def verdict(study: Transfer) -> str:
    """What the numbers of `study` say about the paper's claim, in words."""
    frame = study.exhibit.frame(paper=False).set_index(["row", "column", "metric"])
    lines = [
        "**Does guidance select better networks?** Differences of the mean of 30 selected networks, in points of accuracy, "
        "with 95 % intervals over training seeds of the predictors.\n"
    ]
    signs: dict[tuple[str, str], list[str]] = {}
    for dataset in DATASETS:
        for ours in (study.published, TRAINED, EXACT):
            said = []
            for other in (SORTED, TNAS, RANDOM, LARGEST):
                key = f"{ours} minus {other}"
                gap = frame.loc[key, dataset, "difference of means"]
                signs.setdefault((ours, other), []).append(pools.sign(gap))
                p = frame.loc[key, f"{dataset} architectures", "Welch p"]["value"]
                said.append(f"{pools.spelled(gap)} to {other} ({pools.sign(gap)}; p {_spelled_p(p)})")
            lines.append(f"- **{NAMES[dataset]}**, {ours}: {'; '.join(said)}.")
    lines.append("\np is that of a Welch test over architectures, which do not stand for independent runs.\n")
    for ours in (study.published, TRAINED, EXACT):
        higher = signs[ours, SORTED].count("higher")
        words = f"higher on {higher} of {len(DATASETS)} data sets"
        lines.append(f"- *{ours}* against unguided generation with the same ranking: {words}.")
    over = frame[frame.index.get_level_values("metric") == "difference over draws"]
    if len(over):
        found = over.xs(f"{TRAINED} minus {SORTED}").droplevel("metric")
        words = ", ".join(f"{NAMES[column]} {pools.spelled(gap)} ({pools.sign(gap)})" for column, gap in found.iterrows())
        lines.append(
            f"- These intervals hold the test images fixed. *{TRAINED}* minus {SORTED} over "
            f"{len(DRAWS)} draws of images, the interval over these: {words}."
        )
    tau = frame[frame.index.get_level_values("metric") == "Kendall τ"]
    if len(tau):
        words = ", ".join(f"{NAMES[column]} {pools.spelled(entry)}" for (_, column, _), entry in tau.iterrows())
        gaps = frame.xs("difference of fine-tuned means", level="metric").loc[f"{TRAINED} minus {SORTED}"]
        apart = ", ".join(f"{NAMES[column]} {pools.spelled(gap)} ({pools.sign(gap)})" for column, gap in gaps.iterrows())
        lines.append(f"- Fine-tuned, the best {BEST} networks of *{TRAINED}* minus those of {SORTED}: {apart}.")
        lines.append(f"- Measured against fine-tuned accuracy, Kendall's τ over the fine-tuned networks: {words}.")
    else:
        lines.append("- Nothing was fine-tuned in this profile.")
    return "\n".join(lines)


def _spelled_p(p: float) -> str:
    return "< 0.001" if p < 1e-3 else f"= {p:.3f}"
