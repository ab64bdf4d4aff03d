"""The supernet: its matrices are convolutions, its parts are MobileNetV3 networks, and training goes on where it stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nagkit.benchmarks import measured, subnet, supernet, supernet_train, train_arch
from nagkit.benchmarks.inherited import Inherited
from nagkit.benchmarks.table import open_benchmark
from nagkit.data import io
from nagkit.data.images import meta_classes
from nagkit.errors import NagkitError
from nagkit.predictors.fit import recipes
from nagkit.predictors.images import normalise
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import mbv3

SPACE = mbv3.Space()
WIDTHS = (8, 8, 8, 12, 12, 16)
RECIPE = recipes("images")["supernet"]


def network(seed: int = 0, widths=WIDTHS, n_classes: int = 5, features: int = 16) -> supernet.Supernet:
    """A small supernet with nothing at its initial zeros or identities."""
    made, generator = supernet.Supernet(n_classes, widths, features), torch_stream(seed, "test")
    supernet.initialise(made, generator)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return made


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, 32, 32, 3), generator=torch_stream(seed, "pictures"), dtype=torch.uint8)


def plain(net: supernet.Supernet, images: torch.Tensor, arch: np.ndarray) -> torch.Tensor:
    """The same network written down with ordinary convolutions on `(B, C, H, W)`."""

    def norm(x, module):
        n = x.shape[1]
        return F.batch_norm(x, None, None, module.weight[:n], module.bias[:n], training=True)

    x = F.hardswish(norm(net.first(normalise(images)), net.stem_norms[0]))
    x = norm(net.third(F.relu(norm(net.second(x), net.stem_norms[1]))), net.stem_norms[2])
    for slot, (layer, op) in enumerate(zip(net.layers, arch, strict=True)):
        if op == mbv3.ABSENT:
            continue
        size, n = mbv3.KERNELS[op // 3], mbv3.EXPANDS[op % 3] * layer.n_in
        activation = F.hardswish if slot >= 8 else F.relu
        kernel = layer.kernel[:n].view(n, 7, 7)
        if size < 7:
            kernel = (kernel[:, 1:-1, 1:-1].flatten(1) @ layer.to_5).view(n, 5, 5)
        if size < 5:
            kernel = (kernel[:, 1:-1, 1:-1].flatten(1) @ layer.to_3).view(n, 3, 3)
        h = activation(norm(F.conv2d(x, layer.expand[:n, :, None, None]), layer.norms[0]))
        h = F.conv2d(h, kernel[:, None], padding=size // 2, stride=layer.stride, groups=n)
        h = activation(norm(h, layer.norms[1]))
        if slot // 4 in (1, 3, 4):
            squeezed = h.mean(dim=(2, 3), keepdim=True)
            for last, part in enumerate((layer.excite.squeeze, layer.excite.stretch)):
                n_out, n_in = (n, n // 4) if last else (n // 4, n)
                squeezed = F.conv2d(squeezed, part.weight[:n_out, :n_in, None, None], part.bias[:n_out])
                squeezed = F.hardsigmoid(squeezed) if last else F.relu(squeezed)
            h = h * squeezed
        h = norm(F.conv2d(h, layer.project[:, :n, None, None]), layer.norms[2])
        x = x + h if x.shape == h.shape else h  # Once-for-All: a shortcut wherever shapes allow
    x = F.hardswish(norm(F.conv2d(x, net.last[..., None, None]), net.last_norm)).mean(dim=(2, 3))
    return net.head(F.hardswish(net.mix(x)))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_every_part_is_the_network_that_ordinary_convolutions_make(seed):
    net, images, arch = network(), pictures(6), SPACE.random(1, np.random.default_rng(seed))[0]
    torch.testing.assert_close(net(images, arch), plain(net, images, arch), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("side", "stride"), [(16, 2), (8, 1), (8, 2), (4, 1)])
@pytest.mark.parametrize("size", mbv3.KERNELS)
def test_a_depthwise_convolution_is_a_product_with_its_matrix(side, stride, size):
    x, kernel = torch.randn(3, side**2, 2, dtype=torch.float64), torch.randn(3, size**2, dtype=torch.float64)
    matrices = (kernel @ supernet._places(side, size, stride).double()).view(3, -1, side**2)
    images = x.permute(2, 0, 1).unflatten(2, (side, side))
    expected = F.conv2d(images, kernel.view(3, 1, size, size), padding=size // 2, stride=stride, groups=3)
    torch.testing.assert_close(torch.bmm(matrices, x), expected.flatten(2).permute(1, 2, 0))


def test_noted_statistics_give_the_same_answers_again_and_do_not_depend_on_the_other_images():
    net, images, arch = network(), pictures(40), SPACE.random(1, np.random.default_rng(1))[0]
    with torch.inference_mode():
        noted = supernet.Statistics(n_first=20)
        mixed = net(images, arch, noted)
        torch.testing.assert_close(mixed[:20], net(images[:20], arch), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(net(images[20:], arch, noted.replay()), mixed[20:], rtol=1e-3, atol=1e-4)


def test_a_network_moves_only_the_weights_it_has():
    net = network()
    net(pictures(4), supernet.SMALLEST).square().sum().backward()
    first, third = net.layers[0], net.layers[2]
    assert third.expand.grad is None
    used = 3 * WIDTHS[0]
    assert first.expand.grad[:used].abs().sum(dim=1).gt(0).all() and not first.expand.grad[used:].any()


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_network_cut_out_of_the_supernet_computes_what_it_computed_there(seed):
    """Same features before the classifier; in evaluation mode by running statistics, after one pass those of the images."""
    net, images, arch = network(), pictures(16), SPACE.random(1, np.random.default_rng(seed))[0]
    alone = subnet.SubNetwork(net, arch, 3)
    pixels = normalise(images)
    with torch.no_grad():
        alone.network.head.weight.normal_(generator=torch_stream(0, "head"))
        expected = alone.network.head(net.pooled(net.stem(pixels), arch))
        found = alone.train()(pixels)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        again = alone.eval()(pixels)
    # running variances are unbiased ones, larger by n / (n - 1): at most 1/255 here, on 4×4 maps of 16 images
    torch.testing.assert_close(again, expected, rtol=0.1, atol=0.1)
    assert sum(p.numel() for p in alone.parameters()) < sum(p.numel() for p in net.parameters())


def test_a_network_cut_out_of_the_supernet_can_be_fine_tuned_without_touching_it():
    net = network()
    before = [weight.clone() for weight in net.parameters()]
    alone = subnet.SubNetwork(net, supernet.SMALLEST, 3)
    loss = F.cross_entropy(alone(normalise(pictures(8))), torch.arange(8) % 3)
    torch.testing.assert_close(loss, torch.tensor(3.0).log())  # the new classifier knows nothing
    torch.optim.SGD(alone.parameters(), 0.1).step(lambda: loss.backward() or loss)
    assert all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))


def test_the_statistics_of_all_sub_networks_are_their_own():
    """Inherited accuracy does not depend on which network was measured before."""
    rng = numpy_stream(0, "test")
    images, labels = pictures(300).numpy(), rng.integers(0, 5, 300)
    net, archs = network(), SPACE.random(5, rng)
    archs[1, :12], archs[2, :18], archs[4] = archs[0, :12], archs[0, :18], archs[0]  # layers in common are computed once
    measure = Inherited(images, images, labels, n_images=300)
    together = measure.accuracy(net, archs, progress=False)
    alone = [measure.accuracy(net, arch[None], progress=False)[0] for arch in archs[::-1]][::-1]
    np.testing.assert_array_equal(together, alone)


def test_a_network_that_was_measured_first_can_be_trained_afterwards():
    supernet._places.cache_clear()
    images, net, largest = pictures(20), network(), supernet.LARGEST[None]
    Inherited(images.numpy(), images.numpy(), np.zeros(20, int), n_images=20).accuracy(net, largest, progress=False)
    net(images, supernet.LARGEST).square().mean().backward()
    assert net.layers[0].kernel.grad.abs().sum() > 0


def test_inherited_accuracy_is_the_share_of_right_answers():
    """A classifier that always says 3 is right as often as 3 occurs among the images drawn."""
    rng = numpy_stream(0, "test")
    images, labels = pictures(400).numpy(), rng.integers(0, 5, 400)
    net = network()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(F.one_hot(torch.tensor(3), 5).float())
    found = Inherited(images, images, labels, n_images=400).accuracy(net, SPACE.random(2, rng), progress=False)
    np.testing.assert_allclose(found, 100 * (labels == 3).mean())


def test_what_cannot_be_measured_is_refused():
    images = pictures(20).numpy()
    with pytest.raises(NagkitError, match="labels must be 20 integers"):
        Inherited(images, images, np.zeros(19, int))
    with pytest.raises(NagkitError, match=r"n_images must be 1 to 20 .* got 1000"):
        Inherited(images, images, np.zeros(20, int))
    with pytest.raises(NagkitError, match="label 7 has no output in a network of 5 classes"):
        Inherited(images, images, np.full(20, 7), n_images=20).accuracy(network(), supernet.LARGEST[None], progress=False)


def test_a_checkpoint_gives_back_the_network_and_refuses_what_it_is_not(tmp_path):
    net, images = network(), pictures(8)
    supernet.save(net, tmp_path / "net.safetensors", [1, 4, 9, 16, 25])
    again = supernet.load(tmp_path / "net.safetensors", WIDTHS)
    assert (again.widths, again.features, again.n_classes, again.classes) == (WIDTHS, 16, 5, (1, 4, 9, 16, 25))
    torch.testing.assert_close(again(images, supernet.LARGEST), net(images, supernet.LARGEST), rtol=0.05, atol=0.05)
    with pytest.raises(NagkitError, match=r"has widths \(8, 8, 8, 12, 12, 16\), expected \(8, 8, 12, 20, 28, 40\)"):
        supernet.load(tmp_path / "net.safetensors")
    io.write_arrays(tmp_path / "other.safetensors", {"a": np.zeros(1)}, {"format": "something else"})
    with pytest.raises(NagkitError, match="is no supernet"):
        supernet.load(tmp_path / "other.safetensors")
    torn = (tmp_path / "net.safetensors").read_bytes()[:-100]
    (tmp_path / "net.safetensors").write_bytes(torn)
    with pytest.raises(NagkitError, match="cannot read"):
        supernet.load(tmp_path / "net.safetensors", WIDTHS)


@pytest.mark.parametrize("arch", [None, supernet.SMALLEST], ids=["sandwich", "one network"])
def test_training_learns_and_goes_on_where_it_stopped(arch, tmp_path):
    """Two kinds of images, bright and dark: separable, so that the loss of two classes (0.69) has to fall well below."""
    rng = numpy_stream(0, "test")
    labels = np.arange(64) % 2
    images = (rng.integers(0, 100, (64, 32, 32, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    how = {"n_classes": 2, "widths": WIDTHS, "arch": arch, "progress": False}
    how["recipe"] = replace(RECIPE, epochs=3, batch=16, lr=0.1, smoothing=0.0)
    whole, curve = supernet_train.train(images, labels, checkpoint=tmp_path / "whole", **how)
    supernet_train.train(images, labels, checkpoint=tmp_path / "halves", stop_after=1, **how)
    halves, again = supernet_train.train(images, labels, checkpoint=tmp_path / "halves", **how)
    assert curve.equals(again) and curve["loss"].iloc[-1] < 0.4
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(NagkitError, match="belongs to a run with other data or settings"):
        supernet_train.train(images, labels, checkpoint=tmp_path / "whole", **how | {"seed": 1})
    with pytest.raises(NagkitError, match=r"labels must be 64 integers in 0\.\.1"):
        supernet_train.train(images, labels + 1, checkpoint=tmp_path / "new", **how)


def test_training_on_begins_with_the_weights_given_and_a_new_classifier(tmp_path):
    """At rate 0 the weights stay those of the start; another start is another run."""
    images, labels, start = pictures(32).numpy(), np.arange(32) % 3, network(features=supernet.FEATURES)
    how = {"n_classes": 3, "widths": WIDTHS, "progress": False, "checkpoint": tmp_path / "run"}
    how["recipe"] = replace(RECIPE, epochs=1, batch=16, lr=0.0)
    found, _ = supernet_train.train(images, labels, start=start, **how)
    assert found.head.weight.shape == (3, supernet.FEATURES) and not found.head.weight.any()
    for name, weight in start.named_parameters():
        if not name.startswith("head."):
            torch.testing.assert_close(found.get_parameter(name), weight)
    kept, _ = supernet_train.train(
        images, np.arange(32) % 5, start=start, **how | {"n_classes": 5, "checkpoint": tmp_path / "other"}
    )
    torch.testing.assert_close(kept.head.weight, start.head.weight)  # as many classes
    with pytest.raises(NagkitError, match="belongs to a run with other data or settings"):
        supernet_train.train(images, labels, start=network(1, features=supernet.FEATURES), **how)
    with pytest.raises(NagkitError, match="data set to adapt to.*'svhn'.*mnist"):
        supernet_train.adapt("svhn", tmp_path / "supernet")


def test_a_supernet_is_trained_and_adapted_in_one_call_each_and_written_with_its_curve(tmp_path, monkeypatch):
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(supernet_train, "CHECKPOINT", tmp_path / "supernet.safetensors")
    short = {name: replace(recipe, epochs=1, batch=16) for name, recipe in recipes("images").items()}
    monkeypatch.setattr(supernet_train, "recipes", lambda _: short)
    monkeypatch.setattr(supernet_train, "ADAPT_STEPS", 2)
    images = numpy_stream(0, "test").integers(0, 256, (1000, 32, 32, 3)).astype(np.uint8)
    n_classes = {supernet_train.META: 160, "mnist": 10}

    def some(name, split):
        n = 1000 if split == "test" else 32
        return images[:n], np.arange(n) % n_classes[name]

    monkeypatch.setattr(supernet_train, "images_of", some)
    monkeypatch.setattr(supernet_train, "meta_images", lambda split: (images[:32], np.arange(32)))
    curve = supernet_train.build(tmp_path / "supernet.safetensors")
    found = supernet.load(tmp_path / "supernet.safetensors")
    assert found.classes == tuple(meta_classes()[0].tolist()) and list(curve.columns) == [
        "epoch", "loss", "smallest", "largest"
    ]  # fmt: skip
    supernet_train.adapt("mnist", tmp_path / "adapted.safetensors")
    found = supernet.load(tmp_path / "adapted.safetensors")
    assert found.classes == tuple(range(10)) and (tmp_path / "adapted.csv").is_file()


def test_meta_training_and_meta_validation_share_no_class():
    training, validation = meta_classes()
    assert sorted([*training, *validation]) == list(range(200)) and len(validation) == 40


def test_one_network_is_fine_tuned_from_the_supernet_that_is_there(tmp_path, monkeypatch):
    """Bright and dark images, as above; another supernet makes another run."""
    labels = np.arange(64) % 2
    noise = numpy_stream(0, "test").integers(0, 100, (64, 32, 32, 3))
    data = ((noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels)
    recipe = replace(train_arch.preset("mbv3", "cpu"), epochs=8, batch=16, lr=0.05)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(supernet, "CHECKPOINT", tmp_path / "supernet.safetensors")
    with pytest.raises(NagkitError, match="there is no supernet at"):
        train_arch.train(SPACE, supernet.SMALLEST, data, data, recipe, progress=False)
    supernet.save(network(widths=supernet.WIDTHS), supernet.CHECKPOINT, range(5))
    found = train_arch.train(SPACE, supernet.SMALLEST, data, data, recipe, progress=False)
    assert found.accuracy >= 95.0 and not found.repeated
    assert train_arch.train(SPACE, supernet.SMALLEST, data, data, recipe, progress=False).repeated
    supernet.save(network(1, widths=supernet.WIDTHS), supernet.CHECKPOINT, range(5))
    again = train_arch.train(SPACE, supernet.SMALLEST, data, data, replace(recipe, epochs=1), progress=False)
    assert not again.repeated and again.checkpoint != found.checkpoint


def test_multiply_accumulates_are_those_of_ordinary_convolutions():
    """Counted by hand for the smallest network, and by how a layer more, a wider one and a larger kernel add to it."""
    base = int(supernet.multiply_accumulates(supernet.SMALLEST[None], WIDTHS, 16)[0])
    stem = 3 * 9 * 8 * 32**2 + 9 * 8 * 16**2 + 8 * 8 * 16**2

    def layer(n_in, n_out, before, after, excited, kernel=3, expand=3):
        n = expand * n_in
        return n * n_in * before**2 + n * kernel**2 * after**2 + n * n_out * after**2 + excited * 2 * n * (n // 4)

    places = [(8, 8, 16, 8, 0), (8, 8, 8, 8, 0), (8, 8, 8, 8, 1), (8, 8, 8, 8, 1), (8, 12, 8, 4, 0), (12, 12, 4, 4, 0),
              (12, 12, 4, 4, 1), (12, 12, 4, 4, 1), (12, 16, 4, 4, 1), (16, 16, 4, 4, 1)]  # fmt: skip
    tail = 16 * 96 * 4**2 + 96 * 16
    assert base == stem + sum(layer(*place) for place in places) + tail
    more = np.stack([supernet.SMALLEST] * 3)
    more[0, 2], more[1, 17], more[2, 17] = 0, 2, 6  # a third layer; expansion 6; kernel 7
    added = supernet.multiply_accumulates(more, WIDTHS, 16) - base
    last = (16, 16, 4, 4, 1)
    assert added.tolist() == [
        layer(8, 8, 8, 8, 0), layer(*last, expand=6) - layer(*last), layer(*last, kernel=7) - layer(*last)
    ]  # fmt: skip


@pytest.fixture
def oracle(tmp_path, monkeypatch):
    """The oracle on a small supernet and random images, with an empty cache."""
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(supernet, "CHECKPOINT", tmp_path / "supernet.safetensors")
    monkeypatch.setattr(supernet.load, "__defaults__", (supernet.CHECKPOINT, WIDTHS))
    supernet.save(network(), supernet.CHECKPOINT, range(5))
    images, labels = pictures(300).numpy(), numpy_stream(1, "test").integers(0, 5, 300)
    monkeypatch.setattr(supernet_train, "meta_images", lambda split, held: (images, labels))
    measured._images.cache_clear()
    monkeypatch.setenv("NAGKIT_IMAGES", str(tmp_path))
    yield open_benchmark("mbv3", dataset="tiny_imagenet")
    measured._images.cache_clear()


def ask(oracle, archs, **settings):
    return oracle.query(archs, "tiny_imagenet", split="test", n_images=300, **settings)


def test_an_interrupted_measurement_goes_on_where_it_was(oracle, monkeypatch):
    monkeypatch.setattr(measured, "_CHUNK", 2)
    archs, true, calls = SPACE.random(5, numpy_stream(2, "test")), measured.measure, []

    def counted(**job):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(job)
        return true(**job)

    counted.__module__, counted.__qualname__ = true.__module__, true.__qualname__
    monkeypatch.setattr(measured, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        ask(oracle, archs)
    assert len(calls) == 2
    calls.append(None)  # from here on nothing interrupts
    found = ask(oracle, archs)
    assert len(calls) == 4  # only the third part was missing
    again = [ask(oracle, arch[None])[0] for arch in archs]
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(ask(oracle, archs[[3, 0, 3]]), found[[3, 0, 3]])
    assert not np.array_equal(ask(oracle, archs, draw=1), found)


def test_the_oracle_names_what_it_does_not_know(oracle):
    with pytest.raises(NagkitError, match="data set of the supernet.*'cifar11'.*tiny_imagenet"):
        oracle.query(supernet.LARGEST[None], "cifar11", split="test")
    with pytest.raises(NagkitError, match="split of tiny_imagenet.*'valid'"):
        oracle.query(supernet.LARGEST[None], "tiny_imagenet", split="valid")
    with pytest.raises(NagkitError, match="data set of mbv3 'svhn'; choose one of: .*imagenet, mnist"):
        open_benchmark("mbv3", dataset="svhn")
    with pytest.raises(NagkitError, match="32×32 pixels, not 224"):
        open_benchmark("mbv3", "supernet", resolution=224)
    supernet.CHECKPOINT.unlink()
    with pytest.raises(NagkitError, match="no supernet at .*nagkit train supernet"):
        ask(oracle, supernet.LARGEST[None])


def test_the_surrogate_predicts_networks_that_it_never_saw(oracle, tmp_path, monkeypatch):
    """Accuracy by cost and a little noise: held-out ranking is good, and the file says so; without a file the error does."""
    monkeypatch.setattr(measured, "file_of", lambda dataset: tmp_path / f"{dataset}.safetensors")
    measured._process.cache_clear()

    def cost(archs):
        return 50 + supernet.multiply_accumulates(archs) / 3e5

    def query(self, archs, dataset, *, split):
        return cost(archs) + 0.1 * numpy_stream(0, "test/noise").standard_normal(len(archs))

    with pytest.raises(NagkitError, match="no measurements of mbv3 on mnist.*--adapt mnist"):
        open_benchmark("mbv3", "supernet-surrogate").query(supernet.LARGEST[None], "mnist", split="test")
    with monkeypatch.context() as patch:
        patch.setattr(measured.Measured, "query", query)
        measured.build("mnist")
    monkeypatch.delenv("NAGKIT_IMAGES")
    bench, fresh = open_benchmark("mbv3", dataset="mnist"), SPACE.random(200, numpy_stream(3, "test"))
    assert bench.oracle == "supernet-surrogate" and "mnist 0.9" in bench.describe()
    np.testing.assert_allclose(bench.query(fresh, "mnist", split="test"), cost(fresh), atol=1.0)
    assert bench.fidelity("mnist", split="test")["kendall_tau"] > 0.9
    measured._process.cache_clear()
