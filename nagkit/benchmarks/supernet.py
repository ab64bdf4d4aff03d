"""A MobileNetV3 supernet for 32×32 images: every network of the space mbv3 is a part of it and shares its weights.

Once-for-All (Cai et al., 2020) in small. A layer keeps its largest kernel and expansion; a 5×5 kernel is the centre of the
7×7 one under a learned linear map, a 3×3 kernel the centre of that 5×5 one under another, fewer channels are the first ones,
and a stage of depth d runs its first d layers. Activations and squeeze-and-excitation are those of Once-for-All. What
differs: narrower widths, strides for 32 pixels (stages on 8, 8, 4, 4 and 4 pixels, so that every kernel
size still makes a difference in the last one), and batch statistics in place of running ones: a sub-network has its own.

Activations lie as `(channels, pixels, images)`: a pointwise convolution is then one matrix product, and a depthwise one, on
maps this small, a batched product with the matrix of its kernel, several times as fast on a CPU as a grouped convolution.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nagkit import paths
from nagkit.data import io
from nagkit.errors import NagkitError
from nagkit.predictors.images import normalise
from nagkit.spaces import mbv3

FORMAT = "nagkit supernet 1"
CHECKPOINT = paths.DATA / "checkpoints" / "supernet.safetensors"
WIDTHS = (8, 8, 12, 20, 28, 40)
"""Channels after the stem and after each stage; Once-for-All has 16, 24, 40, 80, 112, 160."""
FEATURES = 256
"""Inputs of the classifier."""
STRIDES, SIDES = (2, 1, 2, 1, 1), (16, 8, 8, 4, 4)
"""Stride of the first layer of each stage, and the side of the map that enters it, in pixels."""
EXCITED = (False, True, False, True, True)
SWISH = (False, False, True, True, True)
SMALLEST = np.tile(np.array([0, 0, mbv3.ABSENT, mbv3.ABSENT], np.int8), mbv3.N_STAGES)
LARGEST = np.full(20, mbv3.N_OPS - 1, np.int8)
EPS = 1e-5


class Statistics:
    """The normalisations of one network with batch statistics taken from the first images, and noted to be applied to others.

    `Statistics(n_first)` goes through a forward pass that notes a scale and a shift per channel and layer; `replay()` gives
    them again, layer by layer, so that they can be folded into the weights.
    """

    def __init__(self, n_first: int | None = None, noted: list[tuple[Tensor, Tensor]] | None = None):
        self._n_first, self._noted, self.replayed = n_first, [] if noted is None else noted, noted is not None
        self._next = 0

    def replay(self) -> "Statistics":
        return Statistics(noted=self._noted)

    def of(self, norm: "Norm", x: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift `(C, 1)` that normalise `(C, P, B)`, taken from its first images and noted."""
        first = x[..., : self._n_first].flatten(1)
        mean = first.mean(dim=1, keepdim=True)
        variance = torch.linalg.vector_norm(first, dim=1, keepdim=True) ** 2 / first.shape[1] - mean**2
        scale = norm.weight[: len(x), None] * (variance.clamp_min(0) + EPS).rsqrt()
        self._noted.append((scale, norm.bias[: len(x), None] - mean * scale))
        return self._noted[-1]

    def next(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of the next layer."""
        self._next += 1
        return self._noted[self._next - 1]


class Running(nn.Module):
    """Running mean and variance of the normalisations of one network, whose channels are `sizes` in the order of the layers."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self._sizes, self._at = list(sizes), 0
        self.register_buffer("mean", torch.zeros(sum(sizes)))
        self.register_buffer("variance", torch.ones(sum(sizes)))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Mean and variance `(C,)` of each normalisation, as views."""
        return list(zip(self.mean.split(self._sizes), self.variance.split(self._sizes), strict=True))

    @property
    def momentum(self) -> float:
        """Weight of the newest batch: a plain mean at first, so that a short training has statistics too."""
        return max(0.1, 1 / max(1, int(self.passes)))

    def next(self) -> tuple[Tensor, Tensor]:
        """Those of the next layer in a forward pass; after the last one the first follows."""
        self.passes += self._at == 0
        self._at = (self._at + 1) % len(self._sizes)
        return self.pairs()[self._at - 1]


class Norm(nn.Module):
    """Batch normalisation of the first channels of `(C, P, B)`."""

    def __init__(self, n: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))

    def forward(self, x: Tensor, statistics: "Statistics | Running | None") -> Tensor:
        if isinstance(statistics, Statistics):
            scale, shift = statistics.of(self, x)
            return x.mul_(scale[..., None]).add_(shift[..., None])
        return self.by_batch(x.reshape(1, len(x), -1), statistics).view(x.shape)

    def by_batch(self, x: Tensor, running: "Running | None") -> Tensor:
        """Normalise `(B, C, ...)` by its own statistics, which `running` follows."""
        n = x.shape[1]
        kept = (None, None) if running is None else running.next()
        momentum = 0.0 if running is None else running.momentum
        return F.batch_norm(x, *kept, self.weight[:n], self.bias[:n], training=True, momentum=momentum, eps=EPS)

    def after(self, weight: Tensor, x: Tensor, statistics: "Statistics | Running | None") -> Tensor:
        """`weight @ x`, normalised: a matrix `(out, in)` mixes channels, matrices `(C, out, in)` the pixels of each channel."""
        pointwise = weight.ndim == 2
        if isinstance(statistics, Statistics) and statistics.replayed:
            scale, shift = statistics.next()
            if pointwise:
                return torch.addmm(shift, weight * scale, x.flatten(1)).view(-1, *x.shape[1:])
            return torch.bmm(weight * scale[..., None], x).add_(shift[..., None])  # twice as fast as baddbmm
        product = (weight @ x.flatten(1)).view(-1, *x.shape[1:]) if pointwise else torch.bmm(weight, x)
        return self(product, statistics)


class Layer(nn.Module):
    """An inverted residual of elastic kernel and expansion (Sandler et al., 2018; Howard et al., 2019)."""

    def __init__(self, n_in: int, n_out: int, side: int, stride: int, excited: bool, swish: bool):
        super().__init__()
        n_mid = n_in * mbv3.EXPANDS[-1]
        self.expand = nn.Parameter(torch.empty(n_mid, n_in))
        self.kernel = nn.Parameter(torch.empty(n_mid, 49))
        self.project = nn.Parameter(torch.empty(n_out, n_mid))
        self.to_5, self.to_3 = nn.Parameter(torch.eye(25)), nn.Parameter(torch.eye(9))
        self.norms = nn.ModuleList([Norm(n_mid), Norm(n_mid), Norm(n_out)])
        self.excite = Excitation(n_mid) if excited else None
        self.n_in, self.side, self.stride = n_in, side, stride
        self.residual = stride == 1 and n_in == n_out
        self.activation = F.hardswish if swish else F.relu

    def forward(self, x: Tensor, op: int, statistics: Statistics | None) -> Tensor:
        """Activations `(n_in, P, B)` → `(n_out, P / stride², B)` by operation `op` of the space (0..8)."""
        kernel, n_mid = mbv3.KERNELS[op // 3], mbv3.EXPANDS[op % 3] * self.n_in
        overwrite = not torch.is_grad_enabled()
        h = self.activation(self.norms[0].after(self.expand[:n_mid], x, statistics), inplace=overwrite)
        h = self.activation(self.norms[1].after(self._matrices(n_mid, kernel), h, statistics), inplace=overwrite)
        if self.excite is not None:
            h = self.excite(h)
        h = self.norms[2].after(self.project[:, :n_mid], h, statistics)
        return x + h if self.residual else h

    def _matrices(self, n: int, size: int) -> Tensor:
        """The depthwise convolution with each of `n` kernels as a matrix, `(n, pixels out, pixels in)`."""
        return (self.kernels(n, size) @ _places(self.side, size, self.stride).to(self.kernel)).view(n, -1, self.side**2)

    def kernels(self, n: int, size: int) -> Tensor:
        """The first `n` depthwise kernels of side `size`, flattened, `(n, size²)`."""
        kernel = self.kernel[:n]
        if size < 7 and kernel.shape[1] == 49:
            kernel = kernel[:, _centre(7, 5)] @ self.to_5
        if size < 5 and kernel.shape[1] == 25:
            kernel = kernel[:, _centre(5, 3)] @ self.to_3
        return kernel


class Excitation(nn.Module):
    """Squeeze and excitation (Hu et al., 2018) over the first channels."""

    def __init__(self, n: int):
        super().__init__()
        self.squeeze, self.stretch = nn.Linear(n, n // 4), nn.Linear(n // 4, n)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        hidden = torch.relu(self.squeeze.weight[: n // 4, :n] @ x.mean(dim=1) + self.squeeze.bias[: n // 4, None])
        gate = self.stretch.weight[:n, : n // 4] @ hidden + self.stretch.bias[:n, None]
        return x * F.hardsigmoid(gate)[:, None]


class Supernet(nn.Module):
    """All networks of the space at once; see the module's description.

    `forward` takes images uint8 `(B, 32, 32, 3)` and one network, int8 `(20,)`, and gives logits `(B, n_classes)`.
    """

    def __init__(self, n_classes: int, widths: Sequence[int] = WIDTHS, features: int = FEATURES):
        super().__init__()
        self.widths, self.n_classes, self.features = tuple(widths), n_classes, features
        self.classes: tuple[int, ...] = ()  # labels of the data set that the outputs stand for, where a file says so
        stem = self.widths[0]
        self.first = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.second = nn.Conv2d(stem, stem, 3, stride=2, padding=1, groups=stem, bias=False)
        self.third = nn.Conv2d(stem, stem, 1, bias=False)
        self.stem_norms = nn.ModuleList(Norm(stem) for _ in range(3))
        self.layers = nn.ModuleList(Layer(*shape) for shape in _shapes(self.widths))
        self.last = nn.Parameter(torch.empty(6 * self.widths[-1], self.widths[-1]))
        self.last_norm = Norm(6 * self.widths[-1])
        self.mix = nn.Linear(6 * self.widths[-1], features)
        self.head = nn.Linear(features, n_classes)

    def forward(self, images: Tensor, arch: np.ndarray, statistics: Statistics | None = None) -> Tensor:
        return self.head(self.pooled(self.stem(normalise(images), statistics), arch, statistics))

    def stem(self, pixels: Tensor, statistics: Statistics | None = None) -> Tensor:
        """What all networks have in common: pixels `(B, 3, 32, 32)` → `(C, 256, B)`."""
        x = self._normed(self.first(pixels), 0, statistics)
        x = self._normed(self.second(F.hardswish(x)), 1, statistics)
        x = self._normed(self.third(F.relu(x)), 2, statistics)
        return x.flatten(2).permute(1, 2, 0).contiguous()

    def pooled(self, x: Tensor, arch: np.ndarray, statistics: Statistics | None = None) -> Tensor:
        """Features `(B, features)` of the stem's output by one network."""
        for layer, op in zip(self.layers, np.asarray(arch).tolist(), strict=True):
            if op != mbv3.ABSENT:
                x = layer(x, op, statistics)
        return self.finish(x, statistics)

    def finish(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Features `(B, features)` of the last layer's output."""
        x = F.hardswish(self.last_norm.after(self.last, x, statistics))
        return F.hardswish(self.mix(x.mean(dim=1).T))

    def _normed(self, x: Tensor, which: int, statistics: Statistics | None) -> Tensor:
        norm = self.stem_norms[which]
        if not isinstance(statistics, Statistics):
            return norm.by_batch(x, statistics)
        scale, shift = statistics.next() if statistics.replayed else statistics.of(norm, x.flatten(2).permute(1, 2, 0))
        return x.mul_(scale[..., None]).add_(shift[..., None])


def initialise(network: Supernet, generator: torch.Generator) -> None:
    """Variance-preserving weights (He et al., 2015); every residual branch and the classifier start at zero."""
    for name, weight in network.named_parameters():
        if name.endswith((".to_5", ".to_3")) or "norm" in name:
            continue
        if weight.ndim == 1 or name.startswith("head"):
            nn.init.zeros_(weight)
        else:
            fan_in = math.prod(weight.shape[1:]) if not name.endswith("kernel") else 25  # between the three sizes
            weight.data.normal_(0, math.sqrt(2 / fan_in), generator=generator)
    for layer in network.layers:
        if layer.residual:
            nn.init.zeros_(layer.norms[2].weight)


def _shapes(widths: Sequence[int]) -> Iterator[tuple[int, int, int, int, bool, bool]]:
    """Channels in and out, side of the map, stride, excitation and swish of the layer in each slot."""
    for stage, (n_in, n_out) in enumerate(pairwise(widths)):
        yield n_in, n_out, SIDES[stage], STRIDES[stage], EXCITED[stage], SWISH[stage]
        later = n_out, n_out, SIDES[stage] // STRIDES[stage], 1, EXCITED[stage], SWISH[stage]
        yield from [later] * (mbv3.N_SLOTS - 1)


def multiply_accumulates(archs: np.ndarray, widths: Sequence[int] = WIDTHS, features: int = FEATURES) -> np.ndarray:
    """Multiply-accumulates of one image in each network, int8 `(B, 20)`, before the classifier: int64 `(B,)`.

    Counted as for ordinary convolutions, squeeze-and-excitation included.
    """
    costs = np.zeros((20, mbv3.N_OPS + 1), np.int64)  # the last column is that of an absent slot
    for slot, (n_in, n_out, side, stride, excited, _) in enumerate(_shapes(widths)):
        n_mid = np.tile(mbv3.EXPANDS, len(mbv3.KERNELS)) * n_in
        taps = np.repeat(np.square(mbv3.KERNELS), len(mbv3.EXPANDS))
        pixels = (side // stride) ** 2
        costs[slot, :-1] = n_mid * (n_in * side**2 + (taps + n_out) * pixels) + excited * 2 * n_mid * (n_mid // 4)
    first, last = widths[0], widths[-1]
    common = 27 * first * 1024 + (9 + first) * first * 256 + 6 * last * (last * 16 + features)
    return common + costs[np.arange(20), archs].sum(axis=1)


@cache
def _centre(size: int, inner: int) -> list[int]:
    """Positions of the central `inner`×`inner` square in a flattened `size`×`size` one."""
    margin = (size - inner) // 2
    return np.arange(size**2).reshape(size, size)[margin : size - margin, margin : size - margin].ravel().tolist()


@cache
@torch.inference_mode(False)  # whoever asks first: a measurement must not leave tensors that training cannot use
def _places(side: int, size: int, stride: int) -> Tensor:
    """Which entry of a kernel joins which input pixel to which output pixel, `(size², outputs · inputs)` of 0 and 1."""
    inside = torch.eye(side**2).view(side**2, 1, side, side)
    windows = F.unfold(inside, size, padding=size // 2, stride=stride)  # (inputs, size², outputs)
    return windows.permute(1, 2, 0).flatten(1).contiguous()


def adapted(dataset: str) -> Path:
    """Where the supernet that was trained on for `dataset` lies; that of "tiny_imagenet" is the original."""
    return CHECKPOINT if dataset == "tiny_imagenet" else CHECKPOINT.with_name(f"{CHECKPOINT.stem}_{dataset}.safetensors")


def save(network: Supernet, path: Path, classes: Sequence[int]) -> None:
    """Weights as safetensors, matrices in half precision; `classes` are the labels that the outputs stand for."""
    arrays = {key: (value.half() if value.ndim > 1 else value).cpu().numpy() for key, value in network.state_dict().items()}
    sizes = {"widths": network.widths, "features": network.features, "n_classes": network.n_classes}
    io.write_arrays(path, arrays, {"format": FORMAT} | sizes | {"classes": list(classes)})


def load(path: Path = CHECKPOINT, widths: Sequence[int] = WIDTHS) -> Supernet:
    """A supernet that `save` wrote, with its `classes`; `NagkitError` when there is none, or it has other `widths`."""
    if not path.is_file():
        raise NagkitError(f"there is no supernet at {path}; train it: nagkit train supernet [--adapt DATASET] (hours on a CPU)")
    arrays, card = io.read_arrays(path)
    if card.get("format") != FORMAT:
        raise NagkitError(f"{path.name} is no supernet ({card.get('format', 'no format')!r}, expected {FORMAT!r})")
    if tuple(card["widths"]) != tuple(widths):
        had, wanted = tuple(card["widths"]), tuple(widths)
        raise NagkitError(f"{path.name} has widths {had}, expected {wanted}; train one of these widths, or pass its own")
    network = Supernet(card["n_classes"], card["widths"], card["features"])
    try:
        network.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    except RuntimeError as error:
        raise NagkitError(f"{path.name} does not hold the weights that its card speaks of; restore or retrain it") from error
    network.classes = tuple(card["classes"])
    return network.eval()
