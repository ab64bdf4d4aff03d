"""Independent jobs: computed once, kept as small files, and never older than the code and the data that they rest on.

A job is an importable function of plain arguments that returns named arrays. Its file lies in this machine's cache folder
under a hash of the function's name, its arguments, the contents of the files it reads *and the code it runs*: the syntax
trees, without comments and docstrings, of its module and of the `nagkit` modules that it imports, transitively. Change a
function and its jobs are made anew; move a comment and they are not. The file also keeps who made it (`RECORD`).
"""

import ast
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import torch
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError

TIMEOUT = 6.0
"""Seconds to wait for a scheduler before giving up."""

RECORD = ("commit", "code", "seconds", "peak_rss_mb", "threads", "processor", "made")
"""What a job file says about its making: commit of the checkout, code digest, CPU seconds, memory, threads, processor, UTC."""

_SHOWING = "jobs exhibit results tidy judge labels drawing figures front_figures book front verify"
REPORTING = {f"nagkit.study.{name}" for name in _SHOWING.split()}
"""Modules that show numbers and make none; with the command line they are no part of a job's code."""


_ROOT = Path(__file__).parents[2]


class Task(NamedTuple):
    """A job to be done: `function(**arguments)`, which reads `files`."""

    function: Callable[..., Mapping[str, np.ndarray]]
    arguments: Mapping[str, object]
    files: tuple[Path, ...] = ()


class Done(NamedTuple):
    """What a job returned, and its record (`RECORD`; "function" beside it)."""

    arrays: dict[str, np.ndarray]
    record: dict[str, object]


def run(
    tasks: Sequence[Task], *, n_workers: int = 1, scheduler: str | None = None, progress: bool = True, label: str = "jobs"
) -> list[Done]:
    """Do every task, or find it done; results in the order of `tasks`, equal tasks once.

    With `n_workers` > 1 the jobs run in a local Dask cluster of that many processes of one thread, with `scheduler`
    ("tcp://host:8786") on the workers of that one; a job whose worker dies runs again elsewhere, and results are the same.
    A damaged job file is computed anew, and said so. Raises `NagkitError` for a function that is not importable, arguments
    that are not plain, a number of workers below 1, and a scheduler that does not answer.
    """
    if n_workers < 1:
        raise NagkitError(f"n_workers must be at least 1, got {n_workers}")
    files = [_file(task) for task in tasks]
    todo = dict(zip(files, tasks, strict=True))
    done = {file: _read(file) for file in todo}
    missing = [file for file, found in done.items() if found is None]
    bar = tqdm(total=len(todo), initial=len(todo) - len(missing), desc=label, unit="job", disable=not progress or not todo)
    with bar:
        for file, made in _results({file: todo[file] for file in missing}, n_workers, scheduler):
            io.write_arrays(file, made.arrays, made.record)
            done[file] = made
            bar.update()
    return [done[file] for file in files]


def _file(task: Task) -> Path:
    name = name_of(task.function)
    if "<" in name or name.startswith("__main__"):
        raise NagkitError(f"{name} is no importable function, so no worker can run it; move it into a module")
    try:
        said = json.dumps(dict(task.arguments), sort_keys=True)
    except TypeError as error:
        raise NagkitError(f"the arguments of {name} must be plain (numbers, strings, lists, dicts): {error}") from None
    read = [_content(path, path.stat().st_mtime_ns) for path in task.files]
    key = hashlib.sha256(json.dumps([name, said, read, digest(name)]).encode()).hexdigest()[:24]
    return paths.cache() / "jobs" / name.replace(":", ".") / f"{key}.safetensors"


