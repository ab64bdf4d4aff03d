"""Score-network training resumes bit for bit and refuses foreign checkpoints; the committed networks generate the space."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom, chi2, norm

import nagkit
from nagkit import paths, presets
from nagkit.data import io
from nagkit.diffusion import train
from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.samplers import generate, network_calls
from nagkit.diffusion.train import checkpoint, load_score, train_score, training_archs
from nagkit.errors import NagkitError
from nagkit.predictors.fit import recipes
from nagkit.rng import torch_stream
from nagkit.spaces import mbv3, nb201
from nagkit.spaces.base import get_space, keys

SPACE = nb201.Space()
TINY = {"width": 8, "n_blocks": 1, "n_heads": 2, "hidden": 8}
STEPS = 23


@pytest.fixture(autouse=True)
def tiny_recipes(tmp_path, monkeypatch):
    """Networks of a few hundred weights, a state saved every 5 steps, and a cache of the test's own."""
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(train, "_DRAWS", {"report": 8, "card": 8})
    monkeypatch.setattr(train, "N_UNLISTED", 100)
    monkeypatch.setattr(train, "recipes", lambda *of: {name: tiny_recipe(recipe) for name, recipe in recipes(*of).items()})


def tiny_recipe(recipe):
    settings = TINY if recipe.network != "GDSSScoreNetwork" else {"width": 8, "n_blocks": 1}
    if recipe.settings.get("positions"):
        settings = settings | {"positions": recipe.settings["positions"]}
    return replace(recipe, batch=16, save_every=5, report_every=10, warmup=4, settings=settings)


def tiny(out, **options):
    return train_score(SPACE, out=out, progress=False, **{"steps": STEPS, **options})


def interrupt_at(monkeypatch, network, step):
    """Make the loss of `network` fail as Ctrl-C does when it is asked for the `step`-th time."""
    name = recipes("score")[network].loss
    loss, calls = train._LOSSES[name], iter(range(step))

    def failing(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setitem(train._LOSSES, name, failing)
    return lambda: monkeypatch.setitem(train._LOSSES, name, loss)


@pytest.mark.parametrize("network", ["ours", "positions", "gdss"])
@pytest.mark.parametrize("step", [3, 13, 22])
def test_an_interrupted_run_ends_in_the_bytes_of_an_uninterrupted_one(tmp_path, monkeypatch, network, step):
    whole = tiny(tmp_path / "whole.safetensors", network=network)
    repair = interrupt_at(monkeypatch, network, step)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "torn.safetensors", network=network)
    assert not (tmp_path / "torn.safetensors").exists()
    repair()
    torn = tiny(tmp_path / "torn.safetensors", network=network)
    assert (tmp_path / "torn.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert torn.drop(columns="minutes").equals(whole.drop(columns="minutes"))


def test_resuming_repeats_at_most_one_interval(tmp_path, monkeypatch):
    repair = interrupt_at(monkeypatch, "ours", 13)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "a.safetensors")
    repair()
    interrupt_at(monkeypatch, "ours", STEPS - 10)  # ten steps were saved, so this many are left
    tiny(tmp_path / "a.safetensors")
    assert not list((tmp_path / "cache" / "training").iterdir())


def test_a_run_with_other_settings_does_not_resume_from_this_one(tmp_path, monkeypatch):
    repair = interrupt_at(monkeypatch, "ours", 13)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path / "a.safetensors", seed=1)
    repair()
    tiny(tmp_path / "a.safetensors", seed=2)
    tiny(tmp_path / "b.safetensors", seed=2)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_measuring_validity_does_not_disturb_training(tmp_path, monkeypatch):
    tiny(tmp_path / "often.safetensors")
    monkeypatch.setattr(train, "generate", lambda *_, **__: (None, np.array([""])))
    monkeypatch.setattr(train, "_card", lambda *_: {})
    tiny(tmp_path / "never.safetensors")
    first, second = (load_weights(tmp_path / f"{name}.safetensors") for name in ("often", "never"))
    assert all(np.array_equal(first[key], second[key]) for key in first)


