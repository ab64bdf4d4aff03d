"""Foreign pickles run nothing, and the converters say what the upstream files say."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nagkit.data import images, registry, upstream
from nagkit.errors import NagkitError
from nagkit.spaces import nb201

SPACE = nb201.Space()
FIRST = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"  # index 0


class Calls:
    """Unpickles by calling `function(*args)`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "args"),
    [
        (os.system, ("true",)),
        (eval, ("1",)),
        (getattr, ([], "append")),
        (open, ("x",)),
        (np.load, ("x",)),
        (pickle.loads, (b"N.",)),
    ],
)
def test_the_unpickler_refuses_calls_and_names_them(function, args, protocol):
    with pytest.raises(NagkitError, match=f"toy: refused to unpickle .*{function.__name__}"):
        upstream.unpickle(pickle.dumps({"x": [Calls(function, *args)]}, protocol), "toy")


def test_the_unpickler_refuses_dotted_names():
    with pytest.raises(NagkitError, match="refused to unpickle numpy.core.multiarray._reconstruct.__globals__"):
        upstream.unpickle(b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x18_reconstruct.__globals__\x93.", "toy")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_through(protocol):
    content = {"a": np.arange(6.0).reshape(2, 3), "s": np.float32(2), "o": np.array(["x", None], object), "l": [(1, "y")]}
    back = upstream.unpickle(pickle.dumps(content | {"d": OrderedDict(k=1)}, protocol), "toy")
    assert back["d"] == {"k": 1} and back["l"] == [(1, "y")] and back["s"] == 2
    np.testing.assert_array_equal(back["a"], content["a"])
    assert list(back["o"]) == ["x", None]


def test_pandas_objects_become_inert_stand_ins():
    back = upstream.unpickle(pickle.dumps(pd.Series([1, 2])), "toy")
    assert isinstance(back, upstream.Inert)


def test_the_archive_of_a_torch_save_is_read_without_torch():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("toy/data.pkl", pickle.dumps({"acc": [1.5]}))
    assert upstream.unpickle(buffer.getvalue(), "toy") == {"acc": [1.5]}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 250))
def test_a_truncated_pickle_is_one_clear_error(length):
    content = pickle.dumps({"a": np.arange(20.0), "b": ["x"] * 9})
    with pytest.raises(NagkitError, match="toy is not a readable pickle"):
        upstream.unpickle(content[: min(length, len(content) - 1)], "toy")


def test_missing_data_is_one_line_with_the_remedy(no_data):
    for convert in (upstream.convert, upstream.triplets):
        with pytest.raises(NagkitError, match="nagkit data fetch.*NAGKIT_MIRROR"):
            convert()


def test_the_best_cells_are_the_known_ones(table):
    best = {"cifar10": (94.373, 6111), "cifar100": (73.513, 9930), "imagenet16-120": (47.311, 857)}
    index = upstream._index_order()
    for dataset, (accuracy, row) in best.items():
        assert table.optimum(dataset, split="test") == pytest.approx(accuracy, abs=5e-4)
        assert table.query(index[[row]], dataset, split="test")[0] == table.optimum(dataset, split="test")


def test_every_cell_has_the_test_accuracy_of_its_row_in_the_source(table):
    source = pd.read_csv(io.BytesIO(registry.read(registry.entries()["nats-bench"])))
    archs = SPACE.from_string(source.ArchitectureString.tolist())
    assert len(np.unique(SPACE.code(archs))) == 15_625
    np.testing.assert_array_equal(table.query(archs, "cifar10", split="test"), source.CIFAR10TestAccuracy200Epochs)
    np.testing.assert_array_equal(table.query(archs, "imagenet16-120", split="test"), source.ImageNetTestAccuracy200Epochs)


def test_isomorphism_classes_are_those_of_the_benchmark(real_tables):
    source = pd.read_csv(io.BytesIO(registry.read(registry.entries()["nats-bench"])))
    ours = nb201.isomorphism_classes()[SPACE.code(SPACE.from_string(source.ArchitectureString.tolist()))]
    pairs = set(zip(ours, source.UniqueString, strict=True))
    assert len(pairs) == len(set(ours)) == source.UniqueString.nunique() == 6_466


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_robustness_is_constant_on_isomorphism_classes(table, dataset):
    classes = nb201.isomorphism_classes()
    _, first = np.unique(classes, return_index=True)
    for metric in ("robust_clean", "apgd_ce_eps1.0", "square_eps8.0", "fgsm_eps255.0", "pgd_eps0.1", "glass_blur_sev2"):
        values = table.column(dataset, split="test", metric=metric)
        np.testing.assert_array_equal(values, values[first][classes])
        assert 0 <= values.min() and values.max() <= 100


def test_robustness_has_all_attacks_and_corruptions(table):
    metrics = table.metrics("cifar10", split="test")
    assert sum("_sev" in metric for metric in metrics) == 15 * 5
    assert sum("_eps" in metric for metric in metrics) == 7 + 7 + 7 + 11


