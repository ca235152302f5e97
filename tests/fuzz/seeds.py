"""Small sound files of every kind that ptrack reads, made in a folder by the libraries that write them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from ptrack.exports import export
from ptrack.tracks_io import save_tracks
from tests.data.helpers import raw_clip, write_store
from tests.exports.make import example

SIZE = (48, 32)  # width, height
RECORDED = Path(__file__).parents[1] / "exports" / "data"


def frames(n: int = 6) -> list[np.ndarray]:
    """Return pictures of noise on a gradient, (32, 48, 3) uint8."""
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 200, SIZE[0]).astype(np.uint8)[None, :, None]
    return [ramp + rng.integers(0, 50, (SIZE[1], SIZE[0], 3)).astype(np.uint8) for _ in range(n)]


def video(path: Path, codec: str, format: str) -> None:
    """Encode six frames."""
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for picture in frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def pictures(path: Path, count: int = 1, **options) -> None:
    """Save pictures in the format of the ending."""
    first, *rest = [Image.fromarray(f) for f in frames(count)]
    first.save(path, **({"save_all": True, "append_images": rest} if rest else {}), **options)


def _videos(folder: Path) -> None:
    for name, codec, format in (
        ("a.mp4", "h264", "mp4"),
        ("b.mkv", "mpeg4", "matroska"),
        ("c.avi", "mjpeg", "avi"),
        ("d.ts", "mpeg2video", "mpegts"),
        ("e.webm", "libvpx", "webm"),
        ("f.mov", "png", "mov"),
    ):
        try:
            video(folder / name, codec, format)
        except (av.FFmpegError, ValueError):  # an FFmpeg without that encoder
            (folder / name).unlink(missing_ok=True)
    here = folder / "a.mp4"
    (folder / "g.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{here}\n#EXT-X-ENDLIST\n")
    (folder / "h.mp4").write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    )
    (folder / "i.mp4").write_text(f"ffconcat version 1.0\nfile '{here}'\n")


def _images(folder: Path) -> None:
    for name in ("a.png", "b.jpg", "c.tif", "d.webp", "e.bmp", "f.ppm"):
        pictures(folder / name)
    pictures(folder / "g.tif", 3)
    pictures(folder / "h.png", 3)
    Image.fromarray(frames(1)[0][..., 0].astype(np.uint16) * 100).save(folder / "i.png")


def _queries(folder: Path) -> None:
    (folder / "q.csv").write_text("t,x,y,id\n0,1,2,nose\n3,4.5,5,tail\n")
    (folder / "q.json").write_text(json.dumps({"queries": [[0, 1, 2], [3, 4, 5]], "ids": ["a", "b"]}))
    (folder / "r.json").write_text(json.dumps([{"t": 0, "x": 1, "y": 2, "id": "a"}]))
    np.savez(folder / "q.npz", queries=np.asarray([[0, 1, 2.0]]), ids=np.asarray(["a"]))


def _tracks(folder: Path) -> None:
    for suffix in (".h5", ".npz", ".csv", ".json"):
        save_tracks(example(), folder / f"a{suffix}")
    for name, suffix in (
        ("tapvid", ".npz"),
        ("cotracker", ".npz"),
        ("dlc-h5", ".h5"),
        ("dlc-csv", ".csv"),
        ("sleap", ".h5"),
    ):
        export(example(), folder / f"{name}{suffix}", name, overwrite=True)
    for path in RECORDED.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def _masks(folder: Path) -> None:
    mask = np.zeros((32, 48), np.uint8)
    mask[8:20, 10:30] = 255
    for name in ("a.png", "b.jpg", "c.tif", "d.webp", "e.gif"):
        Image.fromarray(mask).save(folder / name)
    Image.fromarray(np.dstack([frames(1)[0], mask]), "RGBA").save(folder / "f.png")
    Image.fromarray(mask).convert("P").save(folder / "g.png")


def _weights(folder: Path) -> None:
    state = {"a": torch.arange(12.0).reshape(3, 4), "b.weight": torch.ones(2, 2, dtype=torch.float16)}
    save_file(state, folder / "a.safetensors", metadata={"format": "ptrack-nano-1", "config": json.dumps({"dim": 96})})
    torch.save({"model": state, "step": 3, "best": np.float64(1.5)}, folder / "b.pt")
    torch.save(state, folder / "c.pt", _use_new_zipfile_serialization=False)
    torch.save({"format": "ptrack-training", "config": {"model": "nano", "arch": {}}, "model": state}, folder / "d.pth")


def _pickles(folder: Path) -> None:
    value = {
        "video": np.zeros((2, 4, 4, 3), np.uint8),
        "points": np.ones((3, 2, 2)),
        "names": ["a", ("b", 2.5), {3}, b"x"],
    }
    for protocol in (0, 2, 4, 5):
        (folder / f"p{protocol}.pkl").write_bytes(pickle.dumps(value, protocol))
    np.save(folder / "a.npy", np.arange(20.0).reshape(4, 5))
    np.save(folder / "b.npy", np.asarray({"x": np.arange(3)}, dtype=object))


def _yaml(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "model: nano\nlr: 1e-4\narch: {dim: 96, input_size: [384, 512]}\nlist: [1, 2.5, yes, null]\n"
    )
    (folder / "b.yaml").write_text("a: &x {k: [1, 2]}\nb: *x\nc:\n  - text\n  - 2001-01-01\n")


def _store(folder: Path) -> None:
    write_store(folder / "a.h5", [raw_clip(frames=3), raw_clip("two", frames=2)])
    write_store(folder / "b.h5", [raw_clip(frames=3)], codec="jpeg")


def _gif(folder: Path) -> None:
    pictures(folder / "a.gif", 4, duration=40)
    pictures(folder / "b.gif")


MAKERS: dict[str, Callable[[Path], None]] = {
    "video": _videos,
    "image": _images,
    "gif": _gif,
    "tracks": _tracks,
    "store": _store,
    "queries": _queries,
    "mask": _masks,
    "weights": _weights,
    "pickle": _pickles,
    "yaml": _yaml,
}


def make(folder: Path, kinds: tuple[str, ...]) -> dict[str, list[Path]]:
    """Write the sound files of some kinds below a folder and return them."""
    made = {}
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        MAKERS[kind](folder / kind)
        made[kind] = sorted((folder / kind).iterdir())
    return made
