"""The book's examples of extension do what their page says, and fit on one screen."""

import io
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import nagkit
from nagkit import cli, presets
from nagkit.diffusion.exact import exact_prior
from nagkit.diffusion.samplers import SAMPLERS, generate
from nagkit.diffusion.sde import geometric_sigmas
from nagkit.diffusion.tilted import tilted_law
from nagkit.diffusion.train import load_score, train_score
from nagkit.errors import NagkitError
from nagkit.guidance import guide
from nagkit.rng import numpy_stream, torch_stream
from nagkit.search import baselines, fronts, methods
from nagkit.search.bo import BayesianOptimisation
from nagkit.spaces import base, nb201

BOOK = Path(__file__).parents[2] / "book"
EXAMPLES = sorted((BOOK / "examples").glob("*.py"))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """The embedded benchmark, and the examples as modules."""
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(BOOK / "examples")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_at_most_60_lines_and_is_included_in_a_page(path):
    assert len(path.read_text("utf-8").splitlines()) <= 60
    included = {name for page in BOOK.glob("*.md") for name in re.findall(r"\{literalinclude\} (\S+)", page.read_text("utf-8"))}
    assert f"examples/{path.name}" in included


def test_the_new_space_fulfils_the_protocol_of_search_spaces():
    from new_space import Space

    wanted = set(base.SearchSpace.__annotations__) | {name for name in vars(base.SearchSpace) if not name.startswith("_")}
    assert not [name for name in wanted if not hasattr(Space(), name)]


def test_the_new_space_round_trips():
    from new_space import Space

    space = Space()
    archs = space.random(500, numpy_stream(0, "test"))
    decoded, errors = space.decode(space.encode(archs))
    np.testing.assert_array_equal(decoded, archs)
    assert (errors == "").all()
    np.testing.assert_array_equal(space.decode_argmax(space.encode(archs)), archs)
    np.testing.assert_array_equal(space.from_string(space.to_string(archs)), archs)
    assert ((space.mutate(archs, numpy_stream(1, "test")) != archs).sum(axis=1) == 1).all()
    assert base.checked(space, archs) is archs


@pytest.mark.parametrize("string", ["8:16:24:32", "8:16:24:32:65", ""])
def test_the_new_space_refuses_what_is_not_a_network(string):
    from new_space import Space

    with pytest.raises(NagkitError, match="five multiples of 8"):
        Space().from_string(["8:8:8:8:8", string])


def test_the_new_space_says_why_a_sample_is_invalid():
    from new_space import Space

    x = Space().encode(np.zeros((4, 5), np.int8))
    x[1, 2] = -1.0
    x[2, 3, :2] = 1.0
    x[3, 0, 0] = torch.nan
    archs, errors = Space().decode(x)
    assert list(errors) == ["", "no operation", "several operations", "not finite"]
    assert (archs[1:] == -1).all() and archs.dtype == np.int8


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_hundred_draws_from_the_exact_prior_of_the_new_space_are_valid_and_varied(sampler):
    from new_space import Space

    steps = 200 if sampler in ("pc", "euler_maruyama") else 20
    archs, errors = generate(
        Space(), exact_prior(Space()), 100, sampler=sampler, steps=steps, generator=torch_stream(0, "test")
    )
    assert (errors == "").all()
    assert all(len(np.unique(slot)) == 8 for slot in archs.T)  # an op is missing with probability 8 (7/8)^100 < 2e-5 a slot


def climbing(archs):
    """The number of channels of all layers, least where they fall from one layer to the next."""
    archs = np.asarray(archs, float)
    return archs.sum(axis=1) - 3 * np.maximum(-np.diff(archs, axis=1), 0).sum(axis=1)


