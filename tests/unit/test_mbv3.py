"""The MobileNetV3 space: conversions, validity, laws, costs, and the closed-form denoisers of its laws."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2

import nagkit
from nagkit import paths
from nagkit.diffusion.exact import StagewiseDenoiser, exact_prior
from nagkit.diffusion.samplers import generate
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import mbv3
from nagkit.spaces.base import get_space

SPACE = get_space("mbv3")
MANY = SPACE.random(5000, numpy_stream(0, "test/mbv3"))
SMALLEST = "_".join(["2-3-3", "2-3-3", "0-0-0", "0-0-0"] * 5)
LARGEST = "_".join(["4-7-6"] * 20)


def _network(depths, ops):
    archs = np.array(ops, np.int8).reshape(1, 5, 4)
    archs[np.arange(4) >= np.array(depths)[:, None][None]] = -1
    return archs.reshape(1, 20)


networks = st.builds(
    _network, st.lists(st.integers(2, 4), min_size=5, max_size=5), st.lists(st.integers(0, 8), min_size=20, max_size=20)
)


@given(networks)
def test_every_conversion_comes_back(arch):
    np.testing.assert_array_equal(SPACE.from_string(SPACE.to_string(arch)), arch)
    np.testing.assert_array_equal(SPACE.from_config(SPACE.to_config(arch)), arch)
    found, errors = SPACE.decode(SPACE.encode(arch))
    np.testing.assert_array_equal(found, arch)
    assert errors.tolist() == [""]
    np.testing.assert_array_equal(SPACE.decode_argmax(SPACE.encode(arch)), arch)


def test_conversions_work_on_batches_and_on_nothing():
    np.testing.assert_array_equal(SPACE.from_string(SPACE.to_string(MANY)), MANY)
    np.testing.assert_array_equal(SPACE.from_config(SPACE.to_config(MANY)), MANY)
    for empty in (SPACE.from_string([]), SPACE.from_config([]), SPACE.random(0, numpy_stream(0, "test"))):
        assert empty.shape == (0, 20)
        assert SPACE.encode(empty).shape == (0, 20, 9)
        assert SPACE.to_string(empty) == SPACE.to_config(empty) == []


def test_the_string_is_depth_kernel_expansion():
    assert SPACE.to_string(np.array([[3, 8, 0, -1] + [0, 0, -1, -1] * 4])) == [
        "3-5-3_3-7-6_3-3-3_0-0-0_" + "_".join(["2-3-3_2-3-3_0-0-0_0-0-0"] * 4)
    ]


def test_a_configuration_ignores_what_lies_beyond_the_depth():
    config = {"wid": None, "ks": [7, 3, 5, 99] * 5, "e": [6, 3, 4, 0] * 5, "d": [3] * 5, "r": [224]}
    np.testing.assert_array_equal(SPACE.from_config([config]), [[8, 0, 4, -1] * 5])


def test_the_space_has_7371_stages_to_the_fifth():
    assert SPACE.size == (9**2 + 9**3 + 9**4) ** 5 == 7371**5


def test_the_adjacency_is_a_chain():
    assert np.argwhere(SPACE.adjacency).tolist() == [[i, i + 1] for i in range(19)]


@pytest.mark.parametrize("law", SPACE.laws)
def test_random_networks_follow_their_law(law):
    """Chi-square of depths and of the operations of every slot; false alarms 1e-5 each."""
    archs = SPACE.random(40_000, numpy_stream(1, "test/law"), law)
    assert SPACE.is_valid(archs).all()
    _assert_law(archs, law, 1e-5)


def _assert_law(archs, law, false_alarm):
    """Depths of each stage (10 degrees of freedom) and operations of each slot that is present (160)."""
    weights = np.array(list(SPACE.depth_weights(law).values()))
    depth = mbv3.depths(archs)
    counts = np.stack([(depth == d).sum(axis=0) for d in (2, 3, 4)], axis=1)
    expected = len(archs) * weights / weights.sum()
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(false_alarm, 10)
    counts = (archs[:, :, None] == np.arange(9)).sum(axis=0)
    expected = counts.sum(axis=1, keepdims=True) / 9
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(false_alarm, 160)


def test_the_uniform_law_has_depth_four_in_89_percent_of_the_stages():
    assert SPACE.depth_weights("uniform")[4] / 7371 == pytest.approx(0.890, abs=5e-4)


@given(networks, st.integers(0, 2**32 - 1))
def test_mutation_changes_exactly_one_slot_and_stays_valid(arch, seed):
    before = arch.copy()
    mutated = SPACE.mutate(arch, np.random.default_rng(seed))
    np.testing.assert_array_equal(arch, before)
    assert (mutated != arch).sum() == 1
    assert SPACE.is_valid(mutated).all()


@given(networks)
def test_neighbours_are_all_networks_one_slot_away(arch):
    moved = SPACE.neighbours(arch[0])
    assert ((moved != arch).sum(axis=1) == 1).all()
    assert SPACE.is_valid(moved).all()
    depth = mbv3.depths(arch)[0]
    grow, shrink = (depth < 4).sum(), (depth > 2).sum()
    assert len(np.unique(moved, axis=0)) == len(moved) == 8 * depth.sum() + 9 * grow + shrink


def test_every_neighbour_is_some_mutation():
    arch = MANY[:1]
    moved = SPACE.mutate(np.repeat(arch, 20_000, axis=0), numpy_stream(0, "test/mutate"))
    assert len(np.unique(moved, axis=0)) == len(SPACE.neighbours(arch[0]))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda x: x[:, 7, :2].fill_(1), "several operations"),
        (lambda x: x[:, 4].fill_(-1), "slot 1 or 2 absent"),
        (lambda x: x[:, 17].fill_(-1), "slot 1 or 2 absent"),
        (lambda x: (x[:, 14].fill_(-1), x[:, 15, 3].fill_(1)), "slot 4 without slot 3"),
        (lambda x: x[:, 3].fill_(float("nan")), "not finite"),
        (lambda x: x[:, 3, 2].fill_(float("inf")), "not finite"),
    ],
)
def test_invalid_codes_are_named(change, error):
    x = SPACE.encode(MANY[:3])
    x[:, 14:16] = -1
    assert set(SPACE.decode(x)[1]) == {""}
    change(x)
    archs, errors = SPACE.decode(x)
    assert set(errors) == {error}
    assert (archs == -1).all()


def test_validity_agrees_with_the_decoder_on_noise():
    rng = numpy_stream(0, "test/noise")
    absent = rng.random((5000, 20)) < np.tile([0.02, 0.02, 0.3, 0.3], 5)
    archs = np.where(absent, -1, rng.integers(0, 9, (5000, 20)))
    x = torch.from_numpy(2.0 * (archs[:, :, None] == np.arange(9)) - 1)
    valid = SPACE.is_valid(archs)
    np.testing.assert_array_equal(SPACE.decode(x)[1] == "", valid)
    assert 0 < valid.sum() < len(valid)


@given(arrays(np.float32, (1, 20, 9), elements=st.floats(-5, 5, width=32)))
def test_argmax_decoding_is_always_valid_and_nearest(x):
    x = torch.from_numpy(x)
    arch = SPACE.decode_argmax(x)
    assert SPACE.is_valid(arch).all()
    distance = (SPACE.encode(arch) - x).square().sum()
    others = SPACE.encode(SPACE.neighbours(arch[0]))
    assert distance <= (others - x).square().sum(dim=(1, 2)).min() + 1e-3


def _string(stage=0, *tokens):
    parts = SMALLEST.split("_")
    parts[4 * stage : 4 * stage + len(tokens)] = tokens
    return "_".join(parts)


@pytest.mark.parametrize(
    ("string", "message"),
    [
        (_string(0, "2-9-3"), r"kernel '9' in token '2-9-3' of network .* is not one of 3, 5, 7"),
        (_string(0, "2-3-5"), r"expansion '5' in token '2-3-5' of network .* is not one of 3, 4, 6"),
        (_string(0, "5-3-3"), r"depth '5' in token '5-3-3' of network .* is not one of 2, 3, 4"),
        (_string(0, "x"), r"token 'x' of network .* is not depth-kernel-expand"),
        (_string(1, "2-3-3", "2-3-3", "2-3-3"), r"stage 2 of network .* is 2-3-3_2-3-3_2-3-3_0-0-0: its depth contradicts"),
        (_string(2, "3-3-3", "3-3-3"), r"stage 3 of network .* its depth contradicts its slots"),
        (_string(4, "3-3-3", "2-3-3", "3-3-3"), r"stage 5 of network .* its depth contradicts its slots"),
        (_string(4, "0-0-0"), r"stage 5 of network .* its depth contradicts its slots"),
        (_string(3, "0-0-0", "0-0-0"), r"stage 4 of network .* its depth contradicts its slots"),
        (_string(3, "4-3-3", "4-3-3", "0-0-0", "4-3-3"), r"stage 4 of network .* its depth contradicts its slots"),
        ("2-3-3_2-3-3", "is not a MobileNetV3 network; expected 20 tokens"),
        ("", "is not a MobileNetV3 network"),
        (None, "is not a MobileNetV3 network"),
    ],
)
def test_a_wrong_string_is_refused_with_its_reason(string, message):
    with pytest.raises(NagkitError, match=message):
        SPACE.from_string([LARGEST, string])


@given(networks, st.data())
def test_a_damaged_string_is_refused(arch, data):
    string = SPACE.to_string(arch)[0]
    where = data.draw(st.integers(0, len(string) - 1))
    with pytest.raises(NagkitError):
        SPACE.from_string([string[:where] + string[where + 1 :]])


GOOD = SPACE.to_config(MANY[:1])[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ks": [9, *GOOD["ks"][1:]]}, "kernel 9 in slot 1 of configuration 1 is not one of 3, 5, 7"),
        ({"e": [3, 5, *GOOD["e"][2:]]}, "expansion 5 in slot 2 of configuration 1 is not one of 3, 4, 6"),
        ({"d": [2, 2, 5, 2, 2]}, "depth 5 in stage 3 of configuration 1 is not one of 2, 3, 4"),
        ({"ks": [0] * 20}, "depth . of stage 1 in configuration 1 contradicts its slots: slot 1 is 0"),
        ({"d": [4] * 5, "e": [3] * 19 + [0]}, "depth 4 of stage 5 in configuration 1 contradicts its slots: slot 4 is 0"),
        ({"d": [2, 2]}, "configuration 1 needs 'd', a list of 5 integers"),
        ({"ks": None}, "configuration 1 needs 'ks', a list of 20 integers, got None"),
        ({"e": ["3"] * 20}, "configuration 1 needs 'e', a list of 20 integers"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_reason(change, message):
    with pytest.raises(NagkitError, match=message):
        SPACE.from_config([GOOD, GOOD | change])


def test_bad_arrays_and_laws_are_refused():
    with pytest.raises(NagkitError, match=r"integer array \(B, 20\)"):
        SPACE.encode(np.full((2, 20), -1))
    with pytest.raises(NagkitError, match=r"got shape \(2, 6\)"):
        SPACE.encode(np.zeros((2, 6), int))
    with pytest.raises(NagkitError, match="only valid networks have a string"):
        SPACE.to_string(np.full((1, 20), -1))
    with pytest.raises(NagkitError, match="only valid networks have a configuration"):
        SPACE.to_config(np.full((1, 20), 9))
    with pytest.raises(NagkitError, match=r"unknown law over mbv3 'unifrom' \(did you mean 'uniform'\?\)"):
        SPACE.random(1, numpy_stream(0, "test"), "unifrom")
    with pytest.raises(NagkitError, match="unknown law over nb201 'ofa'"):
        exact_prior(get_space("nb201"), "ofa")


def _width(value):
    """Channels rounded to multiples of 8, as MobileNetV3 rounds them."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def _layer_cost(inputs, outputs, kernel, expand, size_in, stride, squeeze):
    """Parameters and multiply-accumulates of one inverted-residual layer, counted from its definition."""
    middle, size = _width(inputs * expand), size_in // stride
    params = inputs * middle + kernel**2 * middle + middle * outputs + 2 * (middle + middle + outputs)
    macs = inputs * middle * size_in**2 + (kernel**2 * middle + middle * outputs) * size**2
    if squeeze:
        hidden = _width(middle // 4)
        params += 2 * middle * hidden + middle + hidden
        macs += 2 * middle * hidden
    return params, macs


def test_costs_are_those_counted_from_the_layers():
    """An independent count of stages of widths 24, 40, 80, 112, 160; it must differ from `cost` by one constant."""
    widths, strides, squeeze = [16, 24, 40, 80, 112, 160], [2, 2, 2, 1, 2], [False, True, False, True, True]
    counted = np.zeros((200, 2), np.int64)
    for row, arch in enumerate(MANY[:200].reshape(-1, 5, 4)):
        size = 112
        for stage in range(5):
            for slot, op in enumerate(arch[stage][arch[stage] >= 0]):
                inputs, stride = (widths[stage], strides[stage]) if slot == 0 else (widths[stage + 1], 1)
                kernel, expand = (3, 5, 7)[op // 3], (3, 4, 6)[op % 3]
                counted[row] += _layer_cost(inputs, widths[stage + 1], kernel, expand, size, stride, squeeze[stage])
                size //= stride
    difference = np.stack(mbv3.cost(MANY[:200]), axis=1) - counted
    assert (difference[:, 0] == difference[0, 0]).all()
    assert (np.abs(difference[:, 1] - difference[0, 1]) <= 0.003 * counted[:, 1]).all()


def test_the_cost_card_has_no_error_on_held_out_networks():
    card = json.loads((paths.DATA / "mbv3_cost.json").read_text())
    assert card["held_out_networks"] > 500
    assert card["params"]["held_out_largest_error"] == card["macs"]["held_out_largest_error"] == 0


@pytest.mark.parametrize("prior", ["exact", "exact-uniform"])
def test_a_thousand_draws_of_the_exact_prior_are_valid(prior):
    for how in ({}, {"steps": 40}):  # from the law itself, and by the sampler of the preset
        pool = nagkit.generate("mbv3", 1000, prior=prior, **how)
        assert len(pool.valid) == 1000 and SPACE.is_valid(pool.valid).all()


def test_presets_refuse_what_the_space_does_not_have():
    with pytest.raises(NagkitError, match="unknown prior 'exact-unifrom' .did you mean 'exact-uniform'"):
        nagkit.generate("mbv3", 1, prior="exact-unifrom")
    with pytest.raises(NagkitError, match="unknown data set to guide towards 'darcy'"):
        nagkit.generate("mbv3", 1, guide="darcy")


# --- closed-form denoisers


def _two_slots(depth_weights, weights):
    """All outcomes of one stage of two slots with three operations, with their probabilities."""
    law = np.array(weights) / np.array(weights).sum(axis=1, keepdims=True)
    chance = {depth: weight / sum(depth_weights.values()) for depth, weight in depth_weights.items()}
    outcomes = {(a, -1): chance.get(1, 0) * law[0, a] for a in range(3)}
    outcomes |= {(a, b): chance.get(2, 0) * law[0, a] * law[1, b] for a in range(3) for b in range(3)}
    codes = 2 * (torch.tensor(list(outcomes))[..., None] == torch.arange(3)).double() - 1
    return codes, torch.tensor(list(outcomes.values()), dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_the_stagewise_denoiser_is_bayes_over_all_outcomes(sigma):
    depth_weights, weights = {1: 2.0, 2: 5.0}, [[1.0, 2.0, 3.0], [4.0, 0.0, 1.0]]
    codes, chance = _two_slots(depth_weights, weights)
    x = codes[[0, 3, 7]] + sigma * torch.randn((3, 2, 3), generator=torch_stream(0, "test"), dtype=torch.float64)
    log_p = chance.log() - (x[:, None] - codes).square().sum(dim=(2, 3)) / (2 * sigma**2)
    expected = torch.einsum("bo,onk->bnk", log_p.softmax(dim=1), codes)
    torch.testing.assert_close(StagewiseDenoiser(depth_weights, [weights])(x, sigma), expected)


@pytest.mark.parametrize("law", SPACE.laws)
def test_exact_draws_follow_their_law(law):
    """Chi-square of depths and operations; false alarms 1e-5 each."""
    archs, errors = SPACE.decode(exact_prior(SPACE, law).sample(20_000, torch_stream(0, "test/exact")))
    assert (errors == "").all()
    _assert_law(archs, law, 1e-5)


@pytest.mark.parametrize("law", SPACE.laws)
def test_sampled_draws_follow_their_law(law):
    """Chi-square of depths and operations, false alarms 1e-5 each; sigma = 300 drowns the mean of the law."""
    denoiser, sigmas = exact_prior(SPACE, law), geometric_sigmas(60, sigma_max=300)
    generator = torch_stream(0, "test/sampled")
    archs, errors = generate(SPACE, denoiser, 2000, sampler="dpmpp_2m", sigmas=sigmas, generator=generator)
    assert (errors == "").mean() > 0.995
    _assert_law(archs[errors == ""], law, 1e-5)


@pytest.mark.parametrize("law", SPACE.laws)
def test_without_noise_the_denoiser_returns_the_code_itself(law):
    codes = SPACE.encode(MANY[:100])
    for sigma in (0.0, 1e-6, 0.05):
        torch.testing.assert_close(exact_prior(SPACE, law)(codes, sigma), codes)


def test_with_endless_noise_the_answer_is_the_law():
    p = exact_prior(SPACE).probabilities(torch.zeros(1, 20, 9), 1e6)
    expected = torch.tensor([1, 1, 2 / 3, 1 / 3]).repeat(5)[None, :, None].expand(1, 20, 9) / 9
    torch.testing.assert_close(p, expected)


def test_the_denoiser_has_the_right_gradient_and_a_finite_one_at_low_noise():
    denoiser = exact_prior(SPACE)
    x = torch.randn((1, 20, 9), generator=torch_stream(0, "test/gradient"), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: denoiser(y, 0.8), x)
    for sigma in (0.0, 1e-3, 0.1):
        y = (SPACE.encode(MANY[:4]) + sigma).requires_grad_()
        (gradient,) = torch.autograd.grad(denoiser(y, torch.full((4,), sigma)).square().sum(), y)
        assert torch.isfinite(gradient).all()


def test_noise_levels_may_differ_within_a_batch():
    denoiser, x = exact_prior(SPACE), torch.randn((3, 20, 9), generator=torch_stream(0, "test/levels"))
    levels = torch.tensor([0.2, 1.0, 4.0])
    each = torch.cat([denoiser(x[i : i + 1], float(level)) for i, level in enumerate(levels)])
    torch.testing.assert_close(denoiser(x, levels), each)


@pytest.mark.parametrize(
    ("depth_weights", "weights", "message"),
    [
        ({1: 1}, np.ones((2, 3)), r"weights must be \(n_stages, n_slots, n_ops\)"),
        ({1: 1}, -np.ones((1, 2, 3)), "not negative"),
        ({1: 1}, np.zeros((1, 2, 3)), "positive somewhere in each slot"),
        ({1: 0, 2: 0}, np.ones((1, 2, 3)), "not all 0"),
        ({1: math.nan}, np.ones((1, 2, 3)), "depth weights must be finite"),
        ({3: 1}, np.ones((1, 2, 3)), r"depths must be 1 to 2 \(slots of a stage\), got \[3\]"),
    ],
)
def test_impossible_stagewise_laws_are_refused(depth_weights, weights, message):
    with pytest.raises(NagkitError, match=message):
        StagewiseDenoiser(depth_weights, weights)
