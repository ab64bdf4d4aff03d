"""Training of score networks, resumable at any moment, and the checkpoints that come of it.

While a run trains, its whole state (weights, moving average, optimiser, random stream, curve) goes to the cache folder at
regular steps, in one atomic write; a second call with the same arguments goes on from there and ends in the same bytes as an
uninterrupted run.
"""

import copy
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import io, resume
from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.gdss import GDSSScoreNetwork
from nagkit.diffusion.recipes import RECIPES, Recipe
from nagkit.diffusion.samplers import Denoiser, generate
from nagkit.diffusion.score import PaperScoreNetwork, ScoreNetwork, as_denoiser
from nagkit.diffusion.sde import VE, geometric_sigmas
from nagkit.errors import NagkitError, unknown
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import SearchSpace, is_listed, keys

_NETWORKS = {network.__name__: network for network in (ScoreNetwork, PaperScoreNetwork, GDSSScoreNetwork)}
N_UNLISTED = 450_000  # training draws from a space too large to list: nine tenths of the paper's 500,000
_STEPS = 20  # sampler steps, one network call each, of every validity figure
_DRAWS = {"report": 256, "card": 1000}  # raw draws of a validity figure on the way, and of each seed's on the card


def training_archs(space: SearchSpace, share: float = 1.0, seed: int = 0) -> np.ndarray:
    """What a run with this `share` and `seed` trains on, int8 `(n, n_slots)`.

    A seeded draw of `floor(share * size)` rows of `space.all()`, in its order; of a space too large to list, where `share` must
    be 1, `N_UNLISTED` seeded draws from the first of its laws.
    """
    if not is_listed(space):
        if share != 1:
            raise NagkitError(f"{space.name} is too large to train on a share of it; leave out --share {share}")
        return space.random(N_UNLISTED, numpy_stream(seed, "score/training draws"))
    if not 1 / space.size <= share <= 1:
        raise NagkitError(f"share of the cells to train on must be in (0, 1], got {share}")
    order = numpy_stream(seed, "score/training cells").permutation(space.size)
    return space.all()[np.sort(order[: math.floor(share * space.size)])]


def checkpoint(space: str, network: str = "ours", share: float = 1.0) -> Path:
    """Where the committed checkpoint of a recipe and share lies."""
    name = f"score_{space}" + ("" if network == "ours" else f"_{network}") + _suffix(share)
    return paths.DATA / "checkpoints" / f"{name}.safetensors"


