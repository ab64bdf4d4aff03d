"""Raw unguided draws of score networks and of rulers beside them: jobs and measures for `notebooks/table4`."""

import json
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nagkit.diffusion import samplers
from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.sde import VE, geometric_sigmas
from nagkit.diffusion.train import checkpoint, training_archs
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import mbv3
from nagkit.spaces.base import SearchSpace, get_space, is_listed, keys
from nagkit.study.exhibit import Run
from nagkit.study.jobs import Task
from nagkit.study.results import Results
from nagkit.study.trained_score import score_network

NULLS = {"independent-slots": (1, 1, 2 / 3, 1 / 3), "all-alike": (3 / 4,) * 4}
"""Laws over MBv3 codes that know how often each slot of a stage is filled, or only how often slots are, and nothing else."""
PLATEAU = 100 * float(np.prod([1 - 1 / 3 * 1 / 3] * mbv3.N_STAGES))
"""Validity (%) of "independent-slots": slot 4 (filled in a third of the stages) must not find slot 3 (two thirds) empty."""
ERRORS = {
    "nb201": ("no operation", "several operations", "misplaced input or output", "not finite"),
    "mbv3": ("slot 1 or 2 absent", "slot 4 without slot 3", "several operations", "not finite"),
}
PERCENT = [f"{what}{how}" for how in ("", ", arg-max") for what in ("validity", "uniqueness", "novelty")]
"""Metrics in percent, by threshold and by arg-max decoding."""
BATCH = 500


def network(recipe: str, shares: Mapping[str, float], **sizes) -> Task:
    """A row: the score network of a recipe, trained on `shares[space]` of each space, one for each `seed`.

    `sizes`: `n` draws in `steps` network calls each, and the loss on `n_loss` draws.
    """
    files = [checkpoint(space, recipe, share) for space, share in shares.items()]
    return Task(judge, {"kind": recipe, "shares": dict(shares), **sizes}, tuple(files))


def ruler(kind: str, shares: Mapping[str, float], **sizes) -> Task:
    """A row without training: "exact", the closed form of the law that networks learn, or one of `NULLS`."""
    return Task(judge, {"kind": kind, "shares": dict(shares), **sizes})


# Jobs -----------------------------------------------------------------------------------------------------------------


def judge(
    space: str, kind: str, shares: Mapping[str, float], seed: int, n: int, steps: int, n_loss: int
) -> dict[str, np.ndarray]:
    """A job: `PERCENT` of raw draws; "errors" by `ERRORS`; "loss"; "filled" by slot, of stages; "curve" of the training.

    Uniqueness is that of the valid draws, novelty of the distinct ones that are not among the training data; "curve" is
    `(reports, 3)` of step, minutes and percent valid. "ours", our own design, has one network, whatever the seed.
    """
    home, curve = get_space(space), pd.DataFrame(columns=["step", "minutes", "valid"])
    if kind == "exact":
        denoiser = exact_prior(home)
    elif kind in NULLS:
        denoiser = lambda x, sigma: independent_mean(x, sigma, NULLS[kind])  # noqa: E731
    else:
        denoiser, curve = score_network(space, kind, shares[space], 0 if kind == "ours" else seed)
    x = independent(kind, n, seed) if kind in NULLS else draw(home, denoiser, n, steps, seed)
    archs, errors = home.decode(x)
    known, pools = _known(space, shares[space], seed), {"": archs[errors == ""], ", arg-max": home.decode_argmax(x)}
    found: dict[str, object] = {}
    for how, pool in pools.items():
        distinct = np.unique(keys(pool))
        found[f"validity{how}"] = 100 * len(pool) / n
        found[f"uniqueness{how}"] = _percent(len(distinct), len(pool))
        found[f"novelty{how}"] = _percent((~np.isin(distinct, known)).sum(), len(distinct))
    found["errors"] = [100 * float((errors == one).mean()) for one in ERRORS[space]]
    if not is_listed(home):
        found["filled"] = (x > 0).any(dim=2).reshape(n, *home.stages).double().mean(dim=0)  # (n_stages, n_slots)
    found["loss"] = loss(home, denoiser, n_loss, seed)
    found["curve"] = curve[["step", "minutes", "valid"]].to_numpy(float)
    return {name: np.atleast_1d(np.asarray(value, float)) for name, value in found.items()}


@cache
def _known(space: str, share: float, seed: int) -> np.ndarray:
    return keys(training_archs(get_space(space), share, seed))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")


def draw(space: SearchSpace, denoiser: samplers.Denoiser, n: int, steps: int, seed: int) -> Tensor:
    """`n` raw real-valued draws before decoding, float32 `(n, n_nodes, n_ops)`: ancestral from sigma = 5, one call a step."""
    generator, levels = torch_stream(seed, "table4/draw"), geometric_sigmas(steps)
    sizes = [min(BATCH, n - start) for start in range(0, n, BATCH)]
    starts = (levels[0].float() * torch.randn((size, space.n_nodes, space.n_ops), generator=generator) for size in sizes)
    return torch.cat([samplers.ancestral(denoiser, x, levels, generator=generator) for x in starts])


