"""The command line: tidy CSV out, one line and status 2 for bad input."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from nagkit import cli
from nagkit.spaces import nb201

SPACE = nb201.Space()


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def nagkit(monkeypatch, capsys):
    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["nagkit", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_sample_prints_one_row_per_draw(nagkit):
    status, out, _ = nagkit("sample", "--n", 50, "--seed", 3)
    pool = pd.read_csv(io.StringIO(out), keep_default_na=False)
    assert status == 0
    assert list(pool) == ["arch", "error"]
    assert len(pool) == 50
    assert SPACE.is_valid(SPACE.from_string(list(pool["arch"]))).all()


def test_the_same_seed_gives_the_same_pool_and_another_seed_does_not(nagkit):
    pools = [nagkit("sample", "--n", 20, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert pools[0] == pools[1] != pools[2]


def test_invalid_draws_stay_as_rows_with_their_error(nagkit):
    _, out, _ = nagkit("sample", "--n", 200, "--guide", "cifar10", "--rule", "xt", "--scale", 30_000)
    pool = pd.read_csv(io.StringIO(out), keep_default_na=False)
    wrong = pool["error"] != ""
    assert len(pool) == 200
    assert wrong.any()
    assert (pool["arch"][wrong] == "").all()
    assert (pool["predicted"][wrong] == "").all()


def test_guided_pool_goes_through_query_to_accuracies(nagkit, tmp_path):
    pool = tmp_path / "pool.csv"
    status, out, err = nagkit("sample", "--guide", "cifar10", "--n", 100, "--out", pool)
    assert (status, out) == (0, "")
    assert "wrote 100 rows" in err
    assert list(pd.read_csv(pool)) == ["arch", "error", "predicted"]
    status, out, _ = nagkit("query", "--dataset", "cifar10", pool)
    answer = pd.read_csv(io.StringIO(out))
    assert list(answer) == ["arch", "split", "accuracy", "oracle"]
    assert set(answer["split"]) == {"test"}
    assert set(answer["oracle"]) == {"surrogate"}
    assert answer["accuracy"].mean() > 90


def test_the_trained_prior_and_the_rule_of_the_paper_are_one_option_away(nagkit):
    for arguments in (["--prior", "score"], ["--rule", "xt", "--guide", "cifar10", "--sampler", "pc"]):
        status, out, _ = nagkit("sample", "--n", 20, *arguments)
        assert status == 0
        assert len(pd.read_csv(io.StringIO(out), keep_default_na=False)) == 20


def test_a_data_set_without_images_is_guided_with_the_mean_code_and_says_so(nagkit):
    status, out, err = nagkit("sample", "--n", 10, "--guide", "darcy")
    assert status == 0
    assert "no dataset code" in err


def test_a_draw_of_test_images_is_for_the_oracle_that_has_them(nagkit):
    status, _, told = nagkit("query", "--dataset", "cifar10", "--draw", "1", "-", stdin="arch\n")
    assert status == 2 and "chooses no test images, got --draw 1" in told


def test_query_reads_stdin_and_keeps_empty_rows(nagkit):
    cell = SPACE.to_string(SPACE.all()[-1:])[0]
    status, out, _ = nagkit("query", "--dataset", "cifar100", "-", stdin=f"arch,error\n{cell},\n,no operation\n")
    answer = pd.read_csv(io.StringIO(out))
    assert status == 0
    assert answer["accuracy"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--space", "nb2O1"], "unknown search space 'nb2O1' (did you mean 'nb201'?)"),
        (["sample", "--guide", "cifar1O"], "unknown data set to guide towards 'cifar1O'"),
        (["sample", "--sampler", "dimm"], "unknown sampler 'dimm' (did you mean 'ddim'?)"),
        (["sample", "--prior", "gan"], "unknown prior 'gan'"),
        (["train", "predictor", "rank"], "unknown predictor 'rank' (did you mean 'ranking'?)"),
        (["train", "score", "--recipe", "our"], "unknown score network 'our' (did you mean 'ours'?)"),
        (["train", "score", "--device", "gpu"], "unknown device 'gpu'"),
        (["train", "score", "--share", "2"], "must be in (0, 1], got 2.0"),
        (["sample", "--guide", "cifar10", "--scale", "-1"], "guidance scale must be a finite number >= 0, got -1.0"),
        (["sample", "--guide", "cifar10", "--rule", "x2"], "unknown guidance rule 'x2'"),
        (["sample", "--scale", "3"], "add --guide DATASET"),
        (["sample", "--n", "0"], "n must be at least 1, got 0"),
        (["sample", "--steps", "0"], "steps must be at least 1, got 0"),
        (["sample", "--seed", "-1"], "-1 is not in the range"),
        (["sample", "--device", "gpu"], "unknown device 'gpu'"),
        (["sample", "--out", "pool.txt"], "to a .csv or .parquet file, or to a folder (no ending), got pool.txt"),
        (["sample", "--out", "pool", "--ranked"], "--ranked needs all draws at once; give a file, pool.csv or"),
        (["sample", "--n-workers", "2"], "add --out FOLDER"),
        (["sample", "--n-workers", "0", "--out", "pool"], "0 is not in the range"),
        (["sample", "--out", "pool", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (["sample", "--n", "many"], "'many' is not a valid integer"),
        (["sample", "--decode", "round"], "unknown decoding 'round'"),
        (["query", "--dataset", "cifar1", "POOL"], "unknown data set 'cifar1'"),
        (["query", "--dataset", "cifar10", "--split", "train", "POOL"], "unknown split of cifar10 'train'"),
        (["query", "--dataset", "cifar10", "--oracle", "real", "POOL"], "unknown oracle 'real'"),
        (["query", "--dataset", "cifar10", "--oracle", "table", "POOL"], "nagkit data fetch"),
        (["query", "--dataset", "cifar10", "absent.csv"], "absent.csv"),
        (["query", "--dataset", "cifar10", "BROKEN"], "is not a NAS-Bench-201 cell"),
        (["query", "--dataset", "cifar10", "COLUMNLESS"], "has no column 'arch'"),
        (["query", "--dataset", "cifar10", "EMPTY"], "is not a CSV file"),
        (["query", "POOL"], "Missing option '--dataset'"),
        (["data", "fetch", "nothing"], "nothing"),
        (["smaple"], "smaple"),
    ],
)
def test_bad_input_is_one_line_and_status_two(nagkit, tmp_path, arguments, message):
    cell = SPACE.to_string(SPACE.all()[:1])[0]
    for name, text in {"POOL": f"arch\n{cell}\n", "BROKEN": "arch\n|conv~0|\n", "COLUMNLESS": "cell\n1\n", "EMPTY": ""}.items():
        (tmp_path / name).write_text(text)
    arguments = [str(tmp_path / a) if a.isupper() else a for a in arguments]
    status, out, err = nagkit(*arguments)
    assert status == 2
    assert out == ""
    assert message in err
    assert err.startswith("nagkit: ")
    assert err.count("\n") == 1


def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing(nagkit, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = nagkit("sample", "--n", 5, "--out", tmp_path / "file" / "pool.csv")
    assert status == 2
    assert "pool.csv" in err
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "cache"] == ["file"]


def test_every_command_shows_an_example(nagkit):
    for command in (["sample"], ["query"], ["info"], ["bench", "sampling"], ["data", "list"], ["data", "fetch"],
                    ["data", "verify"], ["fit", "surrogate"], ["fit", "encoder"], ["fit", "codes"], ["fit", "presets"],
                    ["train", "score"], ["train", "predictor"], ["train-arch"]):  # fmt: skip
        status, out, _ = nagkit(*command, "--help")
        assert status == 0
        assert "Example:\n  " in out
        assert f"nagkit {' '.join(command)}" in out


def test_info_names_the_oracle(nagkit):
    status, out, _ = nagkit("info")
    assert status == 0
    assert "surrogate" in out


def test_the_installed_command_reports_errors_without_a_traceback():
    command = [sys.executable, "-m", "nagkit.cli", "sample", "--n", "0"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == "nagkit: n must be at least 1, got 0\n"


def test_a_users_csv_becomes_a_ranked_pool(nagkit, tmp_path):
    cells = SPACE.all()[::150]
    values = [float(4 - (cell == nb201.CONV3).sum()) for cell in cells]
    my = tmp_path / "my.csv"
    pd.DataFrame({"arch": SPACE.to_string(cells), "value": values}).to_csv(my, index=False)
    status, out, err = nagkit("sample", "--objective", my, "--minimise", "--n", 60, "--ranked")
    pool = pd.read_csv(io.StringIO(out))
    assert status == 0 and f"of {len(cells)} measured cells" in err
    assert list(pool) == ["arch", "error", "predicted", "my"]
    assert pool["predicted"].is_monotonic_decreasing
    assert pool["my"].mean() < sum(values) / len(values)


def test_options_of_an_objective_without_one_are_refused(nagkit):
    for arguments in (["--limit", "5ms"], ["--minimise"]):
        status, out, err = nagkit("sample", "--n", 5, *arguments)
        assert (status, out) == (2, "") and "--objective" in err
    assert "--ranked needs a prediction" in nagkit("sample", "--n", 5, "--ranked")[2]


@pytest.fixture
def measured(tmp_path):
    """Values of all cells: how many 3×3 convolutions, and no value where an edge pools."""
    cells = SPACE.all()
    values = (cells == nb201.CONV3).sum(axis=1).astype(float)
    values[(cells == nb201.POOL).any(axis=1)] = np.nan
    path = tmp_path / "measured.csv"
    pd.DataFrame({"arch": SPACE.to_string(cells), "value": values}).to_csv(path, index=False)
    return path


def test_a_table_of_ones_own_is_searched_and_its_gaps_are_failed_evaluations(nagkit, measured):
    status, out, _ = nagkit("bo", "--space", "nb201", "--method", "evolution", "--objective", measured, "--budget", 80)
    run = pd.read_csv(io.StringIO(out))
    assert status == 0 and list(run) == ["evaluation", "arch", "value", "incumbent", "oracle"] and len(run) == 80
    assert run["value"].isna().any() and run["incumbent"].iloc[-1] == run["value"].max() >= 4


def test_a_function_of_ones_own_is_searched(nagkit, tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text("def skips(archs):\n    return (archs == 1).sum(axis=1)\nlevel = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    arguments = ("bo", "--space", "nb201", "--method", "local-search", "--budget", 60, "--objective")
    run = pd.read_csv(io.StringIO(nagkit(*arguments, "my_task:skips")[1]))
    assert run["incumbent"].iloc[-1] >= 5 and set(run["oracle"]) == {"my_task:skips"}
    for spec, told in {
        "my_task:level": "is int, not a function",
        "my_task:skip": "cannot be imported",
        "my_task": "neither a .csv file nor module:function",
        "no_task:skips": "No module named 'no_task'",
    }.items():
        status, out, err = nagkit(*arguments, spec)
        assert (status, out) == (2, "") and told in err and err.count("\n") == 1


def test_the_next_cells_to_measure_are_new_ones_and_a_part_of_a_space_is_not_searched(nagkit, measured):
    known = pd.read_csv(measured).sample(40, random_state=0)
    known.to_csv(measured, index=False)
    status, out, _ = nagkit("suggest", measured, "--method", "ridge", "--n", 6)
    proposed = pd.read_csv(io.StringIO(out))["arch"]
    assert status == 0 and len(set(proposed)) == 6 and not set(proposed) & set(known["arch"])
    status, _, err = nagkit("bo", "--space", "nb201", "--objective", measured)
    assert status == 2 and "lists 40 of the 15,625 architectures of nb201; `nagkit suggest" in err
    status, _, err = nagkit("bo", "--space", "nb201", "--objective", measured, "--oracle", "cifar10")
    assert status == 2 and "leave one out" in err
