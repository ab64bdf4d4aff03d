"""Training one architecture: it learns, it survives being killed, and it says what is wrong."""

import io
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from nagkit import cli, paths
from nagkit.benchmarks import train_arch as training
from nagkit.benchmarks.train_arch import train
from nagkit.data import images as data
from nagkit.errors import NagkitError
from nagkit.predictors.fit import Recipe
from nagkit.spaces import nb201
from nagkit.spaces.base import get_space

SPACE = nb201.Space()
GOOD = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
ARCH = SPACE.from_string([GOOD])[0]
TINY = Recipe(
    network="CellNetwork", settings={"channels": 2, "cells": 1}, epochs=3, batch=8, lr=0.05, momentum=0.9, decay=5e-4,
    warmup=0.3, augment=("flip", "crop", "cutout"),
)  # fmt: skip
needs_images = pytest.mark.skipif(paths.images() is None, reason="NAGKIT_IMAGES is unset: the real images are not shipped")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch, tmp_path):
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def striped(n, seed=0):
    """Images of horizontal (0) or vertical (1) stripes in random colours under noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    waves = np.sin(np.arange(32) + rng.uniform(0, 6, (n, 1)))
    lines = np.broadcast_to(waves[:, :, None, None], (n, 32, 32, 1)).copy()
    lines[labels == 1] = lines[labels == 1].swapaxes(1, 2)
    images = 128 + lines * rng.uniform(-60, 60, (n, 1, 1, 3)) + rng.normal(0, 20, (n, 32, 32, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def tiny(tmp_path, name="run", n=20, recipe=TINY, **options):
    options = {"checkpoint": tmp_path / name, "device": "cpu", "progress": False} | options
    return train(SPACE, ARCH, striped(n), striped(10, 1), recipe, **options)


def same(a, b):
    """Equal to the last bit: weights, statistics and curve."""
    states = [result.model.state_dict() for result in (a, b)]
    return a.curve.equals(b.curve) and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# what is learned


def test_a_small_network_learns_to_tell_stripes(tmp_path):
    # one seed on one thread; chance is 50 %
    recipe = replace(TINY, batch=16, settings={"channels": 4, "cells": 1}, augment=())
    found = train(SPACE, ARCH, striped(160), striped(100, 1), recipe, checkpoint=tmp_path / "run", progress=False)
    assert found.accuracy > 90
    assert found.curve["train_loss"].is_monotonic_decreasing
    assert list(found.curve) == ["epoch", "lr", "train_loss", "test_accuracy"] and list(found.curve["epoch"]) == [1, 2, 3]


def test_the_result_is_that_of_the_last_epoch_even_when_another_was_better(tmp_path, monkeypatch):
    scores = iter([50.0, 90.0, 70.0])
    monkeypatch.setattr(training, "top_1", lambda *_: next(scores))
    found = tiny(tmp_path)
    assert found.accuracy == 70.0 and found.curve["test_accuracy"].tolist() == [50.0, 90.0, 70.0]


def test_the_rate_follows_a_cosine_to_zero_after_its_warm_up():
    plain = Recipe(lr=1.0, epochs=10).in_steps(10)
    warm = replace(plain, warmup=10)
    assert [plain.rate(step) for step in (0, 50)] == [1.0, pytest.approx(0.5)] and plain.rate(99) < 1e-3
    assert [warm.rate(step) for step in (0, 4)] == pytest.approx([0.1, 0.5], rel=0.01)
    assert warm.rate(60) == plain.rate(60)
    assert replace(warm, from_zero=True).rate(0) == 0.0


def test_the_paper_preset_is_the_network_of_the_benchmark():
    recipe = training.preset("nb201", "paper")
    network = training.NETWORKS[recipe.network](ARCH, 10, **recipe.settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == nb201.cost(ARCH[None])[0][0]
    assert (recipe.epochs, recipe.batch, recipe.lr, recipe.decay, recipe.momentum) == (200, 256, 0.1, 5e-4, 0.9)
    assert recipe.nesterov and not recipe.augment and not recipe.warmup


def test_the_warm_up_keeps_its_share_of_other_epochs():
    assert training.preset("nb201", "cpu", epochs=40).warmup == pytest.approx(4.0)
    assert training.preset("nb201", "cpu", augment=("flip",)).augment == ("flip",)


def test_the_batch_norm_statistics_and_not_only_weights_are_trained(tmp_path):
    statistics = tiny(tmp_path).model.state_dict()["norm.running_mean"]
    assert statistics.abs().max() > 0


# images


def test_pixels_are_standardised_by_the_training_images():
    images = torch.from_numpy(striped(50)[0])
    x = training.Pixels(images)(images)
    assert x.shape == (50, 3, 32, 32) and x.is_contiguous(memory_format=torch.channels_last)
    assert x.mean(dim=(0, 2, 3)).abs().max() < 1e-4 and (x.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3
    assert training.Pixels(images, 16)(images).shape == (50, 3, 16, 16)


def test_a_constant_channel_is_centred_and_not_blown_up():
    images = torch.from_numpy(striped(8)[0])
    images[..., 1] = 7
    x = training.Pixels(images)(images)
    assert (x[:, 1] == 0).all() and torch.isfinite(x).all()


def test_jitter_flips_half_of_the_images_and_shifts_by_at_most_four_pixels():
    """Flips: 400 draws, outside [150, 250] with probability 6e-7."""
    ramp = torch.arange(1, 33, dtype=torch.uint8)[None, None, :, None].expand(400, 32, 32, 3)
    flipped = training.jitter(ramp, ("flip",), torch.Generator().manual_seed(0))
    turned = flipped[:, 0, 0, 0] == 32
    assert 150 <= turned.sum() <= 250
    assert torch.equal(flipped[turned], ramp[turned].flip(2)) and torch.equal(flipped[~turned], ramp[~turned])
    moved = training.jitter(ramp, ("crop",), torch.Generator().manual_seed(0))
    shift = moved[:, 16, 16, 0].long() - 17
    assert moved.shape == ramp.shape and set(shift.tolist()) == set(range(-4, 5))
    assert torch.equal(training.jitter(ramp, (), torch.Generator()), ramp)


def test_cutout_greys_one_square_of_each_image():
    x = training.cutout(torch.ones(200, 3, 32, 32), torch.Generator().manual_seed(0))
    hidden = (x == 0).sum(dim=(1, 2, 3)) // 3
    assert hidden.max() == 256 and hidden.min() >= 64 and len(set(hidden.tolist())) > 10


def test_without_a_test_split_the_same_fifth_of_each_class_is_held_out(tmp_path):
    images, _ = striped(30)
    labels = np.repeat([0, 1, 2], [20, 8, 2])
    for arrays in ({"x": images, "y": labels}, {"x_train": images, "y_train": labels}):
        np.savez(tmp_path / "a.npz", **arrays)
        (x, y), (x_test, y_test), remark = training.load_sets(str(tmp_path / "a.npz"))
        assert np.bincount(y_test).tolist() == [4, 2, 1] and np.bincount(y).tolist() == [16, 6, 1]
        assert len(np.unique(np.concatenate([x, x_test]).reshape(30, -1), axis=0)) == 30
        assert "no test split: tested on 7 of its 30 images" in remark
        assert (x_test == training.load_sets(str(tmp_path / "a.npz"))[1][0]).all()


def test_class_folders_are_a_data_set(tmp_path):
    images, labels = striped(12)
    for split, rows in (("train", range(8)), ("test", range(8, 12))):
        for row in rows:
            folder = tmp_path / split / "ab"[labels[row]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).resize((40, 30)).save(folder / f"{row}.png")
    (x, y), (x_test, y_test), remark = training.load_sets(str(tmp_path))
    assert x.shape == (8, 32, 32, 3) and np.bincount(y).tolist() == [4, 4] and len(x_test) == 4 and remark == ""


# interruption


class DropoutNetwork(nn.Sequential):
    """What another space may bring: a network that draws random numbers of its own in each step."""

    def __init__(self, *_, **__):
        super().__init__(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(256, 2))


def stop_at(monkeypatch, step):
    """From now on, the step with this number (from 1) is not reached."""
    calls, jitter = [], training.jitter

    def dies(*args):
        calls.append(0)
        if len(calls) == step:
            raise KeyboardInterrupt
        return jitter(*args)

    monkeypatch.setattr(training, "jitter", dies)


@pytest.mark.parametrize("builder", [training.NETWORKS["CellNetwork"], DropoutNetwork], ids=["cell", "dropout"])
@pytest.mark.parametrize("save_seconds", [0.0, 1e9], ids=["every step", "every epoch"])
@pytest.mark.parametrize("steps", [(1,), (2, 1, 3), (4,), (6, 2)])
def test_an_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(tmp_path, monkeypatch, builder, save_seconds, steps):
    monkeypatch.setitem(training.NETWORKS, "CellNetwork", builder)
    whole = tiny(tmp_path, "whole")
    for step in steps:
        with monkeypatch.context() as patch:
            stop_at(patch, step)
            with pytest.raises(KeyboardInterrupt):
                tiny(tmp_path, "parts", save_seconds=save_seconds)
        torch.rand(3)  # what happens in between must not matter
    assert same(whole, tiny(tmp_path, "parts", save_seconds=save_seconds))


SCRIPT = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from test_train_arch import tiny, TINY
torch.set_num_threads(1)
print("ready", flush=True)
tiny(Path(sys.argv[2]), n=200, recipe=replace(TINY, epochs=4), save_seconds=0.02)
print("done", flush=True)
"""


