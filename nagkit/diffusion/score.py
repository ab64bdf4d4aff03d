"""Score networks: learned denoisers of architecture codes."""

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nagkit.devices import beside
from nagkit.diffusion.samplers import Denoiser
from nagkit.errors import NagkitError, unknown

MASKS = ("adjacency", "closure")
POSITIONS = ("node", "stage", "none")
_LOG2_E = math.log2(math.e)
_ZERO = 1e-4  # a sigma below this counts as this much: 2 x / sigma^2 stays a tame float32


def as_denoiser(network: nn.Module) -> Denoiser:
    """The denoiser of a network, which is put in evaluation mode and follows x to its device.

    A `ScoreNetwork` is one already; of a network whose output is a score, D(x, sigma) = x + sigma^2 score(x, sigma), clamped
    to [-1, 1], where every posterior mean lies.
    """
    network.eval()

    def denoiser(x: Tensor, sigma: float | Tensor) -> Tensor:
        sigma, output = _per_sample(x, sigma), beside(network, x)(x, sigma)
        return output if isinstance(network, ScoreNetwork) else (x + sigma[:, None, None] ** 2 * output).clamp(-1, 1)

    return denoiser


def attention_mask(adjacency: np.ndarray, mask: str) -> Tensor:
    """Which node (row) attends to which (column), bool `(n_nodes, n_nodes)`.

    "adjacency": a node sees its direct successors, as the published code trains; "closure": every node it can reach, as
    the published code samples. Neither contains the node itself. Raises `NagkitError` for another name.
    """
    if mask not in MASKS:
        raise unknown("attention mask", mask, MASKS)
    reach = np.asarray(adjacency, bool)
    if mask == "closure":
        for middle in range(len(reach)):  # Warshall
            reach = reach | reach[:, middle : middle + 1] & reach[middle : middle + 1]
    return torch.from_numpy(reach.copy())


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Sines and cosines of `values` (any shape) at `width / 2` frequencies from 1 to 1/10,000: shape `(..., width)`."""
    frequencies = torch.exp(-math.log(10_000) * torch.linspace(0, 1, width // 2, device=values.device))
    angles = values[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def mlp(*widths: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers of these widths with an activation between them."""
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), activation())]
    return nn.Sequential(*layers[:-1])


