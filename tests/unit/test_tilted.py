"""The tilted law and its denoiser are Bayes' rule over all cells, written out."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from nagkit.diffusion.exact import ListedDenoiser, exact_prior
from nagkit.diffusion.samplers import generate
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.diffusion.tilted import tilted_law
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream, torch_stream
from nagkit.search import encoding
from nagkit.spaces import nb201
from nagkit.spaces.base import get_space

SPACE = nb201.Space()
CODES = SPACE.encode(SPACE.all()).double()
VALUES = numpy_stream(0, "test/tilted").normal(size=SPACE.size)


def points(sigma, n=8):
    clean = SPACE.encode(SPACE.random(n, np.random.default_rng(0))).double()
    return clean + sigma * torch.randn(clean.shape, generator=torch_stream(0, "test/tilted"), dtype=torch.float64)


def posterior(x, sigma, scale):
    logits = scale * torch.from_numpy(VALUES) + torch.einsum("bno,cno->bc", x, CODES) / sigma**2
    return torch.softmax(logits, dim=1)


@pytest.mark.parametrize("scale", [0.0, 2.0, 1000.0])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_moments_equal_bayes_rule_over_all_cells_also_where_law_and_likelihood_clash(sigma, scale):
    x = points(sigma)
    p, f = posterior(x, sigma, scale), torch.from_numpy(VALUES)
    mean = torch.einsum("bc,cno->bno", p, CODES)
    covariance = torch.einsum("bc,c,cno->bno", p, f, CODES) - (p @ f)[:, None, None] * mean
    found = tilted_law(SPACE, VALUES, scale).moments(x, sigma, VALUES)
    torch.testing.assert_close(found[0], mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[1], covariance, rtol=1e-9, atol=1e-8)


def test_the_covariance_is_the_scaled_gradient_of_the_posterior_mean_of_the_values():
    x, sigma = points(0.7).requires_grad_(), 0.7
    (gradient,) = torch.autograd.grad((posterior(x, sigma, 0.0) @ torch.from_numpy(VALUES)).sum(), x)
    inner = torch.zeros(8, 7, dtype=torch.bool)
    inner[1:7, 2:] = True  # a law over cells knows nothing about the rows of input and output
    torch.testing.assert_close(
        tilted_law(SPACE, VALUES, 0.0).moments(x.detach(), sigma, VALUES)[1], torch.where(inner, sigma**2 * gradient, 0.0)
    )


def test_scale_zero_is_the_uniform_law():
    x = points(1.0).float()
    torch.testing.assert_close(tilted_law(SPACE, VALUES, 0.0)(x, 1.0), exact_prior(SPACE)(x, 1.0))


def test_one_noise_level_per_row():
    x, sigma = points(1.0), torch.tensor([0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])
    law = tilted_law(SPACE, VALUES, 3.0)
    torch.testing.assert_close(law(x, sigma), torch.cat([law(x[i : i + 1], float(sigma[i])) for i in range(8)]))


def test_sampling_with_the_tilted_denoiser_draws_the_tilted_law():
    """Two values, so the law is a coin; 4,000 draws of `dpmpp_2m`: |z| < 5 has a false-alarm rate below 10⁻⁶."""
    good = SPACE.all()[:, 0] == nb201.CONV3
    law = tilted_law(SPACE, good.astype(float), np.log(4.0))  # a fifth of the cells weigh four times as much: probability 1/2
    assert law.law[good].sum() == pytest.approx(0.5)
    sigmas = geometric_sigmas(40, sigma_max=80.0)
    archs, errors = generate(SPACE, law, 4000, sampler="dpmpp_2m", sigmas=sigmas, generator=torch_stream(0, "test/coin"))
    assert (errors == "").all()
    assert abs((archs[:, 0] == nb201.CONV3).mean() - 0.5) < 5 * 0.5 / 4000**0.5


def test_exact_draws_follow_the_law():
    """χ² over 20 groups of cells of equal probability; the critical value of 10⁻⁶."""
    law = tilted_law(SPACE, VALUES, 1.0)
    group = (20 * (np.cumsum(law.law) - law.law / 2)).astype(int)
    drawn = np.bincount(group[law.draw(20_000, numpy_stream(1, "test/draws"))], minlength=20)
    expected = 20_000 * np.bincount(group, law.law)
    assert ((drawn - expected) ** 2 / expected).sum() < chi2.isf(1e-6, 19)


def test_a_cell_that_is_ruled_out_is_never_drawn():
    values = np.where(np.arange(SPACE.size) < 3, 0.0, -np.inf)
    law = tilted_law(SPACE, values, 1.0)
    assert set(law.draw(100, numpy_stream(0, "test"))) <= {0, 1, 2}
    assert torch.isfinite(law(points(0.3), 0.3)).all()


@pytest.mark.parametrize("values", [np.zeros(5), np.full(SPACE.size, np.nan), np.full(SPACE.size, -np.inf)])
def test_values_that_make_no_law_are_refused(values):
    with pytest.raises(NagkitError, match="below infinity for each of 15,625 architectures"):
        tilted_law(SPACE, values)


def test_a_scale_that_is_negative_is_refused():
    with pytest.raises(NagkitError, match="got -1"):
        tilted_law(SPACE, VALUES, -1.0)


# Any listed space --------------------------------------------------------------------------------------------------------


def irregular(n=300):
    """Part of a space, in no order: a list that is no product of two halves."""
    rows = numpy_stream(0, "test/irregular").choice(SPACE.size, n, replace=False)
    return CODES[rows], VALUES[rows]


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("scale", [0.0, 2.0, 1000.0])
def test_the_denoiser_of_an_irregular_list_is_bayes_rule_over_it(sigma, scale):
    codes, values = irregular()
    x = points(sigma)
    p = torch.softmax(scale * torch.from_numpy(values) + torch.einsum("bno,cno->bc", x, codes) / sigma**2, dim=1)
    law = ListedDenoiser(codes).tilted(values, scale)
    torch.testing.assert_close(law(x, sigma), torch.einsum("bc,cno->bno", p, codes), rtol=1e-9, atol=1e-9)


def test_tilting_twice_is_tilting_by_the_sum():
    x = points(0.7)
    twice = tilted_law(SPACE, VALUES, 1.0).tilted(VALUES[::-1], 2.0)
    torch.testing.assert_close(twice(x, 0.7), tilted_law(SPACE, VALUES + 2 * VALUES[::-1])(x, 0.7))


def test_a_given_law_is_the_one_that_is_drawn():
    """χ² over three codes, 30,000 draws as codes and as places; critical values of 10⁻⁶ each."""
    codes, n = irregular(3)[0], 30_000
    law = ListedDenoiser(codes, np.log([0.2, 0.3, 0.5]))
    drawn = law.sample(n, torch_stream(0, "test/draws"))
    places = (drawn[:, None] == codes.float()).flatten(2).all(dim=2).double().argmax(dim=1).numpy()
    for found in (places, law.draw(n, numpy_stream(0, "test/places"))):
        expected = n * np.array([0.2, 0.3, 0.5])
        assert ((np.bincount(found, minlength=3) - expected) ** 2 / expected).sum() < chi2.isf(1e-6, 2)


@pytest.mark.parametrize("codes", [CODES, irregular()[0]], ids=["product", "irregular"])
def test_the_gradient_of_a_listed_denoiser_is_that_of_bayes_rule(codes):
    law, x = ListedDenoiser(codes), points(0.7, n=2).requires_grad_()
    (slope,) = torch.autograd.grad(law(x, 0.7)[:, 3, 4].sum(), x)
    p = torch.softmax(torch.einsum("bno,cno->bc", x, codes) / 0.7**2, dim=1)
    (expected,) = torch.autograd.grad((p @ codes[:, 3, 4]).sum(), x)
    # a constant added to a whole row of x changes no posterior, so only slopes within a row are defined
    centred = (slope - expected) - (slope - expected).mean(dim=2, keepdim=True)
    torch.testing.assert_close(centred, torch.zeros_like(centred), rtol=0, atol=1e-9)


def test_many_rows_are_computed_in_parts_of_bounded_memory(monkeypatch):
    codes, values = irregular()
    law, x = ListedDenoiser(codes).tilted(values, 3.0), points(0.5, n=50)
    whole = law(x, torch.linspace(0.1, 2, 50))
    monkeypatch.setattr("nagkit.diffusion.exact._CHUNK", 7 * len(codes))
    torch.testing.assert_close(law(x, torch.linspace(0.1, 2, 50)), whole)
    assert law(x[:0], 0.5).shape == (0, 8, 7)


def test_single_precision_is_an_option_and_the_result_has_the_type_of_the_input():
    single = ListedDenoiser(CODES, dtype=torch.float32).tilted(VALUES, 1000.0)
    for sigma in (0.05, 0.5, 5.0):
        x, double = points(sigma), tilted_law(SPACE, VALUES, 1000.0)
        torch.testing.assert_close(single(x.float(), sigma), double(x, sigma).float(), rtol=0, atol=0.05)
    assert single(points(1.0), 1.0).dtype == torch.float64


def test_a_law_without_a_list_is_refused():
    with pytest.raises(NagkitError, match="mbv3 is too large to list"):
        tilted_law(get_space("mbv3"), np.zeros(1))
    with pytest.raises(NagkitError, match="at least one, got shape"):
        ListedDenoiser(CODES[:0])
    with pytest.raises(NagkitError, match="all 15,625 architectures are ruled out"):
        first = np.where(np.arange(SPACE.size) < 3, 0.0, -np.inf)
        tilted_law(SPACE, first).tilted(np.where(np.arange(SPACE.size) < 3, -np.inf, 0.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("space", [SPACE, get_space("mbv3")], ids=lambda space: space.name)
def test_closed_forms_and_features_follow_the_device_of_their_input(space):
    laws = [exact_prior(space)] + ([tilted_law(space, VALUES, 2.0)] if space is SPACE else [])
    x = space.encode(space.random(20, numpy_stream(0, "test/cuda"))) + 0.5
    for law in laws:
        torch.testing.assert_close(law(x.cuda(), 0.7).cpu(), law(x, 0.7))
    torch.testing.assert_close(encoding.features(space, x.cuda()).cpu(), encoding.features(space, x))
    np.testing.assert_array_equal(space.decode(x.cuda())[0], space.decode(x)[0])