def test_a_killed_process_is_continued_to_the_same_bits(tmp_path):
    """SIGKILL at two moments that the load of the machine chooses: in a step, in a test, or in the middle of a write."""
    whole = tiny(tmp_path, "whole", n=200, recipe=replace(TINY, epochs=4))
    killed = 0
    (tmp_path / "kill").mkdir()
    for share in (0.3, 0.4):
        command = [sys.executable, "-c", SCRIPT, str(paths.root() / "tests" / "unit"), str(tmp_path / "kill")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(share * whole.seconds)
            process.send_signal(signal.SIGKILL)
            killed += "done" not in process.stdout.read()
    assert killed and same(whole, tiny(tmp_path / "kill", n=200, recipe=replace(TINY, epochs=4)))


def test_a_finished_run_is_returned_without_training(tmp_path, monkeypatch):
    first = tiny(tmp_path)
    stop_at(monkeypatch, 1)
    again = tiny(tmp_path)
    assert again.repeated and not first.repeated and same(first, again) and again.seconds == first.seconds


def test_the_default_checkpoint_lies_in_the_cache_one_a_run(tmp_path):
    found = [tiny(tmp_path, checkpoint=None, seed=seed) for seed in (0, 1, 0)]
    assert found[0].checkpoint == found[2].checkpoint != found[1].checkpoint
    assert found[0].checkpoint.parent == paths.cache() / "train-arch" and found[2].repeated


def test_training_neither_reads_nor_moves_the_global_stream(tmp_path):
    torch.manual_seed(1)
    first, state = tiny(tmp_path, "first"), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert same(first, tiny(tmp_path, "second"))


# bad input


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    tiny(tmp_path)
    for other in ({"seed": 1}, {"n": 18}, {"recipe": replace(TINY, lr=0.1)}, {"recipe": replace(TINY, epochs=4)}):
        with pytest.raises(NagkitError, match="run belongs to a run with other data or settings"):
            tiny(tmp_path, **other)
    with pytest.raises(NagkitError, match="belongs to a run with other data or settings"):
        train(SPACE, ARCH * 0, striped(20), striped(10, 1), TINY, checkpoint=tmp_path / "run", device="cpu", progress=False)


def test_a_torn_checkpoint_is_named(tmp_path):
    tiny(tmp_path)
    (tmp_path / "run").write_bytes((tmp_path / "run").read_bytes()[:-50])
    with pytest.raises(NagkitError, match="cannot read .*run"):
        tiny(tmp_path)


IMAGES, LABELS = striped(8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_set": (IMAGES[:, :28, :28], LABELS)}, r"images must be uint8 \(N, 32, 32, 3\)"),
        ({"train_set": (IMAGES.astype(float), LABELS)}, "got float64"),
        ({"train_set": (IMAGES[:0], LABELS[:0])}, "there are no training images"),
        ({"test_set": (IMAGES[:0], LABELS[:0])}, "there are no test images"),
        ({"train_set": (IMAGES, LABELS[:4])}, "training labels must be 8 integers"),
        ({"test_set": (IMAGES, LABELS - 1)}, "test labels must be 8 integers from 0"),
        ({"test_set": (IMAGES, LABELS + 1)}, "test label 2 has no training image"),
        ({"train_set": (IMAGES, 0 * LABELS)}, "all training labels are 0; training needs at least two classes"),
        ({"recipe": replace(TINY, augment=("crpo",))}, "unknown augmentation 'crpo'.*did you mean 'crop'"),
        ({"recipe": replace(TINY, epochs=0)}, "epochs of the recipe is 0; it must be at least 1"),
        ({"recipe": replace(TINY, lr=math.nan)}, "lr of the recipe is nan; it must be positive"),
        ({"arch": np.full(6, 7)}, "row 0 is not valid in nb201"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "mps"}, "unknown device 'mps'"),
        ({"recipe": replace(TINY, lr=1e30, epochs=3)}, "the loss is .* training diverged; lower lr"),
    ],
)
def test_what_cannot_be_trained_is_named(tmp_path, change, message):
    arguments = {"space": SPACE, "arch": ARCH, "train_set": (IMAGES, LABELS), "test_set": (IMAGES, LABELS), "recipe": TINY}
    arguments |= {"checkpoint": tmp_path / "run", "device": "cpu", "progress": False} | change
    with pytest.raises(NagkitError, match=message):
        train(**arguments)


