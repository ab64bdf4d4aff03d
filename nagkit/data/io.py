"""Files that are either whole or absent, and arrays in safetensors."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nagkit.errors import NagkitError

_STALE_SECONDS = 3600
_METADATA = "nagkit"  # one entry: safetensors writes several in random order, and equal contents must be equal bytes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden `.part` file in the folder of `path` to write to, which replaces `path` in one step when the block ends.

    Nothing remains of a failed write; what a kill in mid-write leaves is removed by the next write of the same file
    after an hour (a younger one may belong to a running process). Raises `NagkitError` when the folder cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f".{path.name}.*.part"):
            if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                old.unlink(missing_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise NagkitError(
            f"cannot write {path}: {error.strerror or error}; make its folder writable or point NAGKIT_CACHE to one that is"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to `path`, whole or not at all (`replacing`)."""
    with replacing(path) as part:
        part.write_bytes(content)
    return Path(path)


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` for text (UTF-8)."""
    return write_bytes(path, text.encode())


@cache
def read_yaml(path: Path) -> dict:
    """The contents of one of our YAML files, read once in a process."""
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def sha256(path: Path) -> str:
    """Digest of a file's contents, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def write_card(path: Path, card: Mapping[str, object]) -> None:
    """Write what is said of a file to the JSON file beside it, atomically."""
    write_text(Path(path).with_suffix(".json"), json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, object] | None = None) -> Path:
    """Write named arrays and JSON metadata to one safetensors file, atomically."""
    entry = {_METADATA: json.dumps(dict(metadata or {}))}
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=entry)
    return write_bytes(path, content)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """All arrays and the metadata of a safetensors file; `NagkitError` when it is missing or damaged."""
    file = open_arrays(path)
    return {name: file.get_tensor(name) for name in file.keys()}, metadata(file)


def open_arrays(path: Path) -> safe_open:
    """A safetensors file opened memory-mapped (`keys()`, `get_tensor(name)`); `NagkitError` when missing or damaged."""
    try:
        return safe_open(str(path), framework="numpy")
    except (OSError, SafetensorError) as error:
        raise NagkitError(f"cannot read {path}: {error}; delete it, and it is rebuilt or restored from its source") from error


def metadata(file: safe_open) -> dict[str, object]:
    """Metadata of an opened file, as written by `write_arrays`."""
    return json.loads((file.metadata() or {}).get(_METADATA, "{}"))
