"""What guidance aims at, p(x)·exp(strength · f(x)) over all architectures, against what each way of guiding really draws.

f is the score that a committed predictor gives to a clean architecture, in standard deviations over the space; strengths are in
that unit for every row. For `notebooks/exact_guidance`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch

from nagkit import paths
from nagkit.diffusion import samplers
from nagkit.diffusion.sde import VE
from nagkit.diffusion.tilted import tilted_law
from nagkit.guidance import guide
from nagkit.predictors import images
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import load_predictor, load_prior
from nagkit.spaces.base import get_space
from nagkit.study.estimates import Interval
from nagkit.study.jobs import Task
from nagkit.study.results import Results

GUIDES = {
    "tilted": "ranking",
    "x0": "ranking",
    "xt-mean": "ranking",
    "xt-network-mean": "noise-aware",
    "xt-network": "noise-aware",
}
"""Ways of guiding, and the predictor whose clean scores are f: the denoiser of the tilted law itself; a predictor's gradient at
x̂₀; the paper's rule at x_t with the exact mean of f, by enumeration; and the paper's rule with the noise-aware network."""

BATCH = 500
"""Draws that are sampled together: spelled because the corrector couples the draws of a batch."""


@cache
def values(space: str, dataset: str, kind: str, training_seed: int) -> tuple[np.ndarray, float]:
    """f of every architecture by a committed predictor, mean 0 and standard deviation 1, float64 `(size,)`; its unit in f's."""
    predictor = load_predictor(space, dataset, rule={"ranking": "x0", "noise-aware": "xt"}[kind], training_seed=training_seed)
    home = get_space(space)
    with torch.inference_mode():
        parts = [predictor(part, VE().sigma_min) for part in home.encode(home.all()).split(1024)]
    scores = torch.cat(parts).double().numpy()
    return (scores - scores.mean()) / scores.std(), float(scores.std())


