"""From a space, a prior and something to aim at to a pool of architectures: what `nagkit sample` and `generate` do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from nagkit import guidance, presets
from nagkit.devices import get_device, threads
from nagkit.diffusion import exact, masked, samplers
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.errors import NagkitError, unknown
from nagkit.predictors import task
from nagkit.predictors import train as predictors
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import SearchSpace, get_space

if TYPE_CHECKING:
    import pandas as pd

PRIORS = ("exact", "score")
DIFFUSIONS = ("gaussian", "masked")
BATCH = 512
"""Draws that a sampler makes together; the numbers depend on it."""
SHARD = 128 * BATCH
"""Draws of one random stream; where draws are shared out, each worker takes whole shards."""
_AIMLESS = "a guidance rule or scale is given without something to guide towards; add --guide DATASET"
_KIND = {"x0": "ranking", "xt": "noise-aware"}


@dataclass(frozen=True)
class Pool:
    """Raw draws, in order: an invalid one stays, as a row of -1 with its error."""

    space: SearchSpace
    archs: np.ndarray
    """int8 `(n, n_slots)`"""
    errors: np.ndarray
    """Why a draw is invalid, `(n,)` of str; "" when it is not."""
    scores: Mapping[str, np.ndarray]
    """By name, float64 `(n,)`, NaN where invalid: "predicted" is what the predictor says, when one guided."""

    def __len__(self) -> int:
        return len(self.archs)

    @property
    def valid(self) -> np.ndarray:
        """The valid draws, int8 `(m, n_slots)`."""
        return self.archs[self.errors == ""]

    def __getitem__(self, rows: np.ndarray | slice) -> "Pool":
        return Pool(self.space, self.archs[rows], self.errors[rows], {name: v[rows] for name, v in self.scores.items()})

    def columns(self) -> dict[str, list]:
        """What files and tables hold: `arch` (a string, empty when invalid), `error`, and the scores (None when invalid)."""
        strings = np.full(len(self), "", object)
        strings[self.errors == ""] = self.space.to_string(self.valid)
        scores = {n: [None if v != v else v for v in values.round(4).tolist()] for n, values in self.scores.items()}
        return {"arch": strings.tolist(), "error": self.errors.tolist()} | scores

    def table(self) -> "pd.DataFrame":
        """`columns` as a pandas table, NaN for None."""
        import pandas as pd

        return pd.DataFrame(self.columns()).astype(dict.fromkeys(self.scores, float))


def joined(pools: Sequence[Pool]) -> Pool:
    """Several pools of one space as one."""
    scores = {name: np.concatenate([pool.scores[name] for pool in pools]) for name in pools[0].scores}
    archs, errors = (np.concatenate([getattr(pool, part) for pool in pools]) for part in ("archs", "errors"))
    return Pool(pools[0].space, archs, errors, scores)


@cache
def load_prior(space: str | SearchSpace, name: str = "exact") -> Callable:
    """The unguided denoiser: "exact" in closed form ("exact-<law>" of another of the space's laws), or the "score" network."""
    home = get_space(space)
    names = (*PRIORS, *(f"exact-{law}" for law in home.laws))
    if name not in names:
        raise unknown("prior", name, names)
    if name == "score":
        from nagkit.diffusion.train import load_score  # brings pandas, which drawing does without

        return load_score(home)
    return exact.exact_prior(home, name.partition("-")[2] or None)


@cache
def load_predictor(space: str | SearchSpace, dataset: str, *, rule: str = "x0", training_seed: int = 0) -> task.TaskPredictor:
    """The committed predictor that guides towards `dataset` by `rule`: the ranking one at x̂₀, the noise-aware one at x_t.

    It maps `(x, sigma)` to `(B,)`, and `rank(archs)` scores clean architectures. Data sets without images are predicted with
    the mean code of the training tasks.
    """
    name = space if isinstance(space, str) else space.name
    targets = presets.of_space(name)["targets"]
    if dataset not in targets:
        raise unknown("data set to guide towards", dataset, targets)
    if rule not in guidance.RULES:
        raise unknown("guidance rule", rule, guidance.RULES)
    known = dataset in (*task.CODED, task.HELD)
    return predictors.load(_KIND[rule], dataset if known else task.NO_CODE, space=name, seed=training_seed)


def generate(
    space: str | SearchSpace, n: int, *, prior: str | Callable | None = None, guide: str | guidance.Predictor | None = None,
    rule: str | None = None, scale: float | str | None = None, diffusion: str = "gaussian", sampler: str | None = None,
    steps: int | None = None, decode: str = "threshold", seed: int = 0, training_seed: int = 0, device: str = "cpu",
    progress: bool = False,
) -> Pool:  # fmt: skip
    """`n` raw draws from a search space; nothing is filtered or drawn again.

    `guide` is a data set, or a predictor of one's own, `(x, sigma) → (B,)` of codes `x (B, n_nodes, n_ops)`, whose unit should
    be one standard deviation over the space. `rule` "x0" (default) differentiates it at denoised codes, "xt" at noisy ones;
    `scale` is a number, or "diverse", the weaker of the chosen strengths. `prior` is a name (`load_prior`) or a denoiser.
    What is left out comes from the block of the space in data/presets.yaml.
    Without guide, sampler and steps a closed-form prior is drawn from exactly. `seed` is that of the draws, `training_seed`
    that of the committed predictor.

    `diffusion` "masked", for spaces that are listed and hold all combinations of slot values, scores the whole space first and
    then reveals slots, in `steps` steps. One slot a step, the default, draws exactly from the uniform law times exp(scale ·
    predicted), the scale in standard deviations of the prediction over the space, by default that chosen for the
    exact prior; exactly guided, it leaves few distinct architectures, and a smaller one more.
    Raises `NagkitError` for unknown names, and where a space has no such block.
    """
    plan = prepare(space, prior=prior, guide=guide, rule=rule, scale=scale, diffusion=diffusion, sampler=sampler,
                   steps=steps, decode=decode, training_seed=training_seed, device=device)  # fmt: skip
    return joined(list(plan.draws(n, seed, progress=progress)))


@dataclass(frozen=True)
class Plan:
    """Everything that decides a draw but its seed."""

    space: SearchSpace
    denoiser: Callable | masked.MaskedLaw
    sampler: str | None
    """None: draw from the closed form itself, that is by `denoiser.sample`."""
    sigmas: torch.Tensor | None
    decode: str
    device: torch.device
    scorers: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    """What `Pool.scores` holds: of valid architectures, float64 `(m,)`."""

    def draws(self, n: int, seed: int = 0, *, shard: int = 0, progress: bool = False) -> Iterator[Pool]:
        """The first `n` draws from `shard` on, a batch at a time, on one thread: numbers do not depend on cores."""
        if n < 1 or seed < 0:
            raise NagkitError(f"{'n must be at least 1' if n < 1 else 'seed must not be negative'}, got {min(n, seed)}")
        few = progress and n <= BATCH  # then the bar of the sampler itself tells more
        with tqdm(total=n, desc="draws", unit="draw", unit_scale=True, disable=few or not progress) as bar:
            for start in range(0, n, SHARD):
                number = shard + start // SHARD
                stream = torch_stream(seed, f"sample/{number}" if number else "sample", self.device)
                end, step = min(start + SHARD, n), BATCH if self.sampler else 4 * BATCH
                for size in (min(step, end - first) for first in range(start, end, step)):
                    with threads(1):
                        pool = self._batch(size, stream, few)
                    yield pool
                    bar.update(size)

    def _batch(self, size: int, stream: torch.Generator, progress: bool) -> Pool:
        if self.sampler is None:
            archs, errors = self.space.decode(self.denoiser.sample(size, stream))
        else:
            archs, errors = samplers.generate(
                self.space, self.denoiser, size, sampler=self.sampler, sigmas=self.sigmas, generator=stream,
                batch_size=BATCH, decode=self.decode, progress=progress,
            )  # fmt: skip
        valid, scores = errors == "", {name: np.full(size, np.nan) for name in self.scorers}
        for name, score in self.scorers.items():
            scores[name][valid] = score(archs[valid])
        return Pool(self.space, archs, errors, scores)


def prepare(
    space: str | SearchSpace, *, prior: str | Callable | None = None, guide: str | guidance.Predictor | None = None,
    rule: str | None = None, scale: float | str | None = None, diffusion: str = "gaussian", sampler: str | None = None,
    steps: int | None = None, decode: str = "threshold", training_seed: int = 0, device: str = "cpu",
    scorers: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> Plan:  # fmt: skip
    """What `generate` does with its options before the first draw; `scorers` join `Pool.scores`."""
    home = get_space(space)
    if diffusion not in DIFFUSIONS:
        raise unknown("diffusion", diffusion, DIFFUSIONS)
    if diffusion == "masked":
        if (prior, rule, sampler, decode) != (None, None, None, "threshold"):
            raise NagkitError("masked diffusion has no prior, rule, sampler or decoding to choose; leave them out")
        return _masked(home, guide, scale, steps, training_seed, device, dict(scorers or {}))
    complete = None not in (prior, sampler, steps) and home.name not in presets.load()  # nothing is left to choose
    chosen = {} if complete else presets.of_space(home.name)["sampling"]
    if steps is not None and steps < 1:
        raise NagkitError(f"steps must be at least 1, got {steps}")
    name, prior = ("of one's own", prior) if callable(prior) else (prior or chosen["prior"], prior)
    denoiser = prior if callable(prior) else load_prior(home, name)
    exactly = sampler is steps is guide is None and decode == "threshold" and hasattr(denoiser, "sample")
    scorers = dict(scorers or {})
    if isinstance(guide, str):
        rule = rule or "x0"
        aim, ranking = (load_predictor(home, guide, rule=at, training_seed=training_seed) for at in (rule, "x0"))
        denoiser = guidance.guide(denoiser, aim, presets.strength(home.name, name, rule, scale), rule=rule)
        scorers = {"predicted": ranking.rank} | scorers
    elif guide is not None:
        _check(guide, home, device)
        strength = presets.strength(home.name, name, "objective", scale)
        denoiser = guidance.guide(denoiser, guide, strength, rule=rule or "x0")
        scorers = {"predicted": lambda archs: _scored(guide, home.encode(archs), device)} | scorers
    elif rule is not None or scale is not None:
        raise NagkitError(_AIMLESS)
    sigmas = geometric_sigmas(steps or chosen["steps"], sigma_max=chosen.get("sigma_max", 5.0))
    return Plan(home, denoiser, None if exactly else sampler or chosen["sampler"], sigmas, decode, get_device(device), scorers)


def _masked(
    home: SearchSpace, guide: str | guidance.Predictor | None, scale: float | str | None, steps: int | None, training_seed: int,
    device: str, scorers: dict[str, Callable[[np.ndarray], np.ndarray]],
) -> Plan:  # fmt: skip
    """The plan of masked diffusion, which scores the whole space first."""
    archs, _ = masked.slots(home)  # refuses a space before all of it is scored
    scores, strength = np.zeros(len(archs)), 0.0
    if guide is not None:
        named = isinstance(guide, str)
        strength = presets.strength(home.name, "exact", "x0" if named else "objective", scale)
        scores = _of_all(home, guide, training_seed) if named else _scored(guide, home.encode(archs), device)
        scorers = {"predicted": lambda archs: scores[home.code(archs)]} | scorers
    elif scale is not None:
        raise NagkitError(_AIMLESS)
    table, reveal = masked.partial_values(home, scores, strength), masked.schedule(home.n_slots, steps)
    return Plan(home, masked.MaskedLaw(home, table, reveal), None, None, "threshold", get_device(device), scorers)


@cache
def _of_all(space: SearchSpace, dataset: str, training_seed: int) -> np.ndarray:
    return load_predictor(space, dataset, training_seed=training_seed).rank(space.all())


def _check(predictor: guidance.Predictor, space: SearchSpace, device: str) -> None:
    """Raise `NagkitError` unless a predictor of one's own can guide: one finite, differentiable number for each code."""
    x = space.encode(space.random(3, numpy_stream(0, "sample/check"))).to(device).requires_grad_()
    value = predictor(x, 1.0)
    if not isinstance(value, torch.Tensor) or value.shape != (3,) or not value.requires_grad:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        remedy = "compute it from x with torch operations"
        raise NagkitError(f"a predictor must return a tensor (B,) that can be differentiated, here (3,), got {got}; {remedy}")
    if not torch.isfinite(value).all():
        raise NagkitError(f"the predictor returns {value.tolist()} for valid architectures; its values must be finite")


@torch.inference_mode()
def _scored(predictor: guidance.Predictor, x: torch.Tensor, device: str) -> np.ndarray:
    return predictor(x.to(device), 0.0).double().cpu().numpy()
