"""The published networks with the weights of a parity pack, as the cases were made."""

import numpy as np
import torch
from pack import case, difference, tolerance

from nagkit.published import networks, rankers

NODES = {"nb201": (8, 7), "mbv3": (20, 9)}
SMALL = {"width": 16, "n_blocks": 2, "n_heads": 4, "hidden": 32}


def loaded(model, weights):
    return networks.load_official(model.double(), weights).eval().requires_grad_(False)


def score_network(name, **switches):
    space = "mbv3" if name in ("M1", "F3") else "nb201"
    options = {"positions": "stage" if space == "mbv3" else "node"} | ({} if name[0] == "F" else SMALL) | switches
    return loaded(networks.ScoreNetwork(*NODES[space], **options), case(name).weights())


def cell_guide(name, **switches):
    sizes = {"n_features": 24, "width": 16, "hidden": 12, "code": 8, "head": 8} if name == "N2" else {}
    return loaded(networks.CellGuide(**sizes | switches), case(name).weights())


def network_guide(**switches):
    sizes = {"n_features": 24, "width": 16, "hidden": 12, "code": 8, "head": 8}
    return loaded(networks.NetworkGuide(**sizes | switches), case("M2").weights())


def by_class(features, n_classes):
    return features.unflatten(1, (n_classes, -1))


def close(name, key, ours):
    return difference(ours, case(name)[f"out.{key}"]) <= tolerance(name)


def ranker(name, **switches):
    space = "mbv3" if name == "U2" else "nb201"
    sizes = {} if name == "F4" else {"hidden": 12, "code": 8, "n_features": 512 if name == "U2" else 24}
    return loaded(rankers.Ranker(space, **sizes | switches), case(name).weights())


def set_features(name):
    if name == "F4":
        drawn = np.abs(np.random.RandomState(204).standard_normal((2, 200, 512))).astype(np.float32)
        return by_class(torch.from_numpy(drawn).double(), 10)
    features = by_class(case(name)["in.features"], 3)
    return torch.nn.functional.pad(features, (0, 512 - features.shape[3])) if name == "U2" else features
