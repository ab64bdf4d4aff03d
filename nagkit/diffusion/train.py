"""Training of score networks, and the checkpoints that come of it.

Recipes (data/training.yaml): "ours", `ScoreNetwork` by the cross-entropy of the operation, minutes on a laptop core; and three
with one budget for the paper's Table 4: "positions" (the paper's network at a smaller width), "no-positions" (the same without
its position code) and "gdss". The published training is `nagkit.published.train`. A run keeps its state in the cache folder
(`nagkit.predictors.fit`) until its checkpoint is written.
"""

import json
import math
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nagkit import paths
from nagkit.data import io
from nagkit.devices import get_device
from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.gdss import GDSSScoreNetwork
from nagkit.diffusion.samplers import Denoiser, generate
from nagkit.diffusion.score import PaperScoreNetwork, ScoreNetwork, as_denoiser
from nagkit.diffusion.sde import VE, geometric_sigmas
from nagkit.errors import NagkitError, unknown
from nagkit.predictors.fit import Recipe, fingerprint, fit, own_stream, recipes
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces.base import SearchSpace, get_space, is_listed, keys

_NETWORKS = {network.__name__: network for network in (ScoreNetwork, PaperScoreNetwork, GDSSScoreNetwork)}
N_UNLISTED = 450_000  # training draws from a space too large to list: nine tenths of the paper's 500,000
_STEPS = 20  # sampler steps, one network call each, of every validity figure
_DRAWS = {"report": 256, "card": 1000}  # raw draws of a validity figure on the way, and of each seed's on the card