def test_robustness_was_measured_on_the_networks_of_the_table(table):
    clean = table.column("cifar10", split="test", metric="robust_clean")
    accuracy = table.column("cifar10", split="test")
    assert np.abs(clean - accuracy)[accuracy > 80].mean() < 1


@pytest.mark.parametrize(
    ("dataset", "metric", "value"),
    [
        ("cifar10", "latency_edgegpu", 5.807418537139893),
        ("cifar10", "energy_edgegpu", 24.226614330768584),
        ("cifar10", "latency_edgetpu", 0.9571811309997429),
        ("cifar10", "latency_pixel3", 3.60585),
        ("cifar10", "energy_fpga", 18.01072),
        ("cifar100", "latency_pixel3", 5.04007),
        ("imagenet16-120", "latency_raspi4", 2.973176879895618),
    ],
)
def test_hardware_figures_of_index_0_are_the_published_ones(table, dataset, metric, value):
    """The first five stand in the HW-NAS-Bench README for index 0, in ms and mJ."""
    assert table.query(SPACE.from_string([FIRST]), dataset, split="test", metric=metric)[0] == pytest.approx(value)


def test_hardware_rows_are_matched_to_the_right_cells(table):
    """The FPGA's latency model is nearly linear in the operations of the edges, which a wrong edge order would break."""
    one_hot = (SPACE.all()[:, :, None] == np.arange(5)).reshape(-1, 30).astype(float)
    latency = table.column("cifar10", split="test", metric="latency_fpga")
    residual = latency - one_hot @ np.linalg.lstsq(one_hot, latency, rcond=None)[0]
    assert 1 - residual.var() / latency.var() > 0.8
    alone = SPACE.from_string(["|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|", FIRST])
    assert np.isfinite(table.query(alone, "cifar10", split="test", metric="latency_raspi4")).all()


def test_unsupported_edge_tpu_cells_are_nan(table):
    missing = np.isnan(table.column("cifar10", split="test", metric="latency_edgetpu"))
    assert missing.sum() == 4_699
    assert np.nanmin(table.column("cifar10", split="test", metric="latency_edgetpu")) > 0


def test_twelve_epoch_columns_track_the_200_epoch_ones(table):
    for dataset in ("cifar10", "cifar100", "imagenet16-120"):
        assert table.splits(dataset) == ("test", "test12", "validation12")
        final = table.column(dataset, split="test")
        for split in ("validation12", "test12"):
            early = table.column(dataset, split=split)
            assert pd.Series(early).corr(pd.Series(final), method="spearman") > 0.75
            assert early.max() < final.max()


def test_ninapro_and_darcy_are_the_shifted_tasks(table):
    cifar10 = pd.Series(table.column("cifar10", split="test"))
    assert table.optimum("ninapro", split="test") == pytest.approx(94.385, abs=1e-3)
    assert table.optimum("darcy", split="test") == pytest.approx(98.481, abs=1e-3)
    for dataset, correlation in (("ninapro", 0.27), ("darcy", 0.52)):
        column = pd.Series(table.column(dataset, split="test"))
        assert column.corr(cifar10, method="spearman") == pytest.approx(correlation, abs=0.01)


@pytest.fixture
def triplets(real_tables):
    return upstream.triplets()


def test_triplets_have_the_known_counts(triplets):
    assert triplets.archs.shape == (4_630, 6) and SPACE.is_valid(triplets.archs).all()
    assert len(np.unique(triplets.task)) == 3_031
    assert len(np.unique(SPACE.code(triplets.archs))) == 1_553
    assert triplets.accuracy.min() == pytest.approx(40.99, abs=0.01)
    assert triplets.accuracy.max() == pytest.approx(86.00, abs=0.01)
    assert triplets.accuracy.mean() == pytest.approx(71.59, abs=0.01)
    np.testing.assert_array_equal(np.sort(triplets.order), np.arange(4_630))


def test_tasks_are_twenty_classes_each(triplets):
    assert triplets.classes.shape == (5_000, 20)
    assert triplets.classes.min() == 1 and triplets.classes.max() == 600
    assert all(len(set(row)) == 20 for row in triplets.classes)


def test_class_numbers_start_with_the_kit_fox(real_tables):
    ids = images.read_class_list(registry.local(registry.entries()["imagenet32-classes"]))
    assert len(ids) == 1_000 and ids["n02119789"] == 1


def test_our_parameter_and_mac_counts_are_those_of_the_triplets(triplets):
    """Upstream rescales both to [1e-5, 1] over the whole space; undone, they are our integers exactly."""
    content = upstream.unpickle(registry.read(registry.entries()["triplets"]), "triplets")
    given_values = (np.array(content[name]) for name in ("params", "flops"))
    for rescaled, ours, every in zip(given_values, nb201.cost(triplets.archs), nb201.cost(SPACE.all()), strict=True):
        low, high = every.min(), every.max()
        undone = low + (rescaled - 1e-5) / (1 - 1e-5) * (high - low)
        np.testing.assert_array_equal(np.rint(undone), ours)
        np.testing.assert_allclose(undone, ours, rtol=1e-12)
