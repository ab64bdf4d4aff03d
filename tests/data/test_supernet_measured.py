"""The committed measurements of the supernet, taken again from the images."""

import numpy as np
import pytest

from nagkit import paths
from nagkit.benchmarks import supernet, validity
from nagkit.benchmarks.table import open_benchmark
from nagkit.data import images

needs_images = pytest.mark.skipif(
    paths.images() is None or not (paths.images() / images.ARCHIVES["tiny_imagenet"]).is_file(),
    reason="NAGKIT_IMAGES does not name a folder with Tiny ImageNet",
)


def test_the_committed_supernet_is_small_and_knows_its_classes():
    assert supernet.CHECKPOINT.stat().st_size <= 6_000_000
    network = supernet.load()
    assert network.classes == tuple(images.meta_classes()[0].tolist())


def test_the_study_holds_the_networks_it_names():
    table = validity.table()
    for name, archs in validity.groups().items():
        part = table[table["group"] == name]
        known = set(validity.SPACE.to_string(archs))
        assert set(part["arch"]) <= known and part["arch"].nunique() >= 0.8 * len(known), name
    both = table[table["group"] == "validity"].groupby("kind")["arch"].agg(set)
    assert both["alone"] == both["inherited"]


@needs_images
def test_measuring_again_gives_the_committed_accuracies(tmp_path, monkeypatch):
    """Another processor adds in another order, which turns a few of 1,000 answers."""
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    table = validity.table()
    known = table[(table["group"] == "fresh") & (table["draw"] == 1)].iloc[:3]
    archs = validity.SPACE.from_string(list(known["arch"]))
    found = open_benchmark("mbv3", "supernet").query(archs, "tiny_imagenet", split="test", draw=1)
    np.testing.assert_allclose(found, known["accuracy"], atol=0.5)
