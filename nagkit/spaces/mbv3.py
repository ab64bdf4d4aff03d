"""MobileNetV3 as Once-for-All trains it (Cai et al., 2020): five stages of two to four inverted-residual layers.

Every layer has a kernel (3, 5, 7) and an expansion ratio (3, 4, 6). The generator sees 20 nodes, five stages of four slots,
each with one of nine operations 3 * kernel + expansion (as indices); a slot beyond the depth of its stage is absent, a row of
the code without any 1. Two laws over the space matter: "ofa", Once-for-All's own sampling and that of the paper's training
data (depths equally likely, then operations), and "uniform" over architectures, where 89 % of the stages have depth 4.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from numbers import Integral

import numpy as np
import torch

from nagkit import paths
from nagkit.diffusion.exact import StagewiseDenoiser
from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import checked, ranked

KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
N_STAGES, N_SLOTS, N_OPS = 5, 4, 9
ABSENT = -1
DEPTH_WEIGHTS = {"ofa": {2: 1, 3: 1, 4: 1}, "uniform": {depth: N_OPS**depth for depth in DEPTHS}}

_COLOURS = {3: "#56B4E9", 5: "#E69F00", 7: "#D55E00"}  # of a kernel in a drawing
_TOKENS = ["0-0-0", *(f"{depth}-{kernel}-{expand}" for depth in DEPTHS for kernel in KERNELS for expand in EXPANDS)]
_VALUES = {token: ((i - 1) // N_OPS + DEPTHS[0], (i - 1) % N_OPS) if i else (0, ABSENT) for i, token in enumerate(_TOKENS)}


@cache
def _layer_properties() -> torch.Tensor:
    """Which of the 180 probabilities add up to each of the 90 features: presence of slots 3 and 4, kernel, expansion."""
    table = torch.eye(20 * N_OPS, dtype=torch.float64).unflatten(1, (20, 3, 3))  # (180, slot, kernel, expansion)
    late = torch.arange(20) % N_SLOTS >= DEPTHS[0]
    parts = table.sum(dim=(2, 3))[:, late], table.sum(dim=3)[..., 1:].flatten(1), table.sum(dim=2)[..., 1:].flatten(1)
    return torch.cat(parts, dim=1)


@cache
def _coefficients() -> dict[str, np.ndarray]:
    """Per quantity 181 integers: a constant, then nine per slot."""
    card = json.loads((paths.DATA / "mbv3_cost.json").read_text())
    return {name: np.concatenate([[card[name]["constant"]], np.ravel(card[name]["slots"])]) for name in ("params", "macs")}


def cost(archs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parameters, and multiply-accumulates of one 224×224 image, of each network (width 1.0): both int64 `(B,)`.

    Exactly linear in the code; the integer coefficients come from measured networks (`nagkit fit cost`).
    """
    features = design(archs)
    return features @ _coefficients()["params"], features @ _coefficients()["macs"]


def design(archs: np.ndarray) -> np.ndarray:
    """What `cost` is linear in: 1, then for each slot nine indicators of its operation, int64 `(B, 181)`."""
    indicator = np.asarray(archs)[:, :, None] == np.arange(N_OPS)
    return np.concatenate([np.ones((len(archs), 1), np.int64), indicator.reshape(len(archs), -1)], axis=1)


