"""Training and pools of the published method: resumable, and with clear errors (its numbers: tests/parity)."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nagkit import paths
from nagkit.data import io, upstream
from nagkit.errors import NagkitError
from nagkit.published import checkpoints, data, pools, train
from nagkit.published.networks import CellGuide
from nagkit.spaces.base import get_space

SHORT = {"steps": 12, "batch": 16, "warmup": 2}


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path):
    """460 made-up triplets, an empty cache, and checkpoints in a folder of their own; one thread."""
    rng, space = np.random.default_rng(0), get_space("nb201")
    archs = space.random(460, rng)
    task = rng.integers(0, 30, 460)
    classes = np.stack([rng.permutation(600)[:20] + 1 for _ in range(30)])
    made = SimpleNamespace(archs=archs, task=task, classes=classes, order=rng.permutation(460))
    made.accuracy = 60 + 2.0 * (archs == 3).sum(axis=1) + rng.normal(size=460)
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.setattr(upstream, "triplets", lambda: made)
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield made
    torch.set_num_threads(threads)


def interrupted(monkeypatch, at):
    """Stops the next run when it asks for the learning rate of step `at`, as a kill would; then lets runs through."""
    rate = train.losses.rate

    def stop(step, *arguments):
        if step == at:
            monkeypatch.setattr(train.losses, "rate", rate)
            raise KeyboardInterrupt
        return rate(step, *arguments)

    monkeypatch.setattr(train.losses, "rate", stop)


@pytest.mark.parametrize("kind", ["guide", "score"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(kind, monkeypatch, tmp_path):
    make = getattr(train, kind)
    options = {"progress": False, **SHORT}
    whole = io.read_arrays(make(0, path=tmp_path / "whole.safetensors", **options))[0]
    for state in (tmp_path / "training").iterdir():
        state.unlink()
    monkeypatch.setattr(train, "_SAVE_EVERY", 5)
    interrupted(monkeypatch, at=8)
    with pytest.raises(KeyboardInterrupt):
        make(0, path=tmp_path / "resumed.safetensors", **options)
    assert not (tmp_path / "resumed.safetensors").exists()
    resumed = io.read_arrays(make(0, path=tmp_path / "resumed.safetensors", **options))[0]
    assert whole.keys() == resumed.keys() and all(np.array_equal(whole[key], resumed[key]) for key in whole)


def test_a_longer_run_passes_through_the_shorter_ones_and_can_keep_them():
    train.guide(1, also=(12,), progress=False, **SHORT | {"steps": 14})
    kept = checkpoints.load("guide", 1, **SHORT).state_dict()
    (paths.cache() / "training").rename(paths.cache() / "elsewhere")
    checkpoints.checkpoint("guide", 1, **SHORT).unlink()
    train.guide(1, progress=False, **SHORT)
    assert all(torch.equal(kept[key], value) for key, value in checkpoints.load("guide", 1, **SHORT).state_dict().items())


def test_a_class_of_a_batch_encoded_once_changes_neither_codes_nor_gradients():
    torch.manual_seed(0)
    library, classes = torch.randn(30, 3, 24), torch.stack([torch.randperm(30)[:5] for _ in range(8)])
    once = CellGuide(n_features=24, width=8, hidden=8, code=8, head=8).double()
    each = deepcopy(once)
    library = library.double()
    codes = train.task_codes(once, library, classes, 3)
    expected = each.set_code(data.draw_images(library, classes, 3, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(codes, expected, atol=1e-12)
    for found in (codes, expected):
        found.square().sum().backward()
    for (name, a), (_, b) in zip(once.named_parameters(), each.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None) and (a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-10)), name


def test_an_epoch_visits_every_row_once_and_its_last_batch_is_what_is_left():
    batches = [train.shuffled(4230, 256, step, seed=3) for step in range(34)]
    assert [len(batch) for batch in batches] == 2 * (16 * [256] + [134])
    for epoch in (batches[:17], batches[17:]):
        assert torch.cat(epoch).sort().values.tolist() == list(range(4230))
    assert not torch.equal(batches[0], batches[17]) and torch.equal(batches[0], train.shuffled(4230, 256, 0, seed=3))


def test_images_are_drawn_without_replacement_and_all_of_them_where_there_are_fewer():
    library = torch.arange(40.0).view(4, 10, 1)
    drawn = data.draw_images(library, torch.tensor([[3, 0]]), 4, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (1, 2, 4, 1) and len(drawn.unique()) == 8
    assert (drawn[0, 0] >= 30).all() and (drawn[0, 1] < 10).all()
    assert data.draw_images(library, torch.tensor([1]), 20).sort(dim=1).values.flatten().tolist() == list(range(10, 20))


def test_the_ranking_predictor_goes_on_where_it_stopped_and_ranks_every_cell():
    whole = io.read_arrays(train.ranker(0, progress=False, epochs=2, batch=20, hidden=16))[0]
    (paths.cache() / "training").rename(paths.cache() / "elsewhere")
    train.ranker(0, progress=False, epochs=1, batch=20, hidden=16)
    resumed = io.read_arrays(train.ranker(0, progress=False, epochs=2, batch=20, hidden=16))[0]
    assert all(np.array_equal(whole[key], resumed[key]) for key in whole)
    found = pools.scores("cifar10", 0, kind="ranker", trained={"epochs": 2, "batch": 20, "hidden": 16}, draws=2)
    assert found["scores"].shape == (15_625,) and found["scores"].std() > 0


@pytest.fixture
def guided():
    train.guide(0, progress=False, **SHORT)
    return {"trained": SHORT, "steps": 100}


def test_a_pool_is_a_job_of_plain_arguments_that_its_seeds_decide(guided):
    first, again = (pools.pool("cifar10", 0, 0, n=16, **guided) for _ in range(2))
    other = pools.pool("cifar10", 0, 1, n=16, **guided)
    assert first["archs"].shape == (16, 6) and first["errors"].dtype == np.int8
    assert ((first["errors"] == 0) == (first["archs"] >= 0).all(axis=1)).all()
    assert all(np.array_equal(first[key], again[key]) for key in ("archs", "errors"))
    assert not first["errors"].all() and not np.array_equal(first["archs"], other["archs"])


def test_a_pool_of_several_rounds_begins_with_the_first_and_is_cut_to_its_size(guided):
    made, first = (pools.pool("cifar10", 0, 0, n=n, batch=4, **guided) for n in (10, 4))
    assert made["archs"].shape == (10, 6) and made["errors"].shape == (10,)
    assert np.array_equal(made["archs"][:4], first["archs"]) and not np.array_equal(made["archs"][4:8], first["archs"])


def test_training_seeds_are_those_whose_networks_are_there(tmp_path):
    for name in ("2", "10", "0_steps-12", "1_steps-2001"):
        (tmp_path / "checkpoints" / f"published-guide_nb201_{name}.safetensors").touch()
    assert checkpoints.training_seeds("guide") == [2, 10]
    assert checkpoints.training_seeds("guide", steps=12) == [0]
    with pytest.raises(NagkitError, match=r"there is no published-score_nb201_\*.safetensors; nagkit.published.train.score"):
        checkpoints.training_seeds("score")


def test_a_long_unguided_pool_is_valid_and_spread_over_the_space():
    made = pools.pool("cifar10", 0, 0, n=64, strength=0.0, steps=100)
    assert (made["errors"] == 0).mean() > 0.9 and len(np.unique(made["archs"], axis=0)) > 50


def test_rounds_follow_the_schedule_and_keep_what_is_distinct(guided):
    made = pools.rounds("cifar10", 0, 0, batch=8, schedule="balanced", **guided | {"steps": 4})
    assert np.unique(made["strength"]).tolist() == [5_000, 10_000, 15_000] and len(made["archs"]) == 24
    made = pools.rounds("cifar10", 0, 0, batch=32, wanted=3, **guided)
    assert len(made["distinct"]) >= 3 and made["strength"][0] == 10_000


def test_bad_input_is_one_clear_line(guided, tmp_path):
    for wrong, match in (
        ({"n": 0}, "at least 1 draw, got 0"),
        ({"prior": "exakt"}, "prior of the published method 'exakt'.*did you mean 'exact'"),
        ({"strength": float("inf")}, "strength must be a finite number >= 0, got inf"),
        ({"mask": "floyd"}, "unknown mask 'floyd'; choose one of: closure, raw"),
        ({"wiring": "wrong"}, "unknown wiring 'wrong'"),
        ({"n_images": 20}, "cifar10 has 10 images a class at hand, 20 asked for"),
        (
            {"trained": SHORT | {"mask": "closure"}},
            "is not trained yet; nagkit.published.train.guide.0, .*mask='closure'. makes it",
        ),
        ({"trained": {"hidden": 3}}, "unknown setting of the published guide 'hidden'"),
        ({"trained": {"head": 512.0}}, "setting head of the published guide must be int, got 512.0"),
    ):
        with pytest.raises(NagkitError, match=match):
            pools.pool("cifar10", 0, 0, **guided | {"n": 4} | wrong)
    with pytest.raises(NagkitError, match="data set with class images 'pets'"):
        pools.pool("pets", 0, 0, n=4, **guided)
    path = checkpoints.checkpoint("guide", 0, **SHORT)
    with pytest.raises(NagkitError, match="was trained with mask 'raw', asked for was 'closure'"):
        checkpoints.load("guide", 0, path=path, **SHORT, mask="closure")
    with pytest.raises(NagkitError, match="was trained with wiring 'published', asked for was 'true'"):
        checkpoints.load("guide", 0, path=path, **SHORT, wiring="true")
    with pytest.raises(NagkitError, match="is no published ranker"):
        checkpoints.load("ranker", 0, path=path)
    with pytest.raises(NagkitError, match="unknown data set code 'none'"):
        train.guide(0, code="none")
    with pytest.raises(NagkitError, match="unknown published network 'gide'"):
        checkpoints.settings("gide", {})
