"""The ImageNet oracles of the MobileNetV3 space: exact where they are given, honest about themselves where they are fitted."""

import io
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import kendalltau

from nagkit.benchmarks import ofa, ofa_fit
from nagkit.benchmarks.table import open_benchmark
from nagkit.cli import cli
from nagkit.data import registry, upstream
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3

SPACE = mbv3.Space()
BIGGEST = np.full((1, 20), 8, np.int8)


def draws(n=200, seed=0):
    return SPACE.random(n, numpy_stream(seed, "test/ofa"))


@pytest.fixture
def upstream_files():
    """The published predictor and the measured networks of the mirror."""
    if not all(registry.local(entry).is_file() for entry in registry.select(["mbv3"])):
        pytest.skip("NAGKIT_MIRROR is not set: no published predictor to test against")


def by_hand(config, resolution, layers):
    """Top-1 of one Once-for-All configuration from the raw weights, loop by loop (the independent evaluation)."""
    kernels, expands, sizes = [0.0] * 60, [0.0] * 60, [0.0] * 8
    for stage, depth in enumerate(config["d"]):
        for slot in range(4 * stage, 4 * stage + depth):
            kernels[3 * slot + (3, 5, 7).index(config["ks"][slot])] = 1.0
            expands[3 * slot + (3, 4, 6).index(config["e"][slot])] = 1.0
    sizes[(resolution - 112) // 16] = 1.0
    x = np.array(kernels + expands + sizes)
    for i, (weight, bias) in enumerate(layers):
        x = weight @ x + bias
        if i < len(layers) - 1:
            x = x * (x > 0)
    return 100 * float(x[0])


@pytest.mark.parametrize("resolution", [128, 160, 224])
def test_the_predictor_equals_an_independent_evaluation_of_its_raw_weights(upstream_files, resolution):
    content = registry.read(registry.entries()["ofa-accuracy-predictor"])
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    layers = [[state[f"{i}.{part}"].numpy().astype(np.float64) for part in ("weight", "bias")] for i in (0, 2, 4, 6)]
    archs = draws()
    expected = [by_hand(config, resolution, layers) for config in SPACE.to_config(archs)]
    found = open_benchmark("mbv3", "ofa", resolution=resolution).query(archs, "imagenet", split="test")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("resolution", ofa.RESOLUTIONS["ofa"])
def test_the_embedded_predictor_is_as_good_as_its_card_says(upstream_files, resolution):
    """On networks that neither the fit nor the card has seen; a fifth more error than on the card's 5,000 is no accident."""
    archs, (surrogate, predictor) = draws(5_000, seed=1), (
        open_benchmark("mbv3", oracle, resolution=resolution) for oracle in ("ofa-surrogate", "ofa")
    )  # fmt: skip
    claimed = surrogate.fidelity(split="test")
    error = surrogate.query(archs, split="test") - predictor.query(archs, split="test")
    assert np.sqrt((error**2).mean()) < 1.2 * claimed["rmse"]
    assert claimed["kendall_tau"] > 0.9


def test_the_process_follows_its_measurements(upstream_files):
    archs, accuracy = ofa.measurements()
    found = open_benchmark("mbv3", "measured-surrogate").query(archs, split="test")
    assert np.sqrt(((found - accuracy) ** 2).mean()) < ofa.card("measured-surrogate")["leave_search_out"]["all"]["rmse"]
    assert kendalltau(found, accuracy).statistic > 0.95


def test_leaving_a_search_out_leaves_no_network_of_it_in(upstream_files, monkeypatch):
    """The process of each fold is given exactly the networks that the search did not visit."""
    archs, _, visited = ofa_fit.measured()
    fitted = []

    def note(archs, accuracy):
        fitted.append({arch.tobytes() for arch in archs})
        return lambda features: features[:, 0]

    monkeypatch.setattr(ofa_fit, "_regress", note)
    ofa_fit.leave_search_out(progress=False)
    for seen, mask in zip(fitted, visited.values(), strict=True):
        assert len(seen) + mask.sum() == len(archs)
        assert not seen & {arch.tobytes() for arch in archs[mask]}


def test_measured_networks_have_their_measurement_and_others_none(upstream_files):
    rows = upstream.measured_networks()
    once = [i for i, arch in enumerate(rows.archs) if (rows.archs == arch).all(axis=1).sum() == 1][:50]
    bench = open_benchmark("mbv3", "measured")
    np.testing.assert_array_equal(bench.query(rows.archs[once], split="test"), rows.accuracy[once])
    assert np.isnan(bench.query(draws(20), split="test")).all()
    for resolution, count in ((128, 939), (160, 879), (192, 792)):
        archs, accuracy = ofa.measurements(resolution)
        assert len(archs) == count and 60 < accuracy.min() and accuracy.max() < 77.5
        found = open_benchmark("mbv3", "measured", resolution=resolution).query(archs, split="test")
        np.testing.assert_array_equal(found, accuracy)


def test_descriptors_have_the_moments_of_the_once_for_all_law():
    """50,000 draws: a mean is off by 0.025 of its unit, or a variance by 0.05, with probability below 1e-6 each."""
    x = ofa.descriptors(draws(50_000)) * np.sqrt(90)
    assert np.abs(x.mean(axis=0)).max() < 0.025
    assert np.abs(x.var(axis=0) - 1).max() < 0.05


@pytest.mark.parametrize("oracle", ["ofa-surrogate", "measured-surrogate"])
def test_the_embedded_oracles_need_no_data_and_batches_do_not_matter(oracle, no_data):
    bench = open_benchmark("mbv3", oracle)
    archs = draws(3_000)
    together = bench.query(archs, "imagenet", split="test")
    np.testing.assert_allclose(together[:3], [bench.query(archs[i : i + 1], split="test")[0] for i in range(3)], atol=2e-4)
    assert bench.query(np.empty((0, 20), np.int8), split="test").shape == (0,)
    assert together.std() > 0.3


def test_values_beyond_the_measured_range_are_flagged(no_data):
    """The largest network is predicted slightly above the best that was measured; the predictor has no such range."""
    archs = np.concatenate([BIGGEST, draws(50)])
    bench = open_benchmark("mbv3", "measured-surrogate")
    values = bench.query(archs, split="test")
    low, high = ofa.card("measured-surrogate")["measured_range"]
    np.testing.assert_array_equal(bench.beyond(values), (values > high) | (values < low))
    assert bench.beyond(values)[0] and values[0] < high + 0.5
    assert not open_benchmark("mbv3", "ofa-surrogate").beyond(values).any()


def test_without_the_published_file_the_default_is_ours_and_says_so(no_data):
    bench = open_benchmark("mbv3")
    assert bench.oracle == "ofa-surrogate"
    assert re.search(r"RMSE 0\.\d+ points, Kendall τ 0\.9\d+", bench.describe())
    for oracle in ("ofa", "measured"):
        with pytest.raises(NagkitError, match="is missing at .*nagkit data fetch"):
            open_benchmark("mbv3", oracle)


def test_bad_input_is_refused_in_one_line(no_data):
    with pytest.raises(NagkitError, match="measured-surrogate does not know resolution 192, only 224; ofa, .* knows 192"):
        open_benchmark("mbv3", "measured-surrogate", resolution=192)
    with pytest.raises(NagkitError, match="resolution 225, only 128, .*; no oracle knows 225"):
        open_benchmark("mbv3", "ofa-surrogate", resolution=225)
    with pytest.raises(NagkitError, match="unknown oracle of mbv3 'table'"):
        open_benchmark("mbv3", "table")
    with pytest.raises(NagkitError, match="nb201 benchmark has no input resolution, got 224"):
        open_benchmark("nb201", resolution=224)
    bench = open_benchmark("mbv3")
    with pytest.raises(NagkitError, match="row 1 is not valid in mbv3"):
        bench.query(np.concatenate([BIGGEST, BIGGEST + 1]), split="test")
    with pytest.raises(NagkitError, match="data set of mbv3 'cifar10'"):
        bench.query(BIGGEST, "cifar10", split="test")
    with pytest.raises(NagkitError, match="split of imagenet 'validation12'"):
        bench.query(BIGGEST, split="validation12")


@pytest.mark.parametrize("oracle", ["ofa-surrogate", "measured-surrogate"])
def test_the_command_line_asks_and_prints_the_quality(oracle, no_data, tmp_path):
    pool = tmp_path / "pool.csv"
    pool.write_text("arch,error\n" + SPACE.to_string(BIGGEST)[0] + ",\n,several operations\n")
    command = ["query", "--space", "mbv3", "--dataset", "imagenet", "--oracle", oracle, "--resolution", "224", str(pool)]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0
    header, first, second = done.stdout.splitlines()
    assert header == "arch,split,accuracy,oracle" and first.endswith(oracle) and second == f",test,,{oracle}"
    assert re.search(r"RMSE 0\.\d+ points, Kendall τ 0\.9", done.stderr)
    assert ("1 of 1 values lie beyond the measured range" in done.stderr) == (oracle == "measured-surrogate")