class Space:
    """The MobileNetV3 space of Once-for-All: 7,371^5 (about 2.2e19) networks, too many to list."""

    name, title = "mbv3", "MobileNetV3"
    n_slots, n_nodes, n_ops, size = 20, 20, N_OPS, sum(DEPTH_WEIGHTS["uniform"].values()) ** N_STAGES
    stages = (N_STAGES, N_SLOTS)
    laws = tuple(DEPTH_WEIGHTS)
    adjacency = np.eye(20, k=1, dtype=bool)
    benchmark = "nagkit.benchmarks.measured"
    oracles = {  # ImageNet top-1 by the published predictor (or its embedded copy), and by the surrogate of the measurements
        "ofa": {"dataset": "imagenet", "resolution": 224},
        "ofa-160": {"dataset": "imagenet", "resolution": 160},
        "measured-surrogate": {"dataset": "imagenet", "oracle": "measured-surrogate"},
    }
    development = "ofa-160"
    cost = staticmethod(cost)
    null_rankings = {"largest": lambda archs, rng: ranked(archs, *cost(archs), rng=rng)}

    @property
    def allowed(self) -> np.ndarray:
        return np.ones((20, N_OPS), bool)

    def prior(self, law: str = "ofa") -> StagewiseDenoiser:
        """The denoiser of "ofa", Once-for-All's own law, or of that "uniform" over networks."""
        return StagewiseDenoiser(self.depth_weights(law), self.allowed.reshape(*self.stages, N_OPS))

    def features(self, p: torch.Tensor) -> torch.Tensor:
        """Presence of slots 3 and 4, and kernel and expansion of every layer beyond the smallest: linear in `p`."""
        return p.double().flatten(1) @ _layer_properties().to(p.device)

    def depth_weights(self, law: str) -> dict[int, int]:
        """How likely a stage has 2, 3 or 4 layers under `law`, not normalised; operations are equally likely given that."""
        if law not in self.laws:
            raise unknown("law over mbv3", law, self.laws)
        return DEPTH_WEIGHTS[law]

    def random(self, n: int, rng: np.random.Generator, law: str = "ofa") -> np.ndarray:
        """`n` networks from `law`, int8 `(n, 20)`."""
        weights = self.depth_weights(law)
        chance = np.array(list(weights.values())) / sum(weights.values())
        depth = rng.choice(list(weights), (n, N_STAGES, 1), p=chance)
        ops = rng.integers(0, N_OPS, (n, N_STAGES, N_SLOTS), dtype=np.int8)
        ops[np.arange(N_SLOTS) >= depth] = ABSENT
        return ops.reshape(n, 20)

    def mutate(self, archs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A copy with one slot of each row changed: another operation, or the last layer of a stage removed or one added."""
        archs = np.array(archs, np.int8)
        movable = self._values(archs).any(axis=2)
        rows, slots = np.arange(len(archs)), np.where(movable, rng.random(movable.shape), -1.0).argmax(axis=1)
        options = self._values(archs)[rows, slots]
        archs[rows, slots] = np.where(options, rng.random(options.shape), -1.0).argmax(axis=1) + ABSENT
        return archs

    def neighbours(self, arch: np.ndarray) -> np.ndarray:
        """The networks that differ from `arch` in one slot."""
        slots, values = self._values(np.asarray(arch)[None])[0].nonzero()
        moved = np.repeat(np.asarray(arch, np.int8)[None], len(slots), axis=0)
        moved[np.arange(len(slots)), slots] = values + ABSENT
        return moved

    def _values(self, archs: np.ndarray) -> np.ndarray:
        """Which values (absent first, then the operations) each slot could change to alone, bool `(B, 20, 10)`."""
        present = _stages(archs) >= 0
        may = np.ones((*present.shape, 1 + N_OPS), bool)
        may[..., :3, 0] = False
        may[..., 2, 0] = ~present[..., 3]
        may[..., 3, 1:] = present[..., 2, None]
        may = may.reshape(len(archs), 20, 1 + N_OPS)
        np.put_along_axis(may, np.asarray(archs, np.int64)[..., None] - ABSENT, False, axis=2)
        return may

    def is_valid(self, archs: np.ndarray) -> np.ndarray:
        archs = np.asarray(archs)
        return ((archs >= ABSENT) & (archs < N_OPS)).all(axis=1) & (_structure(archs >= 0) == "")

    def encode(self, archs: np.ndarray) -> torch.Tensor:
        """Centred code, float32 `(B, 20, 9)`: 1 at the operation of a slot, -1 elsewhere; an absent slot is all -1."""
        archs = np.asarray(archs)
        if archs.ndim != 2 or archs.shape[1] != 20 or not self.is_valid(archs).all():
            raise NagkitError(
                f"networks must be an integer array (B, 20) with entries 0..8 in the first {_list(DEPTHS)} slots of each stage "
                f"and -1 beyond them, got shape {archs.shape}"
            )
        ops = torch.from_numpy(archs.astype(np.int64))
        return torch.nn.functional.one_hot(ops + 1, 1 + N_OPS)[..., 1:].float().mul_(2).sub_(1)

    def decode(self, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Networks by thresholding at 0.5, as the published code does; a row below it everywhere is an absent slot.

        Returns int8 `(B, 20)`, -1 in invalid rows, and the error kind of every row: `""`, `"not finite"`, `"several
        operations"` in a slot, `"slot 1 or 2 absent"`, or `"slot 4 without slot 3"` in a stage.
        """
        x = x.detach()
        on, finite = (x > 0).cpu().numpy(), torch.isfinite(x).flatten(1).all(dim=1).cpu().numpy()
        count = on.sum(axis=2)
        errors = np.where(count.max(axis=1) > 1, "several operations", _structure(count > 0))
        errors = np.where(finite, errors, "not finite")
        archs = np.where(count > 0, on.argmax(axis=2), ABSENT).astype(np.int8)
        archs[errors != ""] = ABSENT
        return archs, errors

    def decode_argmax(self, x: torch.Tensor) -> np.ndarray:
        """The network whose code is nearest: the largest entry of each slot, and the depth that these entries favour."""
        best, ops = x.detach().max(dim=2)
        gain = best.reshape(-1, N_STAGES, N_SLOTS)[..., DEPTHS[0] :].cumsum(dim=2)
        depth = DEPTHS[0] + torch.cat([torch.zeros_like(gain[..., :1]), gain], dim=2).argmax(dim=2, keepdim=True)
        present = torch.arange(N_SLOTS, device=x.device) < depth
        return torch.where(present.flatten(1), ops, ABSENT).cpu().numpy().astype(np.int8)

    def draw(self, ax, arch: np.ndarray) -> None:
        """Five stages from left to right, a box a layer; its height is the expansion, its colour the kernel.

        A slot beyond the depth of its stage is dotted and empty.
        """
        from matplotlib.patches import FancyBboxPatch

        for slot, op in enumerate(checked(self, np.asarray(arch)[None])[0]):
            x = slot + 0.8 * (slot // N_SLOTS)
            kernel, expand = (KERNELS[op // 3], EXPANDS[op % 3]) if op >= 0 else (None, 3)
            box = {"boxstyle": "round,pad=0,rounding_size=0.08", "lw": 1.2}
            style = {"fc": _COLOURS[kernel], "ec": "#333333"} if kernel else {"fc": "none", "ec": "#AAAAAA", "ls": ":"}
            ax.add_patch(FancyBboxPatch((x + 0.06, -expand / 2), 0.88, expand, **box, **style))
            if kernel:
                ax.text(x + 0.5, 0, f"{kernel}×{kernel}\n×{expand}", ha="center", va="center", fontsize=9.5, linespacing=1.1)
            if slot % N_SLOTS == 0:
                ax.text(x + 2, -3.5, f"stage {slot // N_SLOTS + 1}", ha="center", va="top", fontsize=10, color="#555555")
        ax.set(xlim=(-0.1, 23.4), ylim=(-4.6, 3.2))
        ax.set_axis_off()

    def to_string(self, archs: np.ndarray) -> list[str]:
        """Strings of the published code: 20 tokens `depth-kernel-expand` joined by `_`, `0-0-0` for an absent slot."""
        archs = np.asarray(archs)
        if not self.is_valid(archs).all():
            raise NagkitError("only valid networks have a string; drop the invalid rows first")
        depth = np.repeat(depths(archs), N_SLOTS, axis=1)
        tokens = np.array(_TOKENS, object)[np.where(archs >= 0, 1 + N_OPS * (depth - DEPTHS[0]) + archs, 0)]
        return ["_".join(row) for row in tokens]

    def from_string(self, strings: list[str]) -> np.ndarray:
        archs = np.empty((len(strings), 20), np.int8)
        said = np.empty((len(strings), N_STAGES, N_SLOTS), np.int8)
        for row, string in enumerate(strings):
            tokens = string.split("_") if isinstance(string, str) else []
            if len(tokens) != 20:
                raise NagkitError(f"{string!r} is not a MobileNetV3 network; expected 20 tokens d-k-e (or 0-0-0) joined by _")
            for slot, token in enumerate(tokens):
                if token not in _VALUES:
                    raise NagkitError(_wrong_token(token, string))
                said[row, slot // N_SLOTS, slot % N_SLOTS], archs[row, slot] = _VALUES[token]
        depth = said[..., :1]
        wrong = (said != np.where(np.arange(N_SLOTS) < depth, depth, 0)).any(axis=2) | (depth[..., 0] == 0)
        if wrong.any():
            row, stage = np.argwhere(wrong)[0]
            tokens = "_".join(strings[row].split("_")[N_SLOTS * stage : N_SLOTS * (stage + 1)])
            raise NagkitError(
                f"stage {stage + 1} of network {strings[row]!r} is {tokens}: its depth contradicts its slots; "
                "a stage of depth d says d in its first d slots and 0-0-0 in the others"
            )
        return archs

    def to_config(self, archs: np.ndarray) -> list[dict]:
        """Once-for-All configurations `{"ks": [20], "e": [20], "d": [5]}`; absent slots, which it ignores, hold 3 and 3."""
        archs = np.asarray(archs)
        if not self.is_valid(archs).all():
            raise NagkitError("only valid networks have a configuration; drop the invalid rows first")
        ops = archs.clip(0)
        kernels, expands, depth = np.array(KERNELS)[ops // 3], np.array(EXPANDS)[ops % 3], depths(archs)
        return [{"ks": k.tolist(), "e": e.tolist(), "d": d.tolist()} for k, e, d in zip(kernels, expands, depth, strict=True)]

    def from_config(self, configs: Sequence[Mapping]) -> np.ndarray:
        """Networks from Once-for-All configurations; what stands in slots beyond the depth is ignored, as there.

        Raises `NagkitError` for a missing or short list, a kernel, expansion or depth outside the space, and a slot within the
        depth that holds 0 (absent).
        """
        if not len(configs):
            return np.empty((0, 20), np.int8)
        kernels, expands, depth = _column(configs, "ks", 20), _column(configs, "e", 20), _column(configs, "d", N_STAGES)
        _indices("depth", depth, DEPTHS)
        used = (np.arange(N_SLOTS) < depth[..., None]).reshape(-1, 20)
        hole = used & ((kernels == 0) | (expands == 0))
        if hole.any():
            row, slot = np.argwhere(hole)[0]
            stage = slot // N_SLOTS
            raise NagkitError(
                f"depth {depth[row, stage]} of stage {stage + 1} in configuration {row} contradicts its slots: "
                f"slot {slot % N_SLOTS + 1} is 0 (absent)"
            )
        ops = 3 * _indices("kernel", kernels, KERNELS, used) + _indices("expansion", expands, EXPANDS, used)
        return np.where(used, ops, ABSENT).astype(np.int8)


def depths(archs: np.ndarray) -> np.ndarray:
    """Layers in each stage, int64 `(B, 5)`."""
    return (_stages(archs) >= 0).sum(axis=2)


def _stages(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows).reshape(*np.shape(rows)[:-1], N_STAGES, N_SLOTS)


def _structure(present: np.ndarray) -> np.ndarray:
    """Why the slots that are present, bool `(B, 20)`, are no network (`""` when they are), `(B,)` of str."""
    present = _stages(present)
    early, gap = ~present[..., : DEPTHS[0]].all(axis=(1, 2)), (present[..., 3] & ~present[..., 2]).any(axis=1)
    return np.select([early, gap], ["slot 1 or 2 absent", "slot 4 without slot 3"], default="")


def _wrong_token(token: str, string: str) -> str:
    parts = token.split("-") if token.count("-") == 2 else []
    for name, part, choices in zip(("depth", "kernel", "expansion"), parts, (DEPTHS, KERNELS, EXPANDS), strict=False):
        if part not in map(str, choices):
            return f"{name} {part!r} in token {token!r} of network {string!r} is not one of {_list(choices)}"
    return f"token {token!r} of network {string!r} is not depth-kernel-expand, nor 0-0-0 for an absent slot"


def _column(configs: Sequence[Mapping], key: str, length: int) -> np.ndarray:
    for row, config in enumerate(configs):
        values = config.get(key)
        if not isinstance(values, Sequence) or len(values) != length or not all(isinstance(v, Integral) for v in values):
            raise NagkitError(f"configuration {row} needs {key!r}, a list of {length} integers, got {values!r}")
    return np.array([config[key] for config in configs])


def _indices(name: str, values: np.ndarray, choices: tuple[int, ...], used: np.ndarray | bool = True) -> np.ndarray:
    """Position of each value in `choices`; a `used` one that is not among them raises `NagkitError`."""
    wrong = used & ~np.isin(values, choices)
    if wrong.any():
        row, position = np.argwhere(wrong)[0]
        where = f"stage {position + 1}" if name == "depth" else f"slot {position + 1}"
        raise NagkitError(f"{name} {values[row, position]} in {where} of configuration {row} is not one of {_list(choices)}")
    return np.searchsorted(choices, values)


def _list(choices: tuple[int, ...]) -> str:
    return ", ".join(map(str, choices))
