"""TAPNext (arXiv 2504.05579) and TAPNext++: tracking as filling in the missing tokens of a video.

Read from the top: a frame becomes image tokens (:meth:`TapNext.encode`), every point is one more token, and all go
through blocks that run along time (a recurrence per token) and across the frame (attention). A head reads positions off
the point tokens. There is no search, no correlation, no window and no template: all that a point is lies in its state.

- A point shows its query once, in its first frame; before it shows an "unknown" token, afterwards a "mask" token.
- Points look at each other, and the published program has every point in the list from the first frame on. A point that
  joins later is exact in a slot that was reserved for it (:meth:`TapNext.reserve_slots`).
- Streaming, several frames in one call and whole clips run the same :meth:`TapNext.advance`.

Letters: F frames of one call, T frames of a clip, N points or slots, n image tokens, P = n + N, C channels, R side of
the raster (and bins per axis), H W pixels of a frame as given, L blocks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptrack import geometry
from ptrack.errors import ModelError
from ptrack.models.base import StepOutput
from ptrack.models.graph import GraphReplay
from ptrack.models.layers.attention import MultiHead
from ptrack.models.online.preprocess import prepare
from ptrack.models.tapnext.blocks import Block, Expansion
from ptrack.models.tapnext.config import TapNextConfig
from ptrack.models.tapnext.heads import head, locate, mass_near, window_probabilities
from ptrack.models.tapnext.state import BlockState, State

Memory = list[tuple[Tensor, ...]]  # of every block: the recurrence's output, then the convolution's last inputs

WAVELENGTH = 10_000.0  # base of the sine table of query positions
HALF = 127.5  # of 255: pixels become -1..1


@dataclass(frozen=True, slots=True)
class Features:
    """A frame as tokens."""

    tokens: Tensor  # (n, C) float32, row by row
    size: tuple[int, int]  # (H, W) of the frame as given


@dataclass(frozen=True, slots=True)
class FrameOutputs:
    """The network's outputs for F frames."""

    coordinate_logits: Tensor  # (F, N, 2, R) of y, then x
    visibility_logit: Tensor  # (F, N)


