"""The `nagkit` command line. Results go to stdout (CSV; an aligned table to a terminal), everything else to stderr."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nagkit import __version__, paths
from nagkit import cli_output as options
from nagkit.cli_output import EXAMPLE, emit
from nagkit.cli_train import fit, train, train_arch
from nagkit.errors import NagkitError

if TYPE_CHECKING:
    import pandas as pd


def main() -> None:
    """Entry point: bad input ends in one line on stderr and exit status 2."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" (see {context.command_path} --help)" if context else ""
        _fail(f"{error.format_message()}{where}", 2)
    except NagkitError as error:
        _fail(str(error), 2)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _fail(message: str, status: int) -> None:
    click.echo(f"nagkit: {' '.join(message.split())}", err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nagkit")
def cli() -> None:
    """Generate neural architectures with predictor-guided diffusion, and query what they are worth."""


@cli.command(epilog=EXAMPLE + "nagkit sample --space nb201 --guide cifar10 --n 1000 --seed 0 --out pool.csv")
@options.space()
@click.option("--prior", help="Denoiser of the unguided law: exact (mbv3 also exact-uniform), or score: trained.")
@click.option("--guide", metavar="DATASET", help="Aim at high accuracy on this data set.")
@click.option("--objective", metavar="NAME|FILE", help="Aim at a benchmark column, latency:DEVICE, energy:DEVICE, or my.csv.")
@click.option("--limit", help="Keep the objective on the right side of this, for example 5ms, instead of improving it.")
@click.option("--weight", type=float, default=1.0, show_default=True, help="Of the objective beside --guide.")
@click.option("--minimise", is_flag=True, help="Small values of the objective are good (latency and energy are known to be).")
@options.count("--pairs", 100, "Random cells looked up for a benchmark column.")
@click.option("--ranked", is_flag=True, help="Best predicted first, invalid draws last, instead of the order of drawing.")
@click.option("--scale", help="Guidance scale in standard deviations of the predicted score; or diverse: weaker, by preset.")
@click.option("--rule", help="Differentiate the predictor at x0 (denoised) or at xt (noisy).")
@click.option("--diffusion", default="gaussian", show_default=True, help="gaussian, or masked: exact, in listed spaces.")
@click.option("--sampler", help="pc, euler_maruyama, ancestral, ddim, heun or dpmpp_2m.")
@click.option("--steps", type=int, help="Sampler steps; of masked diffusion 1 to the number of slots, where it is exact.")
@click.option("--decode", default="threshold", show_default=True, help="threshold (as the paper) or argmax.")
@click.option("--n", type=int, default=1000, show_default=True, help="Draws; invalid ones stay in the list with their error.")
@options.seed()
@options.seed("--training-seed", "Which of the committed predictors guides.")
@options.device()
@options.workers
@click.option("--out", type=click.Path(path_type=Path), help="File .csv or .parquet, or a folder for parts, instead of stdout.")
def sample(n, out, ranked, n_workers, scheduler, **request) -> None:
    """Draw architectures: one CSV row `arch,error` a draw, and `predicted` when guided.

    Unguided draws of a closed-form prior come from the law itself; name a sampler or its steps to see diffusion do it. With
    --objective a predictor is fitted to measured cells first (my.csv: columns arch,value; seconds), and a column with its
    prediction in the objective's unit is added. With --guide as well, both are aimed at. What is not given comes from
    data/presets.yaml, chosen on the development sets that the file names. Rows are written as they are drawn. A folder takes
    Parquet parts, which workers can share out; the same command continues an interrupted run.
    """
    from nagkit import draws

    parts = out is not None and not out.suffix
    if out is not None and out.suffix not in ("", ".csv", ".parquet"):
        raise NagkitError(f"a pool is written to a .csv or .parquet file, or to a folder (no ending), got {out}")
    if not parts and (n_workers > 1 or scheduler):
        raise NagkitError("workers write Parquet parts into a folder; add --out FOLDER, or leave the workers out")
    if parts and ranked:
        raise NagkitError(f"--ranked needs all draws at once; give a file, {out}.csv or {out}.parquet")
    plan, notes = draws.planned(**request)
    for line in notes:
        click.echo(line, err=True)
    progress = sys.stderr.isatty()
    if parts:
        kept = draws.write_parts(out, request, n, n_workers=n_workers, scheduler=scheduler, progress=progress)
        click.echo(f"wrote {n} rows to {out}" + (f", {kept} parts of an earlier run among them" if kept else ""), err=True)
        return
    pools = plan.draws(n, request["seed"], progress=progress)
    draws.write([draws.best_first(pools)] if ranked else pools, out)
    if out:
        click.echo(f"wrote {n} rows to {out}", err=True)


@cli.command(epilog=EXAMPLE + "nagkit query --dataset cifar10 pool.csv")
@click.argument("pool")
@options.space()
@click.option("--dataset", required=True, help="Data set of the benchmark.")
@click.option("--split", default="test", show_default=True, help="Which accuracy of the data set.")
@click.option("--metric", default="accuracy", show_default=True)
@click.option("--oracle", default="auto", show_default=True, help="A wrong name lists them; auto: the best one here.")
@click.option("--resolution", type=int, help="Input resolution of mbv3 in pixels (default 224).")
@click.option("--draw", type=int, default=0, show_default=True, help="Which choice of test images (oracle supernet).")
@options.out()
def query(pool, space, dataset, split, metric, oracle, resolution, draw, out) -> None:
    """Look up the architectures of a table with a column `arch`: CSV `arch,split,accuracy,oracle`, in percent.

    Rows without an architecture (invalid draws) stay, with an empty value. POOL is a CSV or Parquet file, a folder of Parquet
    parts, or - for CSV on stdin. What is known about the oracle's quality goes to stderr.
    """
    import numpy as np

    from nagkit.benchmarks.table import open_benchmark
    from nagkit.spaces.base import get_space

    given_archs = _column_arch(pool)
    bench = open_benchmark(space, oracle, resolution=resolution, dataset=dataset)
    if draw and bench.oracle != "supernet":
        raise NagkitError(f"oracle {bench.oracle} chooses no test images, got --draw {draw}; only --oracle supernet does")
    how = {"draw": draw} if draw else {}
    given = (given_archs != "").to_numpy()
    value = np.full(len(given), np.nan)
    archs = get_space(space).from_string(list(given_archs[given]))
    value[given] = bench.query(archs, dataset, split=split, metric=metric, **how)
    click.echo(bench.describe(), err=True)
    if bench.oracle == "measured-surrogate" and (n_beyond := int(bench.beyond(value[given]).sum())):
        click.echo(f"{n_beyond} of {given.sum()} values lie beyond the measured range: extrapolated", err=True)
    emit({"arch": given_archs, "split": split, metric: np.round(value, 4), "oracle": bench.oracle}, out)


def _column_arch(pool: str) -> "pd.Series":
    """The architectures of a pool, "" where a draw was invalid."""
    import pandas as pd

    parquet = pool.endswith(".parquet") or Path(pool).is_dir()
    try:
        if parquet:
            frame = pd.read_parquet(pool)
        else:
            frame = pd.read_csv(sys.stdin if pool == "-" else pool, dtype={"arch": str}, keep_default_na=False)
    except OSError as error:
        raise NagkitError(f"cannot read {pool}: {error.strerror or error}") from None
    except (ValueError, UnicodeDecodeError) as error:  # pandas' and pyarrow's parser errors are ValueErrors
        raise NagkitError(f"{pool} is not a {'Parquet' if parquet else 'CSV'} file: {error}") from None
    if "arch" not in frame:
        raise NagkitError(f"{pool} has no column 'arch' (found {', '.join(frame)}); `nagkit sample` writes one")
    return frame["arch"]


_METHOD = click.option("--method", default="diffusionnag", show_default=True, help="Search method; a wrong name lists them.")
_ACQUISITION = click.option("--acquisition", help="ei, pi, ucb or its (model-based methods; default: the method's own).")
_PROPOSER = click.option("--proposer", help="Where candidates come from (model-based methods; default: the method's own).")


@cli.command(epilog=EXAMPLE + "nagkit bo --space mbv3 --method diffusionnag --acquisition ei --seed 0 --out run.csv")
@options.space("mbv3")
@_METHOD
@_ACQUISITION
@_PROPOSER
@click.option("--oracle", help="What is asked; a wrong name lists them. Default: the first of the space.")
@click.option("--objective", metavar="MODULE:FUNCTION|FILE", help="Ask a function of yours, or a table arch,value, instead.")
@options.count("--budget", 100, "Evaluations, the initial design included.")
@options.seed()
@options.out()
def bo(space, method, acquisition, proposer, oracle, objective, budget, seed, out) -> None:
    """Search a space with a budget of evaluations: one CSV row each, `evaluation,arch,value,incumbent,oracle`.

    Oracles that are asked on validation data add `reported`, the test accuracy of the incumbent. A function of yours takes
    architectures, int8 (B, slots), and returns values, the larger the better; one that is not finite is a failed evaluation.
    """
    from nagkit.search import methods, own
    from nagkit.spaces.base import get_space

    home, report, source = get_space(space), None, objective
    how = {"method": method, "budget": budget, "seed": seed, "acquisition": acquisition, "proposer": proposer}
    if objective is not None:
        if oracle is not None:
            raise NagkitError(f"--oracle {oracle} and --objective {objective} are two things to ask; leave one out")
        history = methods.search(own.load(objective, home), home, progress=sys.stderr.isatty(), **how)
    else:
        oracle = oracle or methods.DEFAULT_ORACLE[space]
        if methods.open_oracle(oracle).space != space:
            fitting = ", ".join(name for name, (owner, *_) in methods.ORACLES.items() if owner == space)
            raise NagkitError(f"oracle {oracle} does not know the space {space}; choose one of: {fitting}")
        history, asked = methods.run(oracle, progress=sys.stderr.isatty(), **how)
        report, source = asked.report, asked.source
        click.echo(asked.description, err=True)
    best = history.incumbents()
    rows = {"evaluation": range(1, budget + 1), "arch": home.to_string(history.archs), "value": history.values.round(4)}
    rows |= {"incumbent": history.values[best].round(4)}
    if report is not None:
        rows["reported"] = report(history.archs)[best].round(4)
    emit(rows | {"oracle": source}, out)


@cli.command(epilog=EXAMPLE + "nagkit suggest measured.csv --n 5")
@click.argument("measured", type=click.Path(dir_okay=False, path_type=Path))
@options.space()
@_METHOD
@_ACQUISITION
@_PROPOSER
@options.count("--n", 5, "Architectures to propose.")
@options.seed()
@options.out()
def suggest(measured, space, n, out, **how) -> None:
    """Which architectures to measure next, given a CSV `arch,value` of those measured so far (value empty: it failed).

    For evaluations that take days: append what was measured to the file and ask again.
    """
    from nagkit.objectives import read_pairs
    from nagkit.search import methods
    from nagkit.spaces.base import get_space

    archs, values = read_pairs(measured, space, failures=True)
    emit({"arch": get_space(space).to_string(methods.suggest(archs, values, n, space, **how))}, out)


@cli.command(epilog=EXAMPLE + "nagkit info")
def info() -> None:
    """Versions, folders, data tier and committed models."""
    import torch

    from nagkit.benchmarks.table import open_benchmark
    from nagkit.data import registry
    from nagkit.spaces.base import SPACES

    rows = {
        "nagkit": __version__,
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads, {'CUDA' if torch.cuda.is_available() else 'CPU'}",
        "spaces": ", ".join(SPACES),
        "committed data": paths.DATA,
        "cache": paths.cache(),
        "mirror": paths.mirror() or "not set (NAGKIT_MIRROR)",
        "images": paths.images() or "not set (NAGKIT_IMAGES)",
        "upstream files": f"{len(registry.entries())} registered; `nagkit data verify` checks those that are here",
    } | {f"benchmark of {name}": open_benchmark(name).describe() for name in SPACES}
    for checkpoint in sorted(paths.DATA.glob("**/*.safetensors")):
        rows[str(checkpoint.relative_to(paths.DATA))] = f"{checkpoint.stat().st_size / 1e6:.2f} MB"
    for key, value in rows.items():
        click.echo(f"{key:<36} {value}")


@cli.command(epilog=EXAMPLE + "nagkit verify")
@click.option("--write", is_flag=True, help="Take what is here for right: write its hashes down anew.")
def verify(write) -> None:
    """Check every committed result, checkpoint and table against its hash, and printed numbers against their CSV.

    Numbers are those in the tables of executed notebooks and, where the book is built (_build/html), on its pages. Recorded
    exhibits whose code has changed since are named too; that is a notice and no failure.
    """
    from nagkit.study import verify

    if write:
        click.echo(f"{verify.write()} files listed in {verify.MANIFEST}", err=True)
    found = list(verify.problems(book=not write))  # a book that was built before is older than what is right now
    for line in (*found, *verify.notices()):
        click.echo(line)
    if found:
        raise NagkitError(f"{len(found)} problems; restore the files, or after a change that is meant: nagkit verify --write")
    click.echo("all committed data and results are as they were recorded", err=True)


@cli.group()
def bench() -> None:
    """Timings, as ratios within one run."""


def _bench(what: Sequence[str], out: Path | None) -> None:
    from nagkit import bench

    emit([row for rows in what for row in getattr(bench, rows)()], out)


for _name, _rows, _about in (
    ("sampling", ("sampling_rows", "command_rows"),
     "Sampling against the paper's network and sampler, and whole commands against importing torch and pandas."),
    ("measuring", ("measuring_rows",), "The measurement of mbv3 networks with weights inherited from the supernet."),
    ("notebooks", ("notebook_rows",), "What the quick run of every notebook took on this machine: seconds and peak memory."),
):  # fmt: skip
    bench.command(_name, help=_about, epilog=f"{EXAMPLE}nagkit bench {_name}")(options.out()(partial(_bench, _rows)))


@cli.group()
def data() -> None:
    """The upstream benchmark files: list, fetch, verify."""


@data.command("list", epilog=EXAMPLE + "nagkit data list")
def data_list() -> None:
    """Every registered upstream file with size, licence and citation."""
    from nagkit.data import registry

    entries = registry.entries().items()
    emit([{"name": k, "MB": round(e.bytes / 1e6, 2), "licence": e.licence, "citation": e.citation} for k, e in entries])


@data.command("fetch", epilog=EXAMPLE + "NAGKIT_MIRROR=/path/to/files nagkit data fetch")
@click.argument("names", nargs=-1)
def data_fetch(names) -> None:
    """Download (or copy from NAGKIT_MIRROR) the upstream files, check their hashes, and convert them once."""
    from nagkit.data import registry, upstream

    files = registry.fetch(list(names) or None)
    click.echo(f"{len(files)} files verified in {paths.mirror() or paths.cache()}", err=True)
    if not names:
        click.echo(f"converted to {upstream.convert()}", err=True)


@data.command("verify", epilog=EXAMPLE + "nagkit data verify")
def data_verify() -> None:
    """Check the hash of every upstream file that is here; exit status 2 when one is wrong."""
    from nagkit.data import registry

    statuses = dict(registry.verify())
    emit({"name": list(statuses), "status": list(statuses.values())})
    wrong = [name for name, status in statuses.items() if status not in ("ok", "absent")]
    if wrong:
        raise NagkitError(f"{', '.join(wrong)}: wrong contents; delete and run `nagkit data fetch`")


for command in (fit, train, train_arch):
    cli.add_command(command)


if __name__ == "__main__":
    main()
