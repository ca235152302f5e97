"""Arrays, sequences and iterators of frames."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from ptrack.errors import InputError
from ptrack.video import open_source, read_frames

from . import clips


@pytest.fixture
def video():
    return np.stack([clips.numbered(i, 64, 48) for i in range(12)])


def test_array(video):
    source = open_source(video)
    frames = list(source)
    assert (source.info.name, source.info.kind, source.info.width, source.info.height) == ("array", "array", 64, 48)
    assert (source.info.expected_frames, source.info.rereadable, source.info.live) == (12, True, False)
    assert np.array_equal(np.stack([f.rgb for f in frames]), video)
    assert [f.index for f in frames] == list(range(12))
    assert [f.pts for f in frames] == [i / 25 for i in range(12)]
    assert len(list(source)) == 12
    assert [f.index for f in source.reversed(5)] == [4, 3, 2, 1, 0]
    assert source.sha256() == hashlib.sha256(video.tobytes()).hexdigest()


@pytest.mark.parametrize("shape", [(12, 48, 64), (12, 48, 64, 1)])
def test_grey_array(video, shape):
    grey = video[..., :1].reshape(shape)
    frames = list(open_source(grey))
    assert all(np.array_equal(f.rgb, np.repeat(video[i, ..., :1], 3, axis=2)) for i, f in enumerate(frames))
    assert frames[0].rgb.flags.c_contiguous


def test_alpha_array(video):
    frames = list(open_source(np.concatenate([video, np.zeros_like(video[..., :1])], axis=-1)))
    assert not any(f.rgb.any() for f in frames)


def test_the_array_is_not_changed_and_strides_do_not_matter(video):
    before = video.copy()
    turned = video.transpose(0, 2, 1, 3)
    frames = list(read_frames(turned, max_size=32))
    assert frames[0].rgb.shape == (32, 24, 3)
    assert all(f.rgb.flags.c_contiguous for f in open_source(turned))
    assert np.array_equal(video, before)


def test_torch_tensor(video):
    frames = list(open_source(torch.from_numpy(video)))
    assert np.array_equal(frames[7].rgb, video[7])


TENSOR = torch.from_numpy
GIVEN = {
    "tensor": TENSOR,
    "channels first": lambda v: TENSOR(v).permute(0, 3, 1, 2),
    "channels first in an array": lambda v: np.moveaxis(v, 3, 1),
    "batch of one": lambda v: TENSOR(v)[None],
    "batch of one, channels first": lambda v: np.moveaxis(v, 3, 1)[None],
    "0..1": lambda v: v / 255,
    "0..1 in 32 bits, channels first": lambda v: TENSOR(v).permute(0, 3, 1, 2).float() / 255,
    "0..1 in 16 bits": lambda v: (v / 255).astype(np.float16),
    "0..1 in bfloat16": lambda v: (TENSOR(v).float() / 255).bfloat16(),
    "with a gradient": lambda v: (TENSOR(v).float() / 255).requires_grad_(),
    "rounded beyond 1": lambda v: v / np.float32(254.99),
    "list of tensors": lambda v: [TENSOR(frame).permute(2, 0, 1) for frame in v],
    "iterator of tensors": lambda v: (TENSOR(frame).permute(2, 0, 1) / 255 for frame in v),
    "PIL images": lambda v: [Image.fromarray(frame) for frame in v],
    "PIL images of other modes": lambda v: [Image.fromarray(frame).convert("CMYK") for frame in v],
    "alpha": lambda v: np.concatenate([v, np.full_like(v[..., :1], 255)], axis=-1).transpose(0, 3, 1, 2),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_what_python_calls_a_video_is_read_as_the_same_frames(video, kind):
    source = open_source(GIVEN[kind](video))
    assert (source.info.width, source.info.height) == (64, 48)
    assert all(np.array_equal(frame.rgb, video[frame.index]) for frame in source)
    if source.info.rereadable:
        assert len(source.sha256() or "") == 64


def test_pil_images_with_palettes_and_turned_ones():
    red = Image.new("P", (8, 8), 1)
    red.putpalette([0, 0, 0, 255, 0, 0])
    assert next(iter(open_source([red]))).rgb[0, 0].tolist() == [255, 0, 0]  # not the number 1 of the palette
    black_and_white = Image.new("1", (8, 8), 1)
    assert next(iter(open_source([black_and_white]))).rgb[0, 0].tolist() == [255, 255, 255]
    turned = Image.new("RGB", (8, 4))
    turned.getexif()[0x0112] = 6
    with pytest.raises(InputError, match="rotation in its EXIF data, which PIL has not applied. Give .*exif_transpose"):
        open_source([turned])


def test_frames_of_another_device_are_fetched_one_at_a_time(video):
    class OnDevice:
        """A tensor that cannot be read where it lies."""

        def __init__(self, tensor):
            self.tensor, self.shape, self.dtype, self.device = tensor, tensor.shape, tensor.dtype, torch.device("cuda")

        def __len__(self):
            return len(self.tensor)

        def __getitem__(self, index):
            if not 0 <= index < len(self):
                raise IndexError
            return OnDevice(self.tensor[index])

        def detach(self):
            return self

        def cpu(self):
            assert self.tensor.ndim == 3, "the whole clip is copied"
            return self.tensor

    frames = list(open_source(OnDevice(TENSOR(video))))
    assert np.array_equal(frames[3].rgb, video[3])


def test_list_of_arrays_can_be_read_again_and_backwards(video):
    source = open_source(list(video))
    assert [clips.number_of(f.rgb) for f in source] == list(range(12))
    assert [clips.number_of(f.rgb) for f in source.reversed(12)] == list(range(11, -1, -1))
    assert source.sha256() == open_source(video).sha256()


def test_selection(video):
    frames = list(read_frames(video, start=2, end=0.5, stride=3, fps=20.0))
    assert [f.index for f in frames] == [2, 5, 8]
    assert [f.pts for f in frames] == [0.1, 0.25, 0.4]
    with pytest.raises(InputError, match="ends before"):
        read_frames(video, start=12)


def test_mixed_sizes(video):
    frames = [video[0], clips.numbered(1, 128, 96)]
    for given in (frames, iter(frames)):
        source = open_source(given)
        assert [f.rgb.shape for f in source] == [(48, 64, 3)] * 2
        assert len(source.warnings) == 1
        assert "differ in size" in source.warnings[0]


def test_iterator_is_read_once_and_lazily(video):
    taken = []

    def camera():
        for i, frame in enumerate(video):
            taken.append(i)
            yield frame

    source = open_source(camera())
    assert taken == [0]
    assert (source.info.rereadable, source.info.expected_frames, source.sha256()) == (False, None, None)
    frames = iter(source)
    assert clips.number_of(next(frames).rgb) == 0
    assert clips.number_of(next(frames).rgb) == 1
    assert taken == [0, 1]
    assert [clips.number_of(f.rgb) for f in frames] == list(range(2, 12))
    with pytest.raises(InputError, match="cannot be read again"):
        iter(source)
    with pytest.raises(InputError, match="backward tracking needs a file"):
        source.reversed(2)


def test_iterator_selection(video):
    frames = list(read_frames(iter(video), start=0.1, end=9, stride=2, fps=20.0))
    assert [(f.index, f.pts) for f in frames] == [(2, 0.1), (4, 0.2), (6, 0.3), (8, 0.4)]
    with pytest.raises(InputError, match="ends before"):
        list(read_frames(iter(video), start=99))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.full((4, 8, 8, 3), 255, np.float32), "float32 numbers from 255 to 255; floating-point frames must lie"),
        (np.full((4, 8, 8, 3), np.nan), "The first frame holds NaN; floating-point"),
        (np.zeros((3, 8, 8, 3), np.int64), "int64 numbers; frames must be uint8"),
        (np.zeros((3, 8, 8, 3), bool), "bool numbers"),
        (np.zeros((2, 4, 8, 8, 3), np.uint8), "is 2 videos; track one at a time"),
        (torch.zeros(2, 4, 3, 8, 8), "is 2 videos; track one at a time"),
        (torch.zeros(3, 8, 8), r"may be one picture \(3, H, W\) or three grey ones"),
        (torch.zeros(8, 8, 3), r"One picture .*frames\[None\]"),
        (Image.new("RGB", (8, 8)), r"One PIL image is no video; give \[image\]"),
        ([Image.new("I;16", (8, 8))], "holds uint16 numbers"),
        (["a.png", "b.png"], "The first frame is a str; a frame must be an array"),
        ([{"frame": 1}], "The first frame is a dict"),
        ({"video": np.zeros((3, 8, 8, 3), np.uint8)}, "A dict is no source of frames"),
        (np.zeros((8, 8), np.uint8), "must be \\(T, H, W, 3\\)"),
        (np.zeros((3, 8, 8, 2), np.uint8), "shape \\(8, 8, 2\\)"),
        (np.zeros((3, 0, 8, 3), np.uint8), "shape \\(0, 8, 3\\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no frames in the array"),
        ([], "no frames"),
        (iter([]), "gives no frames"),
        (iter([np.full((4, 4, 3), 9.0)]), "float64 numbers from 9 to 9"),
    ],
)
def test_wrong_arrays(frames, words):
    with pytest.raises(InputError, match=words):
        open_source(frames)


def test_a_wrong_frame_midway_is_named(video):
    frames = open_source([video[0], video[1].astype(np.float32)])
    with pytest.raises(InputError, match="Frame 1 holds float32 numbers, the first frame uint8; give all frames one"):
        list(frames)
    frames = open_source(iter([video[0] / 255, video[1] / 127]))
    with pytest.raises(InputError, match="Frame 1 holds float64 numbers from .* between 0 and 1"):
        list(frames)