def train_score(
    space: SearchSpace,
    *,
    network: str = "ours",
    share: float = 1.0,
    seed: int = 0,
    steps: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train a score network of recipe `network`, one of `RECIPES`, and return its curve, one row per report.

    Writes to `out` (by default the committed checkpoint of that recipe and share) the averaged weights, next to it the curve
    as CSV and a card as JSON. Curve columns: `step`, `minutes` (of training, over all sittings), `loss` (mean of about the
    last 100 steps), `valid` (percent of 256 raw draws). Call it again with the same arguments to resume. Raises
    `NagkitError` for an unknown recipe, a share outside (0, 1], or a trial length that would replace a committed file.
    """
    if network not in RECIPES:
        raise unknown("score network", network, RECIPES)
    recipe = RECIPES[network].for_space(space)
    if steps is not None and steps < 1:
        raise NagkitError(f"steps must be at least 1, got {steps}; the recipe's are {recipe.steps}")
    if out is None and steps not in (None, recipe.steps):
        raise NagkitError(f"{steps} steps are not the recipe's {recipe.steps}: name a file with out=... (--out) for a trial")
    out = Path(out) if out else checkpoint(space.name, network, share)
    chosen = training_archs(space, share, seed)
    identity = _identity(space, recipe, share, seed, steps or recipe.steps)
    state = paths.cache() / "training" / f"{out.stem}-{_digest(identity, out)}.safetensors"
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout read the global stream, so the run owns it
        torch.default_generator.manual_seed(torch_stream(seed, "train/score").initial_seed())
        average, curve = _run(space, recipe, chosen, identity, state, seed, progress)
    io.write_arrays(out, {key: value.numpy() for key, value in average.state_dict().items()}, identity)
    io.write_text(out.with_suffix(".csv"), curve.to_csv(index=False))
    card = _card(space, recipe, average, chosen, identity, curve, out)
    command = f"nagkit train score --space {space.name} --preset {network} --share {share:g} --seed {seed}"
    card["rebuild"] = command + ("" if steps is None else f" --steps {steps}")
    io.write_text(out.with_suffix(".json"), json.dumps(card, indent=2) + "\n")
    state.unlink(missing_ok=True)
    return curve


def load_score(
    space: SearchSpace, name: str | Path | None = None, *, share: float | None = None, network: str | None = None
) -> Denoiser:
    """The denoiser of a committed checkpoint by `name` (default `score_<space>`), or of the one at a path ending in
    .safetensors; without gradients for its weights.

    `share` is the share of the space it must have been trained on: by default half for a name in `_half`, else all. `network`
    is the recipe it must come from: by default the one its name `score_<space>[_<recipe>]` says; any for another file name.
    Raises `NagkitError` when the file is missing, damaged, not a score network, differs from the hash on its card, or
    belongs to another space, adjacency, share or kind of network (an ablation is not the full one).
    """
    name = name or f"score_{space.name}"
    path = Path(name) if str(name).endswith(".safetensors") else paths.DATA / "checkpoints" / f"{name}.safetensors"
    share = (0.5 if path.stem.endswith("_half") else 1.0) if share is None else share
    remedy = "`nagkit train score` makes one"
    if not path.is_file():
        raise NagkitError(f"no checkpoint {path}; {remedy}")
    arrays, found = io.read_arrays(path)
    if found.get("model") not in _NETWORKS:
        raise NagkitError(f"{path} is not the checkpoint of a score network; {remedy}")
    card = path.with_suffix(".json")
    if card.is_file() and json.loads(card.read_text()).get("sha256") != _sha256(path):
        raise NagkitError(f"{path} is not the file its card {card.name} describes (SHA-256 differs); restore or retrain both")
    expected = _belongs(space)
    for key, value in expected.items():
        if found.get(key) != value:
            raise NagkitError(f"{path} was trained on {key} {_short(found.get(key))}, wanted {_short(value)}; {remedy} for it")
    if found.get("share") != share:
        had = found.get("share", 0)
        raise NagkitError(f"{path} was trained on {had:.0%} of the cells, wanted {share:.0%}; name another, or say share={had}")
    stem = f"score_{space.name}"
    if network is None and path.stem.startswith(stem):
        network = next((name for name in RECIPES if path.stem.startswith(f"{stem}_{name}")), "ours")
    if network is not None:
        if network not in RECIPES:
            raise unknown("score network", network, RECIPES)
        recipe = RECIPES[network].for_space(space)
        had, wanted = _kind(found["model"], found["settings"]), _kind(recipe.network, recipe.settings)
        if had != wanted:
            raise NagkitError(f"{path} is a {had}, wanted a {wanted} (recipe {network!r}); {remedy}")
    built = _build(space, found["model"], found["settings"])
    try:
        built.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    except RuntimeError as error:
        raise NagkitError(f"{path} does not hold the weights its metadata promises; {remedy}") from error
    return _denoiser(built.requires_grad_(False))


def _run(
    space: SearchSpace, recipe: Recipe, archs: np.ndarray, identity: dict, state: Path, seed: int, progress: bool
) -> tuple[nn.Module, pd.DataFrame]:
    """Train to the end, from the saved state when there is one: the averaged network and the curve."""
    model = _build(space, recipe.network, identity["settings"])
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.lr, betas=(0.9, recipe.beta2))
    modules = {"model": model, "average": average}
    steps, at = identity["steps"], {"step": 0, "seconds": 0.0, "loss": 0.0, "curve": []}
    if state.is_file():
        at = resume.restore(state, modules, optimiser, torch.default_generator)
    started = time.monotonic() - at["seconds"]
    bar = tqdm(
        range(at["step"], steps), initial=at["step"], total=steps, desc="score network", disable=not progress, mininterval=1.0
    )
    stream, process = torch.default_generator, _process(identity["settings"])
    levels = geometric_sigmas(_STEPS, sigma_max=process.sigma_max)
    model.train()
    for step in bar:
        x0 = space.encode(archs[torch.randint(len(archs), (recipe.batch,), generator=stream).numpy()])
        sigma = process.std(torch.rand(recipe.batch, generator=stream))  # log-uniform, the paper's uniform time
        noise = torch.randn(x0.shape, generator=stream)
        loss = recipe.loss(model, x0, noise, sigma)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for group in optimiser.param_groups:
            group["lr"] = _learning_rate(recipe, step, steps)
        optimiser.step()
        decay = min(recipe.ema, (1 + step) / (10 + step))
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.lerp_(new.detach(), 1 - decay)
        done = step + 1
        at["loss"] += (float(loss.detach()) - at["loss"]) / min(done, 100)
        if done % recipe.report_every == 0 or done == steps:
            own = torch_stream(seed, f"train/draw {done}")
            _, errors = generate(space, _denoiser(average), _DRAWS["report"], sigmas=levels, generator=own)
            minutes = (time.monotonic() - started) / 60
            at["curve"].append([done, round(minutes, 3), round(at["loss"], 6), 100 * float((errors == "").mean())])
        if done % recipe.save_every == 0 and done < steps:
            at |= {"step": done, "seconds": time.monotonic() - started}
            resume.store(state, at, modules, optimiser, stream)
        if at["curve"]:
            bar.set_postfix(loss=f"{at['loss']:.4f}", valid=f"{at['curve'][-1][3]:.1f} %", refresh=False)
    return average, pd.DataFrame(at["curve"], columns=["step", "minutes", "loss", "valid"])


def _learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    ramp = min(1.0, (step + 1) / recipe.warmup)
    return recipe.lr * ramp * (0.5 * (1 + math.cos(math.pi * step / steps)) if recipe.cosine else 1.0)


def _card(
    space: SearchSpace, recipe: Recipe, network: nn.Module, chosen: np.ndarray, identity: dict, curve: pd.DataFrame, out: Path
) -> dict:
    """What the data card says: measured on the averaged network, 1,000 raw draws in each of the sampling seeds."""
    denoiser, exact = _denoiser(network), exact_prior(space)
    draws, n, known, process = [], _DRAWS["card"], keys(chosen), _process(identity["settings"])
    levels = geometric_sigmas(_STEPS, sigma_max=process.sigma_max)
    for seed in range(recipe.card_seeds):
        archs, errors = generate(space, denoiser, n, sigmas=levels, generator=torch_stream(seed, "sample"))
        distinct = np.unique(keys(archs[errors == ""]))
        novel = int((~np.isin(distinct, known)).sum())
        draws.append({"seed": seed, "n": n, "valid": int((errors == "").sum()), "distinct": len(distinct), "novel": novel})
    stream = torch_stream(0, "train/error")
    x0, sigma = exact.sample(4 * n, stream), process.std(torch.rand(4 * n, generator=stream))
    x = x0 + sigma[:, None, None] * torch.randn(x0.shape, generator=stream)
    with torch.inference_mode():
        error = (denoiser(x, sigma) - exact(x, sigma)).square().mean().sqrt()
    return {
        "what": f"score network of {space.name}, trained by this project on {len(chosen):,} of {space.size:,} architectures",
        **{key: identity[key] for key in ("model", "recipe", "share", "seed", "steps")},
        "parameters": sum(p.numel() for p in network.parameters()),
        "training_minutes": float(curve["minutes"].iloc[-1]),
        "threads": torch.get_num_threads(),
        "final_loss": float(curve["loss"].iloc[-1]),
        "rms_to_exact_denoiser": round(float(error), 5),
        "sampler": {"name": "ancestral", "network_calls": _STEPS, "sigma_max": process.sigma_max, "decode": "threshold"},
        "draws": draws,
        "sha256": _sha256(out),
    }


def _identity(space: SearchSpace, recipe: Recipe, share: float, seed: int, steps: int) -> dict:
    constants = {key: getattr(recipe, key) for key in ("batch", "lr", "warmup", "cosine", "ema", "beta2", "clip")}
    constants["loss"] = recipe.loss.__name__
    run = {"model": recipe.network, "settings": recipe.settings, "share": share, "seed": seed, "steps": steps}
    return run | _belongs(space) | {"recipe": constants}


def _belongs(space: SearchSpace) -> dict:
    edges = np.argwhere(space.adjacency).tolist()
    return {"space": space.name, "n_nodes": space.n_nodes, "n_ops": space.n_ops, "adjacency": edges}


def _process(settings: dict) -> VE:
    return VE(sigma_max=settings.get("sigma_max", VE.sigma_max))


def _kind(model: str, settings: dict) -> str:
    return model + (" without position codes" if settings.get("positions") == "none" else "")


def _short(value: object) -> str:
    return str(value) if len(str(value)) < 40 else f"{str(value)[:36]}..."


def _digest(identity: dict, out: Path) -> str:
    return hashlib.sha256(json.dumps([identity, str(out.resolve())]).encode()).hexdigest()[:16]


def _suffix(share: float) -> str:
    return {1.0: "", 0.5: "_half"}.get(share, f"_{share:g}")


def _build(space: SearchSpace, network: str, settings: dict) -> nn.Module:
    return _NETWORKS[network](space.n_nodes, space.n_ops, space.adjacency, **settings)


def _denoiser(network: nn.Module) -> Denoiser:
    return network.eval() if isinstance(network, ScoreNetwork) else as_denoiser(network)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
