"""What a space has through the protocol alone: defaults for a space of one's own, and the same knowledge of every space."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from nagkit.diffusion.exact import ExactDenoiser, ListedDenoiser, exact_prior
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream, torch_stream
from nagkit.spaces import base
from nagkit.spaces.base import SPACES, checked, get_space, is_listed


class Even:
    """Rows of four small numbers, the last up to 1, whose sum is even: no product of its rows."""

    name, title, laws, null_rankings = "even", "Even sums", ("uniform",), {}
    n_slots, n_nodes, n_ops, size = 4, 4, 3, 27
    adjacency = np.eye(4, k=1, dtype=bool)
    allowed = np.array([[1, 1, 1]] * 3 + [[1, 1, 0]], bool)
    encode, decode, random = base.encode, base.decode, base.random
    mutate, neighbours, prior, features, draw = base.mutate, base.neighbours, base.prior, base.features, base.draw

    def all(self):
        every = base.every(self)
        return every[every.sum(axis=1) % 2 == 0]

    def code(self, archs):
        return np.searchsorted(base.keys(self.all()), base.keys(archs))

    def is_valid(self, archs):
        return base.is_valid(self, archs) & (np.sum(archs, axis=1) % 2 == 0)

    def decode_argmax(self, x):
        codes = base.encode(Loose(), self.all()).to(x)
        return self.all()[(x.nan_to_num().flatten(1) @ codes.flatten(1).T).argmax(dim=1).cpu().numpy()]

    def to_string(self, archs):
        return ["".join(map(str, arch)) for arch in archs]

    def from_string(self, strings):
        return np.array([list(map(int, string)) for string in strings], np.int8)


class Loose(Even):
    """The same without the rule of the sum: a product of its rows."""

    name, size = "loose", 54
    all, code, is_valid, decode_argmax = base.every, base.code, base.is_valid, base.decode_argmax


SPACES_OF_ALL_KINDS = [*map(get_space, SPACES), Even(), Loose()]
each_space = pytest.mark.parametrize("space", SPACES_OF_ALL_KINDS, ids=lambda space: space.name)


def draws(space, n=50):
    return space.random(n, numpy_stream(0, "test/spaces"))


@each_space
def test_every_part_of_the_protocol_is_there(space):
    wanted = set(base.SearchSpace.__annotations__) | {name for name in vars(base.SearchSpace) if not name.startswith("_")}
    assert not [name for name in wanted if not hasattr(space, name)]


@each_space
def test_conversions_come_back(space):
    archs = draws(space)
    assert archs.dtype == np.int8 and space.is_valid(archs).all()
    np.testing.assert_array_equal(space.from_string(space.to_string(archs)), archs)
    decoded, errors = space.decode(space.encode(archs))
    np.testing.assert_array_equal(decoded, archs)
    assert (errors == "").all()
    np.testing.assert_array_equal(space.decode_argmax(space.encode(archs)), archs)


@each_space
def test_mutants_and_neighbours_are_valid_and_one_slot_away(space):
    archs = draws(space, 20)
    mutants = space.mutate(archs, numpy_stream(1, "test/spaces"))
    assert mutants.dtype == np.int8 and space.is_valid(mutants).all()
    for arch in archs:
        moved = space.neighbours(arch)
        assert ((moved != arch).sum(axis=1) == 1).all() and space.is_valid(moved).all()
        assert len(np.unique(moved, axis=0)) == len(moved)
    alone = np.array([not len(space.neighbours(arch)) for arch in archs])  # 1111 among even sums
    assert ((mutants != archs).sum(axis=1) == 1)[~alone].all() and (space.name == "even" or not alone.any())


@pytest.mark.parametrize("space", [get_space("nb201"), get_space("mbv3"), Loose()], ids=lambda space: space.name)
def test_the_neighbours_by_the_default_rule_are_all_of_them(space):
    arch = draws(space, 1)[0]
    own, default = space.neighbours(arch), base.neighbours(space, arch)
    np.testing.assert_array_equal(np.unique(own, axis=0), np.unique(default, axis=0))


@pytest.mark.parametrize("space", [s for s in SPACES_OF_ALL_KINDS if is_listed(s)], ids=lambda space: space.name)
def test_a_listed_space_numbers_its_architectures(space):
    every = space.all()
    assert len(every) == space.size == len(np.unique(every, axis=0)) and space.is_valid(every).all()
    np.testing.assert_array_equal(space.code(every), np.arange(space.size))


@each_space
def test_the_prior_of_every_law_draws_valid_architectures_and_finds_the_nearest_without_noise(space):
    for law in space.laws:
        prior = exact_prior(space, law)
        x = prior.sample(100, torch_stream(0, "test/spaces"))
        archs, errors = space.decode(x)
        assert (errors == "").all()
        np.testing.assert_array_equal(space.decode(prior(x + 0.01, 0.05))[0], archs)


def test_the_default_prior_goes_by_rows_where_it_may_and_else_by_the_list():
    assert isinstance(exact_prior(Loose()), ExactDenoiser) and isinstance(exact_prior(Even()), ListedDenoiser)
    x = torch.randn(8, 4, 3, generator=torch_stream(0, "test"), dtype=torch.float64)
    listed = ListedDenoiser(Loose().encode(Loose().all()))
    torch.testing.assert_close(listed(x, 0.8), exact_prior(Loose())(x, 0.8))

    class Huge(Even):
        all = property()

    with pytest.raises(NagkitError, match="neither a product of its rows nor listed"):
        Huge().prior("uniform")


def test_the_default_decoder_names_what_is_wrong():
    x = Even().encode(np.zeros((5, 4), np.int8))
    x[1, 2] = -1.0
    x[2, 3, :2] = 1.0
    x[3, 0, 0] = torch.nan
    x[4, 0] = torch.tensor([-1.0, 1.0, -1.0])  # an odd sum
    archs, errors = Even().decode(x)
    assert errors.tolist() == ["", "no operation", "several operations", "not finite", "no architecture"]
    assert (archs[1:] == -1).all()


@each_space
def test_features_are_finite_and_differentiable(space):
    p = ((space.encode(draws(space)) + 1) / 2).requires_grad_()
    found = space.features(p)
    assert found.dtype == torch.float64 and found.shape[0] == 50
    (slope,) = torch.autograd.grad(found.square().sum(), p)
    assert torch.isfinite(slope).all() and slope.abs().sum() > 0


@each_space
def test_an_architecture_can_be_drawn(space):
    figure, ax = plt.subplots()
    space.draw(ax, draws(space, 1)[0])
    assert ax.patches or ax.images
    plt.close(figure)


@pytest.mark.parametrize("name", SPACES)
def test_null_rankings_list_distinct_architectures_and_the_largest_comes_first(name):
    space = get_space(name)
    archs = np.concatenate([draws(space, 200)] * 2)
    for ranking in space.null_rankings.values():
        found = ranking(archs, numpy_stream(0, "test"))
        assert len(found) == len(np.unique(archs, axis=0)) == len(np.unique(found, axis=0))
    parameters = space.cost(space.null_rankings["largest"](archs, numpy_stream(0, "test")))[0]
    assert (np.diff(parameters) <= 0).all()


def test_a_space_of_ones_own_is_taken_wherever_a_name_is():
    space = Even()
    assert get_space(space) is space
    assert get_space() is get_space("nb201") is get_space("nb201")
    with pytest.raises(NagkitError, match="42 is no search space"):
        get_space(42)


def test_rows_that_are_no_architecture_are_refused_by_number():
    with pytest.raises(NagkitError, match="row 1 is not valid in even"):
        checked(Even(), np.array([[0, 0, 0, 0], [0, 0, 0, 1]]))
