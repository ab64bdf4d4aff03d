"""A small image encoder of our own, trained on Tiny ImageNet at 32×32, and the image features of every data set used.

The published method describes a data set by ResNet-18 features of some of its images (paper, section 4.2 and its
public code); ImageNet weights are not ours to ship, so a residual network of 1.3 million weights stands in for them.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from nagkit import paths
from nagkit.data import images as data
from nagkit.data import io
from nagkit.devices import get_device
from nagkit.errors import NagkitError
from nagkit.predictors.fit import Recipe, fingerprint, fit_images, only_matrices_decay, own_stream, recipes
from nagkit.predictors.probe import linear_probe
from nagkit.rng import numpy_stream, torch_stream

CHECKPOINT = paths.DATA / "checkpoints" / "encoder.safetensors"
CODES = paths.DATA / "codes" / "features.safetensors"
FORMAT, CODES_FORMAT = "nagkit image encoder 1", "nagkit data set codes 1"
PIXEL_MEAN, PIXEL_STD = (0.48, 0.45, 0.40), (0.27, 0.26, 0.28)


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(n_out))


class Block(nn.Module):
    """Basic residual block of stride 2 (He et al., 2016)."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.first, self.second = conv(n_in, n_out, 3, 2), conv(n_out, n_out, 3)
        self.shortcut = conv(n_in, n_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # every other pixel taken here and not by the convolution's stride: the backward pass of a strided 1×1 convolution of
        # few channels crashes in the oneDNN of PyTorch 2.13 on processors without AVX-512
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x[..., ::2, ::2]))


class Encoder(nn.Module):
    """Images uint8 `(B, 32, 32, 3)` → features `(B, d)`: pooled last stage, standardised over the training images."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), n_classes: int = 200):
        super().__init__()
        self.stem = conv(3, widths[0], 3)
        self.blocks = nn.Sequential(*(Block(n_in, n_out) for n_in, n_out in zip(widths, widths[1:], strict=False)))
        self.head = nn.Linear(widths[-1], n_classes)
        self.register_buffer("pooled_mean", torch.zeros(widths[-1]))
        self.register_buffer("pooled_std", torch.ones(widths[-1]))
        self.widths, self.n_classes = tuple(widths), n_classes

    def pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.blocks(F.relu(self.stem(pixels))).mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.pooled(normalise(images)) - self.pooled_mean) / self.pooled_std

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pooled(normalise(images)))


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 `(B, H, W, 3)` → float32 `(B, 3, H, W)` of about unit variance, stored channels-last."""
    shift, scale = (torch.tensor(value, device=images.device) * 255 for value in (PIXEL_MEAN, PIXEL_STD))
    return ((images.float() - shift) / scale).permute(0, 3, 1, 2)