def load_weights(path):
    return io.read_arrays(path)[0]


def test_training_leaves_the_global_random_stream_alone(tmp_path):
    before = torch.get_rng_state()
    tiny(tmp_path / "a.safetensors", network="positions")
    assert torch.equal(torch.get_rng_state(), before)


def test_training_lowers_the_loss_and_tells_so_in_curve_and_card(tmp_path):
    curve = tiny(tmp_path / "a.safetensors", steps=120)
    card = json.loads((tmp_path / "a.json").read_text())
    assert curve["loss"].iloc[-1] < 0.95 * curve["loss"].iloc[0]
    assert list(curve["step"]) == list(range(10, 121, 10))
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "step,minutes,loss,valid"
    assert card["rebuild"] == "nagkit train score --space nb201 --recipe ours --share 1 --training-seed 0 --steps 120"
    assert card["sampler"]["network_calls"] <= 50
    assert len(card["draws"]) == 3


def test_half_of_the_cells_is_a_seeded_draw():
    half = training_archs(SPACE, 0.5, 0)
    assert len(np.unique(half, axis=0)) == 7812  # as in the paper's Table 4
    assert np.array_equal(half, training_archs(SPACE, 0.5, 0))
    assert not np.array_equal(half, training_archs(SPACE, 0.5, 1))
    assert np.array_equal(training_archs(SPACE), SPACE.all())


def test_of_a_space_too_large_to_list_a_seeded_draw_from_the_data_law():
    space = get_space("mbv3")
    archs = training_archs(space)
    assert archs.shape == (train.N_UNLISTED, 20)
    assert space.is_valid(archs).all()
    assert np.array_equal(archs, training_archs(space))
    with pytest.raises(NagkitError, match="mbv3 is too large to train on a share of it; leave out --share 0.5"):
        training_archs(space, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "our"}, r"unknown score network 'our' \(did you mean 'ours'\?\)"),
        ({"share": 0.0}, r"share of the cells to train on must be in \(0, 1\], got 0.0"),
        ({"share": 1.5}, r"must be in \(0, 1\], got 1.5"),
        ({"share": math.nan}, r"must be in \(0, 1\], got nan"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": 10, "out": None}, r"10 steps are not the recipe's 2000: name a file with out="),
    ],
)
def test_bad_settings_are_named(tmp_path, options, message):
    with pytest.raises(NagkitError, match=message):
        tiny(**{"out": tmp_path / "a.safetensors", **options})


def rewritten(path, weights=None, **metadata):
    arrays, found = io.read_arrays(path)
    io.write_arrays(path, arrays if weights is None else weights, found | metadata)
    path.with_suffix(".json").unlink()


def foreign(path):
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no checkpoint .*a.safetensors; `nagkit train score` makes one"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "cannot read .*a.safetensors"),
        (lambda path: path.write_bytes(b""), "cannot read .*a.safetensors"),
        (foreign, "is not the checkpoint of a score network; `nagkit train score` makes one"),
        (lambda path: rewritten(path, model="CellPropagation"), "is not the checkpoint of a score network"),
        (lambda path: rewritten(path, space="mbv3"), "was trained on space mbv3, wanted nb201"),
        (lambda path: rewritten(path, n_nodes=20), "was trained on n_nodes 20, wanted 8"),
        (lambda path: rewritten(path, n_ops=9), "was trained on n_ops 9, wanted 7"),
        (lambda path: rewritten(path, adjacency=[[0, 1]]), r"was trained on adjacency \[\[0, 1\]\], wanted"),
        (lambda path: rewritten(path, share=0.5), "trained on 50% of the cells, wanted 100%; name another, or say share=0.5"),
        (lambda path: rewritten(path, weights={"x": np.zeros(1)}), "does not hold the weights its metadata promises"),
        (lambda path: path.with_suffix(".json").write_text('{"sha256": "0"}'), r"is not the file its card a.json describes"),
    ],
)
def test_a_wrong_checkpoint_is_refused_with_its_reason(tmp_path, damage, message):
    path = tmp_path / "a.safetensors"
    tiny(path, steps=1)
    damage(path)
    with pytest.raises(NagkitError, match=message):
        load_score(SPACE, path)


