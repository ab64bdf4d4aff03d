"""Score networks: what an untrained one is, and who attends to whom."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nagkit.diffusion import train
from nagkit.diffusion.exact import ExactDenoiser
from nagkit.diffusion.gdss import GDSSScoreNetwork
from nagkit.diffusion.score import PaperScoreNetwork, ScoreNetwork, as_denoiser, attention_mask
from nagkit.errors import NagkitError
from nagkit.spaces import nb201
from nagkit.spaces.base import get_space

SPACE = nb201.Space()
CHAIN = np.eye(20, k=1, dtype=bool)


def noisy(n, sigma, seed=0, n_nodes=8, n_ops=7):
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.eye(n_ops)[torch.randint(n_ops, (n, n_nodes), generator=generator)] - 1
    return x + sigma * torch.randn(x.shape, generator=generator)


def shaken(n_nodes=8, n_ops=7, adjacency=SPACE.adjacency, **options):
    """A network with random weights in every layer, the last one too."""
    network = ScoreNetwork(n_nodes, n_ops, adjacency, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))
    return network.requires_grad_(False)


@pytest.mark.parametrize("sigma", [0.05, 0.1, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("shape", [(8, 7, SPACE.adjacency), (20, 9, CHAIN)], ids=["nb201", "chain of 20"])
def test_an_untrained_network_is_the_exact_row_wise_posterior(shape, sigma):
    n_nodes, n_ops, _ = shape
    x = noisy(64, sigma, n_nodes=n_nodes, n_ops=n_ops)
    expected = ExactDenoiser(np.ones((n_nodes, n_ops)))(x, sigma)
    torch.testing.assert_close(ScoreNetwork(*shape)(x, sigma), expected, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 50), st.floats(0, 100), st.integers(0, 1000))
def test_the_output_is_a_posterior_mean_whatever_the_weights_and_the_input(sigma, spread, seed):
    p = (shaken()(noisy(4, spread, seed), sigma) + 1) / 2
    assert p.min() >= 0
    assert p.max() <= 1 + 1e-6
    torch.testing.assert_close(p.sum(dim=2), torch.ones(4, 8))


def test_noise_levels_may_be_a_number_a_scalar_tensor_or_one_per_sample():
    network, x = shaken(), noisy(3, 1.0)
    levels = torch.tensor([0.2, 1.0, 4.0])
    each = torch.cat([network(x[i : i + 1], float(level)) for i, level in enumerate(levels)])
    torch.testing.assert_close(network(x, levels), each)
    torch.testing.assert_close(network(x, torch.tensor(1.0)), network(x, 1.0))


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_with_absent_nodes_an_untrained_network_is_the_posterior_of_absence_and_all_operations_alike(sigma):
    space = get_space("mbv3")
    x = space.encode(space.random(64, np.random.default_rng(0)))
    x = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([2 * x / sigma**2, torch.zeros(64, 20, 1)], dim=2)
    expected = 2 * logits.softmax(dim=2)[..., :9] - 1
    torch.testing.assert_close(ScoreNetwork(20, 9, space.adjacency, absent=True)(x, sigma), expected, rtol=0, atol=1e-5)


def test_preconditioning_leaves_noise_alone_and_the_shape_too():
    """At an endless noise level the denoiser D = x + sigma^2 score of an untrained network forgets x."""
    network = PaperScoreNetwork(20, 9, CHAIN, n_blocks=1, preconditioned=True).eval()
    x = noisy(4, 1.0, n_nodes=20, n_ops=9)
    assert network(x, torch.full((4,), 0.3)).shape == x.shape
    with torch.inference_mode():
        clean = x + 1e-3**2 * network(x, 1e-3)
    torch.testing.assert_close(clean, x, atol=1e-2, rtol=0)


def test_the_baseline_does_not_know_the_noise_level_nor_where_a_node_stands():
    """Reversing an undirected chain is a symmetry of it, so it must be one of the network."""
    network = GDSSScoreNetwork(20, 9, CHAIN).eval()
    x = noisy(4, 1.0, n_nodes=20, n_ops=9)
    torch.testing.assert_close(network(x, 0.2), network(x, 3.0))
    torch.testing.assert_close(network(x.flip(1), 1.0), network(x, 1.0).flip(1), rtol=1e-4, atol=1e-5)


def test_the_compared_networks_have_as_many_weights_within_five_percent():
    space = get_space("mbv3")
    sizes = [
        sum(p.numel() for p in train._build(space, recipe.network, recipe.settings).parameters())
        for recipe in (train.get_recipe(space, name) for name in ("positions", "no-positions", "gdss"))
    ]
    assert sizes[0] == sizes[1]
    assert max(sizes) < 1.05 * min(sizes)


def test_without_noise_the_network_returns_the_code_itself():
    codes = SPACE.encode(SPACE.random(50, np.random.default_rng(0)))
    torch.testing.assert_close(shaken()(codes, 0.0), codes)


def test_the_gradient_in_x_is_the_derivative():
    network = shaken().double()
    x = noisy(2, 1.0).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: network(x, 0.7), x)


def influence(network):
    """Which node's logits (row) depend on which node's input (column)."""
    x = noisy(16, 1.0)
    jacobian = torch.func.jacrev(lambda x: network.logits(x, 1.0).sum(dim=(0, 2)))(x)  # (node, B, node, op)
    return jacobian.abs().sum(dim=(1, 3)) > 1e-6


def test_a_node_sees_itself_its_ancestors_and_its_descendants():
    closure = attention_mask(SPACE.adjacency, "closure")
    torch.testing.assert_close(influence(shaken(n_blocks=1)), closure | closure.T | torch.eye(8, dtype=torch.bool))


def test_two_blocks_let_every_node_see_every_other():
    assert influence(shaken(n_blocks=2)).all()


def test_the_adjacency_mask_holds_direct_neighbours_only():
    direct = torch.from_numpy(SPACE.adjacency)
    torch.testing.assert_close(
        influence(shaken(n_blocks=1, mask="adjacency")), direct | direct.T | torch.eye(8, dtype=torch.bool)
    )


def test_the_closure_of_the_cell_reaches_the_output_from_everywhere():
    closure = attention_mask(SPACE.adjacency, "closure")
    assert closure[:7, 7].all()
    assert closure[0, 1:].all()
    assert not closure.diagonal().any()


def test_in_the_paper_network_a_node_without_successors_attends_to_all_alike():
    network = PaperScoreNetwork(8, 7, SPACE.adjacency, n_blocks=1).eval()
    x = noisy(4, 1.0)
    order = [0, 4, 2, 6, 1, 3, 5, 7]  # any order of the other nodes, with their position codes
    permuted = PaperScoreNetwork(8, 7, SPACE.adjacency, n_blocks=1).eval()
    permuted.load_state_dict(network.state_dict())
    permuted.codes = network.codes[order]
    torch.testing.assert_close(network(x, 1.0)[:, 7], permuted(x[:, order], 1.0)[:, 7])


def test_stage_positions_repeat_every_four_nodes():
    codes = PaperScoreNetwork(20, 9, CHAIN, positions="stage", n_blocks=1).codes
    torch.testing.assert_close(codes, codes[:4].repeat(5, 1))
    assert not PaperScoreNetwork(20, 9, CHAIN, positions="none", n_blocks=1).codes.any()


def test_our_network_has_less_than_a_hundredth_of_the_paper_networks_weights():
    assert sum(p.numel() for p in ScoreNetwork(8, 7, SPACE.adjacency).parameters()) < 39_000


def test_a_paper_denoiser_stays_between_minus_one_and_one_and_drops_nothing_out():
    denoiser = as_denoiser(PaperScoreNetwork(8, 7, SPACE.adjacency))
    x = noisy(4, 3.0)
    with torch.inference_mode():
        first = denoiser(x, 3.0)
        torch.testing.assert_close(first, denoiser(x, torch.full((4,), 3.0)))
    assert first.abs().max() <= 1


@pytest.mark.parametrize("network", [ScoreNetwork, PaperScoreNetwork])
@pytest.mark.parametrize(
    ("adjacency", "options", "message"),
    [
        (SPACE.adjacency, {"mask": "closer"}, r"unknown attention mask 'closer' \(did you mean 'closure'\?\)"),
        (SPACE.adjacency, {"positions": "nodes"}, "unknown position code 'nodes'"),
        (CHAIN, {}, r"adjacency must have shape \(8, 8\), got \(20, 20\)"),
    ],
)
def test_bad_options_are_named(network, adjacency, options, message):
    with pytest.raises(NagkitError, match=message):
        network(8, 7, adjacency, **options)
