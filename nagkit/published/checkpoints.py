"""Settings of the published networks of NAS-Bench-201, the files of trained ones, and a guide bound to a data set."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError, unknown
from nagkit.predictors import images
from nagkit.published import data, graphs
from nagkit.published.networks import CellGuide, ScoreNetwork
from nagkit.published.rankers import Ranker
from nagkit.rng import torch_stream

FORMAT = "published {kind} 1"
_NOISY = {"batch": 256, "warmup": 1000, "clip": 1.0, "sigma_max": 5.0, "wiring": "published", "mask": "raw"}
DEFAULTS = {
    "guide": _NOISY | {
        "steps": 10_001, "lr": 1e-3, "noisy": True,  # steps 0 to 10,000, the first of them at rate 0
        "divisor": 100.0, "images": 20, "code": "real",  # labels are standard deviations over the divisor
        "backward": "normalised", "scale": "set", "head": 32,
    },
    "score": _NOISY | {
        "steps": 250_000, "lr": 2e-5, "ema": 0.9999, "positions": "node", "interleaved": True, "shared_start": True,
    },
    "ranker": {
        "epochs": 400, "batch": 32, "lr": 1e-4, "factor": 0.1, "patience": 10,
        "divisor": 100.0, "images": 20, "scale": "set", "hidden": 512,
    },
}  # fmt: skip
"""Settings of each kind of published network."""
CODES = ("real", "mean")


def settings(kind: str, changed: Mapping) -> dict:
    """The published settings of a `kind` of network with some `changed`; `NagkitError` for one that does not exist."""
    if kind not in DEFAULTS:
        raise unknown("published network", kind, DEFAULTS)
    for name, value in changed.items():
        if name not in DEFAULTS[kind]:
            raise unknown(f"setting of the published {kind}", name, DEFAULTS[kind])
        if type(value) is not type(DEFAULTS[kind][name]):
            expected = type(DEFAULTS[kind][name]).__name__
            raise NagkitError(f"setting {name} of the published {kind} must be {expected}, got {value!r}")
    return DEFAULTS[kind] | dict(changed)


def build(kind: str, full: Mapping, n_features: int) -> nn.Module:
    """An untrained network of NAS-Bench-201 with `settings`; `n_features` of an image, which a score network does not see."""
    if kind == "score":
        return ScoreNetwork(8, 7, **{key: full[key] for key in ("positions", "interleaved", "shared_start")})
    if kind == "ranker":
        return Ranker("nb201", n_features, hidden=full["hidden"], scale=full["scale"])
    return CellGuide(n_features=n_features, **{key: full[key] for key in ("head", "backward", "scale")})


def checkpoint(kind: str, seed: int, **changed) -> Path:
    """Where the network of a training seed lies; what differs from the published settings is part of its name."""
    full = settings(kind, changed)
    differs = [f"{name}-{full[name]}" for name in sorted(changed) if full[name] != DEFAULTS[kind][name]]
    return paths.DATA / "checkpoints" / f"{'_'.join([f'published-{kind}', 'nb201', str(seed), *differs])}.safetensors"


def training_seeds(kind: str, **changed) -> list[int]:
    """Training seeds whose network of these settings is there, rising; `NagkitError` when there is none."""
    path = checkpoint(kind, 0, **changed)
    start, end = path.name.split("_0", 1)
    names = (found.name.removeprefix(f"{start}_").removesuffix(end) for found in path.parent.glob(f"{start}_*{end}"))
    seeds = sorted(int(name) for name in names if name.isdigit())
    if not seeds:
        raise NagkitError(f"there is no {path.name.replace('_0', '_*', 1)}; nagkit.published.train.{kind}(seed) makes one")
    return seeds


def save(model: nn.Module, path: Path, kind: str, seed: int, full: Mapping) -> Path:
    """Write a trained network with its settings, matrices in half precision, atomically."""
    arrays = {name: (p.half() if p.ndim > 1 else p).detach().cpu().numpy() for name, p in model.named_parameters()}
    metadata = {"format": FORMAT.format(kind=kind), "seed": seed, "settings": dict(full)}
    return io.write_arrays(path, arrays, metadata | {"codes": io.sha256(images.CODES)})


def load(kind: str, seed: int, *, path: Path | None = None, **changed) -> nn.Module:
    """The network that `guide`, `score` or `ranker` made, frozen and in evaluation mode.

    Raises `NagkitError` when the file is no such network, was trained with other settings (another mask or wiring, say) than
    the published ones and the `changed`, or on other image features than the committed ones.
    """
    full, path = settings(kind, changed), path or checkpoint(kind, seed, **changed)
    if not path.is_file():
        given = "".join(f", {name}={value!r}" for name, value in changed.items())
        raise NagkitError(f"{path.name} is not trained yet; nagkit.published.train.{kind}({seed}{given}) makes it")
    arrays, metadata = io.read_arrays(path)
    if metadata.get("format") != FORMAT.format(kind=kind):
        raise NagkitError(f"{path.name} is no published {kind}; nagkit.published.train.{kind}({seed}) makes one")
    for name, value in full.items():
        found = metadata["settings"].get(name, DEFAULTS[kind][name])  # trained before the switch existed: as published
        if found != value:
            raise NagkitError(f"{path.name} was trained with {name} {found!r}, asked for was {value!r}")
    if kind != "score" and metadata["codes"] != io.sha256(images.CODES):
        raise NagkitError(f"{path.name} was trained on other image features than {images.CODES.name}; train it anew")
    model = build(kind, full, arrays["intra_setpool.enc.0.mab.fc_q.weight"].shape[1] if kind != "score" else 0)
    model.load_state_dict({name: torch.from_numpy(value).float() for name, value in arrays.items()})
    return model.eval().requires_grad_(False)


def target_code(model: nn.Module, dataset: str, seed: int, n_images: int = 1) -> Tensor:
    """Code `(1, width)` of a data set that `model`, a guide or ranking predictor, reads from one draw of `n_images` a class.

    The published run draws 20, as many as in training; trained on one image a class, one is the same protocol. Raises
    `NagkitError` when a class has fewer images than asked for.
    """
    library = data.target_images(dataset)
    if n_images > library.shape[1]:
        raise NagkitError(f"{dataset} has {library.shape[1]} images a class at hand, {n_images} asked for; ask for fewer")
    stream = torch_stream(seed, f"published/images/{dataset}")
    drawn = data.draw_images(library, torch.arange(len(library)), n_images, generator=stream)
    with torch.no_grad():
        return model.set_code(drawn[None])


def bind(
    model: CellGuide, dataset: str, seed: int, *, mask: str = "closure", wiring: str = "published", n_images: int = 1
) -> Callable[[Tensor, float | Tensor], Tensor]:
    """`(x, sigma) → (B,)`: what a guide predicts for a data set, asked with `mask` (published: the closure) of `wiring`."""
    graph, code = graphs.mask("nb201", mask, wiring), target_code(model, dataset, seed, n_images)
    return lambda x, level: model(x, level, graph, code)
