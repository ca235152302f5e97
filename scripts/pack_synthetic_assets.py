"""Pack the small set of actors and photos that comes with ptrack: python scripts/pack_synthetic_assets.py --help.

Actors are copied from a folder of Quaternius models (CC0 1.0), with a few animations each. Photos are cropped from the
sample pictures inside the scikit-image wheel that are in the public domain or CC0, named below one by one.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import imageio.v3 as iio
import numpy as np

ANIMATED = (
    "animals_alpaca", "animals_cow", "animals_fox", "animals_horse", "animals_husky", "animals_stag",
    "cute_fish_clownfish", "cute_fish_koi", "cute_fish_shark", "cyberpunk_character", "dinosaurs_stegosaurus",
    "dinosaurs_trex", "easy_enemies_frog", "easy_enemies_rat", "easy_enemies_snake", "easy_enemies_spider",
    "easy_enemies_wasp", "fish_dolphin", "fish_manta_ray", "mech_mike", "platformer_game_bee",
    "platformer_game_character", "platformer_game_crab", "single_knight_knightcharacter", "tank_tank",
    "ultimate_space_astronaut_fernandotheflamingo", "ultimate_space_enemy_small",
)  # fmt: skip
WANTED = ("walk", "run", "gallop", "swim", "idle", "jump", "dance", "attack", "fly", "punch", "death")
CLIPS = 5  # animations kept of one actor
STATIC_BYTES = 24_000  # larger things are left out
STATIC = 80

# File in scikit-image, its author and terms as stated by skimage.data, crops (x, y, w, h).
PHOTOS = (
    ("astronaut.png", "NASA, public domain", ((0, 0, 250, 250), (240, 40, 260, 240), (90, 250, 300, 262))),
    ("brick.png", "cc0textures.com (Bricks25), CC0", ((0, 0, 512, 512),)),
    ("camera.png", "Lav Varshney, CC0", ((0, 0, 512, 512),)),
    ("cell.png", "Paul Müller et al., CC0", ((60, 60, 430, 500),)),
    ("chelsea.png", "Stefan van der Walt, CC0", ((0, 0, 300, 300), (150, 0, 300, 300))),
    ("clock_motion.png", "Stefan van der Walt, public domain", ((0, 0, 400, 300),)),
    ("coffee.png", "Rachel Michetti, CC0", ((0, 0, 300, 400), (280, 20, 320, 380))),
    ("grass.png", "linolafett (deviantart.com), CC0", ((0, 0, 512, 512),)),
    ("gravel.png", "cc0textures.com (Gravel04), CC0", ((0, 0, 512, 512),)),
    ("hubble_deep_field.jpg", "NASA and ESA, public domain", ((0, 0, 436, 436), (420, 430, 436, 436))),
    ("retina.jpg", "Mikael Häggström, CC0", ((330, 330, 750, 750),)),
    ("rocket.jpg", "SpaceX, public domain", ((0, 0, 300, 427), (340, 0, 300, 427))),
)


def pack_animated(source: Path, target: Path) -> list[str]:
    for name in ANIMATED:
        with np.load(source / "animated" / f"{name}.npz") as data:
            arrays = {k: data[k] for k in data.files}
        clips = sorted(k for k in arrays if k.startswith("clip/"))
        rank = {k: next((i for i, w in enumerate(WANTED) if w in k.lower()), 99) for k in clips}
        kept = set(sorted(clips, key=lambda k: (rank[k], k))[:CLIPS])
        slim = {k: v for k, v in arrays.items() if not k.startswith("clip/") or k in kept}
        slim = {k: v.astype(np.float16) if k.startswith("clip/") else v for k, v in slim.items()}
        np.savez_compressed(target / f"{name}.npz", **slim)
    return list(ANIMATED)


def pack_static(source: Path, target: Path) -> list[str]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((source / "static").glob("*.npz")):
        with np.load(path) as data:
            usable = 40 <= len(data["faces"]) <= 4000
        if usable and path.stat().st_size <= STATIC_BYTES:
            groups[path.stem.split("_")[0]].append(path)
    each = -(-STATIC // len(groups))
    chosen = [p for g in groups.values() for p in g[:: max(1, len(g) // each)][:each]]
    for path in chosen:
        with np.load(path) as data:
            np.savez_compressed(target / path.name, **{k: data[k] for k in data.files})
    return [p.stem for p in chosen]


def pack_photos(source: Path, target: Path, quality: int) -> list[str]:
    lines = []
    for name, terms, crops in PHOTOS:
        photo = np.asarray(iio.imread(source / name))
        for number, (x, y, w, h) in enumerate(crops):
            part = photo[y : y + h, x : x + w, ...]
            step = max(1, round(min(part.shape[:2]) / 340))
            part = part[::1] if step == 1 else _reduced(part, step)
            iio.imwrite(target / f"{Path(name).stem}_{number}.jpg", part[..., :3] if part.ndim == 3 else part,
                        quality=quality)  # fmt: skip
        lines.append(f"- {Path(name).stem}_*.jpg: {terms}; from {name} of scikit-image's sample pictures, cropped.")
    return lines


def _reduced(part: np.ndarray, step: int) -> np.ndarray:
    h, w = part.shape[0] // step * step, part.shape[1] // step * step
    blocks = part[:h, :w].reshape(h // step, step, w // step, step, -1)
    return blocks.mean((1, 3)).round().astype(np.uint8).squeeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("actors", type=Path, help="folder with animated/ and static/")
    parser.add_argument("photos", type=Path, help="folder skimage/data of an unpacked scikit-image wheel")
    parser.add_argument("out", type=Path, help="ptrack/data/synthetic/assets")
    parser.add_argument("--quality", type=int, default=88, help="JPEG quality of the photos")
    options = parser.parse_args()
    actors, photos = options.out / "actors", options.out / "photos"
    actors.mkdir(parents=True, exist_ok=True)
    photos.mkdir(parents=True, exist_ok=True)
    names = pack_animated(options.actors, actors)
    things = pack_static(options.actors, actors)
    lines = pack_photos(options.photos, photos, options.quality)
    notice = [
        "What is packaged here, and its terms", "====================================", "",
        "actors/: low-polygon models by Quaternius (quaternius.com), CC0 1.0 Universal (public domain dedication).",
        f"{len(names)} animated ones, with up to {CLIPS} animations each, as float16:", ", ".join(names) + ".", "",
        f"{len(things)} things without animation:", ", ".join(things) + ".", "",
        "photos/: each in the public domain or CC0 1.0, as stated in the documentation of skimage.data:", *lines, "",
    ]  # fmt: skip
    (options.out / "NOTICE").write_text("\n".join(notice), encoding="utf-8")


if __name__ == "__main__":
    main()
