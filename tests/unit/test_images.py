"""Image loaders, the image encoder and the committed data set codes."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from nagkit import paths
from nagkit.data import images as data
from nagkit.errors import NagkitError
from nagkit.predictors import images as encoders
from nagkit.predictors import probe
from nagkit.predictors.fit import recipes

RECIPE = replace(recipes("images")["encoder"], epochs=4, batch=16)
SMALL = {"n_classes": 4, "widths": (4, 8), "recipe": RECIPE}
needs_images = pytest.mark.skipif(paths.images() is None, reason="NAGKIT_IMAGES is unset: the real images are not shipped")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def archive(path, **arrays):
    np.savez_compressed(path, **arrays)
    return str(path)


def jpeg_arrays(images, **options):
    files = []
    for image in images:
        Image.fromarray(image).save(file := io.BytesIO(), "JPEG", quality=95, subsampling=0, **options)
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    return np.concatenate(files), np.cumsum([0, *map(len, files)])


def coloured(n, n_classes, rng):
    """Images whose class is their colour, with noise."""
    labels = np.arange(n) % n_classes
    base = rng.integers(40, 216, (n_classes, 1, 1, 3))[labels]
    return np.clip(base + rng.normal(0, 20, (n, 32, 32, 3)), 0, 255).astype(np.uint8), labels


# loaders


def test_archive_of_arrays_comes_back_as_it_is(tmp_path, rng):
    x, y = coloured(8, 4, rng)
    images, labels = data.load(archive(tmp_path / "a.npz", x_train=x, y_train=y.astype(np.uint8)), "train")
    assert (images == x).all() and (labels == y).all() and labels.dtype == np.int64


def test_grey_images_are_padded_and_repeated(tmp_path, rng):
    x = rng.integers(1, 256, (3, 28, 28), dtype=np.uint8)
    images, _ = data.load(archive(tmp_path / "a.npz", x_test=x, y_test=[0, 1, 2]), "test")
    assert images.shape == (3, 32, 32, 3) and (images[:, 2:30, 2:30] == x[..., None]).all()
    assert images.sum() == 3 * x.sum(dtype=np.int64)


def test_jpeg_archive_is_decoded_in_order(tmp_path, rng):
    x, y = coloured(6, 3, rng)
    x[:] = x.mean(axis=(1, 2), keepdims=True).astype(np.uint8)  # flat colours survive JPEG
    blob, offsets = jpeg_arrays(x)
    images, labels = data.load(archive(tmp_path / "a.npz", jpeg_train=blob, off_train=offsets, y_train=y), "train")
    assert np.abs(images.astype(int) - x).max() <= 3 and (labels == y).all()


def test_folder_of_classes_is_resized_and_labelled_by_sorted_name(tmp_path):
    for split in ("train", "test"):
        for name, colour in (("dog", (200, 10, 10)), ("cat", (10, 200, 10))):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (50, 40), colour).save(tmp_path / split / name / "1.png")
            (tmp_path / split / name / "notes.txt").write_text("not an image")
    images, labels = data.load(str(tmp_path), "test")
    assert data.class_names(str(tmp_path)) == ["cat", "dog"] and labels.tolist() == [0, 1]
    assert images.shape == (2, 32, 32, 3) and (images[0, 0, 0] == (10, 200, 10)).all()


def test_per_class_draws_without_replacement_and_repeats_under_the_same_stream(tmp_path, rng):
    x, y = coloured(40, 4, rng)
    name = archive(tmp_path / "a.npz", x_train=x, y_train=y)
    images, labels = data.load(name, "train", per_class=3, rng=np.random.default_rng(1))
    again, _ = data.load(name, "train", per_class=3, rng=np.random.default_rng(1))
    assert np.bincount(labels).tolist() == [3, 3, 3, 3] and (images == again).all()
    assert len(np.unique(images.reshape(12, -1), axis=0)) == 12


def test_class_ids_are_joined_by_wordnet_id(tmp_path):
    (tmp_path / "classes.txt").write_text("n03 1 c\nn01 2 a\nn02 3 b\n")
    name = archive(tmp_path / "a.npz", x_train=np.zeros((1, 32, 32, 3), np.uint8), y_train=[0], wnids=["n01", "n03"])
    assert data.imagenet32_classes(name, tmp_path / "classes.txt").tolist() == [2, 1]


def test_coarse_keeps_flat_images_and_removes_fine_detail():
    flat = np.full((1, 32, 32, 3), 77, np.uint8)
    checkers = np.indices((32, 32)).sum(axis=0)[None, :, :, None].repeat(3, axis=3) % 2 * 200
    assert (data.coarse(flat) == 77).all()
    assert (data.coarse(checkers.astype(np.uint8)) == 100).all()


def test_missing_image_folder_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("NAGKIT_IMAGES", raising=False)
    with pytest.raises(NagkitError, match=r"set NAGKIT_IMAGES .*cifar10_sub.npz"):
        data.load("cifar10", "train")
    monkeypatch.setenv("NAGKIT_IMAGES", str(tmp_path))
    with pytest.raises(NagkitError, match="cifar10_sub.npz is not in NAGKIT_IMAGES"):
        data.load("cifar10", "train")


def test_misspelt_names_get_a_suggestion():
    with pytest.raises(NagkitError, match="did you mean 'cifar10'"):
        data.load("cifr10", "train")
    with pytest.raises(NagkitError, match="did you mean 'train'"):
        data.load("cifar10", "trian")


IMAGE, NONE = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((0, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": np.zeros((2, 64, 64, 3), np.uint8), "y_train": [0, 1]}, r"uint8 \(2, 64, 64, 3\); expected"),
        ({"x_train": np.zeros((2, 32, 32, 4), np.uint8), "y_train": [0, 1]}, r"\(2, 32, 32, 4\); expected"),
        ({"x_train": np.zeros((2, 3, 32, 32), np.uint8), "y_train": [0, 1]}, r"\(2, 3, 32, 32\); expected"),
        ({"x_train": IMAGE.astype(np.float32), "y_train": [0, 1]}, "float32"),
        ({"x_train": IMAGE, "y_train": [0, 1, 1]}, r"expected uint8 \(3,"),
        ({"x_train": IMAGE, "y_train": [0, 2], "class_names": ["a", "b"]}, r"label 2 is outside 0\.\.1"),
        ({"x_train": IMAGE, "y_train": [0, -1]}, "label -1 is outside"),
        ({"x_train": IMAGE, "y_train": [0.0, 1.0]}, "labels must be integers"),
        ({"x_test": IMAGE, "y_test": [0, 1]}, "unknown split .*choose one of: test"),
        ({"jpeg_train": np.zeros(9, np.uint8), "off_train": [0, 5], "y_train": [0, 1]}, "does not cut"),
        ({"jpeg_train": np.zeros(9, np.uint8), "y_train": [0, 1]}, "does not cut"),
        ({"jpeg_train": np.zeros(9, np.uint8), "off_train": [0, 5, 9], "y_train": [0, 1]}, "image 0 of .*cannot be decoded"),
    ],
)
def test_bad_archives_are_refused_by_name(tmp_path, arrays, message):
    with pytest.raises(NagkitError, match=message):
        data.load(archive(tmp_path / "bad.npz", **arrays), "train")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_archive_is_refused(tmp_path, rng, kept):
    path = tmp_path / "torn.npz"
    archive(path, x_train=rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), y_train=np.arange(8))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(NagkitError, match="torn.npz is truncated or damaged"):
        data.load(str(path), "train")


def test_flipped_bytes_in_an_archive_are_refused(tmp_path, rng):
    path = tmp_path / "torn.npz"
    archive(path, x_train=rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8), y_train=np.arange(8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(NagkitError, match="truncated or damaged"):
        data.load(str(path), "train")


def test_truncated_jpeg_is_named(tmp_path, rng):
    x, y = coloured(3, 3, rng)
    blob, offsets = jpeg_arrays(x)
    blob, offsets = blob[: offsets[2] + 40], [*offsets[:3], offsets[2] + 40]
    with pytest.raises(NagkitError, match="image 2 of .*cannot be decoded"):
        data.load(archive(tmp_path / "a.npz", jpeg_train=blob, off_train=offsets, y_train=y), "train")


def test_bad_folders_are_refused(tmp_path):
    with pytest.raises(NagkitError, match="no class folders"):
        data.load(str(tmp_path), "all")
    (tmp_path / "cat").mkdir()
    with pytest.raises(NagkitError, match="holds no images"):
        data.load(str(tmp_path), "all")
    (tmp_path / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(NagkitError, match=r"cat/1.png cannot be decoded"):
        data.load(str(tmp_path), "all")
    with pytest.raises(NagkitError, match="unknown split"):
        data.load(str(tmp_path), "train")


def test_bad_class_lists_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    name = archive(tmp_path / "a.npz", x_train=IMAGE, y_train=[0, 1], wnids=["n01", "n09"])
    for text, message in (("n01 one", "line 1"), ("n01 1\nn02 3", "does not number"), ("n01 1\nn02 2", "'n09' of a.npz")):
        path.write_text(text)
        with pytest.raises(NagkitError, match=message):
            data.imagenet32_classes(name, path)
    with pytest.raises(NagkitError, match="lists no WordNet ids"):
        data.imagenet32_classes(archive(tmp_path / "b.npz", x_train=IMAGE, y_train=[0, 1]), path)


# encoder


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_resumed_training_equals_uninterrupted_training(tmp_path, rng):
    x, y = coloured(64, 4, rng)
    whole = encoders.train(x, y, checkpoint=tmp_path / "whole", device="cpu", **SMALL)
    for stop in (1, 3):
        encoders.train(x, y, checkpoint=tmp_path / "parts", device="cpu", stop_after=stop, **SMALL)
    assert same(whole, encoders.train(x, y, checkpoint=tmp_path / "parts", device="cpu", **SMALL))


def test_a_killed_run_loses_at_most_the_epoch_it_was_in(tmp_path, rng, monkeypatch):
    x, y = coloured(64, 4, rng)
    whole = encoders.train(x, y, checkpoint=tmp_path / "whole", device="cpu", **SMALL)
    calls, augment = [], encoders.augment

    def dies(*args):
        calls.append(0)
        if len(calls) == 11:  # the third step of the third epoch
            raise KeyboardInterrupt
        return augment(*args)

    monkeypatch.setattr(encoders, "augment", dies)
    with pytest.raises(KeyboardInterrupt):
        encoders.train(x, y, checkpoint=tmp_path / "killed", device="cpu", **SMALL)
    before = len(calls)
    resumed = encoders.train(x, y, checkpoint=tmp_path / "killed", device="cpu", **SMALL)
    assert len(calls) - before == 8 and same(whole, resumed)


def test_training_leaves_the_global_generator_alone(tmp_path, rng):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    x, y = coloured(16, 4, rng)
    encoders.train(x, y, checkpoint=tmp_path / "run", device="cpu", **SMALL | {"recipe": replace(RECIPE, epochs=1)})
    first = encoders.train(x, y, checkpoint=tmp_path / "first", device="cpu", **SMALL | {"recipe": replace(RECIPE, epochs=1)})
    torch.manual_seed(2)
    second = encoders.train(x, y, checkpoint=tmp_path / "second", device="cpu", **SMALL | {"recipe": replace(RECIPE, epochs=1)})
    torch.manual_seed(1)
    assert same(first, second) and torch.equal(before, torch.random.get_rng_state())


def test_training_learns_to_tell_colours(tmp_path, rng):
    # a fixed seed on one thread; chance is 25 %
    x, y = coloured(256, 4, rng)
    longer = SMALL | {"recipe": replace(RECIPE, epochs=10, lr=0.05)}
    encoder = encoders.train(x, y, checkpoint=tmp_path / "run", device="cpu", **longer)
    assert encoders.top_k(encoder, x, y, 1) > 60
    assert probe.linear_probe(encoders.features(x, encoder), y, encoders.features(x, encoder), y) > 90


def test_a_run_of_other_settings_is_not_resumed(tmp_path, rng):
    x, y = coloured(32, 4, rng)
    encoders.train(x, y, checkpoint=tmp_path / "run", device="cpu", stop_after=1, **SMALL)
    with pytest.raises(NagkitError, match="belongs to a run with other data or settings"):
        encoders.train(x, y, checkpoint=tmp_path / "run", device="cpu", **SMALL | {"recipe": replace(RECIPE, lr=0.1)})
    with pytest.raises(NagkitError, match="belongs to a run with other data or settings"):
        encoders.train(255 - x, y, checkpoint=tmp_path / "run", device="cpu", **SMALL)


def test_a_torn_training_checkpoint_is_named(tmp_path, rng):
    x, y = coloured(32, 4, rng)
    path = tmp_path / "run"
    encoders.train(x, y, checkpoint=path, device="cpu", stop_after=1, **SMALL)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NagkitError, match="cannot read .*run"):
        encoders.train(x, y, checkpoint=path, device="cpu", **SMALL)


def test_training_refuses_bad_images_and_labels(tmp_path):
    with pytest.raises(NagkitError, match=r"images must be uint8 \(N, 32, 32, 3\)"):
        encoders.train(np.zeros((2, 28, 28), np.uint8), np.zeros(2, int), checkpoint=tmp_path / "run")
    with pytest.raises(NagkitError, match=r"labels must be 2 integers in 0\.\.199"):
        encoders.train(IMAGE, np.array([0, 200]), checkpoint=tmp_path / "run")


def test_saved_encoder_gives_the_features_it_had(tmp_path, rng):
    encoder = encoders.Encoder((4, 8), 4).eval()
    encoders.save(encoder, tmp_path / "e.safetensors")
    x, _ = coloured(7, 4, rng)
    loaded = encoders.load(tmp_path / "e.safetensors")
    np.testing.assert_allclose(encoders.features(x, loaded), encoders.features(x, encoder), rtol=2e-2, atol=2e-2)


def test_foreign_checkpoints_are_refused(tmp_path):
    with pytest.raises(NagkitError, match="holds|is no image encoder"):
        encoders.load(encoders.CODES)
    with pytest.raises(NagkitError, match="cannot read"):
        encoders.load(tmp_path / "absent.safetensors")


# committed files


def test_committed_features_are_deterministic_and_do_not_depend_on_the_batch(rng):
    x, _ = coloured(9, 3, rng)
    found = encoders.features(x)
    assert found.shape == (9, 256) and found.dtype == np.float32 and np.isfinite(found).all()
    assert (found == encoders.features(x)).all()
    np.testing.assert_allclose(encoders.features(x, batch_size=2), found, rtol=1e-3, atol=1e-3)
    assert encoders.features(NONE).shape == (0, 256)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3, 32, 32), np.uint8), np.zeros((2, 32, 32, 3), np.float32)])
def test_features_refuse_images_of_another_form(wrong):
    with pytest.raises(NagkitError, match="images must be uint8"):
        encoders.features(wrong)


def test_committed_codes_have_the_documented_shapes():
    codes = encoders.codes()
    shapes = {key: value.shape for key, value in codes.items()}
    for name, classes, k in (("cifar10", 10, 10), ("cifar100", 100, 5), ("mnist", 10, 10), ("fashion_mnist", 10, 10)):
        assert shapes[f"{name}/mean"] == (classes, 256) and shapes[f"{name}/samples"] == (classes, k, 256)
    assert shapes["imagenet32/image"] == (1000, 256) and shapes["imagenet16-120/mean"] == (120, 256)
    assert shapes["tiny_imagenet/mean"] == shapes["tiny_imagenet/mean_seen"] == (200, 256)
    assert shapes["tiny_imagenet/samples"] == (200, 2, 256) and len(set(codes["tiny_imagenet/class_id"])) == 200
    assert all(np.isfinite(value).all() for value in codes.values())
    assert encoders.CODES.stat().st_size <= 1.5e6 and encoders.CHECKPOINT.stat().st_size <= 3e6


def test_codes_of_another_encoder_are_refused(tmp_path):
    encoders.save(encoders.Encoder((4, 8), 4), tmp_path / "other.safetensors")
    with pytest.raises(NagkitError, match="computed with another encoder than other.safetensors"):
        encoders.codes(encoder_path=tmp_path / "other.safetensors")


def test_codes_of_one_class_lie_nearer_to_its_tiny_imagenet_mean_than_to_others():
    codes = encoders.codes()
    ids = codes["tiny_imagenet/class_id"]
    single, means = codes["imagenet32/image"][ids - 1], codes["tiny_imagenet/mean"]
    distance = ((single[:, None] - means) ** 2).sum(axis=2)
    rank = (distance < np.diag(distance)[:, None]).sum(axis=1)
    assert np.median(rank) < 40  # 100 when the class lists were joined wrongly


# real images


@needs_images
@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100), ("mnist", 10), ("tiny_imagenet", 200)])
def test_real_archives_load_balanced(name, classes):
    images, labels = data.load(name, "test", per_class=5)
    assert images.shape == (5 * classes, 32, 32, 3) and (np.bincount(labels) == 5).all()
    assert len(data.class_names(name)) == classes


@needs_images
def test_committed_codes_are_those_of_the_real_images():
    images, labels = data.load("tiny_imagenet", "test")
    mean = encoders.features(images[labels == 7]).mean(axis=0)
    np.testing.assert_allclose(encoders.codes()["tiny_imagenet/mean"][7], mean, atol=5e-3)
