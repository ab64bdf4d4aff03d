"""The commands that train: models of ours (`fit`, `train`) and single architectures (`train-arch`)."""

import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import click

from nagkit import cli_output as options
from nagkit.cli_output import EXAMPLE, emit


@click.group()
def fit() -> None:
    """Rebuild the committed models from the upstream tables."""


_FITS = (  # name, function, whether workers can share it, what it makes
    ("surrogate", "benchmarks.surrogate:fit", False, "The embedded surrogate benchmark and its data card."),
    ("cost", "benchmarks.cost:fit", False, "Parameters and multiply-accumulates of MBv3 from measured networks."),
    ("imagenet", "benchmarks.ofa_fit:fit", False,
     "The embedded ImageNet surrogates of MBv3 (published predictor; measured networks) and their data cards."),
    ("search", "search.tune:choose", True,
     "The settings of the search methods in data/presets.yaml, on the development oracles; an interrupted run goes on."),
    ("encoder", "predictors.images:build_encoder", False,
     "The image encoder, on Tiny ImageNet at 32×32; an interrupted run goes on."),
    ("codes", "predictors.images:build_codes", False, "The image features of every data set used."),
    ("validity", "benchmarks.validity:build", True,
     "What the supernet's accuracies are worth: networks trained alone, and all its measurements (hours on a CPU)."),
    ("meta", "benchmarks.meta:build", True,
     "Accuracies of random mbv3 networks on random tasks of 20 classes (most of an hour on a CPU)."),
)  # fmt: skip
_WITH_IMAGES = "NAGKIT_IMAGES=/path/to/images nagkit"
_OF_IMAGES = ("encoder", "codes", "validity", "meta")


def _run(target: str, **how) -> None:
    """Run "module:function" of the package and show the table that it returns, or say which file it wrote."""
    module, function = target.split(":")
    made = getattr(import_module(f"nagkit.{module}"), function)(**how)
    if hasattr(made, "to_csv"):
        emit(made)
    elif isinstance(made, Path):
        click.echo(f"wrote {made}", err=True)


for _name, _target, _shared, _what in _FITS:
    _wrapped = options.workers(partial(_run, _target)) if _shared else partial(_run, _target)
    _usage = f"{_WITH_IMAGES if _name in _OF_IMAGES else 'nagkit'} fit {_name}{' --n-workers 2' if _shared else ''}"
    fit.command(_name, help=_what, epilog=EXAMPLE + _usage)(_wrapped)


@fit.command("measured", epilog=f"{EXAMPLE}{_WITH_IMAGES} fit measured mnist --n-workers 2")
@click.argument("dataset")
@options.workers
def fit_measured(**how) -> None:
    """Accuracies of 1,000 random mbv3 networks on a data set that the supernet was adapted to."""
    _run("benchmarks.measured:build", **how)


@fit.command("presets", epilog=EXAMPLE + "nagkit fit presets")
@options.space()
def fit_presets(**how) -> None:
    """The guidance strengths in data/presets.yaml, on the development set of a space (mbv3: measured there; needs images)."""
    _run("strengths:choose", **how)


@click.group()
def train() -> None:
    """Train score networks and predictors; an interrupted run goes on where its last checkpoint was."""


@train.command("score", epilog=EXAMPLE + "nagkit train score --space mbv3")
@options.space()
@click.option("--recipe", "network", default="ours", show_default=True,
              help="ours; or positions, no-positions, gdss, those of Table 4.")  # fmt: skip
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of the cells to train on (nb201).")
@options.training_seed
@click.option("--steps", type=int, help="Steps of a trial run; needs --out.")
@options.device()
@options.out("Checkpoint file (default: the committed one).")
def train_score(**how) -> None:
    """The score network of a search space; prints its curve."""
    _run("diffusion.train:train_score", **how)


@train.command("predictor", epilog=EXAMPLE + "nagkit train predictor ranking --training-seed 0")
@click.argument("kind")
@options.space()
@options.training_seed
@options.device()
def train_predictor(**how) -> None:
    """A predictor on meta-training triplets: the paper's (nb201), or ours (mbv3). KIND is ranking or noise-aware."""
    _run("predictors.train:build", **how)


@train.command("supernet", epilog=f"{EXAMPLE}{_WITH_IMAGES} train supernet")
@click.option("--adapt", "dataset", metavar="DATASET", help="Train the committed one on for this data set instead (minutes).")
@options.training_seed
@options.out("Default: where it is looked for.")
def train_supernet(dataset, seed, out) -> None:
    """The MobileNetV3 supernet, on 160 classes of Tiny ImageNet at 32×32 (hours on a CPU); prints its curve."""
    from nagkit.benchmarks import supernet, supernet_train

    if dataset:
        emit(supernet_train.adapt(dataset, out or supernet.adapted(dataset), seed=seed))
    else:
        emit(supernet_train.build(out or supernet.CHECKPOINT, seed=seed))


_CELL = "'|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|'"


@click.command("train-arch", epilog=EXAMPLE + f"nagkit train-arch --images fashion_mnist --arch {_CELL}")
@options.space()
@click.option("--arch", "string", required=True, help="Architecture, in the notation of `nagkit sample`.")
@click.option("--images", required=True, metavar="NAME|PATH", help="Data set: a name, an .npz archive or a folder of classes.")
@click.option("--recipe", default="cpu", show_default=True,
              help="cpu: minutes; short: a minute (mbv3); paper: as published, for a GPU.")  # fmt: skip
@click.option("--epochs", type=int, help="Instead of the recipe's; the learning rate falls to 0 over them.")
@click.option("--augment", metavar="LIST", help="flip, crop, cutout joined by commas, or none, instead of the recipe's.")
@options.training_seed
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path),
              help="State of the run; default: in the cache, under a hash of the run.")  # fmt: skip
@options.device(None, "cpu or cuda; default: cuda where there is one.")
@options.count("--threads", None, "CPU threads; default: PyTorch's choice.")
@options.out()
def train_arch(space, string, images, recipe, epochs, augment, seed, checkpoint, device, threads, out) -> None:
    """Train one architecture: CSV `epoch,lr,train_loss,test_accuracy`, one row an epoch.

    Its accuracy (last epoch, percent), parameters and minutes go to stderr. The same command continues an interrupted run
    and repeats the answer of a finished one.
    """
    import torch

    from nagkit.benchmarks import train_arch as training
    from nagkit.spaces.base import get_space

    varied = None if augment is None else () if augment == "none" else tuple(augment.split(","))
    space, constants = get_space(space), training.preset(space, recipe, epochs=epochs, augment=varied)
    arch = space.from_string([string])[0]
    if threads is not None:
        torch.set_num_threads(threads)
    train_set, test_set, remark = training.load_sets(images)
    if remark:
        click.echo(remark, err=True)
    found = training.train(
        space, arch, train_set, test_set, constants,
        seed=seed, checkpoint=checkpoint, device=device, progress=sys.stderr.isatty(),
    )  # fmt: skip
    if found.repeated:
        click.echo(f"finished before; delete {found.checkpoint} to train again", err=True)
    click.echo(
        f"{found.accuracy:.2f} % of {len(test_set[1]):,} test images after epoch {constants.epochs}, "
        f"{found.params:,} parameters, {found.seconds / 60:.1f} minutes, recipe {recipe}, training seed {seed}",
        err=True,
    )
    emit(found.curve.round({"lr": 8, "train_loss": 4, "test_accuracy": 4}), out)
