"""Surrogates that come with the package: weights and a data card each under data/surrogates/, which belong together."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data.io import read_arrays, write_arrays, write_text
from nagkit.errors import NagkitError


def weights_of(name: str) -> Path:
    """The weights of a surrogate; its card lies beside them."""
    return paths.DATA / "surrogates" / f"{name}.safetensors"


@cache
def card(name: str, rebuild: str) -> dict:
    """The data card of a surrogate; `NagkitError`, with the command that makes it anew, when it is missing."""
    path = weights_of(name).with_suffix(".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NagkitError(f"cannot read {path}: restore it from the repository, or run `{rebuild}`") from error


def arrays(name: str, rebuild: str) -> dict[str, np.ndarray]:
    """The weights of a surrogate; `NagkitError` when they are not those that its card describes."""
    path = weights_of(name)
    found = read_arrays(path)[0]
    if sha256(path.read_bytes()).hexdigest() != card(name, rebuild)["weights_sha256"]:
        raise NagkitError(f"{path} and {path.stem}.json do not belong together; restore both, or run `{rebuild}`")
    return found


def write(name: str, arrays: Mapping[str, np.ndarray], rebuild: str, content: dict) -> dict:
    """Replace weights and card; returns the card, `content` with the command and the digest of the weights."""
    path = write_arrays(weights_of(name), arrays)
    head = {"what": content.pop("what"), "rebuild": rebuild, "weights_sha256": sha256(path.read_bytes()).hexdigest()}
    write_text(path.with_suffix(".json"), json.dumps(head | content, indent=1, ensure_ascii=False) + "\n")
    card.cache_clear()
    return card(name, rebuild)


def evaluate(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """R², Kendall τ-b and RMSE (units of the column) of predictions against measurements."""
    from scipy.stats import kendalltau  # slow to import, and only fits and tests need it

    error = predicted - measured
    return {
        "n": len(measured),
        "r2": round(1 - float(error @ error) / float(((measured - measured.mean()) ** 2).sum()), 5),
        "kendall_tau": round(float(kendalltau(predicted, measured).statistic), 5),
        "rmse": round(float(np.sqrt((error**2).mean())), 5),
    }


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all linear layers from `generator` alone: uniform in ±1/√fan-in, biases zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.zeros_(layer.bias)


def one_cycle(
    network: nn.Module, loss: Callable[[Tensor], Tensor], rows: Tensor, shuffle: torch.Generator, *,
    epochs: int, batch: int, rate: float, decay: float, progress: bool,
) -> None:  # fmt: skip
    """Fit `network` by AdamW under a one-cycle schedule; `loss(rows)` is that of a batch of `rows`, a remainder is left out."""
    n_batches = len(rows) // batch
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * n_batches, pct_start=0.1)
    for _ in tqdm(range(epochs), desc="surrogate", unit="epoch", disable=not progress):
        for part in rows[torch.randperm(len(rows), generator=shuffle)][: n_batches * batch].view(n_batches, batch):
            value = loss(part)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
