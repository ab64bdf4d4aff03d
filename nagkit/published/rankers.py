"""The published ranking predictors: gated recurrent passes along and against a graph, and the set encoder.

D-VAE's encoder (Zhang et al., 2019) as MetaD2A uses it. One class serves both spaces, which differ in node types and graph.
"""

import torch
from torch import Tensor, nn

from nagkit.published.graphs import RANKED
from nagkit.published.networks import _head, predict
from nagkit.published.sets import add_set_encoders, set_code

TYPES = {"nb201": 7, "mbv3": 29}


class Ranker(nn.Module):
    """Predicts the label of clean architectures, given as node types `(B, n_nodes)` (`graphs.ranker_types`).

    The input state of a node is the sum over its predecessors of sigmoid(gate) × map of (their state, their one-hot number).
    """

    def __init__(self, space: str, n_features: int = 512, *, hidden: int = 512, code: int = 56, scale: str = "set"):
        super().__init__()
        self.edges, self.n_types = RANKED[space], TYPES[space]
        self.n_nodes = 1 + max(target for _, target in self.edges)
        inputs = hidden + self.n_nodes
        self.grue_forward, self.grue_backward = (nn.GRUCell(self.n_types, hidden) for _ in range(2))
        self.gate_forward, self.gate_backward = (nn.Sequential(nn.Linear(inputs, hidden), nn.Sigmoid()) for _ in range(2))
        self.mapper_forward, self.mapper_backward = (nn.Sequential(nn.Linear(inputs, hidden, bias=False)) for _ in range(2))
        self.hg_unify = nn.Sequential(nn.Linear(2 * hidden, hidden))
        self.fc1 = nn.Linear(hidden, code)
        self.pred_fc = _head(2 * code, hidden)
        add_set_encoders(self, n_features, code, scale)

    set_code = set_code

    def states(self, types: Tensor, *, against: bool = False) -> Tensor:
        """States of the nodes after the pass along the graph (or `against` it), `(B, n_nodes, hidden)`."""
        cell, gate, mapper = (
            (self.grue_backward, self.gate_backward, self.mapper_backward)
            if against
            else (self.grue_forward, self.gate_forward, self.mapper_forward)
        )
        dtype, device = cell.weight_hh.dtype, types.device
        one_hot = nn.functional.one_hot(types, self.n_types).to(dtype)
        numbers = torch.eye(self.n_nodes, dtype=dtype, device=device)
        edges = [(target, source) for source, target in self.edges] if against else self.edges
        states, messages = {}, {}
        for node in reversed(range(self.n_nodes)) if against else range(self.n_nodes):
            arriving = [messages[source] for source, target in edges if target == node]
            state = sum(arriving) if arriving else torch.zeros(len(types), cell.hidden_size, dtype=dtype, device=device)
            states[node] = cell(one_hot[:, node], state)
            seen = torch.cat([states[node], numbers[node].expand(len(types), -1)], dim=1)
            messages[node] = gate(seen) * mapper(seen)
        return torch.stack([states[node] for node in range(self.n_nodes)], dim=1)

    def encode(self, types: Tensor) -> Tensor:
        """Codes of the graphs `(B, code)`: the last state along and the first against."""
        ends = torch.cat([self.states(types)[:, -1], self.states(types, against=True)[:, 0]], dim=1)
        return self.fc1(self.hg_unify(ends))

    def forward(self, types: Tensor, code: Tensor) -> Tensor:
        """Predicted label `(B,)` on the data sets of `code` `(B or 1, code)`."""
        return predict(self, code, self.encode(types))
