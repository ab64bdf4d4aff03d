"""Notebooks on a Slurm cluster: `slurm.py 20 figure3` runs one on 20 jobs of a core each."""

import subprocess
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster


def workers(**options) -> SLURMCluster:
    """A scheduler in this process, and the recipe of its workers; none is started yet."""
    return SLURMCluster(
        job_name="nagkit",
        cores=1,
        processes=1,
        memory="4 GB",
        walltime="04:00:00",
        job_script_prologue=["export OMP_NUM_THREADS=1"],
        **options,
    )


if __name__ == "__main__":
    n_jobs, *notebooks = sys.argv[1:]
    Path("_build/cluster").mkdir(parents=True, exist_ok=True)
    with workers() as cluster:
        print(cluster.job_script())
        cluster.scale(jobs=int(n_jobs))
        for name in notebooks:
            papermill = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb"]
            settings = ["-p", "profile", "paper", "-p", "scheduler", cluster.scheduler_address]
            subprocess.run([*papermill, f"_build/cluster/{name}.ipynb", *settings], check=True)
