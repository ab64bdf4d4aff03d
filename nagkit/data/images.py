"""Images of the data sets, 32×32 RGB, through one interface: archives in `NAGKIT_IMAGES`, or a file or folder of yours.

An archive is a NumPy `.npz` with `x_<split>` (N, 32, 32, 3), grey (N, 28, 28) or `jpeg_<split>` + `off_<split>` (the
bytes of all JPEG files and the N + 1 offsets between them), `y_<split>` (N,) and, optionally, `class_names`, `wnids`.
A folder is laid out as `<split>/<class>/<image file>`, or as `<class>/<image file>` with `all` as its only split.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from nagkit import paths
from nagkit.data import registry
from nagkit.errors import NagkitError, unknown
from nagkit.rng import numpy_stream

ARCHIVES = {
    "cifar10": "cifar10_sub.npz",  # lossless, 500 + 100 images per class
    "cifar10_full": "cifar10_full_jpeg.npz",  # all 60,000, JPEG
    "cifar100": "cifar100_sub.npz",  # lossless, 40 + 20 images per class
    "mnist": "mnist.npz",
    "fashion_mnist": "fashion_mnist.npz",
    "tiny_imagenet": "tiny_imagenet200_32px_125pc_jpeg.npz",  # 100 + 25 images per class
    "imagenet": "imagenet1k_sample_32px_1pc.npz",  # one image per class; split "all"
}
"""File in `NAGKIT_IMAGES` of each data set."""

SPLITS = ("train", "test", "all")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"}


def load(
    name: str, split: str, *, per_class: int | None = None, rng: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `(N, 32, 32, 3)` and labels int64 `(N,)` of one split of a data set.

    `name` is one of `ARCHIVES`, or the path of an `.npz` archive or of a folder of classes. With `per_class` only so
    many images of each class are decoded, drawn with `rng` without replacement, or the first ones when it is None; a
    class with fewer gives all it has. Raises `NagkitError` for a missing source, a torn archive, another image shape
    or a label outside the classes.
    """
    if split not in SPLITS:
        raise unknown("image split", split, SPLITS)
    source = _source(name)
    return (_from_folder if source.is_dir() else _from_archive)(source, split, per_class, rng)


def meta_classes() -> tuple[np.ndarray, np.ndarray]:
    """Tiny ImageNet labels of the meta-training and the meta-validation classes, sorted, int64 `(160,)` and `(40,)`."""
    order = numpy_stream(0, "supernet/classes").permutation(200)
    return np.sort(order[40:]), np.sort(order[:40])


def class_names(name: str) -> list[str]:
    """Class names of a data set in label order (the numbers themselves where the archive names none)."""
    source = _source(name)
    if source.is_dir():
        return [folder.name for folder in _class_folders(source)]
    with _open(source) as archive:
        if "class_names" in archive:
            return [str(value) for value in archive["class_names"]]
        counts = [int(archive[key].max()) + 1 for key in ("y_train", "y_test", "y") if key in archive]
    if not counts:
        raise NagkitError(f"{source.name} has neither class_names nor labels; expected arrays x_<split> and y_<split>")
    return [str(value) for value in range(max(counts))]


def splits(name: str) -> list[str]:
    """Which of `SPLITS` a data set has."""
    source = _source(name)
    if source.is_dir():
        return [split for split in SPLITS[:2] if (source / split).is_dir()] or ["all"]
    with _open(source) as archive:
        return [split for split in SPLITS if ("y" if split == "all" else f"y_{split}") in archive]


