"""The NAS-Bench-201 network: its shapes, its parameters, and what need not be computed."""

import numpy as np
import pytest
import torch
from torch import nn

from nagkit.benchmarks import cells
from nagkit.errors import NagkitError
from nagkit.spaces import nb201
from nagkit.spaces.nb201 import CONV1, CONV3, EDGES, NONE, POOL, SKIP

SPACE = nb201.Space()
CELLS = np.concatenate([[[CONV3] * 6, [CONV1, CONV3, POOL, SKIP, NONE, CONV3], [NONE] * 6, [SKIP] * 6],
                        SPACE.random(4, np.random.default_rng(0))])  # fmt: skip


def small(arch, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cells.CellNetwork(arch, 5, **{"channels": 4, "cells": 2, **options})


def dense(cell, x):
    """A cell in which every edge is computed, as the benchmark's code does."""
    maps = [x]
    for node in (1, 2, 3):
        total = torch.zeros_like(x)
        for slot, (source, target) in enumerate(EDGES):
            if target == node:
                total = total + (cell.ops[str(slot)](maps[source]) if str(slot) in cell.ops else 0 * maps[source])
        maps.append(total)
    return maps[3]


@pytest.mark.parametrize("arch", CELLS, ids=lambda arch: "".join(map(str, arch)))
def test_logits_have_one_column_a_class_at_any_size(arch):
    for side in (32, 20):
        assert small(arch)(torch.zeros(3, 3, side, side)).shape == (3, 5)


@pytest.mark.parametrize("n_classes", [10, 37])
def test_parameters_are_those_the_benchmark_counts_dead_edges_included(n_classes):
    counted = nb201.cost(CELLS, n_classes=n_classes)[0]
    for arch, params in zip(CELLS, counted, strict=True):
        network = cells.CellNetwork(arch, n_classes, channels=16, cells=5)
        assert sum(parameter.numel() for parameter in network.parameters()) == params


def test_convolutions_have_no_bias_and_follow_a_relu():
    for module in small([CONV1, CONV3, POOL, SKIP, CONV3, CONV1]).layers.modules():
        if isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[1], nn.Conv2d):
            assert isinstance(module[0], nn.ReLU) and module[1].bias is None and module[2].affine


def test_a_skip_cell_hands_its_input_on():
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(cells.Cell([NONE, NONE, NONE, SKIP, NONE, NONE], 4)(x), x)
    assert torch.equal(cells.Cell([SKIP] * 6, 4)(x), 4 * x)  # four paths lead from the input to the output
    assert torch.equal(cells.Cell([NONE] * 6, 4)(x), torch.zeros_like(x))


def test_a_pool_keeps_the_size_and_counts_no_padding():
    assert torch.equal(cells.operation(POOL, 2)(torch.ones(1, 2, 5, 5)), torch.ones(1, 2, 5, 5))


def test_live_edges_are_computed_and_more_only_where_a_convolution_reads_zero():
    archs = SPACE.all()[::7]
    for arch, live in zip(archs, nb201.live_edges(archs), strict=True):
        computed = cells.computed_edges(arch)
        assert set(np.flatnonzero(live)) <= set(computed)
        beyond = set(computed) - set(np.flatnonzero(live))
        first = min(beyond, default=None)
        assert first is None or arch[first] in (CONV1, CONV3)


@pytest.mark.parametrize(
    ("arch", "computed"),
    [
        ([CONV3, CONV3, CONV3, NONE, NONE, NONE], []),  # nothing reaches the output
        ([NONE, CONV3, SKIP, NONE, POOL, SKIP], [1, 5]),  # map 1 is zero
        ([NONE, NONE, CONV3, SKIP, NONE, CONV1], [2, 3, 5]),  # a convolution of zero is a learned shift
        ([NONE, NONE, NONE, CONV3, SKIP, POOL], [3]),
        ([CONV3] * 6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_dead_edges_are_those_that_are_zero_or_unread(arch, computed):
    assert cells.computed_edges(arch) == computed


@pytest.mark.parametrize("arch", [[CONV3, POOL, CONV1, CONV1, NONE, NONE], [NONE, CONV1, SKIP, POOL, SKIP, CONV3],
                                  [NONE, NONE, CONV3, SKIP, NONE, CONV1], [CONV3, CONV3, CONV3, NONE, NONE, NONE]],
                         ids=["unread", "zero", "shift", "disconnected"])  # fmt: skip
def test_training_is_the_same_when_dead_edges_are_computed(arch, monkeypatch):
    """Logits in training and the weights that they depend on, after three steps."""
    x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def run():
        network, logits = small(arch, channels=8), []
        optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            logits.append(network(x))
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits[-1], torch.arange(6) % 5).backward()
            optimiser.step()
        return torch.stack(logits).detach(), network

    sparse, network = run()
    monkeypatch.setattr(cells.Cell, "forward", dense)
    full, other = run()
    assert torch.equal(sparse, full)
    assert torch.equal(network.eval()(x), other.eval()(x))


def test_impossible_sizes_are_refused():
    with pytest.raises(NagkitError, match="must be at least 1, got 0, 2 and 5"):
        small([CONV3] * 6, channels=0)
