"""The NAS-Bench-201 space: conversions, graph, validity, isomorphism and cost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nagkit.errors import NagkitError
from nagkit.spaces import nb201
from nagkit.spaces.base import get_space

SPACE = nb201.Space()
ALL = SPACE.all()
BEST_CIFAR10 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
cells = st.lists(st.integers(0, 4), min_size=6, max_size=6).map(lambda ops: np.array([ops], np.int8))


def test_every_cell_survives_string_code_and_one_hot():
    assert len(ALL) == SPACE.size == 15_625
    np.testing.assert_array_equal(SPACE.from_string(SPACE.to_string(ALL)), ALL)
    np.testing.assert_array_equal(ALL[SPACE.code(ALL)], ALL)
    archs, errors = SPACE.decode(SPACE.encode(ALL))
    np.testing.assert_array_equal(archs, ALL)
    assert (errors == "").all()
    np.testing.assert_array_equal(SPACE.decode_argmax(SPACE.encode(ALL)), ALL)


def test_codes_carry_only_allowed_operations():
    used = (SPACE.encode(ALL) > 0).any(dim=0).numpy()
    np.testing.assert_array_equal(used, SPACE.allowed)


def test_true_adjacency_is_the_line_graph_of_the_cell():
    edges = {(0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7)}
    assert set(zip(*map(np.ndarray.tolist, SPACE.adjacency.nonzero()), strict=True)) == edges


def test_official_adjacency_exchanges_nodes_three_and_four():
    official = get_space("nb201", adjacency="official").adjacency
    edges = {(0, 1), (0, 2), (0, 3), (1, 4), (1, 5), (2, 6), (3, 7), (4, 6), (5, 7), (6, 7)}
    assert set(zip(*map(np.ndarray.tolist, official.nonzero()), strict=True)) == edges


def test_there_are_6466_isomorphism_classes():
    classes = nb201.isomorphism_classes()
    assert classes.shape == (15_625,)
    assert len(np.unique(classes)) == 6_466


def test_isomorphic_cells_share_a_class_and_others_do_not():
    classes = nb201.isomorphism_classes()

    def class_of(*ops):
        return classes[SPACE.code(np.array([ops]))[0]]

    assert class_of(3, 0, 1, 0, 0, 2) == class_of(1, 0, 3, 0, 0, 2)  # a skip before or after the convolution
    assert class_of(3, 2, 1, 0, 0, 2) == class_of(2, 3, 1, 0, 0, 2)  # the terms of a sum commute
    assert class_of(3, 0, 1, 0, 0, 2) != class_of(2, 0, 1, 0, 0, 3)


def test_params_and_macs_are_those_the_benchmark_reports():
    params, macs = nb201.cost(np.concatenate([SPACE.from_string([BEST_CIFAR10]), [[3] * 6, [0] * 6]]))
    np.testing.assert_array_equal(params, [1_073_466, 1_531_546, 73_306])
    np.testing.assert_array_equal(macs, [153_272_960, 220_119_680, 7_783_040])


def test_live_edges_lie_on_an_uncut_path_from_input_to_output():
    live = nb201.live_edges(np.array([[3, 0, 0, 0, 3, 0], [3, 0, 3, 0, 0, 0], [0, 0, 3, 1, 3, 3]]))
    np.testing.assert_array_equal(live, [[1, 0, 0, 0, 1, 0], [0] * 6, [0, 0, 0, 1, 0, 0]])


def test_hand_rule_counts_live_edges_only():
    scores = nb201.hand_rule(np.array([[3, 0, 0, 0, 2, 0], [3, 3, 3, 4, 0, 0], [3, 3, 3, 3, 3, 3]]))
    np.testing.assert_allclose(scores, [1.7, -0.3, 6.0])


@given(cells, st.integers(0, 2**32 - 1))
def test_mutation_changes_exactly_one_edge(cell, seed):
    mutated = SPACE.mutate(cell, np.random.default_rng(seed))
    assert (mutated != cell).sum() == 1
    assert SPACE.is_valid(mutated).all()


@given(cells)
def test_neighbours_are_the_24_cells_one_edge_away(cell):
    moved = SPACE.neighbours(cell[0])
    assert ((moved != cell).sum(axis=1) == 1).all()
    assert len(np.unique(moved, axis=0)) == 24


def test_random_cells_are_uniform_over_operations():
    """Chi-square over 6 × 5 counts; false-alarm rate 1e-4 over the choice of seed."""
    archs = SPACE.random(20_000, np.random.default_rng(0))
    counts = np.stack([np.bincount(archs[:, slot], minlength=5) for slot in range(6)])
    assert ((counts - 4_000) ** 2 / 4_000).sum() < 60.1  # 1 - 1e-4 quantile of chi-square with 24 degrees of freedom


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda x: x[:, 3].fill_(-1), "no operation"),
        (lambda x: x[:, 3].fill_(1), "several operations"),
        (lambda x: x[:, 3].fill_(float("nan")), "not finite"),
        (lambda x: x[:, 3].copy_(x[:, 0].clone()), "misplaced input or output"),
        (lambda x: x.copy_(x.flip(1)), "misplaced input or output"),
    ],
)
def test_invalid_codes_are_named(change, error):
    x = SPACE.encode(ALL[:3])
    change(x)
    archs, errors = SPACE.decode(x)
    assert set(errors) == {error}
    assert (archs == -1).all()


@settings(max_examples=300)
@given(st.text(alphabet="|+~0123_abcdefnorskipcvxlgt", max_size=120))
def test_malformed_strings_are_refused_by_name(text):
    with pytest.raises(NagkitError, match="cell"):
        SPACE.from_string([text])


@settings(max_examples=200)
@given(st.integers(0, 15_624), st.data())
def test_damaged_strings_are_refused_or_are_other_cells(code, data):
    string = SPACE.to_string(ALL[[code]])[0]
    where = data.draw(st.integers(0, len(string) - 1))
    damaged = string[:where] + string[where + 1 :]
    with pytest.raises(NagkitError):
        SPACE.from_string([damaged])


@pytest.mark.parametrize("value", [None, 3, b"|", ""])
def test_values_that_are_no_strings_are_refused(value):
    with pytest.raises(NagkitError, match="is not a NAS-Bench-201 cell"):
        SPACE.from_string([value])


def test_bad_arrays_and_names_are_refused():
    with pytest.raises(NagkitError, match="entries 0..4"):
        SPACE.encode(np.full((2, 6), 5))
    with pytest.raises(NagkitError, match="invalid rows"):
        SPACE.to_string(np.full((2, 6), -1))
    with pytest.raises(NagkitError, match="unknown search space 'nb102'.*did you mean 'nb201'"):
        get_space("nb102")
    with pytest.raises(NagkitError, match="unknown adjacency"):
        get_space("nb201", adjacency="wrong")


def test_decoding_does_not_change_its_input():
    x = torch.randn(5, 8, 7, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    SPACE.decode(x)
    assert torch.equal(x, before)