def test_a_checkpoint_of_the_other_adjacency_is_refused(tmp_path):
    tiny(tmp_path / "a.safetensors", steps=1)
    with pytest.raises(NagkitError, match="was trained on adjacency"):
        load_score(nb201.Space(adjacency="official"), tmp_path / "a.safetensors")


@pytest.mark.parametrize("network", list(recipes("score")))
@pytest.mark.parametrize("name", ["nb201", "mbv3"])
def test_a_saved_network_comes_back_as_a_denoiser(tmp_path, name, network):
    space = get_space(name)
    train_score(space, out=tmp_path / "a.safetensors", network=network, steps=6, progress=False)
    x = torch.randn(5, space.n_nodes, space.n_ops, generator=torch.Generator().manual_seed(0))
    denoised = load_score(space, tmp_path / "a.safetensors", network=network)(x, torch.full((5,), 0.4))
    assert denoised.shape == x.shape
    assert not denoised.requires_grad
    assert denoised.abs().max() <= 1


@pytest.mark.parametrize(
    ("made", "wanted", "message"),
    [
        ("no-positions", "positions", "is a PaperScoreNetwork without position codes, wanted a PaperScoreNetwork .recipe 'pos"),
        ("positions", "no-positions", "is a PaperScoreNetwork, wanted a PaperScoreNetwork without position codes"),
        ("gdss", "ours", "is a GDSSScoreNetwork, wanted a ScoreNetwork"),
    ],
)
def test_the_checkpoint_of_another_kind_of_network_is_refused(tmp_path, made, wanted, message):
    """Also when nobody says which kind is wanted and only the name of the file does."""
    name = "score_nb201" + (f"_{wanted}" if wanted != "ours" else "")
    tiny(tmp_path / f"{name}.safetensors", network=made, steps=1)
    for network in (None, wanted):
        with pytest.raises(NagkitError, match=message):
            load_score(SPACE, tmp_path / f"{name}.safetensors", network=network)
    with pytest.raises(NagkitError, match="unknown score network 'full'"):
        load_score(SPACE, tmp_path / f"{name}.safetensors", network="full")


def draws(name):
    denoiser = load_score(SPACE, name)
    found = [generate(SPACE, denoiser, 1000, steps=20, generator=torch_stream(seed, "sample")) for seed in range(3)]
    return np.stack([archs for archs, _ in found]), np.stack([errors for _, errors in found])


@pytest.fixture(scope="module", params=["score_nb201", "score_nb201_half"])
def committed(request):
    """Name, cells `(3, 1000, 6)` and errors of 1,000 raw draws in three sampling seeds, 20 network calls each."""
    return request.param, *draws(request.param)


def test_every_raw_draw_of_a_committed_network_is_valid(committed):
    assert (committed[2] == "").all()


def test_draws_are_as_distinct_as_uniform_ones(committed):
    """False alarm: 1e-4 for each network, normal approximation of the number of cells hit."""
    missed, twice = (1 - 1 / 15625) ** 1000, (1 - 2 / 15625) ** 1000
    mean = 15625 * (1 - missed)
    variance = 15625 * missed * (1 - missed) + 15625 * 15624 * (twice - missed**2)
    distinct = np.array([len(np.unique(SPACE.code(archs))) for archs in committed[1]])
    assert abs(distinct.sum() - 3 * mean) < norm.isf(5e-5) * math.sqrt(3 * variance)


