#!/usr/bin/env bash

#SBATCH -J nagkit
#SBATCH -n 1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH -t 04:00:00
export OMP_NUM_THREADS=1
python -m distributed.cli.dask_worker tcp://host:8786 --name dummy-name --nthreads 1 --memory-limit 3.73GiB --nanny --death-timeout 60
