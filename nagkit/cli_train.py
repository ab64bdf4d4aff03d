"""The commands that train: models of ours (`fit`, `train`) and single architectures (`train-arch`)."""

import sys
from pathlib import Path

import click

from nagkit.cli_output import EXAMPLE, emit


@click.group()
def fit() -> None:
    """Rebuild the committed models from the upstream tables."""


@fit.command("surrogate", epilog=EXAMPLE + "nagkit fit surrogate")
def fit_surrogate() -> None:
    """The embedded surrogate benchmark and its data card."""
    from nagkit.benchmarks import surrogate

    surrogate.fit()


@fit.command("cost", epilog=EXAMPLE + "nagkit fit cost")
def fit_cost() -> None:
    """Parameters and multiply-accumulates of MBv3 from measured networks."""
    from nagkit.benchmarks import cost

    cost.fit()


@fit.command("imagenet", epilog=EXAMPLE + "nagkit fit imagenet")
def fit_imagenet() -> None:
    """The embedded ImageNet surrogates of MBv3 (published predictor; measured networks) and their data cards."""
    from nagkit.benchmarks import ofa_fit

    ofa_fit.fit()


@fit.command("search", epilog=EXAMPLE + "nagkit fit search")
@click.option("--n-workers", type=int, default=1, show_default=True, help="Processes of a local Dask cluster.")
@click.option("--scheduler", help="Address of a running Dask scheduler, such as tcp://host:8786.")
def fit_search(n_workers, scheduler) -> None:
    """The settings of the search methods in data/presets.yaml, on the development oracles; an interrupted run goes on."""
    from nagkit.search import tune

    emit(tune.choose(n_workers=n_workers, scheduler=scheduler), None)


@fit.command("validity", epilog=EXAMPLE + "NAGKIT_IMAGES=/path/to/images nagkit fit validity --n-workers 2")
@click.option("--n-workers", type=int, default=1, show_default=True, help="Processes of a local Dask cluster.")
@click.option("--scheduler", help="Address of a running Dask scheduler, such as tcp://host:8786.")
def fit_validity(n_workers, scheduler) -> None:
    """What the supernet's accuracies are worth: networks trained alone, and all its measurements (hours on a CPU)."""
    from nagkit.benchmarks import validity

    emit(validity.build(n_workers=n_workers, scheduler=scheduler), None)


@fit.command("meta", epilog=EXAMPLE + "NAGKIT_IMAGES=/path/to/images nagkit fit meta --n-workers 2")
@click.option("--n-workers", type=int, default=1, show_default=True, help="Processes of a local Dask cluster.")
@click.option("--scheduler", help="Address of a running Dask scheduler, such as tcp://host:8786.")
def fit_meta(n_workers, scheduler) -> None:
    """Accuracies of random mbv3 networks on random tasks of 20 classes (most of an hour on a CPU)."""
    from nagkit.benchmarks import meta

    meta.build(n_workers=n_workers, scheduler=scheduler)


@fit.command("measured", epilog=EXAMPLE + "NAGKIT_IMAGES=/path/to/images nagkit fit measured mnist --n-workers 2")
@click.argument("dataset")
@click.option("--n-workers", type=int, default=1, show_default=True, help="Processes of a local Dask cluster.")
@click.option("--scheduler", help="Address of a running Dask scheduler, such as tcp://host:8786.")
def fit_measured(dataset, n_workers, scheduler) -> None:
    """Accuracies of 1,000 random mbv3 networks on a data set that the supernet was adapted to."""
    from nagkit.benchmarks import measured

    click.echo(f"wrote {measured.build(dataset, n_workers=n_workers, scheduler=scheduler)}", err=True)


@fit.command("encoder", epilog=EXAMPLE + "NAGKIT_IMAGES=/path/to/images nagkit fit encoder")
def fit_encoder() -> None:
    """The image encoder, on Tiny ImageNet at 32×32; an interrupted run goes on."""
    from nagkit.predictors import images

    images.build_encoder()


@fit.command("codes", epilog=EXAMPLE + "NAGKIT_IMAGES=/path/to/images nagkit fit codes")
def fit_codes() -> None:
    """The image features of every data set used."""
    from nagkit.predictors import images

    images.build_codes()


@fit.command("presets", epilog=EXAMPLE + "nagkit fit presets")
@click.option("--space", default="nb201", show_default=True)
def fit_presets(space) -> None:
    """The guidance strengths in data/presets.yaml, on the development set of a space (mbv3: measured there; needs images)."""
    from nagkit import presets
    from nagkit.spaces.base import get_space

    emit(presets.choose(get_space(space).name), None)


@click.group()
def train() -> None:
    """Train score networks and predictors; an interrupted run goes on where its last checkpoint was."""