def test_a_gpu_that_is_not_here_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NagkitError, match="device 'cuda' is not here: PyTorch sees no CUDA GPU"):
        tiny(tmp_path, device="cuda")


def test_unknown_presets_and_spaces_list_what_there_is():
    with pytest.raises(NagkitError, match="unknown training recipe of nb201: 'papr'.*did you mean 'paper'"):
        training.preset("nb201", "papr")
    with pytest.raises(NagkitError, match="no way to train architectures of mbv4 is known; add one to data/training.yaml"):
        training.preset("mbv4", "paper")


def test_a_recipe_of_another_network_is_refused(tmp_path):
    with pytest.raises(NagkitError, match="unknown network to train 'CelNetwork' .did you mean 'CellNetwork'"):
        tiny(tmp_path, recipe=replace(TINY, network="CelNetwork"))


# the command


@pytest.fixture
def nagkit(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["nagkit", "train-arch", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def archive(tmp_path):
    (x, y), (x_test, y_test) = striped(24), striped(10, 1)
    np.savez(tmp_path / "stripes.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return tmp_path / "stripes.npz"


def test_the_command_prints_the_curve_and_one_line_of_summary(nagkit, archive):
    command = ("--arch", GOOD, "--images", archive, "--epochs", 2, "--device", "cpu", "--threads", 1)
    status, out, err = nagkit(*command)
    curve = pd.read_csv(io.StringIO(out))
    assert status == 0 and list(curve) == ["epoch", "lr", "train_loss", "test_accuracy"] and len(curve) == 2
    assert err.count("\n") == 1 and "% of 10 test images after epoch 2" in err and "recipe cpu, training seed 0" in err
    status, again, err = nagkit(*command)
    assert (status, again) == (0, out) and err.startswith("finished before; delete ")


def test_the_command_writes_the_curve_to_a_file(nagkit, archive, tmp_path):
    target = tmp_path / "curve.csv"
    status, out, err = nagkit("--arch", GOOD, "--images", archive, "--epochs", 1, "--augment", "flip,crop", "--out", target)
    assert (status, out) == (0, "") and len(pd.read_csv(target)) == 1 and "wrote 1 rows" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "papr"], "unknown training recipe of nb201: 'papr' (did you mean 'paper'?)"),
        (["--space", "nb301"], "unknown search space 'nb301'"),
        (["--arch", "|conv~0|"], "'|conv~0|' is not a NAS-Bench-201 cell"),
        (["--augment", "flop"], "unknown augmentation 'flop'"),
        (["--epochs", "0"], "epochs of the recipe is 0"),
        (["--threads", "0"], "0 is not in the range"),
        (["--images", "fashion"], "unknown image data set (nor a folder or .npz file) 'fashion'"),
        (["--images", "TORN"], "torn.npz is truncated or damaged"),
        (["--images", "LABEL"], "label 5 is outside 0..1"),
        (["--images", "SHAPE"], "x_train is uint8 (8, 32, 32, 4); expected uint8 (8, 32, 32, 3)"),
        (["--images", "UNSEEN"], "test label 2 has no training image"),
        (["--images", "TEST"], "has only the split 'test'"),
        (["--images", "SINGLE"], "class 1 of"),
    ],
)
def test_bad_input_is_one_line_and_status_two(nagkit, archive, tmp_path, arguments, message):
    (tmp_path / "torn.npz").write_bytes(archive.read_bytes()[:3000])
    good = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}
    np.savez(tmp_path / "label.npz", **good | {"y_train": [*LABELS[:7], 5]}, class_names=["a", "b"])
    np.savez(tmp_path / "shape.npz", **good | {"x_train": np.zeros((8, 32, 32, 4), np.uint8)})
    np.savez(tmp_path / "unseen.npz", **good | {"y_test": LABELS + 1})
    np.savez(tmp_path / "test.npz", x_test=IMAGES, y_test=LABELS)
    np.savez(tmp_path / "single.npz", x=IMAGES, y=[0] * 7 + [1])
    arguments = [str(tmp_path / f"{a.lower()}.npz") if a.isupper() else a for a in arguments]
    given = {"--arch": GOOD, "--images": str(archive), "--device": "cpu"} | dict([arguments])
    status, out, err = nagkit(*(word for pair in given.items() for word in pair))
    assert (status, out) == (2, "") and message in err
    assert err.splitlines()[-1].startswith("nagkit: ") and err.count("nagkit: ") == 1


def test_the_help_shows_an_example(nagkit):
    status, out, _ = nagkit("--help")
    assert status == 0 and "Example:\n    nagkit train-arch" in out


# real images


@needs_images
def test_six_hundred_images_of_clothes_teach_more_than_chance(tmp_path):
    """600 + 500 images, one seed; chance is 10 %."""
    parts = [data.load("fashion_mnist", split, per_class=n) for split, n in (("train", 60), ("test", 50))]
    recipe = replace(TINY, batch=32, lr=0.1, settings={"channels": 4, "cells": 1}, augment=())
    found = train(get_space("nb201"), ARCH, *parts, recipe, checkpoint=tmp_path / "run", device="cpu", progress=False)
    assert found.accuracy > 45
    assert json.loads(found.curve.to_json())["epoch"] == {"0": 1, "1": 2, "2": 3}
