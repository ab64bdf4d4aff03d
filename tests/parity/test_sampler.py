"""Sampler, decoding and rounds give the official numbers for the official noise, and stop doing so without a quirk."""

import numpy as np
import pytest
import torch
from official import by_class, cell_guide, close, network_guide, score_network
from pack import case

from nagkit.errors import NagkitError
from nagkit.published import graphs, sampler
from nagkit.spaces.base import get_space


def played(noise, n=None):
    """A source of noise that plays an array, and refuses to be asked for more or to be left with some."""
    left = iter(noise if n is None else noise[:n])
    return lambda: next(left)


def bound(guide, features, mask, strength, score):
    code = guide.set_code(by_class(features, 3))
    return sampler.guided(score, lambda x, level: guide(x, level, mask, code), strength)


def cell_score(mask="closure", strength=None):
    graph, network = graphs.mask("nb201", mask), score_network("N1")
    score = lambda x, level: network(x, level, graph)  # noqa: E731
    return score if strength is None else bound(cell_guide("N2"), case("N5")["in.features"], graph, strength, score)


def run(score, noise, steps, **options):
    seen = {"corrected": [], "predicted": []}

    def record(i, corrected, predicted):
        seen["corrected"].append(corrected)
        seen["predicted"].append(predicted)

    returned = sampler.sample(score, noise, steps=steps, callback=record, **options)
    found = {key: torch.stack(value) for key, value in seen.items()}
    return found | {"returned": returned, "quantised": sampler.quantise(returned)}


def check(name, prefix, found):
    for key, value in found.items():
        if key == "quantised":
            assert torch.equal(value, case(name)[f"out.{prefix}.{key}"])
        elif f"out.{prefix}.{key}" in case(name).arrays:
            assert close(name, f"{prefix}.{key}", value), key


def test_grid_and_diffusion_equal_the_official_ones():
    for level in (5, 20):
        t, sigma, diffusion = sampler.grid(6, float(level))
        assert close("N5", "t", t) and close("N5", f"sigma{level}", sigma) and close("N5", f"g{level}", diffusion)


@pytest.mark.parametrize("level", [5, 20])
@pytest.mark.parametrize("strength", [10_000, 50])
def test_guided_cells_equal_the_official_ones(level, strength):
    found = run(cell_score(strength=strength), played(case("N5")["in.noise"]), 6, sigma_max=float(level))
    check("N5", f"guided.sigma{level}.scale{strength}", found)


@pytest.mark.parametrize("level", [5, 20])
@pytest.mark.parametrize("floor", ["0.001", "1e-05"])
def test_unguided_cells_equal_the_official_ones(level, floor):
    found = run(cell_score(), played(case("N5")["in.noise"]), 6, sigma_max=float(level), floor=float(floor))
    check("N5", f"unguided.sigma{level}.eps{floor}", found)


def test_unguided_cells_with_the_raw_mask_equal_the_official_ones_and_differ_from_the_closure():
    for mask, same in (("raw", True), ("closure", False)):
        found = run(cell_score(mask), played(case("N5")["in.noise"]), 6, sigma_max=5.0)
        assert close("N5", "unguided.sigma5.eps1e-05.raw_mask.returned", found["returned"]) == same


@pytest.mark.parametrize("level", [5, 20])
@pytest.mark.parametrize("strength", [10_000, 50])
def test_cells_guided_from_the_closed_form_equal_the_official_ones(level, strength):
    exact = sampler.exact_score("nb201")
    score = bound(cell_guide("N2"), case("N5")["in.features"], graphs.mask("nb201", "closure"), strength, exact)
    found = run(score, played(case("N5")["in.noise.exact"]), 20, sigma_max=float(level))
    found["predicted"] = found["predicted"][::5]
    check("N5", f"exact.sigma{level}.scale{strength}", found)


@pytest.mark.parametrize(
    "switch", [{"length": "grid"}, {"coupling": "sample"}, {"sized_by": cell_score()}, {"clean": False}, {"corrector": "none"}]
)
def test_cells_differ_when_a_quirk_is_switched_off(switch):
    found = run(cell_score(strength=50), played(case("N5")["in.noise"]), 6, sigma_max=5.0, **switch)
    assert not close("N5", "guided.sigma5.scale50.returned", found["returned"])


@pytest.mark.parametrize("level", [1, 5])
@pytest.mark.parametrize("corrector", ["none", "langevin"])
def test_guided_networks_equal_the_official_ones(level, corrector):
    graph, network = graphs.mask("mbv3", "raw"), score_network("M1")
    score = bound(network_guide(), case("M3")["in.features"], graph, 100_000, lambda x, s: network(x, s, graph))
    noise = played(case("M3")["in.noise"], 9 if corrector == "langevin" else 5)
    found = run(score, noise, 4, sigma_max=float(level), corrector=corrector)
    check("M3", f"guided.sigma{level}.{corrector}", found)


def test_unguided_networks_equal_the_official_ones():
    graph, network = graphs.mask("mbv3", "raw"), score_network("M1")
    noise = played(case("M3")["in.noise"], 5)
    found = run(lambda x, s: network(x, s, graph), noise, 4, sigma_max=1.0, corrector="none")
    check("M3", "unguided.sigma1.none", found)


