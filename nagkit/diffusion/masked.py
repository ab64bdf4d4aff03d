"""Masked (absorbing) diffusion (Austin et al., 2021) of architectures, guided exactly in closed form: no network, no training.

Noise hides the slots of an architecture one after another; the reverse process reveals them. Under the uniform law over all
combinations of slot values a hidden slot is uniform whatever is visible, and guided towards p(x) exp(scale · f(x)) it carries
k with probability proportional to h(S ∪ {i = k}), where h(S) = E[exp(scale · f) | visible part S]. All h follow from the scores
of the space by one sum along each slot. Slots that are revealed together are drawn independently of each other: one at a time
the guided law is exact, in any order that looks at visible slots only, and with fewer steps its error can be computed.

An architecture with hidden slots is a row of slot values in which K, one more than the largest value, means hidden. A table
holds a number for each of them, `(K + 1,) * n_slots`, -inf where a value does not occur in its slot.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from nagkit.errors import NagkitError, unknown
from nagkit.spaces.base import SearchSpace, is_listed

ORDERS = ("random", "informed")
"""Which slots are revealed next: any, equally likely; or those whose value is most certain, by entropy. One at a time both are
exact. Several at once, random orders are a mixture of laws, which is no farther from the aim than they are on average."""
_LARGEST = 2**26  # entries of a table: 512 MB


def slots(space: SearchSpace) -> tuple[np.ndarray, list[np.ndarray]]:
    """All architectures, and the values that occur in each slot; `NagkitError` where masked diffusion has no closed form."""
    if not is_listed(space):
        raise NagkitError(f"{space.name} is too large to list, so masked diffusion has no closed form; leave diffusion out")
    archs = space.all()
    values = [np.unique(column) for column in archs.T]
    if min(each[0] for each in values) < 0 or math.prod(map(len, values)) != len(archs):
        raise NagkitError(f"{space.name} does not hold all combinations of its slots' values; masked diffusion needs them")
    entries = (2 + max(int(each[-1]) for each in values)) ** space.n_slots
    if entries > _LARGEST:
        raise NagkitError(f"masked diffusion of {space.name} would need a table of {entries:,} numbers, above {_LARGEST:,}")
    return archs, values


def partial_values(space: SearchSpace, scores: np.ndarray, scale: float = 1.0, *, first_order: bool = False) -> Tensor:
    """log h(S) = log E[exp(scale · scores) | S] for every architecture S with hidden slots, a float64 table.

    `scores` is `(size,)`, in the order of `space.all()`; their unit is that of 1 / `scale`. With `first_order`, the first term
    of its Taylor series in `scale` instead, scale · E[scores | S]: what is left of guidance by the gradient of a predictor
    that is extended multilinearly to probabilities, at the denoised architecture. Sums are taken in logarithms, so any
    strength is good. Raises `NagkitError` for scores that are not finite or of another number, a scale that is negative or
    not finite, and a space that cannot be listed or does not hold all combinations of its slots' values.
    """
    if not 0 <= scale < math.inf:
        raise NagkitError(f"guidance scale must be a finite number >= 0, got {scale}")
    archs, values = slots(space)
    scores = np.asarray(scores, np.float64)
    if scores.shape != (len(archs),):
        raise NagkitError(f"masked guidance needs one score for each of {len(archs):,} architectures, got {scores.shape}")
    if not np.isfinite(scores).all():
        first = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise NagkitError(f"the score of architecture {archs[first].tolist()} is {scores[first]}; all scores must be finite")
    top = 1 + max(int(each.max()) for each in values)
    table = torch.full((top,) * space.n_slots, -torch.inf, dtype=torch.float64)
    table[tuple(torch.from_numpy(archs.T.astype(np.int64)))] = torch.from_numpy(scale * scores)
    for slot, each in enumerate(values):
        known = table.index_select(slot, torch.from_numpy(each.astype(np.int64)))
        hidden = known.mean(slot) if first_order else known.logsumexp(slot) - math.log(len(each))
        table = torch.cat([table, hidden.unsqueeze(slot)], dim=slot)
    return table


def schedule(n_slots: int, steps: int | None = None) -> list[int]:
    """How many slots each of `steps` reverse steps reveals, as equal as can be, larger first; by default one at a time."""
    steps = n_slots if steps is None else steps
    if not 1 <= steps <= n_slots:
        raise NagkitError(f"masked diffusion of {n_slots} slots takes 1 to {n_slots} steps, got {steps}")
    return [len(part) for part in np.array_split(np.arange(n_slots), steps)]


def sample(
    table: Tensor, n: int, *, generator: torch.Generator, reveal: Sequence[int] | None = None, order: str = "random"
) -> np.ndarray:
    """`n` architectures, int8 `(n, n_slots)`, from the reverse process that starts with every slot hidden.

    `table` is that of `partial_values`; `reveal` says how many slots each step reveals (`schedule`; default: one at a time,
    which draws from the tilted law exactly). Probabilities are float64. Raises `NagkitError` for a schedule in which a step
    reveals nothing, or whose sum is not the number of slots, and for an unknown order.
    """
    reveal = _checked(table, reveal, order)
    n_slots, top, device = table.ndim, table.shape[0] - 1, generator.device
    flat, strides = table.flatten().to(device), torch.tensor(table.stride(), device=device)
    state = torch.full((n,), table.numel() - 1, device=device)  # every slot hidden: the last entry
    archs = torch.full((n, n_slots), top, device=device)
    turn, chance = torch.rand((2, n, n_slots), generator=generator, device=device, dtype=torch.float64)
    turn = turn.argsort(dim=1)
    shown = 0
    for count in reveal:
        if order == "informed":
            of_each = _normalised(flat[_moves(state[:, None], strides, top)], dim=2)  # visible slots come out as nonsense
            doubt = _entropy(of_each, dim=2).masked_fill(archs != top, torch.inf)
            slots = doubt.argsort(dim=1, stable=True)[:, :count]
        else:
            slots = turn[:, shown : shown + count]
        step = strides[slots]  # (n, count)
        total = _odds(flat[_moves(state[:, None], step, top)], dim=2).cumsum(dim=2)
        at = chance[:, shown : shown + count] * total[..., -1]
        at = torch.minimum(at, torch.nextafter(total[..., -1], total.new_zeros(())))  # a product may round up to the total
        value = torch.searchsorted(total, at[..., None], right=True).squeeze(2)
        shown += count
        archs.scatter_(1, slots, value)
        state = state + ((value - top) * step).sum(dim=1)
    return archs.cpu().numpy().astype(np.int8)


def propagate(table: Tensor, reveal: Sequence[int] | None = None, *, order: str = "random") -> Tensor:
    """The law that `sample` draws from, computed: float64 `(K,) * n_slots`, by values of the slots.

    Laws over the visible slots are kept for each set of them, so memory and time grow with 2^n_slots and with the table.
    Raises `NagkitError` as `sample`.
    """
    reveal, n_slots = _checked(table, reveal, order), table.ndim
    laws: dict[frozenset[int], Tensor] = {frozenset(): torch.ones((1,) * n_slots, dtype=torch.float64)}
    for count in reveal:
        after: dict[frozenset[int], Tensor] = {}
        for visible, law in laws.items():
            hidden = [slot for slot in range(n_slots) if slot not in visible]
            chances = {slot: _normalised(_part(table, visible | {slot}), dim=slot) for slot in hidden}
            for chosen, share in _choices(chances, count, order):
                found = reduce(torch.mul, (chances[slot] for slot in chosen), law * share)
                together = visible | set(chosen)
                after[together] = after[together] + found if together in after else found
        laws = after
    return laws[frozenset(range(n_slots))]


def error(table: Tensor, law: Tensor) -> dict[str, float]:
    """How far a `law` of `propagate` is from the tilted law that `table` aims at.

    "total variation", in [0, 1]; and "divergence" of Kullback and Leibler, of the law from the tilted one, in nats.
    """
    aim = table[(slice(0, -1),) * table.ndim]
    log_aim = aim - aim.flatten().logsumexp(0)
    seen = law > 0
    divergence = float((law[seen] * (law[seen].log() - log_aim[seen])).sum())
    return {"total variation": float((law - log_aim.exp()).abs().sum()) / 2, "divergence": max(divergence, 0.0)}


@dataclass(frozen=True)
class MaskedLaw:
    """What masked diffusion draws from, with `sample` like that of closed-form denoisers."""

    space: SearchSpace
    table: Tensor
    reveal: Sequence[int]
    order: str = "random"

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` draws as codes, float32 `(n, n_nodes, n_ops)` in {-1, 1}."""
        return self.space.encode(sample(self.table, n, reveal=self.reveal, order=self.order, generator=generator))


