"""Masked diffusion: expectations given a visible part against brute force, the laws it draws from, and what it refuses."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from nagkit.diffusion import masked
from nagkit.diffusion.tilted import tilted_law
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream, torch_stream
from nagkit.sampling import generate
from nagkit.spaces.base import get_space


class Toy:
    """Three slots whose values differ in number and do not start at 0, listed in no particular order."""

    name, n_slots = "toy", 3
    values = ((0, 1, 2), (1, 3), (0, 2))

    def all(self):
        return np.array(list(product(*self.values)), np.int8)[[7, 3, 11, 0, 5, 9, 1, 10, 2, 8, 6, 4]]


class Ragged(Toy):
    name = "ragged"

    def all(self):
        return Toy.all(self)[1:]


TOY, HIDDEN, SPACE = Toy(), 4, get_space("nb201")
SCORES = numpy_stream(0, "test/masked").normal(size=12)
CELLS = numpy_stream(1, "test/masked").normal(size=SPACE.size)


def seen(part):
    """The scores of the architectures of `TOY` that agree with `part` where it is visible."""
    visible = np.array(part) != HIDDEN
    return SCORES[(TOY.all()[:, visible] == np.array(part)[visible]).all(axis=1)]


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_h_is_the_expectation_over_all_completions(scale):
    table, taylor = (masked.partial_values(TOY, SCORES, scale, first_order=how) for how in (False, True))
    assert table.shape == taylor.shape == (5, 5, 5)
    for part in product(range(5), repeat=3):
        if len(found := seen(part)):
            assert float(table[part]) == pytest.approx(logsumexp(scale * found) - np.log(len(found)), rel=1e-12, abs=1e-12)
            assert float(taylor[part]) == pytest.approx(scale * found.mean(), rel=1e-12, abs=1e-12)
        else:
            assert table[part] == taylor[part] == -torch.inf


@pytest.mark.parametrize("order", masked.ORDERS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e4])
def test_one_slot_at_a_time_is_exact(scale, order):
    table = masked.partial_values(SPACE, CELLS, scale)
    law = masked.propagate(table, order=order)
    assert law.flatten().numpy() == pytest.approx(tilted_law(SPACE, CELLS, scale).law, abs=1e-11)
    error = masked.error(table, law)
    assert error["total variation"] < 1e-10 and error["divergence"] < 1e-10


def test_all_slots_at_once_is_the_product_of_the_marginals():
    table = masked.partial_values(TOY, SCORES, 2.0)
    law, aim = masked.propagate(table, [3]), masked.propagate(table)
    marginals = [aim.sum(tuple({0, 1, 2} - {slot})) for slot in range(3)]
    assert torch.allclose(law, torch.einsum("i,j,k->ijk", *marginals))


def test_two_at_once_in_random_order_is_the_mean_over_the_pairs():
    """Written out: a pair from its marginals, then the third given both."""
    table = masked.partial_values(TOY, SCORES, 2.0)
    aim = masked.propagate(table)
    found = torch.zeros_like(aim)
    for last in range(3):
        pair = aim.sum(last, keepdim=True)
        a, b = (slot for slot in range(3) if slot != last)
        found += pair.sum(b, keepdim=True) * pair.sum(a, keepdim=True) * (aim / pair).nan_to_num(0.0) / 3
    assert torch.allclose(masked.propagate(table, [2, 1]), found)


def test_errors_shrink_with_more_steps_and_first_order_guidance_keeps_one():
    table, taylor = (masked.partial_values(SPACE, CELLS, 1.0, first_order=how) for how in (False, True))
    far = [masked.error(table, masked.propagate(table, masked.schedule(6, steps)))["total variation"] for steps in (1, 2, 3, 6)]
    assert far == sorted(far, reverse=True) and far[0] > 0.05
    assert masked.error(table, masked.propagate(taylor))["total variation"] > 0.01


def test_draws_are_architectures_of_the_space_and_repeat_with_their_generator():
    table = masked.partial_values(TOY, SCORES, 3.0)
    for order in masked.ORDERS:
        first, again = (masked.sample(table, 200, generator=torch_stream(0, "test"), order=order) for _ in range(2))
        assert (first == again).all() and first.dtype == np.int8
        assert {tuple(row) for row in first} <= set(product(*TOY.values))


def test_a_schedule_is_as_even_as_can_be():
    assert [masked.schedule(6, steps) for steps in (None, 4, 2, 1)] == [[1] * 6, [2, 2, 1, 1], [3, 3], [6]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: masked.partial_values(TOY, SCORES, -1.0), "guidance scale must be a finite number >= 0, got -1.0"),
        (lambda: masked.partial_values(TOY, SCORES[1:]), "one score for each of 12 architectures"),
        (lambda: masked.partial_values(TOY, np.where(np.arange(12) == 3, np.nan, SCORES)), r"\[0, 1, 0\] is nan"),
        (lambda: masked.partial_values(Ragged(), SCORES[1:]), "ragged does not hold all combinations"),
        (lambda: masked.partial_values(get_space("mbv3"), SCORES), "mbv3 is too large to list"),
        (lambda: masked.schedule(6, 7), "takes 1 to 6 steps, got 7"),
        (lambda: masked.schedule(6, 0), "takes 1 to 6 steps, got 0"),
        (lambda: masked.propagate(masked.partial_values(TOY, SCORES), [3, 0]), "must reveal at least 1 slot"),
        (lambda: masked.propagate(masked.partial_values(TOY, SCORES), [2, 2]), "must reveal all 3 slots"),
        (lambda: masked.propagate(masked.partial_values(TOY, SCORES), order="best"), "unknown order of slots 'best'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(make, said):
    with pytest.raises(NagkitError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_guided_by_a_data_set_or_ones_own_predictor_the_law_is_the_tilted_one():
    def convolutions(x, sigma):
        return (x[:, 1:-1, 4:6] > 0).sum(dim=(1, 2)).double()  # of 1 and 3 pixels

    pool = generate("nb201", 4000, guide=convolutions, scale=1.0, diffusion="masked")
    count = (pool.archs == 2) | (pool.archs == 3)
    share = 2 * np.e / (2 * np.e + 3)  # of convolutions in a slot under the tilted law
    assert (pool.errors == "").all() and (pool.scores["predicted"] == count.sum(axis=1)).all()
    assert abs(count.mean() - share) < 5 * np.sqrt(share * (1 - share) / 24_000)
    guided = generate("nb201", 200, guide="imagenet16-120", diffusion="masked", scale=3)
    assert guided.scores["predicted"].mean() > 1


def test_unguided_it_is_uniform_and_steps_are_the_number_of_slots_at_most():
    pool = generate("nb201", 5000, diffusion="masked", steps=2)
    assert abs(np.bincount(pool.archs.ravel()) - 6000).max() < 5 * np.sqrt(30_000 * 0.2 * 0.8)
    with pytest.raises(NagkitError, match="takes 1 to 6 steps, got 7"):
        generate("nb201", 5, diffusion="masked", steps=7)


@pytest.mark.parametrize(
    ("space", "how", "said"),
    [
        ("mbv3", {}, "mbv3 is too large to list"),
        ("nb201", {"scale": 3.0}, "without something to guide towards"),
        ("nb201", {"sampler": "ddim"}, "has no prior, rule, sampler"),
        ("nb201", {"guide": lambda x, sigma: x.sum((1, 2)) * np.nan}, "all scores must be finite"),
    ],
)
def test_options_that_masked_diffusion_has_not_are_refused(space, how, said):
    with pytest.raises(NagkitError, match=said):
        generate(space, 5, diffusion="masked", **how)
