"""The meta-training data of MBv3: tasks, their split, and accuracies among a task's own classes."""

import numpy as np
import pytest
import torch

from nagkit.benchmarks import meta, supernet
from nagkit.benchmarks.inherited import Inherited
from nagkit.data import images as data
from nagkit.data import io
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream, torch_stream

WIDTHS = (8, 8, 8, 12, 12, 16)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small supernet of all 160 classes, three random images of each, and another place for the results."""
    network = supernet.Supernet(160, WIDTHS, 16)
    generator = torch_stream(0, "test/meta")
    supernet.initialise(network, generator)
    with torch.no_grad():
        network.head.weight.normal_(generator=generator)
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(supernet, "CHECKPOINT", tmp_path / "supernet.safetensors")
    monkeypatch.setattr(supernet.load, "__defaults__", (supernet.CHECKPOINT, WIDTHS))
    monkeypatch.setattr(meta, "FILE", tmp_path / "meta.safetensors")
    supernet.save(network, supernet.CHECKPOINT, range(160))
    images = numpy_stream(0, "test/meta").integers(0, 256, (480, 32, 32, 3)).astype(np.uint8)
    monkeypatch.setattr(meta, "_meta_images", lambda split: (images, np.repeat(np.arange(160), 3)))
    return network


def test_tasks_have_distinct_classes_and_networks_are_valid():
    classes, archs = meta.tasks()
    assert classes.shape == (500, 20) and archs.shape == (500, 10, 20)
    assert all(len(set(task)) == 20 for task in classes.tolist()) and classes.max() < 160
    assert meta.SPACE.is_valid(archs.reshape(-1, 20)).all()


def test_an_accuracy_is_that_among_the_classes_of_the_task(small, monkeypatch):
    """The best of the task's own outputs, written down again: answers outside the task do not count."""
    found = meta.measure([3])["accuracy"]
    classes, archs = meta.tasks()
    images, labels = meta._meta_images("test")
    kept = np.isin(labels, classes[3])
    network = supernet.load(supernet.CHECKPOINT)
    rest = np.setdiff1d(np.arange(160), classes[3])
    with torch.no_grad():
        network.head.bias[rest] = -1e9
    expected = Inherited(images[kept], images[kept], labels[kept], n_images=60).accuracy(network, archs[3], progress=False)
    np.testing.assert_array_equal(found, expected)
    assert found.std() > 0


def test_the_file_gives_back_what_was_measured_and_its_parts_share_no_task(small, monkeypatch):
    monkeypatch.setattr(meta, "N_TASKS", 20)
    monkeypatch.setattr(meta, "N_NETWORKS", 2)
    meta._tasks.cache_clear()
    made = meta.build(progress=False)
    meta._tasks.cache_clear()
    assert len(made.archs) == 40 and made.classes.shape == (20, 20)
    assert set(made.classes.ravel()) <= set(data.meta_classes()[0])
    parts = {split: meta.rows(made, split) for split in meta.SPLITS}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(40))
    tasks = [set(made.task[rows]) for rows in parts.values()]
    assert [len(part) for part in tasks] == [14, 3, 3] and sum(map(len, tasks)) == len(set.union(*tasks))
    io.write_arrays(meta.FILE, {"archs": made.archs[:39], "accuracy": made.accuracy[:39], "classes": made.classes})
    with pytest.raises(NagkitError, match="39 networks for 20 tasks.*nagkit fit meta"):
        meta.load()
