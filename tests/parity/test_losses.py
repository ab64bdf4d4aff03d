"""Losses, labels and training steps give the official numbers, and stop doing so when a quirk is switched off."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from official import cell_guide, close, score_network
from pack import case, tolerance

from nagkit.published import graphs, losses
from nagkit.published.data import draw_images


def noise_of(name, **switches):
    t = losses.times(case(name)["in.uniform"], **switches)
    return t, losses.sigma(t)


def test_times_and_noise_levels_equal_the_official_ones():
    t, level = noise_of("N3")
    assert close("N3", "t", t) and close("N3", "sigma", level)
    assert not close("N3", "t", noise_of("N3", floor=0.0)[0])
    assert close("N4", "sigma", noise_of("N4")[1])
    n2 = case("N2")
    assert close("N2", "sigma_of_t", losses.sigma(n2["in.t"], 20.0))


@pytest.mark.parametrize("mask", ["raw", "closure"])
def test_score_matching_loss_and_its_gradients_equal_the_official_ones(mask):
    n3, network = case("N3"), score_network("N1").requires_grad_(True)
    graph = graphs.mask("nb201", mask)
    score = lambda x, level: network(x, level, graph)  # noqa: E731
    loss = losses.score_loss(score, n3["in.x"], noise_of("N3")[1], n3["in.z"])
    assert close("N3", f"loss.{mask}", loss.detach()[None])
    half = losses.score_loss(score, n3["in.x"], noise_of("N3")[1], n3["in.z"], "sum")
    assert close("N3", f"loss.{mask}.sum", half.detach()[None])
    loss.backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    norms = torch.stack([gradients[name].norm() for name in n3.json("grad_norm_order")])
    assert close("N3", f"grad_norm.{mask}", norms)
    for name in ("opEmb.fc.weight", "timeEmb1.bias"):
        assert close("N3", f"grad.{mask}.{name}", gradients[name])


def test_score_matching_loss_differs_when_trained_with_the_closure_or_without_the_floor_of_time():
    n3, network = case("N3"), score_network("N1")
    for mask, level in (("closure", noise_of("N3")[1]), ("raw", noise_of("N3", floor=0.0)[1])):
        graph = graphs.mask("nb201", mask)
        loss = losses.score_loss(lambda x, s, graph=graph: network(x, s, graph), n3["in.x"], level, n3["in.z"])
        assert not close("N3", "loss.raw", loss[None])


def task_features():
    """Features of the tasks of the batch of N4: of each class the first four images of the given permutation."""
    n4 = case("N4")
    classes = n4["in.classes"].numpy()[n4["in.task_of"].numpy()[training_rows()]] - 1
    return draw_images(n4["in.library"], torch.from_numpy(classes), 4, order=n4["in.permutations"])


def training_rows():
    n4 = case("N4")
    return n4["in.order"].numpy()[400:][n4["in.rows"].numpy()]


def test_labels_equal_the_official_ones():
    n4 = case("N4")
    accuracy, train = n4["in.accuracy"].numpy(), n4["in.order"].numpy()[400:]
    assert close("N4", "mean_std", torch.tensor(losses.label_scale(accuracy, train), dtype=torch.float64))
    found = torch.from_numpy(losses.labels(accuracy, train))
    assert close("N4", "label.train", found[train])
    assert close("N4", "label.eval", found[n4["in.order"][:400]][: len(n4["out.label.eval"])])
    assert close("N4", "labels", found[training_rows()])
    for other in (losses.labels(accuracy, train, 1.0), losses.labels(accuracy, np.arange(len(accuracy)))):
        assert not close("N4", "labels", torch.from_numpy(other)[training_rows()])


@pytest.mark.parametrize("mask", ["raw", "closure"])
def test_guide_loss_and_its_gradients_equal_the_official_ones(mask):
    n4, guide = case("N4"), cell_guide("N2").requires_grad_(True)
    graph, code = graphs.mask("nb201", mask), guide.set_code(task_features())
    ask = lambda x, level: guide(x, level, graph, code)  # noqa: E731
    x, level = n4["in.x01"] * 2 - 1, noise_of("N4")[1]
    assert close("N4", "x", x)
    label = torch.from_numpy(losses.labels(n4["in.accuracy"].numpy(), n4["in.order"].numpy()[400:]))[training_rows()]
    clean = losses.guide_loss(ask, x, losses.sigma(torch.full((6,), losses.FLOOR).double()), 0.0, label)
    assert close("N4", f"loss_clean.{mask}", clean.detach()[None])
    noisy = x + level[:, None, None] * n4["in.z"]
    assert close("N4", f"prediction.{mask}", ask(noisy, level).detach())
    loss = losses.guide_loss(ask, x, level, n4["in.z"], label)
    assert close("N4", f"loss.{mask}", loss.detach()[None])
    loss.backward()
    gradients = {name: p.grad for name, p in guide.named_parameters()}
    norms = [gradients[n].norm() if n in gradients else torch.zeros(()) for n in n4.json("grad_norm_order")]
    assert close("N4", f"grad_norm.{mask}", torch.stack(norms).double())


CONSTANTS = {"published": (2e-5, 1000), "fast": (1e-2, 2)}
FOLLOWED = [
    "final.linears.2.weight",
    "graph_encoder.encoder_f.layers.0.self_attn.attn.linears.0.weight",
    "graph_encoder.encoder_f.layers.1.feed_forward.norm.weight",
    "graph_encoder.encoder_f.norms.0.bias",
    "opEmb.fc.weight",
    "timeEmb1.bias",
]


def trained(run, *, first=0, decay_first=1, clip=1.0):
    """What three official steps report, from ours."""
    n6, (peak, warmup) = case("N6"), CONSTANTS[run]
    network = score_network("N1").requires_grad_(True)
    start, average, graph = deepcopy(network), deepcopy(network), graphs.mask("nb201", "raw")
    optimiser, found = losses.adam(network.parameters()), {"lr": [], "loss": [], "grad_norm": []}
    for step in range(3):
        level = losses.sigma(losses.times(n6["in.uniform"][step]))
        loss = losses.score_loss(lambda x, s: network(x, s, graph), n6["in.x"], level, n6["in.z"][step])
        found["lr"].append(losses.rate(step, peak, warmup, first))
        found["grad_norm"].append(losses.update(loss, optimiser, found["lr"][-1], clip).item())
        found["loss"].append(loss.item())
        losses.follow(average, network, losses.decay(step, first=decay_first))
    found = {key: torch.tensor(values, dtype=torch.float64) for key, values in found.items()}
    begun, ended, kept = (dict(model.named_parameters()) for model in (start, network, average))
    for name in FOLLOWED:
        found[f"change.{name}"], found[f"shadow_change.{name}"] = ended[name] - begun[name], kept[name] - begun[name]
    level = losses.sigma(losses.times(n6["in.uniform"][0]))  # the evaluation asks for the first batch again
    with torch.no_grad():
        loss = losses.score_loss(lambda x, s: average(x, s, graph), n6["in.x"], level, n6["in.z"][0])
    found["ema_loss"] = loss[None]
    return {f"{run}.{key}": value.detach() for key, value in found.items()}


@pytest.mark.parametrize("run", CONSTANTS)
def test_three_training_steps_equal_the_official_ones(run):
    found = trained(run)
    wrong = [key for key, value in found.items() if not close("N6", key, value)]
    assert not wrong, f"beyond {tolerance('N6')}: {wrong}"


@pytest.mark.parametrize("run", CONSTANTS)
@pytest.mark.parametrize(
    "switch, key", [({"first": 1}, "change"), ({"decay_first": 0}, "shadow_change"), ({"clip": 1e9}, "change")]
)
def test_training_steps_differ_when_a_quirk_is_switched_off(run, switch, key):
    name = f"{run}.{key}.opEmb.fc.weight"
    if "clip" in switch and case("N6")[f"out.{run}.grad_norm"].max() < 1:
        pytest.skip("the gradient is too small to be clipped")
    assert not close("N6", name, trained(run, **switch)[name])