class TapNext(nn.Module):
    """The network. Implements ``ptrack.models.base.OnlineModel``.

    Args:
        config: the architecture.
    """

    name = "tapnextpp"
    memory = None
    support_grid = 0  # the published numbers on TAP-Vid use none
    encode_batch = 1  # the encoder is one matrix product; more frames at once gain nothing
    reserve = 0  # slots kept for points that join a running stream

    positions: Tensor  # (n, C) embedding of the image tokens' places
    waves: Tensor  # (R, C / 2) sines and cosines of a column's or row's number

    def __init__(self, config: TapNextConfig) -> None:
        super().__init__()
        c = self.config = config
        self.threshold = c.threshold
        self.replay = GraphReplay(self._advance)  # of a step, on a GPU
        self.lin_proj = nn.Conv2d(3, c.width, c.patch, stride=c.patch)
        self.image_pos_emb = nn.Parameter(torch.zeros(1, c.native_grid**2, c.width))
        self.unknown_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.point_query_token = nn.Parameter(torch.zeros(1, 1, 1, c.width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, c.width))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.encoder_norm = nn.LayerNorm(c.width)
        self.coordinate_head = head(c, 2 * c.raster)
        self.visible_head = head(c, 1)
        self.register_buffer("positions", None, persistent=False)
        self.register_buffer("waves", None, persistent=False)
        self.register_load_state_dict_post_hook(lambda model, _: model.set_tables())
        self.set_tables()

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the frames that the published evaluation on TAP-Vid gives to the network."""
        return (self.config.input_size, self.config.input_size)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.image_pos_emb.device

    @torch.no_grad()
    def set_tables(self) -> None:
        """Compute what depends on the weights and the sizes alone; loading weights does it."""
        if self.image_pos_emb.is_meta:  # weights are still to come
            return
        c, embedding = self.config, self.image_pos_emb[0]
        if c.grid != c.native_grid:
            square = embedding.float().T.reshape(1, c.width, c.native_grid, c.native_grid)
            # Bicubic without antialiasing, also where the grid shrinks.
            embedding = F.interpolate(square, size=(c.grid, c.grid), mode="bicubic")[0].flatten(1).T
        self.positions = embedding.clone()
        self.waves = sine_rows(c.raster, c.width // 2).to(self.device)

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Compute the large matrix products in a half type, in place; everything else stays float32."""
        for module in self.blocks.modules():
            if isinstance(module, MultiHead | Expansion | nn.Linear):
                module.to(dtype)

    # ---- frame and queries -> tokens --------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Sequence[Features]:
        """Turn (B, H, W, 3) uint8 RGB frames into B per-frame features."""
        c = self.config
        images = prepare(frames.to(self.device), (c.input_size, c.input_size)) / HALF - 1
        patches = images.unflatten(3, (c.grid, c.patch)).unflatten(2, (c.grid, c.patch))  # (B, 3, h, p, w, p)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(len(frames), c.image_tokens, -1)
        tokens = F.linear(patches, self.lin_proj.weight.flatten(1), self.lin_proj.bias) + self.positions
        return [Features(frame, (frames.shape[1], frames.shape[2])) for frame in tokens]

    def query_tokens(self, xy: Tensor) -> Tensor:
        """Return the tokens (N, C) that show points (N, 2), in pixels of the raster, to the network.

        The position part is read off a table of sines between its entries, with zeros outside: half a pixel from the
        border it is fainter. A table of all places is the product of two of one axis each.
        """
        (x, inside_x), (y, inside_y) = (self._wave(xy[:, axis]) for axis in (0, 1))
        place = torch.cat([x * inside_y, y * inside_x], dim=1)
        return self.point_query_token.view(-1) + place

    def _wave(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sines at (N,) coordinates of one axis, (N, C / 2), and the share (N, 1) that lies inside."""
        low = (at - 0.5).floor()
        index = torch.stack([low, low + 1], dim=1)  # (N, 2)
        weight = (1 - (at[:, None] - 0.5 - index).abs()) * ((index >= 0) & (index < self.config.raster))
        rows = self.waves[index.clamp(0, self.config.raster - 1).long()]
        return (rows * weight[..., None]).sum(1), weight.sum(1, keepdim=True)

    def _point_tokens(self, query: Tensor, delay: Tensor, frames: int) -> Tensor:
        """Return what every slot shows in the next frames, (F, N, C), from (N, C) query tokens and (N,) delays."""
        wait = (delay - torch.arange(frames, device=delay.device)[:, None])[..., None]  # (F, N, 1)
        shown = torch.where(wait == 0, query, self.mask_token.view(-1))
        return torch.where(wait > 0, self.unknown_token.view(-1), shown)

    # ---- frames of tracking -----------------------------------------------------------------------------------------

    def advance(self, image_tokens: Tensor, state: State) -> tuple[FrameOutputs, State]:
        """Take all slots of a state through the next frames. On a GPU, a single frame is replayed as a CUDA graph.

        Args:
            image_tokens: (F, n, C) of the frames, in order.
            state: before them.

        Returns:
            The outputs of all N slots, reserved ones among them, and the state after the frames.
        """
        frames = len(image_tokens)
        run = self.replay if frames == 1 and self.device.type == "cuda" else self._advance
        memory = [(block.hidden, *block.inputs) for block in state.blocks]
        logits, visibility, memory = run(image_tokens, state.query, state.delay, state.seen, memory)
        blocks = tuple(BlockState(hidden, tuple(inputs)) for hidden, *inputs in memory)
        return FrameOutputs(logits, visibility), state.after(blocks, frames)

    def _advance(
        self, image_tokens: Tensor, query: Tensor, delay: Tensor, seen: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Memory]:
        """Do :meth:`advance` on plain tensors, none of whose values decides what is computed."""
        frames = len(image_tokens)
        tokens = torch.cat([image_tokens, self._point_tokens(query, delay, frames)], dim=1)
        first = torch.cat([seen[None], seen.new_ones(frames - 1, *seen.shape)])
        states = [BlockState(hidden, tuple(inputs)) for hidden, *inputs in memory]
        points, blocks = self.transform(tokens, states, first)
        outputs = self.read(points)
        after = [(block.hidden, *block.inputs) for block in blocks]
        return outputs.coordinate_logits, outputs.visibility_logit, after

    def transform(
        self, tokens: Tensor, states: Sequence[BlockState], seen: Tensor
    ) -> tuple[Tensor, tuple[BlockState, ...]]:
        """Run the blocks: (F, P, C) tokens -> (F, N, C) normed point tokens and the states of the blocks afterwards.

        The last block does not renew the image tokens, which nothing reads.
        """
        n, after = self.config.image_tokens, []
        for i, (block, state) in enumerate(zip(self.blocks, states, strict=True)):
            tokens, state = block(tokens, state, seen, first=n if i == len(self.blocks) - 1 else 0)
            after.append(state)
        return self.encoder_norm(tokens), tuple(after)

    def read(self, points: Tensor) -> FrameOutputs:
        """Read (F, N, C) point tokens."""
        logits = self.coordinate_head(points).unflatten(-1, (2, self.config.raster))
        return FrameOutputs(logits, self.visible_head(points).squeeze(-1))

    def _decode(self, outputs: FrameOutputs, size: tuple[int, int]) -> StepOutput:
        """Turn outputs of (..., N) points into positions in pixels of a frame (H, W), and probabilities."""
        c, logits = self.config, outputs.coordinate_logits
        yx = locate(logits, c.temperature, c.window)
        (py, dy), (px, dx) = (window_probabilities(logits[..., axis, :], yx[..., axis]) for axis in (0, 1))
        return StepOutput(
            xy=geometry.rescale(yx.flip(-1), (c.raster, c.raster), size),
            visibility=outputs.visibility_logit.sigmoid(),
            confidence=mass_near(py, px, dy, dx, c.radius),
        )

    # ---- streaming --------------------------------------------------------------------------------------------------

    def init_state(self) -> State:
        """Return the state of a tracker without points."""
        return State.empty(self.config, self.device)

    @torch.inference_mode()
    def reserve_slots(self, state: State, slots: int) -> State:
        """Return the state with slots for points that join later; they take part as points yet unknown.

        Before the first frame this is exact: a point in such a slot is tracked as if it had been known from the start.
        """
        return state.reserved(slots)

    @torch.inference_mode()
    def add(self, state: State, features: Features, xy: Tensor) -> State:
        """Return the state with (N_new, 2) points, in pixels of this frame, appended after the present ones.

        They take reserved slots as far as there are any, else new ones, which have seen nothing of the past; in the
        middle of a stream a warning reports it.
        """
        if state.frames and len(xy) > state.slots - state.count:
            warnings.warn("Points join a running stream without reserved slots; see reserve=N.", stacklevel=2)
        return self._joined(state, xy.to(self.device), torch.zeros(len(xy), dtype=torch.int64), features.size)

    def _joined(self, state: State, xy: Tensor, delay: Tensor, size: tuple[int, int]) -> State:
        raster = geometry.rescale(xy.float(), size, (self.config.raster, self.config.raster))
        return state.joined(self.query_tokens(raster), delay.to(self.device))

    @torch.inference_mode()
    def keep(self, state: State, index: Tensor) -> State:
        """Return the state with only the points of ``index`` (K,) int64, in that order, and the reserved slots.

        The others go on without the points that are gone, which they have looked at: their tracks change.
        """
        return state.keep(index.to(self.device))

    @torch.inference_mode()
    def step(self, state: State, features: Features) -> tuple[State, StepOutput]:
        """Track all points of the state into this frame. Points added on this frame are tracked too."""
        outputs, after = self.advance(features.tokens[None], state)
        n = state.count
        joined = FrameOutputs(outputs.coordinate_logits[0, :n], outputs.visibility_logit[0, :n])
        return after, self._decode(joined, features.size)

    # ---- whole clips ------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def forward(self, video: Tensor, queries: Tensor, *, chunk: int = 8) -> StepOutput:
        """Track points through a clip, ``chunk`` frames in one call; results do not depend on that number.

        Args:
            video: (T, H, W, 3) uint8 RGB.
            queries: (N, 3) rows (t, x, y), pixels of the video, ``t`` whole numbers.
            chunk: frames at once; the memory for intermediate results grows with it, 0.2 GB at 8.

        Returns:
            Fields of (T, N, ...). Rows before a point's query mean nothing.

        Raises:
            ModelError: other shapes.
        """
        if video.ndim != 4 or queries.ndim != 2 or queries.shape[1] != 3 or chunk < 1:
            raise ModelError(
                f"A clip needs a video (T, H, W, 3) and queries (N, 3), not {tuple(video.shape)} and "
                f"{tuple(queries.shape)}."
            )
        size = (video.shape[1], video.shape[2])
        queries = queries.to(self.device)
        state = self._joined(self.init_state(), queries[:, 1:], queries[:, 0].round().long(), size)
        parts = []
        for frames in video.split(chunk):
            tokens = torch.stack([f.tokens for f in self.encode(frames)])
            outputs, state = self.advance(tokens, state)
            parts.append(self._decode(outputs, size))
        fields = ("xy", "visibility", "confidence")
        return StepOutput(**{name: torch.cat([getattr(part, name) for part in parts]) for name in fields})


def sine_rows(places: int, channels: int) -> Tensor:
    """Return the sines and then the cosines of every place 0 .. ``places`` - 1: (places, channels) float32."""
    frequency = torch.arange(channels // 2, dtype=torch.float64)
    angle = torch.arange(places)[:, None] * WAVELENGTH ** (-frequency / (len(frequency) - 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()