@train.command("score", epilog=EXAMPLE + "nagkit train score --space mbv3")
@click.option("--space", default="nb201", show_default=True)
@click.option("--preset", "network", default="ours", show_default=True,
              help="ours; paper: 12 blocks, 250,000 steps; or positions, no-positions, gdss, those of Table 4.")  # fmt: skip
@click.option("--share", type=float, default=1.0, show_default=True, help="Share of the cells to train on (nb201).")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--steps", type=int, help="Steps of a trial run; needs --out.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Checkpoint file (default: the committed one).")
def train_score(space, **settings) -> None:
    """The score network of a search space; prints its curve."""
    from nagkit.diffusion import train as score
    from nagkit.spaces.base import get_space

    emit(score.train_score(get_space(space), **settings), None)


@train.command("predictor", epilog=EXAMPLE + "nagkit train predictor ranking --seed 0")
@click.argument("kind")
@click.option("--space", default="nb201", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def train_predictor(kind, space, seed) -> None:
    """A predictor on meta-training triplets: the paper's (nb201), or ours (mbv3). KIND is ranking or noise-aware."""
    from nagkit.benchmarks import meta
    from nagkit.data import upstream
    from nagkit.predictors import train as predictors
    from nagkit.spaces.base import get_space

    predictors.checkpoint(kind, get_space(space).name, seed)
    triplets = meta.load() if space == "mbv3" else upstream.triplets()
    rows = triplets.rows("train") if space == "mbv3" else None
    click.echo(f"wrote {predictors.build(kind, triplets, space=space, rows=rows, seed=seed)}", err=True)


@train.command("supernet", epilog=EXAMPLE + "NAGKIT_IMAGES=/path/to/images nagkit train supernet")
@click.option("--adapt", "dataset", metavar="DATASET", help="Train the committed one on for this data set instead (minutes).")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: where it is looked for.")
def train_supernet(dataset, seed, out) -> None:
    """The MobileNetV3 supernet, on 160 classes of Tiny ImageNet at 32×32 (hours on a CPU); prints its curve."""
    from nagkit.benchmarks import supernet, supernet_train

    if dataset:
        emit(supernet_train.adapt(dataset, out or supernet.adapted(dataset), seed=seed), None)
    else:
        emit(supernet_train.build(out or supernet.CHECKPOINT, seed=seed), None)


_CELL = "'|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|'"


@click.command("train-arch", epilog=EXAMPLE + f"nagkit train-arch --images fashion_mnist --arch {_CELL}")
@click.option("--space", "space_name", default="nb201", show_default=True)
@click.option("--arch", "string", required=True, help="Architecture, in the notation of `nagkit sample`.")
@click.option("--images", required=True, metavar="NAME|PATH", help="Data set: a name, an .npz archive or a folder of classes.")
@click.option("--preset", "preset_name", default="cpu", show_default=True,
              help="cpu: minutes; short: a minute (mbv3); paper: as published, for a GPU.")  # fmt: skip
@click.option("--epochs", type=int, help="Instead of the preset's; the learning rate falls to 0 over them.")
@click.option("--augment", metavar="LIST", help="flip, crop, cutout joined by commas, or none, instead of the preset's.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path),
              help="State of the run; default: in the cache, under a hash of the run.")  # fmt: skip
@click.option("--device", help="cpu or cuda; default: cuda where there is one.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: PyTorch's choice.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="CSV file instead of stdout.")
def train_arch(space_name, string, images, preset_name, epochs, augment, seed, checkpoint, device, threads, out) -> None:
    """Train one architecture: CSV `epoch,lr,train_loss,test_accuracy`, one row an epoch.

    Its accuracy (last epoch, percent), parameters and minutes go to stderr. The same command continues an interrupted run
    and repeats the answer of a finished one.
    """
    import torch

    from nagkit.benchmarks import train_arch as training
    from nagkit.spaces.base import get_space

    space = get_space(space_name)
    varied = None if augment is None else () if augment == "none" else tuple(augment.split(","))
    recipe = training.preset(space_name, preset_name, epochs=epochs, augment=varied)
    arch = space.from_string([string])[0]
    if threads is not None:
        torch.set_num_threads(threads)
    train_set, test_set, remark = training.load_sets(images)
    if remark:
        click.echo(remark, err=True)
    found = training.train(
        space, arch, train_set, test_set, recipe,
        seed=seed, checkpoint=checkpoint, device=device, progress=sys.stderr.isatty(),
    )  # fmt: skip
    if found.repeated:
        click.echo(f"finished before; delete {found.checkpoint} to train again", err=True)
    click.echo(
        f"{found.accuracy:.2f} % of {len(test_set[1]):,} test images after epoch {recipe.epochs}, {found.params:,} parameters, "
        f"{found.seconds / 60:.1f} minutes, recipe {preset_name}, seed {seed}", err=True,
    )  # fmt: skip
    emit(found.curve.round({"lr": 8, "train_loss": 4, "test_accuracy": 4}), out)