def cross_entropy(network: ScoreNetwork, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mean over nodes of -log p(operation of the clean code, or its absence | x_0 + sigma z), in nats."""
    logits = network.logits(x0 + sigma[:, None, None] * noise, sigma)
    classes = F.pad(x0, (0, int(network.absent)))  # 0 is above an absent row's -1 and below the 1 of any other
    return F.cross_entropy(logits.flatten(0, 1), classes.argmax(dim=2).flatten())


def score_matching(network: nn.Module, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The paper's loss (equation 4): mean over all entries of (sigma score(x_0 + sigma z) + z)^2, without weighting."""
    sigma = sigma[:, None, None]
    return (sigma * network(x0 + sigma * noise, sigma.flatten()) + noise).square().mean()


_LOSSES = {loss.__name__: loss for loss in (cross_entropy, score_matching)}


def get_recipe(space: SearchSpace, network: str) -> Recipe:
    """The recipe called `network` as it is on a space; `NagkitError` for an unknown name."""
    known = recipes("score", space.name)
    if network not in known:
        raise unknown("score network", network, known)
    return known[network]


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
    suffix = {1.0: "", 0.5: "_half"}.get(share, f"_{share:g}")
    name = f"score_{space}" + ("" if network == "ours" else f"_{network}") + suffix
    return paths.DATA / "checkpoints" / f"{name}.safetensors"


def train_score(
    space: str | SearchSpace, *, network: str = "ours", share: float = 1.0, seed: int = 0, steps: int | None = None,
    out: Path | None = None, device: str | None = "cpu", progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Train a score network of recipe `network` on `device` (None: a GPU if there is one); its curve, one row per report.

    Writes to `out` (by default the committed checkpoint of that recipe and share) the averaged weights, next to it the curve
    as CSV and a card as JSON. Curve columns: `step`, `minutes` (of training, over all sittings), `loss` (mean of about the
    last 100 steps), `valid` (percent of 256 raw draws). Call it again with the same arguments to resume. Raises
    `NagkitError` for an unknown recipe, a share outside (0, 1], or a trial length that would replace a committed file.
    """
    space = get_space(space)
    recipe = get_recipe(space, network)
    if steps is not None and steps < 1:
        raise NagkitError(f"steps must be at least 1, got {steps}; the recipe's are {recipe.steps}")
    if out is None and steps not in (None, recipe.steps):
        raise NagkitError(f"{steps} steps are not the recipe's {recipe.steps}: name a file with out=... (--out) for a trial")
    out = Path(out) if out else checkpoint(space.name, network, share)
    recipe, chosen = replace(recipe, steps=steps or recipe.steps), training_archs(space, share, seed)
    constants = {key: getattr(recipe, key) for key in ("batch", "lr", "warmup", "cosine", "ema", "beta2", "clip", "loss")}
    identity = {"model": recipe.network, "settings": recipe.settings, "share": share, "seed": seed, "steps": recipe.steps}
    identity |= _belongs(space) | {"recipe": constants}
    run = fingerprint([identity, str(out.resolve())])[:16]
    state = paths.cache() / "training" / f"{out.stem}-{run}.safetensors"
    average, curve = _run(space, recipe, chosen, state, run, seed, get_device(device), progress)
    io.write_arrays(out, {key: value.numpy() for key, value in average.state_dict().items()}, identity)
    io.write_text(out.with_suffix(".csv"), curve.to_csv(index=False))
    card = _card(space, recipe, average, chosen, identity, curve) | {"sha256": io.sha256(out)}
    command = f"nagkit train score --space {space.name} --recipe {network} --share {share:g} --training-seed {seed}"
    card["rebuild"] = command + ("" if steps is None else f" --steps {steps}")
    io.write_card(out, card)
    state.unlink(missing_ok=True)
    return curve


def load_score(
    space: SearchSpace, name: str | Path | None = None, *, share: float | None = None, network: str | None = None
) -> Denoiser:
    """The denoiser of a committed checkpoint by `name` (default `score_<space>`), or of the one at a path ending in
    .safetensors; without gradients for its weights, which follow x to its device.

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
    if card.is_file() and json.loads(card.read_text()).get("sha256") != io.sha256(path):
        raise NagkitError(f"{path} is not the file its card {card.name} describes (SHA-256 differs); restore or retrain both")
    for key, value in _belongs(space).items():
        if found.get(key) != value:
            had, wanted = (text if len(text) < 40 else f"{text[:36]}..." for text in (str(found.get(key)), str(value)))
            raise NagkitError(f"{path} was trained on {key} {had}, wanted {wanted}; {remedy} for it")
    if found.get("share") != share:
        had = found.get("share", 0)
        raise NagkitError(f"{path} was trained on {had:.0%} of the cells, wanted {share:.0%}; name another, or say share={had}")
    stem = f"score_{space.name}"
    if network is None and path.stem.startswith(stem):
        known = recipes("score", space.name)
        network = next((name for name in known if path.stem.startswith(f"{stem}_{name}")), "ours")
    if network is not None:
        recipe = get_recipe(space, network)
        had, wanted = _kind(found["model"], found["settings"]), _kind(recipe.network, recipe.settings)
        if had != wanted:
            raise NagkitError(f"{path} is a {had}, wanted a {wanted} (recipe {network!r}); {remedy}")
    built = _build(space, found["model"], found["settings"])
    try:
        built.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    except RuntimeError as error:
        raise NagkitError(f"{path} does not hold the weights its metadata promises; {remedy}") from error
    return as_denoiser(built.requires_grad_(False))


def _run(
    space: SearchSpace, recipe: Recipe, archs: np.ndarray, state: Path, run: str, seed: int, device, progress: bool
) -> tuple[nn.Module, pd.DataFrame]:
    """Train to the end, from the saved state when there is one: the averaged network, on the CPU, and the curve."""
    process, at = _process(recipe.settings), {"loss": 0.0, "curve": []}
    levels = geometric_sigmas(_STEPS, sigma_max=process.sigma_max)

    def loss(_: None) -> Tensor:  # drawn on the CPU, so that the stream is the same on every device
        x0 = space.encode(archs[torch.randint(len(archs), (recipe.batch,)).numpy()])
        sigma = process.std(torch.rand(recipe.batch))  # log-uniform, the paper's uniform time
        return _LOSSES[recipe.loss](model, *(part.to(device) for part in (x0, torch.randn(x0.shape), sigma)))

    def after(value: float, network: nn.Module) -> None:
        step = at["step"]
        at["loss"] += (value - at["loss"]) / min(step, 100)
        if step % recipe.report_every == 0 or step == recipe.steps:
            own = torch_stream(seed, f"train/draw {step}", device)
            _, errors = generate(space, as_denoiser(network), _DRAWS["report"], sigmas=levels, generator=own)
            row = {"step": step, "minutes": round(at["seconds"] / 60, 3), "loss": round(at["loss"], 6)}
            at["curve"].append(row | {"valid": 100 * float((errors == "").mean())})

    with own_stream(seed, "train/score", device):
        model = _build(space, recipe.network, recipe.settings).to(device)
        average = fit(
            model, recipe, repeat, loss, after=after, at=at, state=state, run=run, what="score network", progress=progress
        )
    return average.cpu(), pd.DataFrame(at["curve"])


def _card(
    space: SearchSpace, recipe: Recipe, network: nn.Module, chosen: np.ndarray, identity: dict, curve: pd.DataFrame
) -> dict:
    """What the data card says: measured on the averaged network, 1,000 raw draws in each of three sampling seeds."""
    denoiser, exact = as_denoiser(network), exact_prior(space)
    draws, n, known, process = [], _DRAWS["card"], keys(chosen), _process(recipe.settings)
    levels = geometric_sigmas(_STEPS, sigma_max=process.sigma_max)
    for seed in range(3):
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
    }


def _belongs(space: SearchSpace) -> dict:
    edges = np.argwhere(space.adjacency).tolist()
    return {"space": space.name, "n_nodes": space.n_nodes, "n_ops": space.n_ops, "adjacency": edges}


def _process(settings: dict) -> VE:
    return VE(sigma_max=settings.get("sigma_max", VE.sigma_max))


def _kind(model: str, settings: dict) -> str:
    return model + (" without position codes" if settings.get("positions") == "none" else "")


def _build(space: SearchSpace, network: str, settings: dict) -> nn.Module:
    return _NETWORKS[network](space.n_nodes, space.n_ops, space.adjacency, **settings)
