"""Samplers against laws with a known denoiser, and with trained networks: their error by network calls and time."""

import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from nagkit.diffusion import samplers
from nagkit.diffusion.exact import ExactDenoiser, exact_prior
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.diffusion.train import load_score
from nagkit.report.exhibits import Exhibit, by_profile
from nagkit.report.statistics import Interval, mean_ci
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import nb201
from nagkit.spaces.base import SearchSpace, get_space, is_listed

SPACE = nb201.Space()
WIDE = "dpmpp_2m from σ = 80"
OTHERS = {
    "MobileNetV3, exact": ("mbv3", "exact"),
    "NAS-Bench-201, trained": ("nb201", "score"),
    "MobileNetV3, trained": ("mbv3", "score"),
}
"""What else is sampled: the space, and whether its first law has the exact denoiser or our trained network."""


class SamplerError(NamedTuple):
    """Sampler comparison: the rows, and the law that was to be sampled, float64 `(6, 5)` (edge, operation)."""

    exhibit: Exhibit
    law: np.ndarray


def figure_samplers(profile: str = "quick", seed: int = 0, *, progress: bool = True) -> SamplerError:
    """Distance of every sampler to a known law, against network calls and time.

    The law has independent edges with weights drawn once from a flat Dirichlet distribution, and its denoiser is
    exact, so what remains is the sampler's own error. The distance is the mean over edges of the total variation between the
    drawn operations and the law; an invalid draw counts as mass outside it. `column` is the number of network calls.
    Metrics: "total variation" (its row "exact draws" is the noise floor of as many independent draws), "validity" by
    threshold decoding, "time" in CPU seconds for 10,000 draws. All start at the paper's sigma = 5 but the row `WIDE`.

    The same for `OTHERS`, under "METRIC: OTHER", against the uniform law of NB201 and the OFA law of MBv3. There the mean is
    over the slots, and an absent slot is one more outcome; times are left out.
    """
    n_seeds, n, steps, pc_steps = by_profile(
        profile,
        quick=(4, 3000, (2, 5, 10, 20), (5, 10)),
        paper=(5, 10_000, (2, 3, 5, 10, 20, 30, 50, 100), (2, 5, 10, 20, 50, 100, 200, 500, 1000)),
    )
    exhibit = Exhibit("figure_samplers", profile, seed=seed, seeds=n_seeds)
    law = numpy_stream(0, "figure_samplers/law").dirichlet(np.ones(5), 6)
    weights = SPACE.allowed.astype(float)
    weights[1:7, 2:] = law
    denoiser = ExactDenoiser(SPACE.allowed, weights)
    jobs = [(name, name, 5.0, count) for name in samplers.SAMPLERS for count in (pc_steps if name == "pc" else steps)]
    jobs += [(WIDE, "dpmpp_2m", 80.0, count) for count in steps if count >= 5]
    with tqdm(total=n_seeds * len(jobs), desc="figure_samplers", unit="run", disable=not progress) as bar:
        for row, name, sigma_max, count in jobs:
            error, valid, seconds = np.empty((3, n_seeds))
            # the batch size is spelled because `pc` couples the draws of a batch
            options = {"sampler": name, "sigmas": geometric_sigmas(count, sigma_max=sigma_max), "batch_size": 500}
            for number in range(n_seeds):
                generator = torch_stream(100 * seed + number, f"figure_samplers/{row}/{count}")
                start = time.process_time()
                archs, errors = samplers.generate(SPACE, denoiser, n, generator=generator, **options)
                seconds[number] = (time.process_time() - start) * 10_000 / n
                error[number], valid[number] = total_variation(archs, law), 100 * (errors == "").mean()
                bar.update()
            calls = str(samplers.network_calls(name, count))
            exhibit.add(row, calls, "total variation", mean_ci(error), n=n_seeds, unit="probability")
            exhibit.add(row, calls, "validity", mean_ci(valid), n=n_seeds, unit="%")
            exhibit.add(row, calls, "time", mean_ci(seconds), n=n_seeds, unit="s")
    floor = [
        total_variation(SPACE.decode(denoiser.sample(n, torch_stream(100 * seed + number, "figure_samplers/floor")))[0], law)
        for number in range(max(n_seeds, 20))
    ]
    spread = Interval(float(np.mean(floor)), *map(float, np.quantile(floor, [0.025, 0.975])))
    exhibit.add("exact draws", "0", "total variation", spread, n=len(floor), unit="probability")
    for label, (name, prior) in OTHERS.items():
        _other(exhibit, label, get_space(name), prior, profile, seed, progress)
    return SamplerError(exhibit, law)