def test_guidance_draws_wider_networks_of_the_new_space():
    """By a written rule, in its standard deviations; a mean of 200 unguided draws is off by 0.07 of them."""
    from new_space import Space

    space = Space()
    width = torch.arange(8.0) - 3.5

    def wide(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return (x @ width).sum(dim=1) / 2 / 5**0.5 / 2.29

    means = []
    for scale in (0.0, 2.0):
        denoiser = guide(exact_prior(space), wide, scale)
        archs, errors = generate(space, denoiser, 200, generator=torch_stream(0, "test"))
        means.append(wide(space.encode(archs[errors == ""]), 0.0).mean())
    assert abs(means[0]) < 0.4 and means[1] > 1


@pytest.mark.parametrize("method", ["local-search", "evolution", "bananas", "bonas", "dngo", "ridge", "diffusionnag"])
def test_searches_find_better_networks_of_the_new_space_than_their_random_design(method):
    from new_space import Space

    history = methods.search(climbing, Space(), method=method, budget=60)
    assert Space().is_valid(history.archs).all()
    assert history.values[20:].mean() > history.values[:20].mean()


def test_bayesian_optimisation_takes_all_of_the_new_space_as_candidates():
    from new_space import Space

    history = baselines.run(BayesianOptimisation(Space(), numpy_stream(0, "test")), climbing, 40)
    assert history.best()[1] >= 32  # of 35; one of 1,800 networks


def test_two_goals_are_searched_in_the_new_space():
    from new_space import Space

    space = Space()
    found = fronts.nsga2(space, lambda a: np.stack([climbing(a), a.sum(axis=1) ** 1.5], axis=1), 80, numpy_stream(0, "test"))
    assert space.is_valid(found).all() and len(np.unique(found, axis=0)) == 80
    assert found.max() == 7 and found.min() == 0  # every operation is within reach


def test_a_score_network_learns_the_new_space(tmp_path):
    from new_space import Space

    space, out = Space(), tmp_path / "score.safetensors"
    train_score(space, steps=150, out=out, progress=False)
    archs, errors = generate(space, load_score(space, out), 100, generator=torch_stream(0, "test"))
    assert (errors == "").mean() > 0.8 and len(np.unique(archs, axis=0)) > 50


def test_the_tilted_law_of_the_new_space_is_exact():
    """Two values, a coin of probability 1/2; 2,000 draws: |z| < 5 has a false-alarm rate below 10⁻⁶."""
    from new_space import Space

    space = Space()
    law = tilted_law(space, (space.all()[:, 0] == 7).astype(float), np.log(7.0))
    sigmas = geometric_sigmas(40, sigma_max=80.0)
    archs, errors = generate(space, law, 2000, sampler="dpmpp_2m", sigmas=sigmas, generator=torch_stream(0, "test/coin"))
    assert (errors == "").all() and abs((archs[:, 0] == 7).mean() - 0.5) < 5 * 0.5 / 2000**0.5


def test_a_space_of_the_package_is_sampled_by_name_once_it_has_settings(monkeypatch):
    import new_space

    monkeypatch.setattr(base, "SPACES", (*base.SPACES, "size"))
    monkeypatch.setitem(sys.modules, "nagkit.spaces.size", new_space)
    command = ["sample", "--space", "size", "--n", "100"]
    refused = CliRunner().invoke(cli.cli, command)
    assert "data/presets.yaml has no block for search space 'size'; add one like that of nb201" in str(refused.exception)
    settings = presets.load() | {"size": {"sampling": {"sampler": "dpmpp_2m", "steps": 20, "prior": "exact"}}}
    monkeypatch.setattr(presets, "load", lambda: settings)
    drawn = CliRunner().invoke(cli.cli, command)
    assert drawn.exit_code == 0, drawn.output
    pool = pd.read_csv(io.StringIO(drawn.stdout), keep_default_na=False)
    assert len(pool) == 100 and (pool["error"] == "").all() and pool["arch"].nunique() > 90


def test_guidance_needs_nothing_but_the_new_space():
    from new_space import Space

    def wide(x, sigma):
        return (x * torch.arange(8.0)).sum(dim=(1, 2)) / 10

    space = Space()
    archs, _ = generate(space, guide(exact_prior(space), wide, 3.0), 100, generator=torch_stream(0, "test"))
    assert archs.mean() > 5  # unguided: 3.5, with a standard error of 0.1; the tilted law has 5.8


def test_the_new_predictor_lifts_its_own_score_and_the_accuracy():
    import new_predictor as example

    predictor = example.fitted(200)
    unguided = nagkit.generate("nb201", 500)
    guided = nagkit.generate("nb201", 500, guide=predictor, scale=3.0)
    codes = [nb201.Space().encode(pool.valid) for pool in (unguided, guided)]
    before, after = (float(predictor(x, 0.0).mean()) for x in codes)
    assert abs(before) < 0.2 and after > 1.0  # in standard deviations; a mean of 500 has a standard error of 0.045
    assert example.mean_accuracy(guided) > example.mean_accuracy(unguided) + 3


def test_a_written_rule_is_a_predictor_too():
    import new_predictor as example

    pools = [nagkit.generate("nb201", 500), nagkit.generate("nb201", 500, guide=example.without_pooling, scale=3.0)]
    share = [(pool.valid == nb201.POOL).mean() for pool in pools]
    assert share[1] < 0.3 * share[0]


@pytest.fixture
def measured(tmp_path):
    """A file of 20 measured cells, each with another accuracy."""
    space = nb201.Space()
    archs = space.all()[numpy_stream(0, "test").choice(space.size, 20, replace=False)]
    path = tmp_path / "my-gpu.csv"
    table = pd.DataFrame({"arch": space.to_string(archs), "dataset": "sketches", "accuracy": np.arange(20) + 60.5})
    table.to_csv(path, index=False)
    return path, archs


def test_the_new_benchmark_knows_what_was_measured_and_nothing_else(measured):
    from new_benchmark import Measurements

    path, archs = measured
    bench = Measurements(nb201.Space(), path)
    np.testing.assert_array_equal(bench.query(archs[::-1], "sketches", split="test"), np.arange(20)[::-1] + 60.5)
    assert np.isnan(bench.query((archs + 1) % 5, "sketches", split="test")).any()
    with pytest.raises(NagkitError, match="unknown data set 'photos'"):
        bench.query(archs, "photos", split="test")
    with pytest.raises(NagkitError, match="unknown split of sketches 'validation'"):
        bench.query(archs, "sketches", split="validation")
    with pytest.raises(NagkitError, match="row 0 is not valid"):
        bench.query(np.full((1, 6), 9), "sketches", split="test")


def test_the_new_benchmark_answers_nagkit_query_and_its_oracle_travels(measured, monkeypatch, capsys):
    from new_benchmark import Measurements

    path, archs = measured
    bench = Measurements(nb201.Space(), path)
    monkeypatch.setattr("nagkit.benchmarks.table.open_benchmark", lambda *_, **__: bench)
    pool = "arch,error\n" + "".join(f"{arch},\n" for arch in nb201.Space().to_string(archs[:3])) + ",no operation\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(pool))
    monkeypatch.setattr(sys, "argv", ["nagkit", "query", "--dataset", "sketches", "-"])
    with suppress(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    table = pd.read_csv(io.StringIO(out))
    assert list(table.columns) == ["arch", "split", "accuracy", "oracle"]
    assert list(table.accuracy[:3]) == [60.5, 61.5, 62.5] and np.isnan(table.accuracy[3])
    assert set(table.oracle) == {"my-gpu"} and set(table.split) == {"test"}
    assert "my-gpu: 20 measured networks of nb201" in err


def test_the_slurm_job_script_of_the_page_is_the_one_that_is_made():
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: pip install 'nagkit[cluster]'")
    from slurm import workers

    with workers(scheduler_options={"host": "127.0.0.1", "dashboard_address": ":0"}) as cluster:
        assert cluster.workers == {}  # nothing was submitted
        script = cluster.job_script().replace(sys.executable, "python")
        assert cluster.scheduler_address in script
        script = script.replace(cluster.scheduler_address, "tcp://host:8786")
    assert script == (BOOK / "examples" / "slurm_job.sh").read_text("utf-8")


PROGRAMS = {"new_space": "100 of 100 draws are valid", "new_predictor": "ridge, rule"}


@pytest.mark.parametrize(("name", "said"), PROGRAMS.items())
def test_an_example_runs_as_a_program(name, said):
    run = subprocess.run([sys.executable, BOOK / "examples" / f"{name}.py"], capture_output=True, text=True, check=True)
    assert said in run.stdout
