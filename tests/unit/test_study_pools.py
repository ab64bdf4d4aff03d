"""Pools of draws: what is measured of them, and that jobs draw what the command line draws."""

import numpy as np
import pytest

from nagkit import generate, load_predictor
from nagkit.published import pools
from nagkit.spaces.base import get_space
from nagkit.study import exact_guidance, guides, ladder, measures, pool
from nagkit.study.exhibit import Exhibit, Run
from nagkit.study.jobs import Task

SPACE = get_space("nb201")
ACCURACY = np.linspace(10, 94, SPACE.size)


class Benchmark:
    """Accuracy rises with the position in the list of all cells."""

    oracle = "made up"

    def query(self, archs, dataset, *, split):
        return ACCURACY[SPACE.code(archs)]


def run_of(*rows: int, invalid: int = 0) -> Run:
    archs = np.concatenate([SPACE.all()[list(rows)], np.full((invalid, SPACE.n_slots), -1, np.int8)])
    return Run("row", "cifar10", {}, {"archs": archs}, archs[: len(rows)], ACCURACY[list(rows)])


def test_invalid_draws_count_as_draws_and_enter_no_mean():
    run = run_of(0, SPACE.size - 1, invalid=2)
    assert (measures.draws(run), measures.valid(run)) == (4, 2)
    assert (measures.mean(run), measures.worst(run), measures.best(run)) == (pytest.approx(52), 10, 94)


def test_a_repeated_cell_counts_once_among_the_distinct_and_each_time_in_the_mean():
    run = run_of(0, 0, 0, SPACE.size - 1)
    assert (measures.distinct(run), measures.mean(run)) == (2, pytest.approx(31))


def test_a_pool_without_a_valid_draw_has_no_statistics():
    run = run_of(invalid=2)
    assert np.isnan([measure(run) for measure in (measures.best, measures.mean, measures.worst)]).all()
    assert measures.distinct(run) == 0


def test_a_ranking_is_read_as_far_as_the_pool_has_distinct_cells():
    order = pool.null_pool("nb201", "largest", SPACE.size, seed=0)["archs"]
    first, third = (ACCURACY[SPACE.code(order[:count])].mean() for count in (1, 3))
    beyond = measures.beyond("nb201", "largest", Benchmark())
    assert beyond(run_of(5, 5, 5)) == pytest.approx(ACCURACY[5] - first)
    assert beyond(run_of(5, 6, 7)) == pytest.approx(ACCURACY[6] - third)


def test_shares_of_all_ranges_add_up_to_everything_and_a_bound_belongs_to_the_range_above_it():
    shares = measures.shares({"cifar10": (10, 50, 94)})(run_of(*range(0, SPACE.size, 100), SPACE.size - 1))
    assert sum(shares.values()) == pytest.approx(100)
    assert list(shares) == ["below 10", "10 to 50", "50 to 94", "from 94"]
    assert shares["below 10"] == 0 and shares["from 94"] > 0


def test_the_head_of_a_list_is_read_as_far_as_it_goes():
    assert measures.head((1, 2, 5))(run_of(3, 5, 7)) == {"1": ACCURACY[3], "2": ACCURACY[[3, 5]].mean()}


def test_a_swept_parameter_makes_the_columns_of_its_row():
    exhibit = Exhibit("test", columns=["cifar10"], benchmark=Benchmark())
    exhibit.row("first", pool.uniform("nb201", 1), over={"seed": [0]}, sweep={"n": (2, 5)})
    exhibit.metric("valid", measures.valid, unit="count")
    assert exhibit.run(progress=False).number("first", "5", "cifar10 valid")["value"] == 5


def test_a_guided_pool_is_what_the_command_line_draws():
    made = pool.sample("nb201", 20, 3, "exact", "ancestral", 20, 5.0, dataset="cifar10", rule="x0", scale=30.0)["archs"]
    drawn = generate("nb201", 20, seed=3, guide="cifar10", prior="exact", rule="x0", scale=30.0)
    assert (made == drawn.archs).all()


def test_sorted_draws_are_the_best_of_the_unguided_ones_by_the_predictor():
    task: Task = pool.sorted_draws("nb201", 5, prior="exact", of=50)
    kept = task.function(**task.arguments, dataset="cifar10", seed=1, training_seed=0)["archs"]
    free = pool.unguided("nb201", 50, prior="exact")
    drawn = free.function(**free.arguments, seed=1)["archs"]
    rank = load_predictor("nb201", "cifar10").rank
    assert rank(kept).min().round(4) == np.sort(rank(drawn).round(4))[-5]