def _other(exhibit: Exhibit, label: str, space: SearchSpace, prior: str, profile: str, seed: int, progress: bool) -> None:
    n_seeds, n, steps = by_profile(profile, quick=(3, 400, (10, 20)), paper=(5, 2000, (5, 10, 20, 50, 100)))
    exact = exact_prior(space)
    denoiser = exact if prior == "exact" else load_score(space)
    if is_listed(space):
        law, absent = np.full((space.n_slots, 5), 1 / 5), 0
    else:  # outcome 0 is an absent slot
        law, absent = exact.probabilities(torch.zeros(1, space.n_nodes, space.n_ops), 1e6)[0].double().numpy(), 1
        law = np.concatenate([1 - law.sum(axis=1, keepdims=True), law], axis=1)
    names = samplers.SAMPLERS if prior == "exact" else ("ancestral", "dpmpp_2m")
    starts = [*((name, name, 5.0) for name in names), (WIDE, "dpmpp_2m", 80.0)]
    jobs = [(*start, count) for start in starts for count in steps]

    def distance(archs: np.ndarray, errors: np.ndarray) -> float:
        return total_variation(np.where((errors == "")[:, None], archs + absent, -1), law)

    for row, name, sigma_max, count in tqdm(jobs, desc=label, unit="run", disable=not progress):
        error, valid = np.empty((2, n_seeds))
        for number in range(n_seeds):
            generator = torch_stream(100 * seed + number, f"figure_samplers/{label}/{row}/{count}")
            options = {"sampler": name, "sigmas": geometric_sigmas(count, sigma_max=sigma_max), "batch_size": 500}
            archs, errors = samplers.generate(space, denoiser, n, generator=generator, **options)
            error[number], valid[number] = distance(archs, errors), 100 * (errors == "").mean()
        calls = str(samplers.network_calls(name, count))
        exhibit.add(row, calls, f"total variation: {label}", mean_ci(error), n=n_seeds, unit="probability")
        exhibit.add(row, calls, f"validity: {label}", mean_ci(valid), n=n_seeds, unit="%")
    streams = [torch_stream(100 * seed + number, f"figure_samplers/{label}/floor") for number in range(20)]
    floor = [distance(*space.decode(exact.sample(n, stream))) for stream in streams]
    spread = Interval(float(np.mean(floor)), *map(float, np.quantile(floor, [0.025, 0.975])))
    exhibit.add("exact draws", "0", f"total variation: {label}", spread, n=len(floor), unit="probability")


def verdict(study: SamplerError) -> str:
    """What the numbers of `study` say, in words: who reaches the noise floor, what is left, and what validity shows."""
    frame = study.exhibit.frame().assign(calls=lambda rows: rows["column"].astype(int)).sort_values("calls")
    error, validity = (frame[frame["metric"] == metric] for metric in ("total variation", "validity"))
    floor = error[error["row"] == "exact draws"].iloc[0]
    sentences = [f"As many exact draws lie {floor.value:.4f} from the law ({floor.lo:.4f} to {floor.hi:.4f}): the noise floor."]
    reached, left = [], []
    for row in error["row"].unique():
        part = error[error["row"] == row]
        above = part["lo"].to_numpy() > floor.hi
        if row != "exact draws":
            stays = part["calls"].to_numpy()[np.flatnonzero(above)[-1] + 1 :] if above.any() else part["calls"].to_numpy()
            last = part.iloc[-1]
            reached += [f"{row} ({stays[0]} calls)"] if len(stays) else []
            left += [] if len(stays) else [f"{row} ({last.value:.4f} after {last.calls} calls)"]
    sentences.append(f"Not distinguishable from it, from some number of calls on: {', '.join(reached) or 'no sampler'}.")
    sentences.append(f"Still above it at the most calls tried here: {', '.join(left) or 'no sampler'}.")
    ends = {row: error[error["row"] == row].iloc[-1] for row in ("dpmpp_2m", WIDE)}
    sentences.append(
        f"`dpmpp_2m` ends at {ends['dpmpp_2m'].value:.4f} when it starts at the paper's σ = 5 and at "
        f"{ends[WIDE].value:.4f} from σ = 80 with the same number of calls."
    )
    worst = validity.loc[validity["value"].idxmin()]
    valid = error.merge(validity[validity["value"] > 99.5], on=["row", "column"])["value_x"].max()
    sentences.append(
        f"The lowest validity is {worst.value:.2f} % ({worst.row}, {worst.calls} calls), while samplers with more than 99.5 % "
        f"valid draws lie up to {valid:.2f} from the law: validity says little about whether the law is right."
    )
    return "\n\n".join([" ".join(sentences), *(_other_verdict(frame, label) for label in OTHERS)])


def _other_verdict(frame: pd.DataFrame, label: str) -> str:
    error = frame[frame["metric"] == f"total variation: {label}"]
    floor = error[error["row"] == "exact draws"].iloc[0]
    ends = error[error["row"] != "exact draws"].groupby("row", sort=False).last()
    near = ends["value"].idxmin()
    gap = ends.loc["dpmpp_2m", "value"] - ends.loc[WIDE, "value"]
    return (
        f"**{label}.** Exact draws lie {floor.value:.4f} from the law ({floor.lo:.4f} to {floor.hi:.4f}). At the most calls "
        f"tried the nearest is {near} ({ends.loc[near, 'value']:.4f}, {ends.loc[near, 'calls']} calls). `dpmpp_2m` from σ = 5 "
        f"is {abs(gap):.4f} {'farther' if gap > 0 else 'nearer'} than from σ = 80."
    )


def total_variation(archs: np.ndarray, law: np.ndarray) -> float:
    """Mean over slots of the total variation between the draws and `law` `(n_slots, n_ops)`; rows of -1 are off the law."""
    drawn = (np.asarray(archs)[:, :, None] == np.arange(law.shape[1])).mean(axis=0)
    missing = 1 - drawn.sum(axis=1)
    return float((np.abs(drawn - law).sum(axis=1) + missing).mean() / 2)