def augment(pixels: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Random zoom (side 60-100 %), aspect, shift, flip and colour of each image, resampled to `size` × `size`."""
    n = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        # drawn on the CPU so that the stream is the same on every device
        return (low + (high - low) * torch.rand(n, *shape, generator=generator)).to(pixels.device)

    side, aspect = uniform(0.6, 1.0), uniform(-0.15, 0.15).exp()
    width, height = (side * aspect).clamp(max=1), (side / aspect).clamp(max=1)
    theta = torch.zeros(n, 2, 3, device=pixels.device)
    theta[:, 0, 0] = width * uniform(-1, 1).sign()
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = (1.1 - width) * uniform(-1, 1), (1.1 - height) * uniform(-1, 1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = uniform(-0.4, 0.4, 1, 1, 1), uniform(0.7, 1.3, 1, 1, 1), uniform(0.5, 1.5, 1, 1, 1)
    grey = pixels.mean(dim=1, keepdim=True)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return (grey + saturation * (pixels - grey) - mean) * contrast + mean + brightness


def train(
    images: np.ndarray, labels: np.ndarray, *, checkpoint: Path, n_classes: int = 200,
    widths: tuple[int, ...] = (32, 64, 128, 256), recipe: Recipe | None = None, seed: int = 0, device: str | None = None,
    stop_after: int | None = None,
) -> Encoder:  # fmt: skip
    """Encoder trained to name the class of `images` uint8 `(N, 32, 32, 3)`, with averaged weights, in eval mode.

    The whole state goes to `checkpoint` after every epoch (see `nagkit.predictors.fit`). `stop_after` ends the call early
    after so many epochs of the whole schedule. Raises `NagkitError` when `checkpoint` belongs to another run.
    """
    recipe, device = recipe or recipes("images")["encoder"], get_device(device)
    check_labels(images, labels, n_classes)

    def loss(step: int, batch: torch.Tensor, target: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        size = 24 if step < (recipe.epochs * 3 // 4) * steps else 32  # small images first: they cost half as much
        pixels = augment(normalise(batch), size, generator)
        weight = float(1 - 0.5 * torch.rand((), generator=generator) ** 4)  # mixup, mostly light
        output = model.head(model.pooled(weight * pixels + (1 - weight) * pixels.flip(0)))
        first, second = (F.cross_entropy(output, y, label_smoothing=recipe.smoothing) for y in (target, target.flip(0)))
        return weight * first + (1 - weight) * second

    steps = max(1, len(images) // recipe.batch)
    with own_stream(seed, "encoder", device):
        model = Encoder(widths, n_classes).to(device, memory_format=torch.channels_last)
        weights = torch_stream(seed, "encoder/weights")
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, generator=weights)
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
        average, _ = fit_images(
            model, recipe, images, labels, loss, lambda _, value: {"loss": round(value, 4)}, role="encoder", per_epoch=steps,
            seed=seed, stop_after=stop_after, groups=only_matrices_decay(model), state=checkpoint,
            run=fingerprint([n_classes, widths, recipe, seed], images, labels), what="image encoder",
        )  # fmt: skip
    with torch.inference_mode():
        pooled = torch.cat([average.pooled(normalise(part)) for part in torch.from_numpy(images).to(device).split(500)])
        average.pooled_mean.copy_(pooled.mean(dim=0))
        average.pooled_std.copy_(pooled.std(dim=0).clamp_min(1e-3))
    return average


def check_labels(images: np.ndarray, labels: np.ndarray, n_classes: int) -> None:
    """`NagkitError` unless images are uint8 `(N, 32, 32, 3)` and labels are `N` integers below `n_classes`."""
    data.check(images)
    if labels.shape != (len(images),) or labels.min() < 0 or labels.max() >= n_classes:
        raise NagkitError(f"labels must be {len(images)} integers in 0..{n_classes - 1}, got {labels.shape}")


def load(path: Path = CHECKPOINT) -> Encoder:
    """The committed encoder, or one that `save` wrote, in eval mode."""
    arrays, metadata = io.read_arrays(path)
    if metadata.get("format") != FORMAT:
        raise NagkitError(f"{path.name} is no image encoder ({metadata.get('format', 'no format')!r}, expected {FORMAT!r})")
    encoder = Encoder(tuple(metadata["widths"]), metadata["n_classes"])
    try:
        encoder.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    except RuntimeError as error:
        raise NagkitError(f"{path.name} holds no encoder of widths {metadata['widths']}; restore or retrain it") from error
    return encoder.to(memory_format=torch.channels_last).eval()


def save(encoder: Encoder, path: Path) -> None:
    """Weights as safetensors: convolutions and the head in half precision, statistics in full."""
    arrays = {key: (value.half() if value.ndim > 1 else value).cpu().numpy() for key, value in encoder.state_dict().items()}
    io.write_arrays(path, arrays, {"format": FORMAT, "widths": encoder.widths, "n_classes": encoder.n_classes})


@torch.inference_mode()
def features(images: np.ndarray, encoder: Encoder | None = None, *, batch_size: int = 250) -> np.ndarray:
    """Features float32 `(N, d)` of images uint8 `(N, 32, 32, 3)`: mean 0 and sd 1 over the encoder's training images."""
    data.check(images)
    encoder = encoder or load()
    device = encoder.pooled_mean.device
    parts = (torch.from_numpy(images[i : i + batch_size]).to(device) for i in range(0, len(images), batch_size))
    found = [encoder(part).cpu() for part in parts]
    return torch.cat(found).numpy() if found else np.empty((0, encoder.widths[-1]), np.float32)


@torch.inference_mode()
def top_k(encoder: Encoder, images: np.ndarray, labels: np.ndarray, k: int, *, batch_size: int = 250) -> float:
    """Percentage of images whose label is among the encoder's `k` most likely classes."""
    logits = torch.cat([encoder.logits(part) for part in torch.from_numpy(images).split(batch_size)])
    return 100 * float((logits.topk(k, dim=1).indices.numpy() == labels[:, None]).any(axis=1).mean())


def build_encoder(path: Path = CHECKPOINT, *, run: Path | None = None, seed: int = 0) -> dict:
    """Train the encoder on Tiny ImageNet (about 40 minutes on one core), save it and its card, and return the card."""
    train_x, train_y = data.load("tiny_imagenet", "train")
    save(train(train_x, train_y, checkpoint=run or paths.cache() / "encoder.run.safetensors", seed=seed), path)
    encoder = load(path)  # what is measured is what is shipped: rounded to half precision
    test = data.load("tiny_imagenet", "test")
    probes = {}
    for name in ("cifar10", "cifar10_full"):
        (x, y), (x_test, y_test) = data.load(name, "train"), data.load(name, "test")
        score = linear_probe(features(x, encoder), y, features(x_test, encoder), y_test)
        probes[name] = {"accuracy_percent": round(score, 2), "n_train": len(x), "n_test": len(x_test)}
    card = {
        "what": "residual image encoder for 32×32 images, trained by this project; features of dimension 256",
        "rebuild": "nagkit.predictors.images.build_encoder()",
        "training_images": "Tiny ImageNet (Stanford CS231n) at 32×32, 200 classes × 100 images; the images are not shipped",
        "seed": seed,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "sha256": io.sha256(path),
        "tiny_imagenet_test": {f"top{k}_percent": round(top_k(encoder, *test, k), 2) for k in (1, 5)} | {"n": len(test[1])},
        "cifar_linear_probe": probes,
    }
    io.write_card(path, card)
    return card


def build_codes(path: Path = CODES, *, encoder_path: Path = CHECKPOINT, class_list: Path | None = None, seed: int = 0) -> dict:
    """Compute the committed image features of every data set used, save them with their card, and return the card.

    Needs `NAGKIT_IMAGES` and ImageNet-32's class list (fetched unless `class_list` gives it). See `codes` for the keys.
    """
    encoder = load(encoder_path)
    tensors: dict[str, np.ndarray] = {}
    samples = {"cifar10": 10, "cifar100": 5, "mnist": 10, "fashion_mnist": 10}
    for name, n_samples in tqdm(samples.items(), desc="data set codes"):
        x, y = data.load(name, "train", per_class=500, rng=numpy_stream(seed, f"codes/{name}"))
        _summarise(tensors, name, features(x, encoder), y, n_samples, numpy_stream(seed, f"codes/{name}/samples"))
    # the encoder has seen the training images of Tiny ImageNet, so codes comparable with a new data set's use the others
    ids = data.imagenet32_classes("tiny_imagenet", class_list)
    x, y = data.load("tiny_imagenet", "test")
    _summarise(tensors, "tiny_imagenet", features(x, encoder), y, 2, numpy_stream(seed, "codes/tiny_imagenet/samples"))
    tensors["tiny_imagenet/class_id"] = ids
    seen, y_seen = data.load("tiny_imagenet", "train")
    tensors["tiny_imagenet/mean_seen"] = _class_means(features(seen, encoder), y_seen)
    single, labels = data.load("imagenet", "all")
    found, order = np.unique(data.imagenet32_classes("imagenet", class_list)[labels], return_index=True)
    if missing := set(range(1, 1001)) - set(found.tolist()):
        raise NagkitError(f"ImageNet-32 class id {min(missing)} has no image in {data.ARCHIVES['imagenet']}; add one")
    tensors["imagenet32/image"] = features(single[order], encoder)
    # ImageNet16-120: ImageNet-32's first 120 classes at 16×16; its own images are not at hand
    first = ids[y] <= 120
    x = data.coarse(np.concatenate([single[order[:120]], x[first]]))
    y = np.concatenate([np.arange(120), ids[y[first]] - 1])
    _summarise(tensors, "imagenet16-120", features(x, encoder), y, 0, numpy_stream(seed, "unused"))
    arrays = {key: value.astype(np.float16 if value.dtype.kind == "f" else np.int32) for key, value in tensors.items()}
    io.write_arrays(path, arrays, {"format": CODES_FORMAT, "encoder": io.sha256(encoder_path), "seed": seed})
    card = {
        "what": "image features of the project's own encoder for every data set used; no images",
        "rebuild": "nagkit.predictors.images.build_codes()",
        "encoder_sha256": io.sha256(encoder_path),
        "sha256": io.sha256(path),
        "seed": seed,
        "keys": " ".join(codes.__doc__.split("Keys:")[1].split("Raises")[0].split()),
        "shapes": {key: list(value.shape) for key, value in arrays.items()},
    }
    io.write_card(path, card)
    return card


def codes(path: Path = CODES, *, encoder_path: Path = CHECKPOINT) -> dict[str, np.ndarray]:
    """The committed image features, float32 (counts and ids int32), d = 256, classes in label order.

    Keys: `<name>/mean` (classes, d) and `<name>/count` (classes,) the number of images behind it, at most 500 training
    images; `<name>/samples` (classes, k, d) single images; for cifar10, cifar100, mnist, fashion_mnist, tiny_imagenet
    (its 25 images per class that the encoder has not seen; `mean_seen` of the 100 it was trained on; `class_id` the
    ImageNet-32 id of each label) and imagenet16-120 (mean and count only; approximate: 1 image per class, 26 where Tiny
    ImageNet has the class, reduced to 16×16 and enlarged). `imagenet32/image` (1000, d): one image of every class, row
    i is class id i + 1. Raises `NagkitError` when the file is torn or was computed with another encoder.
    """
    arrays, metadata = io.read_arrays(path)
    if metadata.get("format") != CODES_FORMAT:
        raise NagkitError(f"{path.name} holds {metadata.get('format', 'an unknown format')!r}, expected {CODES_FORMAT!r}")
    if metadata["encoder"] != io.sha256(encoder_path):
        raise NagkitError(f"{path.name} was computed with another encoder than {encoder_path.name}; run `nagkit fit codes`")
    return {key: value.astype(np.float32) if value.dtype == np.float16 else value for key, value in arrays.items()}


def _class_means(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x[y == label].mean(axis=0) for label in range(int(y.max()) + 1)])


def _summarise(tensors: dict, name: str, x: np.ndarray, y: np.ndarray, n_samples: int, rng: np.random.Generator) -> None:
    tensors[f"{name}/mean"] = _class_means(x, y)
    tensors[f"{name}/count"] = np.bincount(y)
    if n_samples:
        rows = [rng.permutation(np.flatnonzero(y == label))[:n_samples] for label in range(int(y.max()) + 1)]
        tensors[f"{name}/samples"] = x[np.stack(rows)]
