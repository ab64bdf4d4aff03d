"""The published score network and noise-aware guides, with the published parameter names, so that official weights load.

Every network takes `(x, sigma, mask)`: a centred code `(B, n_nodes, n_ops)`, the noise level (a number, `(1,)` or `(B,)`), and
a mask of `nagkit.published.graphs`, so that one network can be trained with one mask and asked with another.
"""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from nagkit.errors import NagkitError, unknown
from nagkit.published.sets import add_set_encoders, set_code

DROPOUT = 0.1
POSITIONS = ("node", "stage", "none")
BACKWARD = ("normalised", "raw")
UNUSED = ("set_fc.", "fc2.", "hv_unify.")
"""Parameters of the published classes that none of their forward passes reads."""
_NEVER = -1e9


def load_official(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """`model` with `weights` under their published names; names in `UNUSED` are passed over, as the forward passes do.

    Raises `NagkitError` naming the first parameter that is missing, superfluous or of another shape.
    """
    # the ranking predictors have an fc1 and an fc2, of which only the first is read
    weights = {name: value for name, value in weights.items() if not name.startswith(UNUSED)}
    own = model.state_dict()
    for name in sorted(own.keys() ^ weights.keys()):
        what = "lack" if name in own else "hold an unknown"
        raise NagkitError(f"weights {what} parameter {name!r} of {type(model).__name__}")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise NagkitError(f"parameter {name!r} has shape {tuple(value.shape)}, expected {tuple(own[name].shape)}")
    model.load_state_dict(weights)
    return model


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Sines, then cosines of `values` at `width / 2` frequencies from 1 to 1/10,000, in their dtype: `(..., width)`."""
    half = width // 2
    steps = torch.arange(half, dtype=values.dtype, device=values.device) / (half - 1)
    angles = values[..., None] * torch.exp(-math.log(10_000) * steps)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def position_codes(n_nodes: int, width: int, positions: str = "node", *, interleaved: bool = True) -> Tensor:
    """Codes of the nodes, float64 `(n_nodes, width)`.

    "node": one code a node (NAS-Bench-201); "stage": codes repeat every four nodes (MobileNetV3); "none": zeros, the paper's
    ablation. Sine and cosine alternate (published) unless not `interleaved`: then as in `sinusoid`, with i / 31 for i / 32.
    """
    if positions not in POSITIONS:
        raise unknown("position code", positions, POSITIONS)
    if positions == "none":
        return torch.zeros(n_nodes, width, dtype=torch.float64)
    place = torch.arange(n_nodes, dtype=torch.float64) % (4 if positions == "stage" else n_nodes)
    if not interleaved:
        return sinusoid(place, width)
    angles = place[:, None] / 10_000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def gradient(guide: Callable, x: Tensor) -> Tensor:
    """Gradient at `x` of the sum of what `guide(x)` predicts, shaped like `x`."""
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        return torch.autograd.grad(guide(at).sum(), at)[0]


class ScoreNetwork(nn.Module):
    """The published score network ("CATE"): a masked transformer over the nodes whose output is the score itself.

    Sizes are the published ones; `shared_start` lets every attention matrix start as one draw, and the feed-forward layers of
    all blocks too, because the published `clones` copies a module with its values.
    """

    def __init__(
        self, n_nodes: int, n_ops: int, *, positions: str = "node", interleaved: bool = True, shared_start: bool = True,
        width: int = 64, n_blocks: int = 12, n_heads: int = 8, hidden: int = 128,
    ):  # fmt: skip
        super().__init__()
        _build_trunk(self, n_ops, width, n_blocks, n_heads, hidden, shared_start)
        codes = position_codes(n_nodes, width, positions, interleaved=interleaved)
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, x: Tensor, sigma: float | Tensor, mask: Tensor) -> Tensor:
        """Score, shaped like `x`."""
        return _trunk(self, x, sigma, mask, self.codes.to(x.dtype))


class CellGuide(nn.Module):
    """The published noise-aware predictor of NAS-Bench-201: a directed graph network, a noise level and a data set code.

    Each layer averages ReLU(A H W1) along the edges and ReLU(A' H W2) against them, A the row-normalised mask with self-loops.
    `backward` "normalised" (published) makes A' by transposing the *row-normalised* graph and normalising again, "raw" by
    normalising the transposed mask. `head` is the width of the last hidden layer: 32 in the published training configuration,
    from whose checkpoint the published run builds its network (the 512 of the transfer configuration is never read for it).
    """

    def __init__(
        self, n_ops: int = 7, n_features: int = 512, *, width: int = 144, n_layers: int = 4, hidden: int = 128, code: int = 56,
        head: int = 32, backward: str = "normalised", scale: str = "set",
    ):  # fmt: skip
        super().__init__()
        if backward not in BACKWARD:
            raise unknown("backward graph", backward, BACKWARD)
        self.width, self.backward = width, backward
        sizes = [n_ops] + [width] * n_layers
        self.gcn = nn.ModuleList(_matrices(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        self.fc1 = nn.Linear(width, hidden, bias=False)
        self.timeEmb1, self.timeEmb2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.pred_fc = _head(hidden + code, head)
        add_set_encoders(self, n_features, code, scale)

    set_code = set_code

    def encode(self, x: Tensor, sigma: float | Tensor, mask: Tensor) -> Tensor:
        """Codes of the cells, `(B, hidden)`."""
        mask = mask.to(x)
        along = _normalised(mask + torch.eye(len(mask), dtype=x.dtype, device=x.device))
        against = _normalised(along.T if self.backward == "normalised" else (along > 0).to(x.dtype).T)
        h = x.transpose(0, 1)  # (n_nodes, B, n_ops): a graph step is then one matrix product
        for layer in self.gcn:
            mapped = h @ torch.cat([layer["weight1"], layer["weight2"]], dim=1)
            ahead, back = mapped.chunk(2, dim=2)
            h = sum(functional.relu((g @ part.flatten(1)).view_as(part)) for g, part in ((along, ahead), (against, back))) / 2
            h = functional.dropout(h, DROPOUT, self.training)
        return functional.dropout(self.fc1(h.mean(dim=0) + _noise_code(self, x, sigma)), DROPOUT, self.training)

    def forward(self, x: Tensor, sigma: float | Tensor, mask: Tensor, code: Tensor) -> Tensor:
        """Predicted label `(B,)`; `code` `(B or 1, code)` is what `set_code` gives."""
        return predict(self, code, self.encode(x, sigma, mask))


class NetworkGuide(nn.Module):
    """The published noise-aware predictor of MobileNetV3 ("MetaPredictorCATE"): a transformer without position codes.

    Under the published chain mask every slot attends to exactly one slot, so its queries and keys have no effect.
    """

    def __init__(
        self, n_nodes: int = 20, n_ops: int = 9, n_features: int = 512, *, width: int = 64, n_blocks: int = 2, n_heads: int = 2,
        hidden: int = 32, code: int = 56, head: int = 512, shared_start: bool = True, scale: str = "set",
    ):  # fmt: skip
        super().__init__()
        _build_trunk(self, n_ops, width, n_blocks, n_heads, hidden, shared_start)
        flat = n_nodes * n_ops
        self.regeress = _perceptron(flat, 2 * flat, 2 * flat)
        self.pred_fc = _head(2 * flat + code, head)
        add_set_encoders(self, n_features, code, scale)

    set_code = set_code

    def encode(self, x: Tensor, sigma: float | Tensor, mask: Tensor) -> Tensor:
        """Codes of the networks, `(B, 2 n_nodes n_ops)`."""
        return _run(self.regeress, _trunk(self, x, sigma, mask, 0.0).flatten(1))

    def forward(self, x: Tensor, sigma: float | Tensor, mask: Tensor, code: Tensor) -> Tensor:
        """Predicted label `(B,)`; `code` `(B or 1, code)` is what `set_code` gives."""
        return predict(self, code, self.encode(x, sigma, mask))


def _build_trunk(module, n_ops, width, n_blocks, n_heads, hidden, shared_start) -> None:
    """Give `module` embedding, noise code, transformer and head under their published names."""
    if width % n_heads:
        raise NagkitError(f"width {width} is not a multiple of {n_heads} heads")
    module.width, module.n_heads = width, n_heads

    def many(make: Callable[[], nn.Module], n: int) -> nn.ModuleList:
        first = make()
        return nn.ModuleList([first] + [deepcopy(first) if shared_start else make() for _ in range(n - 1)])

    def block() -> nn.ModuleDict:
        maps = nn.ModuleDict({"w_1": nn.Linear(width, hidden), "w_2": nn.Linear(hidden, width)})
        attention = nn.ModuleDict({"linears": many(lambda: nn.Linear(width, width), 4)})
        parts = {"self_attn": ("attn", attention), "feed_forward": ("feed_forward", maps)}
        return nn.ModuleDict({key: nn.ModuleDict({"norm": nn.LayerNorm(width), name: m}) for key, (name, m) in parts.items()})

    module.opEmb = nn.ModuleDict({"fc": nn.Linear(n_ops, width)})
    module.timeEmb1, module.timeEmb2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    encoder = {"layers": many(block, n_blocks), "norms": many(lambda: nn.LayerNorm(width), n_blocks)}
    module.graph_encoder = nn.ModuleDict({"encoder_f": nn.ModuleDict(encoder)})
    module.final = _perceptron(n_blocks * width, 2 * n_blocks * width, n_ops, depth=3)


def _trunk(module, x: Tensor, sigma: float | Tensor, mask: Tensor, codes: Tensor | float) -> Tensor:
    def drop(h: Tensor) -> Tensor:
        return functional.dropout(h, DROPOUT, module.training)

    blocked = mask.to(x.device) == 0
    h = drop(module.opEmb["fc"](x) * math.sqrt(module.width)) + codes + _noise_code(module, x, sigma)[:, None]
    encoder, outputs = module.graph_encoder["encoder_f"], []
    for layer, norm in zip(encoder["layers"], encoder["norms"], strict=True):
        attention, maps = layer["self_attn"], layer["feed_forward"]
        h = h + drop(_attend(attention["attn"]["linears"], attention["norm"](h), blocked, module.n_heads, drop))
        inner = drop(functional.relu(maps["feed_forward"]["w_1"](maps["norm"](h))))
        h = h + drop(maps["feed_forward"]["w_2"](inner))
        outputs.append(norm(h))
    return _run(module.final, torch.cat(outputs, dim=2))


def _attend(linears: nn.ModuleList, h: Tensor, blocked: Tensor, n_heads: int, drop: Callable) -> Tensor:
    query, key, value = (layer(h).unflatten(2, (n_heads, -1)).transpose(1, 2) for layer in list(linears)[:3])
    logits = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    # a number and not infinity: a node without successors then weighs all nodes alike
    weights = drop(torch.softmax(logits.masked_fill(blocked, _NEVER), dim=3))
    return linears[3]((weights @ value).transpose(1, 2).flatten(2))


def _noise_code(module, x: Tensor, sigma: float | Tensor) -> Tensor:
    levels = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
    return module.timeEmb2(functional.silu(module.timeEmb1(sinusoid(levels, module.width))))


def _perceptron(inputs: int, hidden: int, outputs: int, depth: int = 2) -> nn.ModuleDict:
    sizes = [inputs] + [hidden] * (depth - 1) + [outputs]
    return nn.ModuleDict({"linears": nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))})


def _run(perceptron: nn.ModuleDict, h: Tensor) -> Tensor:
    *inner, last = perceptron["linears"]
    for layer in inner:
        h = functional.elu(layer(h))
    return last(h)


def _matrices(rows: int, columns: int) -> nn.ParameterDict:
    matrices = {name: nn.Parameter(torch.empty(rows, columns)) for name in ("weight1", "weight2")}
    for matrix in matrices.values():
        nn.init.xavier_uniform_(matrix)
    return nn.ParameterDict(matrices)


def _normalised(graph: Tensor) -> Tensor:
    return graph / graph.sum(dim=1, keepdim=True)


def _head(inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))


def predict(model: nn.Module, code: Tensor, arch: Tensor) -> Tensor:
    """Labels `(B,)` of architectures and data sets from their codes, of which either may be one for all."""
    n = max(len(code), len(arch))
    return model.pred_fc(torch.cat([code.expand(n, -1), arch.expand(n, -1)], dim=1))[:, 0]