def _checked(table: Tensor, reveal: Sequence[int] | None, order: str) -> list[int]:
    if order not in ORDERS:
        raise unknown("order of slots", order, ORDERS)
    reveal = schedule(table.ndim) if reveal is None else list(reveal)
    if not all(count >= 1 for count in reveal):
        raise NagkitError(f"every step must reveal at least 1 slot, got the schedule {reveal}")
    if sum(reveal) != table.ndim:
        raise NagkitError(f"a schedule must reveal all {table.ndim} slots, no more and no fewer, got {reveal}: {sum(reveal)}")
    return reveal


def _moves(state: Tensor, step: Tensor, top: int) -> Tensor:
    """Where the table holds what `state`, with `top` in a hidden slot of stride `step`, becomes for each value, `(..., K)`."""
    values = torch.arange(top, device=state.device)
    return (state[..., None] + (values - top) * step[..., None]).clamp_min(0)


def _part(table: Tensor, visible: frozenset[int] | set[int]) -> Tensor:
    """The entries in which these slots and no others are visible; every slot keeps its axis."""
    top = table.shape[0] - 1
    return table[tuple(slice(0, top) if slot in visible else slice(top, None) for slot in range(table.ndim))]


def _odds(logits: Tensor, dim: int) -> Tensor:
    return (logits - logits.amax(dim=dim, keepdim=True)).exp()


def _normalised(logits: Tensor, dim: int) -> Tensor:
    """Probabilities; 0 for visible values that do not occur."""
    return logits.softmax(dim=dim).nan_to_num(0.0)


def _entropy(chance: Tensor, dim: int) -> Tensor:
    """In nats, rounded: equal slots are to be equal, in whatever order sums are taken."""
    return torch.special.entr(chance).sum(dim=dim).round(decimals=9)


def _choices(chances: dict[int, Tensor], count: int, order: str) -> Iterator[tuple[tuple[int, ...], float | Tensor]]:
    """Each set of `count` hidden slots, with its probability given what is visible."""
    sets = list(combinations(chances, count))
    if order == "random":
        yield from ((chosen, 1 / len(sets)) for chosen in sets)
        return
    doubt = [_entropy(chance, dim=slot).unsqueeze(slot) for slot, chance in chances.items()]
    first = torch.stack(doubt).argsort(dim=0, stable=True).argsort(dim=0) < count
    place = {slot: row for row, slot in enumerate(chances)}
    for chosen in sets:
        yield chosen, reduce(torch.logical_and, (first[place[slot]] for slot in chosen)).double()
