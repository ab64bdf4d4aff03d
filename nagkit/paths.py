"""Where things lie. papermill, nbval, the book and the shell have different working directories; this is the only answer."""

import os
from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent
_IS_CHECKOUT = (_PACKAGE.parent / "notebooks").is_dir() and (_PACKAGE.parent / "_config.yml").is_file()
_CHECKOUT = _PACKAGE.parent if _IS_CHECKOUT else None

DATA = _CHECKOUT / "data" if _CHECKOUT else _PACKAGE / "_data"
"""Committed data: registry, paper numbers, presets, checkpoints, surrogates (inside the package in an installed wheel)."""

PROFILES = ("quick", "paper")


def root() -> Path:
    """The checkout, or the current directory when nagkit was installed from a wheel."""
    return _CHECKOUT or Path.cwd()


def results(profile: str) -> Path:
    """Folder of an exhibit's CSV and figures: `book/results` for the recorded run, `results/<profile>` otherwise."""
    return root() / "book" / "results" if profile == "paper" else root() / "results" / profile


def cache() -> Path:
    """Folder of fetched and converted upstream tables (`NAGKIT_CACHE`, else the platform's cache folder)."""
    return Path(os.environ.get("NAGKIT_CACHE") or platformdirs.user_cache_path("nagkit"))


def mirror() -> Path | None:
    """Folder that serves upstream files under their relative paths instead of the network (`NAGKIT_MIRROR`)."""
    value = os.environ.get("NAGKIT_MIRROR")
    return Path(value) if value else None


def images() -> Path | None:
    """Folder of image archives (`NAGKIT_IMAGES`)."""
    value = os.environ.get("NAGKIT_IMAGES")
    return Path(value) if value else None