class PaperScoreNetwork(nn.Module):
    """The paper's design for Table 4: a masked transformer over the nodes whose output is the score itself (section 2.2).

    The published network is `nagkit.published.networks.ScoreNetwork`; this one is trained in a small part of its steps. The
    head reads the normalised outputs of all blocks. `mask` is one of `MASKS`; a node without successors attends to all nodes
    alike. `positions` is "node" (one code per node, NB201), "stage" (codes repeat every 4 nodes, MBv3) or "none" (the paper's
    ablation). `preconditioned` scales input and output with the noise level as Karras et al. (2022, table 1) do, for data of
    standard deviation 1.
    """

    def __init__(
        self, n_nodes: int, n_ops: int, adjacency: np.ndarray, *, mask: str = "adjacency", positions: str = "node",
        width: int = 64, n_blocks: int = 12, n_heads: int = 8, hidden: int = 128, dropout: float = 0.1,
        preconditioned: bool = False,
    ):  # fmt: skip
        super().__init__()
        allowed = _lay_out(self, n_nodes, adjacency, mask, positions, width)
        has_target = allowed.any(dim=1, keepdim=True)
        self.register_buffer("has_target", has_target.float(), persistent=False)  # (n_nodes, 1)
        self.register_buffer("bias", _bias(allowed | ~has_target), persistent=False)  # (n_nodes, n_nodes)
        self.scale, self.preconditioned = math.sqrt(width), preconditioned
        self.embed = nn.Linear(n_ops, width)
        self.embed_noise = mlp(width, 4 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, n_heads, hidden, dropout) for _ in range(n_blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(n_blocks))
        wide = 2 * n_blocks * width
        self.head = mlp(n_blocks * width, wide, wide, n_ops, activation=nn.ELU)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Score of `x` `(B, n_nodes, n_ops)` at noise level `sigma`, a number or `(B,)`; same shape as `x`."""
        sigma = _per_sample(x, sigma)
        spread = (1 + sigma**2).sqrt()[:, None, None] if self.preconditioned else 1.0
        noise = self.embed_noise(sinusoid(sigma, self.codes.shape[1]))  # (B or 1, width)
        h = self.dropout(self.scale * self.embed(x / spread)) + self.codes + noise[:, None]  # (B, n_nodes, width)
        outputs = []
        for block, norm in zip(self.blocks, self.norms, strict=True):
            h = block(h, self.bias, self.has_target)
            outputs.append(norm(h))
        score = self.head(torch.cat(outputs, dim=2))
        return score / (sigma[:, None, None] * spread) - x / spread**2 if self.preconditioned else score


class ScoreNetwork(nn.Module):
    """Our score network, itself a denoiser: the exact row-wise posterior plus what a small masked transformer adds to it.

    Row `i` given x alone follows softmax(2 x_i / sigma^2) when its operations are equally likely (see `exact.py`). The network
    adds to these logits what the other rows and the law of the space imply, and its last layer starts at zero, so an
    untrained network already is that posterior and training only learns the difference. The output is 2p - 1 with p a
    distribution over operations, hence in [-1, 1] without clamping.

    A node attends to itself and, along the closure of the DAG (`mask`, one of `MASKS`), to its ancestors as well as its
    descendants: a node's posterior depends on both, which the one-way mask of the paper cannot express, and the
    closure makes two blocks enough for every pair of nodes. `positions` as in `PaperScoreNetwork`. Small and shallow on
    purpose: the law it learns is nearly independent between rows, and guidance differentiates it in every step.

    `absent` adds the class of a node that is not there, whose code is all -1 and whose logit is 0 where operation k has
    2 x_k / sigma^2. The corrections then come in units of 1 + 1 / sigma^2: a rule such as "slot 4 only with slot 3" has to
    outweigh the evidence of a row, and that grows so. Trained on noise levels from `sigma_min` to `sigma_max`; beyond, the
    correction is that of the nearest.
    """

    sigma_min = 0.1

    def __init__(
        self, n_nodes: int, n_ops: int, adjacency: np.ndarray, *, mask: str = "closure", positions: str = "node",
        width: int = 32, n_blocks: int = 2, n_heads: int = 2, hidden: int = 64, absent: bool = False, sigma_max: float = 5.0,
    ):  # fmt: skip
        super().__init__()
        reach = _lay_out(self, n_nodes, adjacency, mask, positions, width)
        self.register_buffer("bias", _bias(reach | reach.T | torch.eye(n_nodes, dtype=torch.bool)), persistent=False)
        self.absent, self.sigma_max = absent, sigma_max
        self.embed = nn.Linear(2 * (n_ops + absent) + 2 * absent, width)
        self.embed_noise = mlp(width, width, width)
        self.blocks = nn.ModuleList(_Block(width, n_heads, hidden) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_ops + absent)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x_0 | x] of `x` `(B, n_nodes, n_ops)` at noise level `sigma`, a number or `(B,)`; same shape, in [-1, 1]."""
        return _softmax(self.logits(x, sigma))[..., : x.shape[2]].mul(2).sub(1)

    def logits(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Unnormalised log-probabilities of the operations of every node, shaped like `x`; with `absent` one more, the last."""
        sigma, x = _per_sample(x, sigma), functional.pad(x, (0, int(self.absent)))
        likelihood = x * (2 / sigma.clamp_min(_ZERO) ** 2)[:, None, None]
        scaled = x * (1 + sigma**2).rsqrt()[:, None, None]
        sigma = sigma.clamp(self.sigma_min, self.sigma_max)
        noise = self.embed_noise(sinusoid(10 * sigma.log(), self.codes.shape[1]))  # (B or 1, width)
        features, gain = [scaled, _softmax(likelihood)], 1.0
        if self.absent:  # log odds of being there, near zero and in units of the gain
            gain = (1 + sigma**-2)[:, None, None]  # odds grow like 1 / sigma^2, and so must what can outweigh them
            there = torch.logsumexp(likelihood[..., :-1], dim=2, keepdim=True)
            features += [(there / 4).clamp(-3, 3), there / gain]
        h = self.embed(torch.cat(features, dim=2)) + (self.codes + noise[:, None])
        for block in self.blocks:
            h = block(h, self.bias)
        return likelihood + gain * self.head(self.norm(h))


class _Block(nn.Module):
    """Pre-norm transformer block: self-attention with an additive mask, then a two-layer ReLU network."""

    def __init__(self, width: int, n_heads: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, bias: Tensor, has_target: Tensor | float = 1.0) -> Tensor:
        qkv = self.qkv(self.norm_attention(h)).unflatten(2, (3, self.n_heads, -1))  # (B, n_nodes, 3, n_heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, n_heads, n_nodes, d) each
        query = query * (has_target * query.shape[3] ** -0.5)  # a zero query weighs all keys alike
        weights = _softmax(query @ key.transpose(2, 3) + bias)  # (B, n_heads, n_nodes, n_nodes)
        h = h + self.dropout(self.out((self.dropout(weights) @ value).transpose(1, 2).flatten(2)))
        return h + self.dropout(self.mlp(self.norm_mlp(h)))


def _lay_out(module: nn.Module, n_nodes: int, adjacency: np.ndarray, mask: str, positions: str, width: int) -> Tensor:
    """Give `module` its buffer of position codes `(n_nodes, width)`, and return the `attention_mask`."""
    if np.shape(adjacency) != (n_nodes, n_nodes):
        raise NagkitError(f"adjacency must have shape {(n_nodes, n_nodes)}, got {np.shape(adjacency)}")
    if positions not in POSITIONS:
        raise unknown("position code", positions, POSITIONS)
    slots = torch.arange(n_nodes) % (4 if positions == "stage" else n_nodes)
    module.register_buffer("codes", sinusoid(slots.float(), width) * (positions != "none"), persistent=False)
    return attention_mask(adjacency, mask)


def _bias(allowed: Tensor) -> Tensor:
    return torch.zeros(allowed.shape).masked_fill(~allowed, -math.inf)


def _softmax(logits: Tensor) -> Tensor:
    # in base 2: torch's softmax is several times as slow on short rows, and its exp wakes every thread however small x is
    odds = torch.exp2(_LOG2_E * (logits - logits.detach().amax(dim=-1, keepdim=True)))
    return odds / odds.sum(dim=-1, keepdim=True)


def _per_sample(x: Tensor, sigma: float | Tensor) -> Tensor:
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1)