def test_every_operation_is_drawn_equally_often_on_every_edge(committed):
    """Chi-square on 24 degrees of freedom, false alarm 1e-4 for each network."""
    counts = np.stack([(committed[1] == op).sum(axis=(0, 1)) for op in range(5)])
    assert ((counts - 600) ** 2 / 600).sum() < chi2.isf(1e-4, 24)


def test_pairs_of_edges_are_drawn_independently():
    """Chi-square of all 15 pair tables on 15 * 24 degrees of freedom, false alarm about 1e-4.

    Of the network of all cells only: in a random half of them pairs are not quite equally frequent.
    """
    cells, total = draws("score_nb201")[0].reshape(-1, 6).astype(int), 0.0
    for first in range(6):
        for second in range(first):
            table = np.bincount(5 * cells[:, first] + cells[:, second], minlength=25)
            total += ((table - 120) ** 2 / 120).sum()
    assert total < chi2.isf(1e-4, 15 * 24)


def test_half_of_the_draws_of_the_half_trained_network_are_new():
    """False alarm 1e-4: a sampler uniform over the space is new with probability 7,813 / 15,625."""
    cells = np.unique(keys(draws("score_nb201_half")[0].reshape(-1, 6)))
    novel = (~np.isin(cells, keys(training_archs(SPACE, 0.5)))).sum()
    low, high = binom.interval(1 - 1e-4, len(cells), 7813 / 15625)
    assert low <= novel <= high


def test_committed_networks_are_close_to_the_exact_posterior_mean(committed):
    exact, denoiser = exact_prior(SPACE), load_score(SPACE, committed[0])
    generator = torch.Generator().manual_seed(0)
    for sigma in (0.1, 0.3, 1.0, 3.0, 5.0):
        x = exact.sample(1000, generator)
        x = x + sigma * torch.randn(x.shape, generator=generator)
        assert (denoiser(x, sigma) - exact(x, sigma)).square().mean().sqrt() < 0.03


def test_committed_networks_are_small_and_match_their_cards(committed):
    path = paths.DATA / "checkpoints" / f"{committed[0]}.safetensors"
    card = json.loads(path.with_suffix(".json").read_text())
    assert path.stat().st_size < 5e6
    assert card["training_minutes"] <= 15
    assert [draw["valid"] for draw in card["draws"]] == [1000] * 3
    assert path.with_suffix(".csv").is_file()


@pytest.mark.parametrize("seed", range(3))
def test_the_committed_mbv3_network_draws_valid_networks(seed):
    """At least 999 of 1,000 raw draws in at most 50 network calls, as the sampler of its space spends."""
    settings = presets.load()["mbv3"]["sampling"]
    assert network_calls(settings["sampler"], settings["steps"]) <= 50
    drawn = nagkit.generate("mbv3", 1000, seed=seed, prior="score").valid
    assert len(drawn) >= 999 and len(np.unique(drawn, axis=0)) == len(drawn)


def test_the_committed_mbv3_network_draws_depths_about_as_often_as_the_data():
    """Each depth is a third of the stages of the data; within 4 points (the standard error of 5,000 stages is 0.7)."""
    depth = mbv3.depths(nagkit.generate("mbv3", 1000, seed=5, prior="score").valid)
    for d in mbv3.DEPTHS:
        assert abs((depth == d).mean() - 1 / 3) < 0.04


@pytest.mark.parametrize("network", ["ours", "positions", "no-positions", "gdss"])
@pytest.mark.parametrize(("name", "share"), [("nb201", 0.5), ("mbv3", 1.0)])
def test_every_network_of_table_4_is_committed_small_and_matches_its_card(name, share, network):
    path = checkpoint(name, network, share)
    assert path.stat().st_size < 5e6
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["training_minutes"] <= 60
    assert list(pd.read_csv(path.with_suffix(".csv")).columns) == ["step", "minutes", "loss", "valid"]
    load_score(get_space(name), path, share=share, network=network)
