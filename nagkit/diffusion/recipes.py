"""What score networks are trained with: losses and constants.

"ours": `ScoreNetwork`, cross-entropy of the operation under log-uniform noise; minutes on a laptop core. "paper":
`PaperScoreNetwork` with the published loss and constants, 250,000 steps. Three with one budget for the paper's Table 4:
"positions" (the paper's network at a smaller width), "no-positions" (the same without its position code) and "gdss".
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor, nn
from torch.nn import functional as F

from nagkit.diffusion.score import ScoreNetwork
from nagkit.spaces.base import SearchSpace


def cross_entropy(network: ScoreNetwork, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mean over nodes of -log p(operation of the clean code, or its absence | x_0 + sigma z), in nats."""
    logits = network.logits(x0 + sigma[:, None, None] * noise, sigma)
    classes = F.pad(x0, (0, int(network.absent)))  # 0 is above an absent row's -1 and below the 1 of any other
    return F.cross_entropy(logits.flatten(0, 1), classes.argmax(dim=2).flatten())


def score_matching(network: nn.Module, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The paper's loss (equation 4): mean over all entries of (sigma score(x_0 + sigma z) + z)^2, without weighting."""
    sigma = sigma[:, None, None]
    return (sigma * network(x0 + sigma * noise, sigma.flatten()) + noise).square().mean()


@dataclass(frozen=True)
class Recipe:
    """Constants of a training run."""

    network: str
    loss: Callable[..., Tensor]
    steps: int
    batch: int
    lr: float
    warmup: int
    cosine: bool
    ema: float  # ceiling; the decay after n steps is (1 + n) / (10 + n) until it gets there
    report_every: int  # steps between validity figures
    save_every: int  # steps between saved states: what an interruption loses at most
    beta2: float = 0.999  # of Adam
    card_seeds: int = 3  # sampling seeds of the validity figures on the card
    clip: float = 1.0
    settings: dict = field(default_factory=dict)  # of the network
    on: dict[str, dict] = field(default_factory=dict)  # what differs on one space, by its name

    def for_space(self, space: SearchSpace) -> "Recipe":
        """This recipe with what differs on `space`."""
        return replace(self, on={}, **self.on.get(space.name, {}))


_SMALL = {"width": 32, "n_blocks": 3, "n_heads": 2, "hidden": 64, "dropout": 0.0, "preconditioned": True}
_TABLE4 = Recipe(
    "PaperScoreNetwork",
    score_matching,
    steps=2500,
    batch=32,
    lr=8e-3,
    warmup=100,
    cosine=True,
    ema=0.998,
    report_every=250,
    save_every=100,
    beta2=0.98,
    card_seeds=1,
    settings=_SMALL,
    on={"mbv3": {"settings": _SMALL | {"positions": "stage"}}},
)

RECIPES = {
    "ours": Recipe(
        "ScoreNetwork",
        cross_entropy,
        steps=2000,
        batch=512,
        lr=2e-3,  # a hundred times the paper's: a shallow network whose last layer starts at zero
        warmup=100,
        cosine=True,
        ema=0.998,  # averages over about 500 steps
        report_every=100,
        save_every=100,
        beta2=0.98,  # soon forgets the large first gradients, so odds of what never occurs keep falling to nothing
        on={
            "mbv3": {
                "batch": 256,
                "lr": 4e-3,
                "settings": {"positions": "stage", "mask": "adjacency", "absent": True, "sigma_max": 10.0},
            }
        },
    ),
    "paper": Recipe(
        "PaperScoreNetwork",
        score_matching,
        steps=250_000,
        batch=256,
        lr=2e-5,
        warmup=1000,
        cosine=False,
        ema=0.9999,
        report_every=10_000,
        save_every=200,
        on={"mbv3": {"settings": {"positions": "stage"}}},
    ),
    "positions": _TABLE4,
    "no-positions": replace(_TABLE4, settings=_SMALL | {"positions": "none"}, on={}),
    "gdss": replace(_TABLE4, network="GDSSScoreNetwork", settings={}, on={}),
}