def imagenet32_classes(name: str, class_list: Path | None = None) -> np.ndarray:
    """ImageNet-32 class id (1..1000) of every label of a data set whose archive lists WordNet ids, int64 `(n_classes,)`.

    `class_list` has one line `<wnid> <class id> <name>` per class; None fetches the registry's.
    """
    ids = read_class_list(class_list or registry.fetch(["imagenet32-classes"], progress=False)["imagenet32-classes"])
    source = _source(name)
    with _open(source) as archive:
        if "wnids" not in archive:
            raise NagkitError(f"{source.name} lists no WordNet ids (array 'wnids'), so its classes have no ImageNet-32 ids")
        wnids = [str(value) for value in archive["wnids"]]
    missing = [wnid for wnid in wnids if wnid not in ids]
    if missing:
        raise NagkitError(f"{missing[0]!r} of {source.name} is not among the {len(ids)} classes of ImageNet-32's class list")
    return np.array([ids[wnid] for wnid in wnids], np.int64)


def read_class_list(path: Path) -> dict[str, int]:
    """WordNet id → ImageNet-32 class id (1-based) from lines `<wnid> <class id> <name>`."""
    ids = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if len(fields) < 2 or not fields[1].isdigit():
            raise NagkitError(f"{path.name}, line {number}: expected '<wnid> <class id> <name>', got {line!r}")
        ids[fields[0]] = int(fields[1])
    if sorted(ids.values()) != list(range(1, len(ids) + 1)):
        raise NagkitError(f"{path.name} does not number its {len(ids)} classes 1..{len(ids)}; fetch it again")
    return ids


def check(images: np.ndarray) -> None:
    """Raise `NagkitError` unless `images` is what `load` gives: uint8 `(N, 32, 32, 3)`."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
        raise NagkitError(
            f"images must be uint8 (N, 32, 32, 3), got {images.dtype} {images.shape}; see nagkit.data.images.load"
        )


def coarse(images: np.ndarray) -> np.ndarray:
    """Images with the detail of 16×16 ones: boxes of 2×2 pixels averaged, then enlarged bilinearly to 32×32."""
    check(images)
    small = images.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4)).round().astype(np.uint8)
    enlarged = [Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR) for image in small]
    return np.stack([np.asarray(image) for image in enlarged]) if enlarged else images.copy()


def _source(name: str) -> Path:
    if name in ARCHIVES:
        folder = paths.images()
        if folder is None:
            raise NagkitError(f"images of {name!r} are not shipped; set NAGKIT_IMAGES to the folder with {ARCHIVES[name]}")
        if not (folder / ARCHIVES[name]).is_file():
            raise NagkitError(f"{ARCHIVES[name]} is not in NAGKIT_IMAGES; put it there, or name an archive or folder by path")
        return folder / ARCHIVES[name]
    source = Path(name)
    if not source.is_dir() and source.suffix != ".npz":
        raise unknown("image data set (nor a folder or .npz file)", name, ARCHIVES)
    if not source.exists():
        raise NagkitError(f"{name} does not exist; give the path of an .npz archive or of a folder of classes")
    return source


@contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """An archive whose torn or foreign content raises an error that names it."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise NagkitError(f"{path.name} is a single array; expected an .npz archive with x_<split> and y_<split>")
            yield archive
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError) as error:
        raise NagkitError(f"{path.name} is truncated or damaged ({error}); fetch or copy it again") from error


