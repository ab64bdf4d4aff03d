"""The upstream files: where each lies, what it must hash to, under which licence, and how it gets here."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import yaml
from tqdm.auto import tqdm
from tqdm.utils import CallbackIOWrapper

from nagkit import paths
from nagkit.data.io import write_bytes
from nagkit.errors import NagkitError, unknown


@dataclass(frozen=True)
class Entry:
    """One upstream file. `path` is `owner/repository/commit/path`, the same under the base address and in a mirror."""

    key: str
    group: str
    path: str
    bytes: int
    sha256: str
    licence: str
    citation: str


@cache
def _registry() -> tuple[str, dict[str, Entry]]:
    content = yaml.safe_load((paths.DATA / "registry.yaml").read_text(encoding="utf-8"))
    files = {
        key: Entry(
            key, source["group"], f"{source['source']}/{file['path']}", file["bytes"], file["sha256"],
            source["licence"], source["citation"],
        )
        for source in content["sources"]
        for key, file in source["files"].items()
    }  # fmt: skip
    return content["base"], files


def entries() -> dict[str, Entry]:
    """Every upstream file by key, in the order of `data/registry.yaml`."""
    return dict(_registry()[1])


def url(entry: Entry, base: str | None = None) -> str:
    """Address of a file under `base` (default: the one stated in the registry)."""
    return (base or _registry()[0]) + quote(entry.path, safe="/@")


def select(names: Iterable[str] | None = None) -> list[Entry]:
    """Entries by key or group name; all of them when `names` is None."""
    known = entries()
    if names is None:
        return list(known.values())
    chosen: dict[str, Entry] = {}
    for name in names:
        found = {key: entry for key, entry in known.items() if name in (key, entry.group)}
        if not found:
            raise unknown("upstream file or group", name, {*known, *(entry.group for entry in known.values())})
        chosen |= found
    return list(chosen.values())


def local(entry: Entry) -> Path:
    """Where the file lies on this machine: in the mirror when `NAGKIT_MIRROR` is set (read in place), else in the cache."""
    return (paths.mirror() or paths.cache() / "upstream") / entry.path


def fetch(names: Iterable[str] | None = None, progress: bool = True, *, base: str | None = None) -> dict[str, Path]:
    """Bring upstream files (keys or groups; None: all) to this machine and return where each lies, verified.

    Files already there with the right hash are kept. With `NAGKIT_MIRROR` set no network is used. A file is held in
    memory until its size and SHA-256 are right and then written in one step, so a kill leaves nothing behind.
    Raises `NagkitError` for a missing, truncated or wrong file, an unreachable address and an unwritable cache.
    """
    chosen, found = select(names), {}
    with tqdm(total=sum(entry.bytes for entry in chosen), unit="B", unit_scale=True, disable=not progress) as bar:
        for entry in chosen:
            bar.set_description(entry.key, refresh=False)
            found[entry.key] = local(entry)
            if paths.mirror() is None and _status(entry) != "ok":
                address = url(entry, base)
                write_bytes(found[entry.key], _checked(entry, _download(entry, address, bar), address))
            else:
                read(entry)
                bar.update(entry.bytes)
    return found


def read(entry: Entry) -> bytes:
    """Content of a file that is on this machine, checked against the registry; `NagkitError` otherwise."""
    path = local(entry)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _failure(entry, f"is missing at {path}" if isinstance(error, FileNotFoundError) else f"{error}") from error
    return _checked(entry, content, path)


def verify(names: Iterable[str] | None = None) -> Iterator[tuple[str, str]]:
    """(key, status) of every file: "ok", "absent", "truncated", "wrong hash" or "unreadable"."""
    for entry in select(names):
        yield entry.key, _status(entry)


def _status(entry: Entry) -> str:
    try:
        content = local(entry).read_bytes()
    except FileNotFoundError:
        return "absent"
    except OSError:
        return "unreadable"
    if len(content) < entry.bytes:
        return "truncated"
    return "ok" if sha256(content).hexdigest() == entry.sha256 else "wrong hash"


def _checked(entry: Entry, content: bytes, origin: object) -> bytes:
    if len(content) < entry.bytes:
        raise _failure(entry, f"is truncated at {origin}: {len(content):,} of {entry.bytes:,} bytes")
    digest = sha256(content).hexdigest()
    if digest != entry.sha256:
        raise _failure(entry, f"has the wrong content at {origin} (SHA-256 {digest})")
    return content


def _download(entry: Entry, address: str, bar: tqdm) -> bytes:
    import pooch  # both take a third of a second to import, and only a download needs them
    from requests.exceptions import RequestException

    buffer, replies = io.BytesIO(), []
    download = pooch.HTTPDownloader(timeout=30, hooks={"response": lambda reply, **_: replies.append(reply)})
    try:
        download(address, CallbackIOWrapper(bar.update, buffer, "write"), None)
    except RequestException as error:
        reason = type(error).__name__ if error.response is None else f"HTTP {error.response.status_code}"
        raise _failure(entry, f"could not be downloaded from {address} ({reason})") from error
    finally:
        for reply in replies:  # pooch leaves the socket of a broken reply open
            reply.close()
    return buffer.getvalue()


def _failure(entry: Entry, problem: str) -> NagkitError:
    remedy = (
        "put the right file into the folder NAGKIT_MIRROR names, or unset NAGKIT_MIRROR to download it"
        if paths.mirror()
        else "run `nagkit data fetch` with a network, or set NAGKIT_MIRROR to a folder that has it"
    )
    wanted = f"expected {entry.path} with SHA-256 {entry.sha256} (licence: {entry.licence})"
    return NagkitError(f"upstream file {entry.key} {problem}; {wanted}; {remedy}")