def denoiser(space: str, dataset: str, name: str, training_seed: int, scale: float) -> Callable:
    """The guided denoiser called `name`, one of `GUIDES`, at `scale` in standard deviations of f."""
    f, unit = values(space, dataset, GUIDES[name], training_seed)
    if name == "tilted":
        return tilted_law(get_space(space), f, scale)
    if name in ("x0", "xt-network"):
        rule = "x0" if name == "x0" else "xt"
        predictor = load_predictor(space, dataset, rule=rule, training_seed=training_seed)
        return guide(load_prior(space, "exact"), predictor, scale / unit, rule=rule)
    uniform = tilted_law(get_space(space), f, 0.0)

    def guided(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        mean, covariance = uniform.moments(x, sigma, f)
        return mean + scale * covariance

    return guided


def draw(
    space: str, dataset: str, name: str, training_seed: int, scale: float, sampler: str, steps: int, n: int, seed: int
) -> dict[str, np.ndarray]:
    """A job: `archs`, `n` raw draws int8 `(n, n_slots)`, -1 in invalid rows."""
    generator = torch_stream(seed, f"exact_guidance/{name}/{scale:g}/{sampler}/{steps}")
    law = denoiser(space, dataset, name, training_seed, scale)
    how = {"sampler": sampler, "steps": steps, "batch_size": BATCH}
    return {"archs": samplers.generate(get_space(space), law, n, generator=generator, **how)[0]}


def files(space: str) -> list[Path]:
    """The committed files that the draws rest on."""
    kinds = [sorted((paths.DATA / "checkpoints").glob(f"{kind}_{space}_*.safetensors")) for kind in set(GUIDES.values())]
    return [images.CODES, *sum(kinds, [])]


# Distances ------------------------------------------------------------------------------------------------------------


def total_variation(codes: np.ndarray, n: int, law: np.ndarray) -> float:
    """Total variation between `n` draws, the valid ones architectures number `codes`, and `law`; invalid ones are off it."""
    drawn = np.bincount(codes, minlength=len(law)) / n
    return float(np.abs(drawn - law).sum() + 1 - drawn.sum()) / 2


def divergence(codes: np.ndarray, n: int, law: np.ndarray) -> float:
    """Kullback-Leibler divergence of the valid draws from `law`, nats; the entropy with the correction of Miller and Madow."""
    counts = np.bincount(codes, minlength=len(law))
    seen = counts > 0
    share = counts[seen] / counts.sum()
    entropy = -(share * np.log(share)).sum() + (seen.sum() - 1) / (2 * counts.sum())
    return float(-(share * np.log(np.maximum(law[seen], 1e-300))).sum() - entropy)


# Protocol -------------------------------------------------------------------------------------------------------------


class Comparison:
    """The space and data set, the training seeds, and the accuracies of all architectures on the development set."""

    def __init__(self, results: Results, space: str, dataset: str, n_training: int, accuracy: np.ndarray):
        self.results, self.space, self.dataset, self.home = results, space, dataset, get_space(space)
        self.training, self.accuracy = range(n_training), accuracy

    def law(self, kind: str, training_seed: int, scale: float) -> np.ndarray:
        return tilted_law(self.home, values(self.space, self.dataset, kind, training_seed)[0], scale).law

    def sweep(self, prefix: str, rows: Mapping[str, Mapping], columns: Iterable, axis: str, n: int) -> None:
        """Draws of every row (its `draw` arguments) at every value of `axis`; metrics "PREFIX total variation" and so on."""
        keys = list(product(rows, columns))
        jobs = [
            {**rows[row], axis: value, "training_seed": t, "n": n, "seed": 100 * self.results.exhibit.seed + t}
            for row, value in keys
            for t in self.training
        ]
        where = {"space": self.space, "dataset": self.dataset}
        made = iter(self.results.do([Task(draw, where | job, tuple(files(self.space))) for job in jobs]))
        for row, value in keys:
            pools = [next(made)["archs"] for _ in self.training]
            codes = [self.home.code(pool[(pool >= 0).all(axis=1)]) for pool in pools]
            settings = {**rows[row], axis: value}
            self._judge(row, f"{value:g}", prefix, codes, n, GUIDES[settings["name"]], settings["scale"])

    def _judge(self, row: str, column: str, prefix: str, codes: list[np.ndarray], n: int, kind: str, scale: float) -> None:
        def add(metric: str, found: list[float], unit: str) -> None:
            self.results.measured(row, column, f"{prefix} {metric}", np.array(found), unit)

        add("validity", [100 * len(one) / n for one in codes], "%")
        add("development accuracy", [self.accuracy[one].sum() / n for one in codes], "%")
        add("distinct", [float(len(np.unique(one))) for one in codes], "count")
        if all(len(one) for one in codes):
            laws = [self.law(kind, t, scale) for t in self.training]
            f = [values(self.space, self.dataset, kind, t)[0] for t in self.training]
            pairs = list(zip(codes, laws, strict=True))
            add("total variation", [total_variation(one, n, law) for one, law in pairs], "probability")
            add("divergence", [divergence(one, n, law) for one, law in pairs], "nats")
            add("mean of f", [each[one].mean() for one, each in zip(codes, f, strict=True)], "sd")

    def laws(self, scales: Sequence[float], sizes: Mapping[str, tuple[int, Sequence[float]]]) -> None:
        """The laws themselves, and `sizes[prefix]` = (n, scales) exact draws from them: the noise floor of every distance."""
        for kind, scale in product(dict.fromkeys(GUIDES.values()), scales):
            row, column = f"law-{kind}", f"{scale:g}"
            law = [self.law(kind, t, scale) for t in self.training]
            f = [values(self.space, self.dataset, kind, t)[0] for t in self.training]
            entropy = [-(one * np.log(np.maximum(one, 1e-300))).sum() for one in law]
            measured = {
                "mean of f": (np.array([one @ each for one, each in zip(law, f, strict=True)]), "sd"),
                "development accuracy": (np.array([one @ self.accuracy for one in law]), "%"),
                "effective": (np.exp(entropy), "count"),
            }
            for metric, (found, unit) in measured.items():
                self.results.measured(row, column, f"strength {metric}", found, unit)
            for prefix, (n, at) in sizes.items():
                for metric, distance, unit in (
                    ("total variation", total_variation, "probability"), ("divergence", divergence, "nats"),
                ) if scale in at else ():  # fmt: skip
                    rng = numpy_stream(self.results.exhibit.seed, f"exact_guidance/floor/{kind}/{scale:g}")
                    found = [distance(rng.choice(len(one), n, p=one), n, one) for one in law for _ in range(10)]
                    spread = Interval(float(np.mean(found)), *map(float, np.quantile(found, [0.025, 0.975])))
                    self.results.add(f"floor-{kind}", column, f"{prefix} {metric}", spread, n=len(found), unit=unit)

    def gradients(self, sigmas: Sequence[float], n: int = 1000) -> None:
        """The shift σ²·∇f of strength 1 at x_t: its largest entry and its direction, network against the exact mean."""
        for sigma in sigmas:
            found: dict[str, list[float]] = {"xt-network": [], "xt-network-mean": [], "cosine": []}
            for t in self.training:
                generator = torch_stream(t, f"exact_guidance/gradient/{sigma}")
                clean = self.home.encode(self.home.random(n, numpy_stream(t, "exact_guidance/gradient")))
                x = clean + sigma * torch.randn(clean.shape, generator=generator)
                f, _ = values(self.space, self.dataset, "noise-aware", t)
                exact = tilted_law(self.home, f, 0.0).moments(x, sigma, f)[1]
                network = denoiser(self.space, self.dataset, "xt-network", t, 1.0)(x, sigma)
                network = network - load_prior(self.space, "exact")(x, sigma)
                for name, shift in (("xt-network", network), ("xt-network-mean", exact)):
                    found[name].append(float(shift.flatten(1).abs().amax(dim=1).mean()))
                found["cosine"].append(float(torch.cosine_similarity(network.flatten(1), exact.flatten(1)).mean()))
            for row in ("xt-network", "xt-network-mean"):
                self.results.measured(row, f"{sigma:g}", "gradient largest entry", np.array(found[row]), "")
            self.results.measured("xt-network", f"{sigma:g}", "gradient cosine", np.array(found["cosine"]), "")


def compare(
    results: Results, *, space: str, dataset: str, accuracy: np.ndarray, n_training: int, n: int, scales: Sequence[float],
    strength: float, samplers: Sequence[str], steps: Sequence[int], sigmas: Sequence[float],
) -> None:  # fmt: skip
    """The whole comparison: every guide at every strength, four of them by sampler and steps at one, laws, and gradients.

    `accuracy` is that of every architecture on the development set. Metrics begin with what columns are: "strength", "steps"
    or, for the shift that guidance of strength 1 adds at a noise level, "gradient".
    """
    study = Comparison(results, space, dataset, n_training, accuracy)
    study.sweep("strength", {name: {"name": name, "sampler": "ancestral", "steps": 20} for name in GUIDES}, scales, "scale", n)
    pairs = product(("tilted", "x0", "xt-mean", "xt-network"), samplers)
    # the network is slow, and these are its two samplers
    shown = [pair for pair in pairs if pair[0] != "xt-network" or pair[1] in ("ancestral", "pc")]
    rows = {f"{name}, {sampler}": {"name": name, "sampler": sampler, "scale": strength} for name, sampler in shown}
    study.sweep("steps", rows, steps, "steps", n // 2)
    study.laws(scales, {"strength": (n, scales), "steps": (n // 2, [strength])})
    study.gradients(sigmas)
