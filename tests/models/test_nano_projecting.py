import pytest
import torch
import torch.nn.functional as F

from ptrack.models.backbones.lite0 import joined
from ptrack.models.nano.projecting import enlarged_square, projected

LEVELS = (0.7, 1.0, 1.0)


@pytest.fixture
def taps():
    torch.manual_seed(0)
    sizes = ((24, 24, 40), (40, 12, 20), (112, 6, 10))
    return [torch.randn(2, *size).contiguous(memory_format=torch.channels_last) for size in sizes]


@pytest.mark.parametrize("scale", [2, 4])
def test_squared_lengths_of_an_enlarged_map(taps, scale):
    wanted = F.interpolate(taps[1], scale_factor=scale, mode="bilinear").square().sum(1)
    torch.testing.assert_close(enlarged_square(taps[1], scale), wanted)


@pytest.mark.parametrize("centre", [True, False])
def test_projecting_first_is_joining_first(taps, centre):
    matrix = torch.randn(96, 176)
    with torch.inference_mode():
        found = projected(taps, LEVELS, matrix, centre)
        single = projected([tap[1:] for tap in taps], LEVELS, matrix, centre)
        y = F.linear(joined(taps, LEVELS), matrix)
        wanted = F.normalize(y - y.mean((1, 2), keepdim=True) if centre else y, dim=-1)
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-5)
    assert torch.equal(found[1:], single)
    assert found.is_contiguous()
