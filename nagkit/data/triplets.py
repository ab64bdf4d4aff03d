"""What predictors are meta-trained on."""

from typing import NamedTuple

import numpy as np


class Triplets(NamedTuple):
    """(task, architecture, accuracy) triplets; a task is a subset of the classes of a data set (Lee et al., 2021)."""

    archs: np.ndarray
    """int8 `(N, n_slots)`"""
    accuracy: np.ndarray
    """Percent, float64 `(N,)`."""
    task: np.ndarray
    """Row of each triplet's task in `classes`, int64 `(N,)`."""
    classes: np.ndarray
    """Labels of the 20 classes of each task, int64 `(n_tasks, 20)`."""
    order: np.ndarray | None = None
    """A published permutation of the triplets, int64 `(N,)`; its first 400 are the validation part."""
