from __future__ import annotations

import pytest
import torch

from tests.parity import official


@pytest.fixture(scope="session")
def official_file(tmp_path_factory: pytest.TempPathFactory):
    """``official_file(backbone, size)``: a checkpoint as the official training script writes it."""
    folder, made = tmp_path_factory.mktemp("official"), {}

    def path(backbone: str, size: str):
        if (backbone, size) not in made:
            state = {f"module.{k}": v for k, v in official.weights(backbone, size).items()}
            made[backbone, size] = folder / f"{backbone}_{size}.pt"
            torch.save({"model": state, "epoch": 3}, made[backbone, size])
        return made[backbone, size]

    return path