@cache
def _content(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(file: Path) -> Done | None:
    if not file.is_file():
        return None
    try:
        return Done(*io.read_arrays(file))
    except NagkitError:
        tqdm.write(f"{file} is damaged; computing it anew", file=sys.stderr)
        return None


def _do(task: Task, commit: str) -> Done:
    """In a worker as well as here: on one thread, whatever the machine has, so that sums are added in the same order."""
    threads, start = torch.get_num_threads(), time.process_time()
    torch.set_num_threads(1)
    try:
        arrays = {key: np.asarray(value) for key, value in task.function(**task.arguments).items()}
    finally:
        torch.set_num_threads(threads)
    return Done(arrays, record(task.function, start) | {"commit": commit, "threads": 1})


def record(function: Callable, start: float) -> dict[str, object]:
    """What `RECORD` names of a computation by `function` that began at `start` (CPU seconds of this process)."""
    name, made = name_of(function), datetime.now(UTC).isoformat(timespec="seconds")
    seconds, threads = round(time.process_time() - start, 3), torch.get_num_threads()
    said = (commit(), digest(name), seconds, round(peak_rss_mb()), threads, processor(), made)
    return {"function": name} | dict(zip(RECORD, said, strict=True))


def _results(todo: dict[Path, Task], n_workers: int, scheduler: str | None) -> Iterator[tuple[Path, Done]]:
    made_at = commit() if todo else ""
    if not todo or (scheduler is None and (n_workers == 1 or len(todo) == 1)):
        yield from ((file, _do(task, made_at)) for file, task in todo.items())
        return
    with connected(min(n_workers, len(todo)), scheduler) as client:
        from distributed import as_completed

        futures = {client.submit(_do, task, made_at, pure=False, retries=3): file for file, task in todo.items()}
        for future in as_completed(list(futures)):
            yield futures[future], future.result()
            future.release()


@contextmanager
def connected(n_workers: int, scheduler: str | None):
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise NagkitError("several workers need Dask: pip install 'nagkit[cluster]', or use n_workers=1") from None
    if scheduler is None:
        with LocalCluster(n_workers, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
            yield client
        return
    try:
        _greeted(scheduler)
        client = Client(scheduler, timeout=TIMEOUT)
    except (OSError, ValueError) as error:  # timeouts are OSErrors
        reason = str(error).split("\n")[0] or type(error).__name__
        remedy = f"start one with `dask scheduler` and workers with `dask worker {scheduler}`, or leave the address out"
        raise NagkitError(f"no Dask scheduler answers at {scheduler} within {TIMEOUT:g} s ({reason}); {remedy}") from error
    with client:
        yield client


def _greeted(scheduler: str) -> None:
    """Wait for the first byte of a scheduler, which speaks first: Dask itself waits for ever on a port that stays silent."""
    import socket

    address = urlsplit(scheduler)
    if address.scheme == "tcp":
        with socket.create_connection((address.hostname, address.port), TIMEOUT) as connection:
            if not connection.recv(1):
                raise ConnectionError("the connection was closed")


# Code -----------------------------------------------------------------------------------------------------------------


def name_of(function: Callable) -> str:
    """ "module:function", how records and provenance call a job's function."""
    return f"{function.__module__}:{function.__qualname__}"


def digest(name: str) -> str:
    """Code digest of the function called `name` ("module:function"): 16 hexadecimal digits over all that it can run.

    Raises `NagkitError` when its module is not here any more.
    """
    module = name.partition(":")[0]
    if _source(module) is None:
        raise NagkitError(f"there is no module {module}, which made a recorded result; record the exhibit again")
    trees = [(one, _tree(one)[0]) for one in sorted(closure(module))]
    return hashlib.sha256(json.dumps(trees).encode()).hexdigest()[:16]


def closure(module: str) -> set[str]:
    """`module` and the `nagkit` modules that it imports, transitively, without reporting and command line."""
    found, todo = set(), [module]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += _tree(one)[1]
    return found


@cache
def _tree(module: str) -> tuple[str, list[str]]:
    """Hash of a module's syntax tree, and the nagkit modules that it imports anywhere, by name or by `import_module`."""
    tree = ast.parse(_source(module) or "")
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("nagkit."):
            named |= {node.value, *(_modules(node.value[:-1]) if node.value.endswith(".") else ())}  # f"nagkit.spaces.{name}"
    runs = {one for one in named if one.startswith("nagkit.") and one not in REPORTING and not one.startswith("nagkit.cli")}
    return hashlib.sha256(_spelled(tree).encode()).hexdigest(), sorted(one for one in runs if _source(one) is not None)


def _modules(package: str) -> set[str]:
    return {f"{package}.{path.stem}" for path in _ROOT.joinpath(*package.split(".")).glob("*.py")}


@cache
def _source(module: str) -> str | None:
    """Source text of a module; None for what is no module (a name inside one, a namespace package). Imports nothing of ours."""
    if module.startswith("nagkit."):
        file = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    else:
        spec = find_spec(module.partition(".")[0])
        file = Path(spec.origin) if spec and spec.origin else _ROOT / "missing"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _spelled(node: object) -> str:
    """A syntax tree as text that is the same in every Python version, without positions and docstrings."""
    if isinstance(node, list):
        kept = [one for one in node if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
        return f"[{','.join(map(_spelled, kept))}]"
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return f"{type(node).__name__}({','.join(f'{name}={_spelled(value)}' for name, value in fields)})"
    return repr(node)


# Machine --------------------------------------------------------------------------------------------------------------


@cache
def commit() -> str:
    """The checkout's commit, with "+changes" when tracked code or data differ from it; "" outside a git checkout."""
    if not (paths.root() / ".git").exists():
        return ""
    head = _git("rev-parse", "HEAD")
    # the recorded results themselves are written by the run, so they do not count as changes
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)book/results")
    return f"{head}+changes" if head and changed else head


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=paths.root(), capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@cache
def processor() -> str:
    """What decides how floating-point sums are rounded: the processor's model, and the instructions PyTorch uses on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def peak_rss_mb() -> float:
    """Most memory that this process has held so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere


def machine() -> dict[str, object]:
    """Versions and machine for the provenance of an exhibit."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    return {
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in ("numpy", "scipy", "pandas", "torch", "matplotlib", "seaborn")},
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "platform": f"{platform.system()} {platform.machine()}",
    }
