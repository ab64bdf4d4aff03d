"""A pack is read as it is, and another layout or version is one clear line."""

import shutil

import numpy as np
import pack
import pytest
from safetensors.numpy import save_file

from nagkit.errors import NagkitError


@pytest.fixture
def copied(tmp_path):
    for name in pack.CASES:
        shutil.copy(pack.FOLDER / f"{name}.safetensors", tmp_path)
    return tmp_path


def rewritten(folder, name, change, **metadata):
    at = pack.read(name, folder)
    arrays = {key: change(key, value) for key, value in at.arrays.items()}
    save_file(arrays, folder / f"{name}.safetensors", at.metadata | metadata)
    return pack.read(name, folder)


def test_weights_of_another_pack_are_read_and_not_assumed(copied):
    double = rewritten(copied, "N1", lambda key, value: value * 2 if key.startswith("weights.") else value)
    assert pack.folder(copied) == copied
    for name, value in pack.case("N1").weights().items():
        assert np.array_equal(double.weights()[name], value * 2)


def test_a_missing_folder_a_missing_case_a_torn_file_and_another_version_are_clear_errors(copied):
    with pytest.raises(
        NagkitError, match="parity pack .*/nowhere lacks N1.safetensors; NAGKIT_PARITY must name a folder of 22"
    ):
        pack.folder(copied / "nowhere")
    rewritten(copied, "M3", lambda key, value: value, commit="0000000")
    with pytest.raises(NagkitError, match="M3.safetensors was made from commit 0000000, these tests read 3e981a5"):
        pack.folder(copied)
    (copied / "N1.safetensors").write_bytes((copied / "N1.safetensors").read_bytes()[:1000])
    with pytest.raises(NagkitError, match="N1.safetensors cannot be read"):
        pack.folder(copied)
    (copied / "U2.safetensors").unlink()
    (copied / "N1.safetensors").write_bytes((pack.FOLDER / "N1.safetensors").read_bytes())
    shutil.copy(pack.FOLDER / "M3.safetensors", copied)
    with pytest.raises(NagkitError, match="lacks U2.safetensors"):
        pack.folder(copied)


def test_a_case_without_an_array_says_which(copied):
    case = pack.read("N3", copied)
    del case.arrays["in.z"]
    with pytest.raises(NagkitError, match="parity case N3 has no array 'in.z'"):
        case["in.z"]
