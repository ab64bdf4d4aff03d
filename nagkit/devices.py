"""Where tensors live, and how many threads work on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from nagkit.errors import NagkitError, unknown

DEVICES = ("cpu", "cuda")


def get_device(name: str | torch.device | None = None) -> torch.device:
    """The device called `name` ("cpu", "cuda", "cuda:1"); by default the GPU where PyTorch sees one.

    Raises `NagkitError` for an unknown name, and for "cuda" where there is none.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", str(name), DEVICES) from None
    if device.type not in DEVICES:
        raise unknown("device", str(name), DEVICES)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NagkitError(f"device {str(name)!r} is not here: PyTorch sees no CUDA GPU; leave --device out to use the CPU")
    return device


def beside(module: nn.Module, x: Tensor) -> nn.Module:
    """`module` on the device of `x`: moved there, in place, when its weights lie elsewhere."""
    weight = next(chain(module.parameters(), module.buffers()), x)
    return module if weight.device == x.device else module.to(x.device)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let PyTorch use `n` CPU threads inside: sums are split by threads, so another number of them rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