def independent(null: str, n: int, seed: int) -> Tensor:
    """Codes whose slots are filled independently as `NULLS[null]` says, float32 `(n, 20, 9)`."""
    rng = numpy_stream(seed, f"table4/{null}")
    present = rng.random((n, 20)) < np.tile(NULLS[null], mbv3.N_STAGES)
    ops = np.where(present, rng.integers(0, mbv3.N_OPS, (n, 20)), mbv3.ABSENT)
    return torch.from_numpy((2.0 * (ops[:, :, None] == np.arange(mbv3.N_OPS)) - 1).astype(np.float32))


def independent_mean(x: Tensor, sigma: Tensor, filled: tuple[float, ...]) -> Tensor:
    """E[x_0 | x] when slot j of every stage is filled with probability `filled[j]`, independently; `sigma` is `(B,)`."""
    filled = torch.tensor(filled * mbv3.N_STAGES).to(x)[:, None].clamp(1e-9, 1 - 1e-6)
    there = 2 * x / sigma[:, None, None] ** 2 + (filled / mbv3.N_OPS).log()
    logits = torch.cat([there, (1 - filled).log().expand(len(x), -1, 1)], dim=2)
    return 2 * logits.softmax(dim=2)[..., :-1] - 1


@torch.inference_mode()
def loss(space: SearchSpace, denoiser: samplers.Denoiser, n: int, seed: int) -> float:
    """The paper's loss, mean of ((D(x) - x_0) / sigma)^2 over entries, on `n` fresh draws of the law and of the noise."""
    generator, total = torch_stream(seed, "table4/loss"), 0.0
    x0, sigma = exact_prior(space).sample(n, generator), VE().std(torch.rand(n, generator=generator))
    for clean, level in zip(x0.split(BATCH), sigma.split(BATCH), strict=True):
        x = clean + level[:, None, None] * torch.randn(clean.shape, generator=generator)
        total += float(((denoiser(x, level) - clean) / level[:, None, None]).square().sum())
    return total / x0.numel()


# Measures -------------------------------------------------------------------------------------------------------------


def named(name: str) -> Callable[[Run], float]:
    """A measure: the number that the job calls `name`."""
    return lambda run: run.arrays[name].item()


def fate(run: Run) -> dict[str, float]:
    """A measure: percent of the raw draws that are valid, and that are not, by the reason."""
    return {"valid": run.arrays["validity"].item()} | dict(zip(ERRORS[run.column], run.arrays["errors"].tolist(), strict=True))


def slots(run: Run) -> dict[str, float]:
    """A measure: percent of the stages that have each slot filled, and "independent", the validity if slots were so."""
    if "filled" not in run.arrays:
        return {}
    filled = run.arrays["filled"]
    found = {f"slot {slot + 1}": 100 * float(filled[:, slot].mean()) for slot in range(filled.shape[1])}
    alone = filled[:, 0] * filled[:, 1] * (1 - filled[:, 3] * (1 - filled[:, 2]))
    return found | {"independent": 100 * float(alone.prod())}


def curve(what: int) -> Callable[[Run], dict[str, float]]:
    """A measure: by training step, the minutes it took (`what` 1) or the valid ones of 256 raw draws, percent (2)."""
    return lambda run: {f"{line[0]:.0f}": float(line[what]) for line in run.arrays["curve"]}


def committed_curve(results: Results, row: str, shares: Mapping[str, float]) -> None:
    """The curve of a network that is there once, as the trained ones have theirs."""
    for space, share in shares.items():
        for line in pd.read_csv(checkpoint(space, share=share).with_suffix(".csv")).itertuples():
            for metric, value, unit in (("minutes", line.minutes, "min"), ("validity while training", line.valid, "%")):
                results.add(row, str(line.step), f"{space} {metric}", value, n=1, unit=unit)


def budget(frame: pd.DataFrame, recipes: Mapping[str, str], shares: Mapping[str, float]) -> pd.DataFrame:
    """What the networks of `recipes` (row → recipe) were trained with: parameters, steps, batch; minutes, mean over seeds."""
    lines = []
    for space, share in shares.items():
        minutes = frame[frame["metric"] == f"{space} minutes"].astype({"column": int}).sort_values("column")
        for row, recipe in recipes.items():
            card = json.loads(checkpoint(space, recipe, share).with_suffix(".json").read_text("utf-8"))
            took = round(minutes.loc[minutes["row"] == row, "value"].iloc[-1], 1)
            lines.append((space, row, card["parameters"], card["steps"], card["recipe"]["batch"], took))
    return pd.DataFrame(lines, columns=["space", "network", "parameters", "steps", "batch", "minutes"])