def _from_archive(source: Path, split: str, per_class: int | None, rng: np.random.Generator | None):
    suffix = "" if split == "all" else f"_{split}"
    with _open(source) as archive:
        kind = next((kind for kind in ("x", "jpeg") if f"{kind}{suffix}" in archive), None)
        if kind is None or f"y{suffix}" not in archive:
            raise unknown(f"split of {source.name}:", split, splits(str(source)))
        labels = archive[f"y{suffix}"]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise NagkitError(f"{source.name}: labels must be integers (N,), got {labels.dtype} {labels.shape}")
        labels = labels.astype(np.int64)
        classes = len(archive["class_names"]) if "class_names" in archive else None
        if labels.size and (labels.min() < 0 or (classes is not None and labels.max() >= classes)):
            bad = labels.min() if labels.min() < 0 else labels.max()
            raise NagkitError(
                f"{source.name}: label {bad} is outside 0..{'' if classes is None else classes - 1}; correct y{suffix}"
            )
        data = archive[f"{kind}{suffix}"]
        offsets = archive[f"off{suffix}"].astype(np.int64) if f"off{suffix}" in archive else np.zeros(0, np.int64)
    if kind == "jpeg" and (len(offsets) != len(labels) + 1 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any()):
        raise NagkitError(f"{source.name}: off{suffix} does not cut jpeg{suffix} into {len(labels)} images; copy it again")
    if kind == "x":
        shapes = [(len(labels), *shape) for shape in ((28, 28), (28, 28, 1), (32, 32), (32, 32, 1), (32, 32, 3))]
        if data.dtype != np.uint8 or data.shape not in shapes:
            wanted = f"uint8 ({len(labels)}, 32, 32, 3), or grey 28×28 or 32×32 (a folder of image files is resized on loading)"
            raise NagkitError(f"{source.name}: x{suffix} is {data.dtype} {data.shape}; expected {wanted}")
    rows = _choose(labels, per_class, rng)
    if kind == "x":
        return _rgb32(data[rows]), labels[rows]
    images = np.empty((len(rows), 32, 32, 3), np.uint8)
    for out, row in enumerate(rows):
        images[out] = _decode(io.BytesIO(data[offsets[row] : offsets[row + 1]].tobytes()), f"image {row} of {source.name}", 32)
    return images, labels[rows]


def _from_folder(source: Path, split: str, per_class: int | None, rng: np.random.Generator | None):
    folders = _class_folders(source)
    if split not in splits(str(source)):
        raise unknown(f"split of folder {source.name}:", split, splits(str(source)))
    files, labels = [], []
    for label, folder in enumerate(folders):
        where = folder if split == "all" else source / split / folder.name
        found = sorted(file for file in where.iterdir() if file.suffix.lower() in SUFFIXES) if where.is_dir() else []
        files += found
        labels += [label] * len(found)
    if not files:
        raise NagkitError(f"folder {source.name} holds no images of split {split!r}; expected <split>/<class>/<image file>")
    labels = np.array(labels, np.int64)
    rows = _choose(labels, per_class, rng)
    return np.stack([_decode(files[row], f"{files[row].parent.name}/{files[row].name}") for row in rows]), labels[rows]


def _class_folders(source: Path) -> list[Path]:
    parents = [source / name for name in SPLITS[:2] if (source / name).is_dir()] or [source]
    folders = {folder.name: folder for parent in parents for folder in parent.iterdir() if folder.is_dir()}
    if not folders:
        raise NagkitError(f"folder {source.name} has no class folders; expected <split>/<class>/<image file>")
    return [folders[name] for name in sorted(folders)]


def _choose(labels: np.ndarray, per_class: int | None, rng: np.random.Generator | None) -> np.ndarray:
    if per_class is None:
        return np.arange(len(labels))
    if per_class < 1:
        raise NagkitError(f"per_class is {per_class}; it must be at least 1 image")
    rows = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rows.append(np.sort((members if rng is None else rng.permutation(members))[:per_class]))
    return np.concatenate(rows) if rows else np.arange(0)


def _rgb32(images: np.ndarray) -> np.ndarray:
    """Grey images get a black border of two pixels (28×28) and three equal channels."""
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[1] == 28:
        images = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))


def _decode(file: Path | io.BytesIO, what: str, size: int | None = None) -> np.ndarray:
    """One image file as uint8 `(32, 32, 3)`; reduced by a box filter like ImageNet-32 (Chrabaszcz et al., 2017)."""
    try:
        with Image.open(file) as image:
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise NagkitError(f"{what} cannot be decoded ({error}); remove or replace it") from error
    if size is not None and rgb.size != (size, size):
        raise NagkitError(f"{what} is {rgb.size[0]}×{rgb.size[1]} pixels; expected {size}×{size}")
    return np.asarray(rgb if rgb.size == (32, 32) else rgb.resize((32, 32), Image.Resampling.BOX))
