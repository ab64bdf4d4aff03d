"""Score networks that an exhibit trains itself, as jobs: done once, kept by the code they run, resumed where they stopped."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from nagkit import paths
from nagkit.diffusion.samplers import Denoiser
from nagkit.diffusion.train import checkpoint, load_score, train_score
from nagkit.spaces.base import get_space
from nagkit.study.jobs import Task, run


def score_network(space: str, recipe: str, share: float, seed: int) -> tuple[Denoiser, pd.DataFrame]:
    """Network of a recipe and training `seed`, and its curve (see `train_score`): committed for seed 0, else by a job."""
    home = get_space(space)
    if seed == 0:
        file = checkpoint(space, recipe, share)
        return load_score(home, file, share=share, network=recipe), pd.read_csv(file.with_suffix(".csv"))
    arguments = {"space": space, "recipe": recipe, "share": share, "seed": seed}
    arrays = dict(run([Task(train, arguments)], progress=False)[0].arrays)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "score.safetensors"
        file.write_bytes(arrays.pop("checkpoint").tobytes())
        return load_score(home, file, share=share, network=recipe), pd.DataFrame(arrays)


def train(space: str, recipe: str, share: float, seed: int) -> dict[str, np.ndarray]:
    """A job: the bytes of a trained `checkpoint`, uint8, and the columns of its curve."""
    out = paths.cache() / "training" / f"score_{space}_{recipe}_{seed}.safetensors"
    curve = train_score(get_space(space), network=recipe, share=share, seed=seed, out=out, progress=False)
    made = {"checkpoint": np.fromfile(out, np.uint8)} | {name: curve[name].to_numpy() for name in curve}
    for kind in ("safetensors", "csv", "json"):
        out.with_suffix(f".{kind}").unlink()
    return made
