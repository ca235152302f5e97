"""Downloads, against a local server that speaks the hub's file API."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import ptrack
from ptrack.errors import CheckpointError
from ptrack.models.hub import fetch, fetch_address
from ptrack.models.online.checkpoint import VIT
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.model import TrackOn2
from ptrack.models.online.official import to_official
from ptrack.models.online.weights import checkpoint_of
from ptrack.models.zoo import BUILT_IN
from tests.parity.tapnext.recorded import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves ``files`` ("owner/name/file" -> bytes) and records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str | None]] = []
        self.checksum = ""  # sent as Google's servers do
        self.cut: int | None = None  # break the next download off after so many bytes
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        wanted = self.headers.get("Range")
        self.server.seen.append((self.command, self.path, wanted))
        data = self.server.files.get(self.path.lstrip("/").replace("/resolve/main/", "/"))
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        if self.headers.get("If-Range", tag) != tag:  # another version: the whole file
            wanted = None
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", tag)
        self.send_header("X-Repo-Commit", COMMIT)
        if self.server.checksum:
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={self.server.checksum}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(data[start : start + cut] if cut else data[start:])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def _downloads(hub: Hub) -> int:
    return sum(method == "GET" and "/resolve/" in path for method, path, _ in hub.seen)


def test_downloads_once_then_uses_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["a/b/w.bin"] = b"weights" * 100
    path = fetch("a/b", "w.bin")
    assert path.read_bytes() == hub.files["a/b/w.bin"]
    assert _downloads(hub) == 1
    assert fetch("a/b", "w.bin") == path
    assert _downloads(hub) == 1
    hub.seen.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("a/b", "w.bin") == path
    assert hub.seen == []


def test_a_broken_download_is_resumed(hub: Hub) -> None:
    hub.files["a/b/w.bin"] = bytes(range(256)) * 94_000
    hub.cut = 21_000_000  # the client writes 10 MB at a time
    path = fetch("a/b", "w.bin")  # the client itself asks for the rest
    assert path.read_bytes() == hub.files["a/b/w.bin"]
    assert any(method == "GET" and wanted for method, _, wanted in hub.seen)


def test_offline_says_which_file_goes_where(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError) as error:
        ptrack.load("track-on2-dinov2", device="cpu")
    for words in ("HF_HUB_OFFLINE", "gorkaydemir/track_on2/resolve/main/trackon2_dinov2_checkpoint.pt", "--checkpoint"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert hub.seen == []


def test_without_a_network_the_sentence_comes_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(Connection refused\)"):
        ptrack.load("track-on2-dinov2", device="cpu")
    assert time.monotonic() - start < 5  # the hub's client alone tries for half a minute


def test_a_cached_file_needs_no_server(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["a/b/w.bin"] = b"weights"
    path = fetch("a/b", "w.bin")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch("a/b", "w.bin") == path


def test_a_file_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        fetch("a/b", "nothing.bin")


def test_dinov3_takes_its_transformer_from_timm(hub: Hub, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TrackOn2(OnlineConfig(backbone="dinov3_s_plus", vit_upsample=1.143, input_size=(32, 64)))
    checkpoint = checkpoint_of(model)
    official = {k: v for k, v in to_official(checkpoint.state, checkpoint.config).items() if ".dinov3." not in k}
    torch.save({"model": official}, tmp_path / "a.pt")
    hub.files["gorkaydemir/track_on_r/track_on_r.pt"] = (tmp_path / "a.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"vit_small_plus_patch16_dinov3\.lvd1689m"):
        ptrack.load("track-on-r", device="cpu")
    from safetensors.torch import save

    vit = {k.removeprefix(VIT): v for k, v in checkpoint.state.items() if k.startswith(VIT) and "_bias" not in k}
    timm = {k.replace("patch_proj", "patch_embed.proj"): v.clone() for k, v in vit.items()}
    hub.files["timm/vit_small_plus_patch16_dinov3.lvd1689m/model.safetensors"] = save(timm)
    tracker = ptrack.load("track-on-r", device="cpu", memory=4)
    found = tracker.model.backbone.adapter.vit.blocks[3].mlp.fc1_g.weight
    assert torch.equal(found.contiguous(), checkpoint.state[VIT + "blocks.3.mlp.fc1_g.weight"])


# ---- plain web servers ----------------------------------------------------------------------------------------------


def test_an_address_is_downloaded_once(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["a/w.bin"] = b"weights" * 100
    path = fetch_address(f"{hub.address}/a/w.bin")
    assert path == tmp_path / "cache" / "ptrack" / "127.0.0.1" / "a" / "w.bin"
    assert path.read_bytes() == hub.files["a/w.bin"]
    assert [p.name for p in path.parent.iterdir() if p.suffix != ".lock"] == ["w.bin"]
    hub.seen.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch_address(f"{hub.address}/a/w.bin") == path
    assert hub.seen == []


def test_a_broken_download_of_an_address_is_resumed(hub: Hub) -> None:
    hub.files["a/w.bin"] = bytes(range(256)) * 20_000
    hub.cut = 3_000_000
    path = fetch_address(f"{hub.address}/a/w.bin")
    assert path.read_bytes() == hub.files["a/w.bin"]
    assert [wanted for _, _, wanted in hub.seen] == [None, "bytes=3000000-"]


def test_a_partial_file_of_another_version_is_not_continued(hub: Hub, tmp_path: Path) -> None:
    hub.files["a/w.bin"] = b"new" * 1000
    part = tmp_path / "cache" / "ptrack" / "127.0.0.1" / "a" / "w.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"old" * 2000)
    part.with_name("w.bin.part.etag").write_text('"of another day"')
    assert fetch_address(f"{hub.address}/a/w.bin").read_bytes() == hub.files["a/w.bin"]


@pytest.mark.parametrize("sent", [False, True])
def test_what_arrives_is_checked(hub: Hub, tmp_path: Path, sent: bool) -> None:
    hub.files["a/w.bin"] = b"weights"
    hub.checksum = base64.b64encode(hashlib.md5(b"others").digest()).decode() if sent else ""
    with pytest.raises(CheckpointError, match="checksum"):
        fetch_address(f"{hub.address}/a/w.bin", sha256="" if sent else "0" * 64)
    assert not list((tmp_path / "cache").rglob("*.bin*[!k]"))  # the lock alone is left
    hub.checksum = base64.b64encode(hashlib.md5(b"weights").digest()).decode()
    assert fetch_address(f"{hub.address}/a/w.bin", sha256=hashlib.sha256(b"weights").hexdigest()).is_file()


@pytest.mark.parametrize("name", ["tapnext", "tapnextpp", "tapnextpp-512"])
def test_tapnext_offline_says_which_file_goes_where(name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError) as error:
        ptrack.load(name, device="cpu")
    for words in ("HF_HUB_OFFLINE", f"https://storage.googleapis.com/{BUILT_IN[name].file}", "--checkpoint"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_address_that_cannot_be_reached(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="answered 404"):
        fetch_address(f"{hub.address}/a/nothing.bin")
    with pytest.raises(CheckpointError, match="refused"):
        fetch_address("http://127.0.0.1:9/a/w.bin")


def test_tapnext_is_downloaded(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ptrack.models.tapnext import load

    monkeypatch.setattr(load, "BASE", hub.address)
    torch.save(tiny(), tmp_path / "w.pt")
    hub.files[BUILT_IN["tapnextpp"].file] = (tmp_path / "w.pt").read_bytes()
    tracker = ptrack.load("tapnextpp", device="cpu", reserve=3)
    assert tracker.weights_sha256 == hashlib.sha256(hub.files[BUILT_IN["tapnextpp"].file]).hexdigest()
    assert (tracker.model.name, tracker.model.reserve, tracker.model.threshold) == ("tapnextpp", 3, 0.5)


def test_licences_are_named() -> None:
    assert {BUILT_IN[name].licence for name in ("tapnext", "tapnextpp", "tapnextpp-512")} == {"Apache-2.0"}
    assert "DINOv3 License" in BUILT_IN["track-on2-dinov3"].licence
    assert "DINOv3 License" in BUILT_IN["track-on-r"].licence
    assert "Apache-2.0" in BUILT_IN["track-on2-dinov2"].licence