@pytest.mark.parametrize(
    "name, decode, kinds", [("N7", sampler.cells, sampler.CELL_ERRORS), ("M4", sampler.networks, sampler.NETWORK_ERRORS)]
)
def test_decoding_equals_the_official_one(name, decode, kinds):
    at, space = case(name), get_space("nb201" if name == "N7" else "mbv3")
    expected = np.where(at["out.error"] < 0, 0, at["out.error"])
    archs, errors = decode(at["in.x"])
    assert errors.tolist() == [kinds[code] for code in expected]
    valid = errors == ""
    assert np.array_equal(valid, at["out.valid"].numpy())
    strings = [string for string in at.json("out_string") if string is not None]
    assert space.to_string(archs[valid]) == strings and (archs[~valid] == -1).all()


@pytest.mark.parametrize(
    "name, decode, kinds", [("N7", sampler.cells, sampler.CELL_ERRORS), ("M4", sampler.networks, sampler.NETWORK_ERRORS)]
)
def test_raw_samples_decode_as_officially(name, decode, kinds):
    at = case(name)
    for x, code, what in zip(at["in.raw"], at["out.raw_error"].tolist(), at.json("raw_names"), strict=True):
        if code == -9:
            with pytest.raises(NagkitError, match="1 of 1 samples hold NaN"):
                decode(x[None])
            continue
        assert decode(x[None])[1].tolist() == [kinds[max(code, 0)]], what
        if what == "ones at exactly 0.5":
            assert decode(x[None], "off")[1].tolist() != [""]


def test_absent_slots_are_coded_as_each_official_network_reads_them():
    m5 = case("M5")
    kernel, expand, depth = (m5[f"in.{key}"].numpy() for key in ("kernel", "expand", "depth"))
    listed = 3 * np.searchsorted((3, 5, 7), kernel) + np.searchsorted((3, 4, 6), expand)
    archs = np.where((np.arange(4) < depth[..., None]).reshape(-1, 20), listed, -1).astype(np.int8)
    assert get_space("mbv3").to_string(archs) == m5.json("out_string")
    assert np.array_equal(graphs.score_code(archs), m5["out.score_x"])
    assert np.array_equal(graphs.guide_code(archs), m5["out.guide_x"])
    assert not np.array_equal(graphs.score_code(archs), m5["out.guide_x"])
    assert torch.equal(graphs.mask("mbv3", "raw").double(), m5["out.guide_adjacency"])
    assert list(graphs.RANKED["mbv3"]) == [tuple(edge) for edge in m5["out.ranker_edges"].tolist()]
    trained = graphs.ranker_types("mbv3", archs, absent="listed", listed=listed)
    assert np.array_equal(trained, m5["out.ranker_train_types"])
    present = np.pad(archs >= 0, ((0, 0), (1, 1)), constant_values=True)
    for seed, official in enumerate(m5["out.ranker_query_types"].numpy()):
        ours = graphs.ranker_types("mbv3", archs, rng=np.random.default_rng(seed))
        assert np.array_equal(ours[present], official[present])
        assert ((official[~present] >= 2) & (official[~present] < 29)).all()
        assert ((ours[~present] >= 2) & (ours[~present] < 29)).all() and not np.array_equal(ours, trained)


def stand_in(rows, archs):
    """Plays the rounds of a run: numbers of architectures, -1 for an invalid sample."""
    left = iter(rows)

    def draw(strength):
        row = np.array(next(left))
        return archs[np.maximum(row, 0)], np.where(row < 0, "not one operation", "")

    return draw


def test_rounds_of_cells_equal_the_official_ones():
    n8, space = case("N8"), get_space("nb201")
    names = n8.json("cells")
    archs = space.from_string([names[str(i)] for i in range(len(names))])
    for run_name, plan in n8.json("runs").items():
        found, errors, used = sampler.rounds(stand_in(plan["rounds"], archs))
        assert used == n8[f"out.{run_name.replace(' ', '_')}.scale"].tolist()
        assert sorted(space.to_string(sampler.distinct(found, errors))) == sorted(plan["returned"])


def test_rounds_of_networks_equal_the_official_ones():
    m7 = case("M7")
    archs = np.arange(100)[:, None]
    for name, plan in m7.json("runs").items():
        draw = stand_in(plan["rounds"], archs)
        found, errors, used = sampler.rounds(draw, "networks", wanted=plan["wanted"], batch=plan["batch"])
        assert used == m7[f"out.{name.replace(' ', '_')}.scale"].tolist()
        kept = sampler.distinct(found, errors)
        assert len(kept) == plan["all valid distinct"] and len(kept[: plan["wanted"]]) == plan["number returned"]


def test_a_schedule_that_runs_out_and_switches_that_do_not_exist_are_clear_errors():
    never = stand_in([[-1]] * 1000, np.zeros((1, 6), np.int8))
    with pytest.raises(NagkitError, match="200 strengths, and round 201"):
        sampler.rounds(never, "networks", wanted=5000, batch=256)
    for options, match in (
        ({"length": "1/M"}, "length of the published sampler '1/M'"),
        ({"coupling": "none"}, "coupling"),
        ({"corrector": "lang"}, "did you mean 'langevin'"),
        ({"steps": 1}, "at least 2 steps, got 1"),
    ):
        with pytest.raises(NagkitError, match=match):
            sampler.sample(cell_score(), played(case("N5")["in.noise"]), **{"steps": 6} | options)
    with pytest.raises(NagkitError, match="schedule of strengths 'balance'.*did you mean 'balanced'"):
        sampler.rounds(never, "balance")
