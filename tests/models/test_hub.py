"""Downloads, against a local server that speaks the hub's file API."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import ptrack
from ptrack.errors import CheckpointError
from ptrack.models.checkpoints import VIT, checkpoint_of, to_official
from ptrack.models.hub import fetch
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.model import TrackOn2
from ptrack.models.zoo import MODELS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves ``files`` ("owner/name/file" -> bytes) and records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str | None]] = []
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
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
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


def test_licences_are_named() -> None:
    assert "DINOv3 License" in MODELS["track-on2-dinov3"].licence
    assert "DINOv3 License" in MODELS["track-on-r"].licence
    assert "Apache-2.0" in MODELS["track-on2-dinov2"].licence
