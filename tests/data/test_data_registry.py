"""Files come whole and verified, or one clear error comes and nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from nagkit.data import io, registry
from nagkit.errors import NagkitError

GOOD = b"arch,accuracy\n" * 5000
ENTRY = registry.Entry(
    "toy", "toys", "owner/repository/commit/a@b.csv", len(GOOD), sha256(GOOD).hexdigest(), "no licence file", "Nobody 2024"
)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        behaviour = self.server.behaviour
        self.server.requested.append(self.path)
        if behaviour == "missing":
            self.send_error(404)
            return
        content = GOOD[::-1] if behaviour == "wrong" else GOOD
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if behaviour in ("truncated", "slow"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.server.half_sent.set()
            if behaviour == "slow":
                self.server.released.wait(30)
        else:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A local HTTP server with a `behaviour`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.behaviour, httpd.requested = "good", []
    httpd.half_sent, httpd.released = threading.Event(), threading.Event()
    httpd.base = f"http://127.0.0.1:{httpd.server_address[1]}/"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield httpd
    httpd.released.set()
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def toy(monkeypatch):
    """A registry of one file, and no mirror."""
    monkeypatch.delenv("NAGKIT_MIRROR", raising=False)
    monkeypatch.setattr(registry, "_registry", lambda: ("http://127.0.0.1:9/", {"toy": ENTRY}))


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_registry_states_everything_for_every_file():
    entries = registry.entries()
    assert len(entries) == 61
    for entry in entries.values():
        owner, repository, commit, *rest = entry.path.split("/")
        assert owner and repository and len(commit) == 40 and rest
        assert len(entry.sha256) == 64 and entry.bytes > 0 and entry.licence and entry.citation
        assert registry.url(entry).startswith("https://") and " " not in registry.url(entry)


def test_selection_is_by_key_or_group():
    assert {entry.key for entry in registry.select(["triplets"])} == {
        "triplets", "triplets-order", "triplets-classes", "imagenet32-classes",
    }  # fmt: skip
    assert [entry.key for entry in registry.select(["nats-bench"])] == ["nats-bench"]
    with pytest.raises(NagkitError, match="unknown upstream file or group 'nats_bench'.*did you mean 'nats-bench'"):
        registry.select(["nats_bench"])


def test_fetch_downloads_verifies_and_keeps(toy, server, own_cache):
    found = registry.fetch(progress=False, base=server.base)
    assert found["toy"].read_bytes() == GOOD
    assert files_under(own_cache) == [found["toy"]]
    assert list(registry.verify()) == [("toy", "ok")]
    registry.fetch(progress=False, base=server.base)
    assert len(server.requested) == 1


def test_fetch_replaces_a_damaged_file(toy, server):
    path = registry.local(ENTRY)
    path.parent.mkdir(parents=True)
    path.write_bytes(GOOD[:100])
    assert list(registry.verify()) == [("toy", "truncated")]
    assert registry.fetch(progress=False, base=server.base)["toy"].read_bytes() == GOOD


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("wrong", "wrong content"), ("truncated", "could not be downloaded"), ("missing", "HTTP 404")],
)
def test_a_bad_reply_is_one_line_with_the_remedy_and_leaves_nothing(toy, server, own_cache, behaviour, message):
    server.behaviour = behaviour
    with pytest.raises(NagkitError, match=message) as caught:
        registry.fetch(progress=False, base=server.base)
    for part in ("toy", ENTRY.path, ENTRY.sha256, "no licence file", "nagkit data fetch", "NAGKIT_MIRROR"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not files_under(own_cache)


def test_no_network_is_one_line_with_the_remedy(toy, own_cache):
    with pytest.raises(NagkitError, match="toy could not be downloaded.*NAGKIT_MIRROR"):
        registry.fetch(progress=False)  # nothing listens on the discard port
    assert not files_under(own_cache)


def test_a_fetch_killed_half_way_leaves_no_file(server, own_cache):
    server.behaviour = "slow"
    script = f"""
        from nagkit.data import registry
        entry = registry.Entry("toy", "toys", {ENTRY.path!r}, {ENTRY.bytes}, {ENTRY.sha256!r}, "none", "nobody")
        registry._registry = lambda: ("", {{"toy": entry}})
        registry.fetch(progress=False, base={server.base!r})
    """
    environment = {key: value for key, value in os.environ.items() if key != "NAGKIT_MIRROR"} | {"NAGKIT_CACHE": str(own_cache)}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert server.half_sent.wait(60)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not files_under(own_cache)


def test_a_mirror_is_read_in_place_and_checked(toy, tmp_path, monkeypatch, own_cache):
    monkeypatch.setenv("NAGKIT_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(NagkitError, match="toy is missing at .*NAGKIT_MIRROR"):
        registry.fetch(progress=False)
    path = tmp_path / "mirror" / ENTRY.path
    path.parent.mkdir(parents=True)
    path.write_bytes(GOOD)
    assert registry.fetch(progress=False) == {"toy": path}
    assert not own_cache.exists()
    path.write_bytes(GOOD[::-1])
    assert list(registry.verify()) == [("toy", "wrong hash")]
    with pytest.raises(NagkitError, match="wrong content"):
        registry.fetch(progress=False)
    path.write_bytes(GOOD[:7])
    with pytest.raises(NagkitError, match="truncated at .* 7 of 70,000 bytes"):
        registry.fetch(progress=False)


def test_an_unwritable_cache_is_one_line_with_the_remedy(toy, server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # a folder below a file cannot be made, not even by root
    monkeypatch.setenv("NAGKIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(NagkitError, match="cannot write .*NAGKIT_CACHE"):
        registry.fetch(progress=False, base=server.base)


def test_a_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch):
    path = io.write_text(tmp_path / "a.json", "old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(NagkitError, match="No space left"):
        io.write_text(path, "new")
    assert path.read_text() == "old" and files_under(tmp_path) == [path]


def test_what_a_kill_left_behind_is_removed_after_an_hour(tmp_path):
    stale, young = tmp_path / ".a.json.1.part", tmp_path / ".a.json.2.part"
    for part in (stale, young):
        part.touch()
    os.utime(stale, (0, 0))
    io.write_text(tmp_path / "a.json", "new")
    assert not stale.exists() and young.exists()


def test_arrays_and_metadata_survive_a_round_trip(tmp_path):
    arrays = {"a/b": np.arange(6.0).reshape(2, 3)[:, ::-1], "c": np.array([-1, 4], np.int8)}
    path = io.write_arrays(tmp_path / "x.safetensors", arrays, {"names": [["a", 1]], "seed": 3})
    back, metadata = io.read_arrays(path)
    assert metadata == {"names": [["a", 1]], "seed": 3}
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_a_damaged_array_file_is_one_line(tmp_path):
    path = io.write_arrays(tmp_path / "x.safetensors", {"a": np.zeros(100)})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(NagkitError, match="cannot read .*x.safetensors"):
        io.read_arrays(path)
    with pytest.raises(NagkitError, match="cannot read"):
        io.open_arrays(tmp_path / "absent.safetensors")
