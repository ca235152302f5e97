import pytest
import torch

from ptrack.models.backbones import lite0
from ptrack.models.backbones.lite0 import FINE, TAPS, Inverted, Lite0, joined, packaged_weights

LEVELS = (0.7, 1.0, 1.0)


@pytest.fixture(scope="module")
def backbone():
    return Lite0(packaged_weights(), fine=True)


@pytest.fixture(scope="module")
def picture():
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 96) * 2 - 1


def test_maps_of_all_strides(backbone, picture):
    assert [tuple(x.shape) for x in backbone(picture)] == [
        (2, FINE, 32, 48), (2, TAPS[1], 16, 24), (2, TAPS[2], 8, 12), (2, TAPS[4], 4, 6),
    ]  # fmt: skip


def test_channels_of_a_block_may_be_worked_on_in_parts(backbone, picture, monkeypatch):
    """Blocks of 96 to 672 channels, in parts of 16 and up, the last one smaller or not."""
    monkeypatch.setattr(lite0, "FUSED", False)
    whole = backbone(picture)
    done: list[int] = []
    part = lite0.Conv.part

    def counted(self, x, channels):
        y = part(self, x, channels)
        done.append(y.shape[1] * y[0, 0].numel() * 4)
        return y

    monkeypatch.setattr(lite0.Conv, "part", counted)
    with torch.no_grad():
        backbone(picture[:1])
        calls = len(done)
        monkeypatch.setattr(lite0, "EXPANDED", 64 << 10)
        done.clear()
        found = backbone(picture[:1])
    assert len(done) > calls
    wide = 32 * 32 * 48 * 4  # the stem, which is no such block; its 32 channels stay together
    assert max(size for size in done if size != wide) <= 2 * (64 << 10)
    for mine, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(mine, theirs[:1], atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(not lite0.FUSED, reason="PyTorch was built without oneDNN")
def test_fused_convolutions_are_the_plain_ones(backbone, picture):
    """On a CPU without gradients alone, and a batch of frames has the bits of single ones."""
    with torch.enable_grad():
        assert not lite0.is_fused(picture)
        wanted = backbone(picture)
    with torch.no_grad():
        assert lite0.is_fused(picture)
        assert not any(lite0.is_fused(x) for x in (picture.double(), picture.to("meta")))
        found, single = backbone(picture), backbone(picture[1:])
    for mine, theirs, one in zip(found, wanted, single, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-5)
        assert mine.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(mine[1:], one)


@pytest.mark.skipif(not lite0.FUSED, reason="PyTorch was built without oneDNN")
def test_weights_laid_out_for_convolutions_follow_the_weights(picture):
    net = Lite0(packaged_weights())
    with torch.no_grad():
        first, again = net(picture), net(picture)
        small = net(picture[:, :, :32, :64])
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        net.stem.weight.mul_(0.5)  # in place, as an optimizer writes
        halved = net(picture)
        net.stem.weight.data = net.stem.weight.data * 2  # as moving to another type and back does
        back = net(picture)
        for mine, theirs in zip(small, net(picture[:, :, :32, :64]), strict=True):
            assert torch.equal(mine, theirs)
    assert all(torch.equal(a, b) for a, b in zip(first, back, strict=True))
    assert not torch.equal(first[0], halved[0])


def test_with_gradients_channels_stay_together(backbone, picture, monkeypatch):
    monkeypatch.setattr(lite0, "EXPANDED", 64 << 10)
    with torch.enable_grad():
        blocks = [b for stage in backbone.stages for b in stage if isinstance(b, Inverted)]
        x = torch.rand(1, 16, 32, 48, requires_grad=True)
        y = blocks[0](x)
        plain = torch.nn.Sequential(*blocks[0])(x)
    assert torch.equal(y, plain)
    y.sum().backward()
    assert x.grad is not None


def test_joined_in_place_is_joined_with_gradients(backbone, picture):
    _, *taps = backbone(picture)
    wanted = joined([tap.clone().requires_grad_() for tap in taps], LEVELS)
    assert wanted.requires_grad
    found = joined(taps, LEVELS)
    torch.testing.assert_close(found, wanted.detach())
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 16, 24))


@pytest.mark.parametrize("size", [(48, 64), (37, 91), (200, 150)])
def test_in_graphs_bytes_are_resized_to_the_last_bit_as_pytorch_does(size):
    frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frame = frame.contiguous(memory_format=torch.channels_last)
    wanted = torch.nn.functional.interpolate(frame, (48, 64), mode="bilinear", antialias=True)
    assert torch.equal(lite0._resized_bytes(frame, (48, 64)), wanted.float())