def test_the_top_five_are_distinct_valid_cells_in_the_order_of_the_scores(monkeypatch):
    class Predictor:
        def rank(self, archs):
            return SPACE.code(archs).astype(float)

    monkeypatch.setattr(guides, "load_predictor", lambda *args, **options: Predictor())
    run = run_of(9, 9, 8, 7, 6, 5, 4, invalid=2)._replace(seeds={"training_seed": 0})
    assert guides.top_five("nb201")(run) == pytest.approx(ACCURACY[[9, 8, 7, 6, 5]].mean())
    assert guides.top_five("nb201", guides.spread)(run) == pytest.approx(ACCURACY[[9, 8, 7, 6, 5]].std(ddof=1))
    assert np.isnan(guides.top_five("nb201")(run_of(invalid=2)))


def test_a_published_strength_is_turned_into_deviations_of_the_predictor_and_a_round_follows_the_other():
    unit = exact_guidance.values("nb201", "cifar10", "noise-aware", 0)[1]
    made = guides.draw("nb201", "cifar10", "x0", 3, 0, 0, [10_000, 5_000], published=True)
    assert made["deviations"] == pytest.approx([100 * unit, 50 * unit])
    assert made["archs"].shape == (6, SPACE.n_slots)


@pytest.mark.parametrize("guide", guides.GUIDES)
def test_every_guide_returns_codes_of_its_input(guide):
    x = SPACE.encode(SPACE.all()[::4000])
    assert guides.denoiser("nb201", "cifar10", guide, 0, 3.0)(x, 1.0).shape == x.shape


def test_the_smallest_strength_within_a_standard_error_of_the_best_is_chosen():
    exhibit = Exhibit("test", columns=["cifar10"], benchmark=Benchmark())
    exhibit.row("first", pool.uniform("nb201", 1), over={"seed": range(3)}, sweep={"n": (4, 400)})
    exhibit.metric("valid", measures.valid, unit="count")
    results = exhibit.run(progress=False)
    assert guides.choose(results, ["first"], "cifar10 valid", (4, 400)) == {"first": 400}
    assert results.number("first", "chosen", "strength")["value"] == 400


def test_validity_and_the_mean_of_all_draws_count_invalid_ones():
    run = run_of(SPACE.size - 1, invalid=3)
    assert (measures.validity(run), measures.per_draw(run)) == (25, pytest.approx(94 / 4))


def scored(scores) -> Run:
    return Run("row", "cifar10", {}, {"scores": scores}, np.empty((0, 6), np.int8), np.empty(0))


def test_an_order_is_judged_over_all_cells_and_among_the_best_tenth():
    every, best = (measures.ordering("nb201", Benchmark(), best=share) for share in (1.0, 0.1))
    assert [every(scored(ACCURACY)), best(scored(ACCURACY))] == pytest.approx([1, 1])
    swapped = np.where(ACCURACY >= np.quantile(ACCURACY, 0.9), ACCURACY.max() + 100 - ACCURACY, ACCURACY)
    assert every(scored(swapped)) > 0.9 and best(scored(swapped)) == pytest.approx(-1)


def test_the_optimum_has_its_place_among_all_cells_and_ties_share_theirs():
    rank = measures.optimum_rank("nb201", Benchmark())
    assert rank(scored(ACCURACY)) == 1 and rank(scored(-ACCURACY)) == SPACE.size
    assert rank(scored(np.zeros(SPACE.size))) == (SPACE.size + 1) / 2


def test_draws_of_the_optimum_are_counted():
    assert measures.at_optimum("nb201", Benchmark())(run_of(SPACE.size - 1, 3, SPACE.size - 1)) == 2


def test_the_published_guide_is_asked_as_published_unless_a_task_says_otherwise():
    task, raw = ladder.asked(), ladder.asked(mask="raw")
    first, other = (one.function(dataset="cifar10", training_seed=0, **one.arguments)["scores"] for one in (task, raw))
    expected = pools.scores("cifar10", 0, mask="closure", wiring="published")["scores"]
    assert first.shape == (SPACE.size,) and np.array_equal(first, expected) and not np.allclose(first, other)
    assert {path.name for path in task.files} >= {"published-guide_nb201_0.safetensors"}


def test_our_own_end_of_the_ladder_orders_cells_as_its_predictor_does():
    task = ladder.ours("x0")
    made = task.function(dataset="cifar10", training_seed=1, **task.arguments)["scores"]
    few = SPACE.all()[::1000]
    assert made[::1000] == pytest.approx(load_predictor("nb201", "cifar10", training_seed=1).rank(few), abs=1e-3)


def test_stronger_guidance_by_the_published_guide_draws_what_it_likes_better():
    liked = ladder.asked().function("cifar10", 0)["scores"]
    means = []
    for strength in (0.0, 10_000.0):
        task = ladder.ancestral(64, strength)
        archs = task.function(dataset="cifar10", training_seed=0, seed=0, **task.arguments)["archs"]
        means.append(liked[SPACE.code(archs[(archs >= 0).all(axis=1)])].mean())
    assert means[1] > means[0] + 4 * liked.std() / 64**0.5  # four standard errors: a false alarm in 30,000
