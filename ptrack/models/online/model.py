"""Track-On2 (arXiv 2509.19115): an online point tracker that remembers each point as a short list of tokens.

Read from the top: :meth:`TrackOn2.encode` a frame, sample the queries in it (:meth:`~TrackOn2.add`), then per frame
(:meth:`~TrackOn2.step`): decode, correlate, re-rank, locate, remember. Streaming, whole clips and training run this
same step, batched over clips.

Training: ``model(video, queries, reduce, checkpoint=True)`` calls ``reduce(t, outputs)`` once per frame with a
:class:`OnlineOutputs` (what ``ptrack.training.losses`` reads) and returns the list of what it returned; the
correlation maps of a frame need never outlive that call. ``list(model.unroll(video, queries))`` is the same as a
generator.

Letters: B clips, T frames, N points, H W pixels of a frame as given, h w of the model's input, D channels, L levels,
S tokens of all levels, P cells of the finest level, K candidates, M remembered frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from ptrack import geometry
from ptrack.errors import ModelError
from ptrack.models.backbones.encoders import build_encoder
from ptrack.models.base import StepOutput
from ptrack.models.graph import CompiledCall
from ptrack.models.layers.attention import AttentionBlock
from ptrack.models.layers.dropout import chosen
from ptrack.models.layers.linear import Linear
from ptrack.models.layers.windows import bilinear_window
from ptrack.models.online.backbone import Backbone
from ptrack.models.online.config import OnlineConfig
from ptrack.models.online.fold import folded, pack_model
from ptrack.models.online.heads import (
    FeaturePyramid,
    PredictionHead,
    Reranking,
    best_cell,
    best_cells,
    cell_to_xy,
    correlation_volume,
)
from ptrack.models.online.preprocess import prepare
from ptrack.models.online.state import OnlineState

MEMORY_ROWS = 32  # points whose memory is attended to at a time when no gradient is needed: stays in the cache
LOCATE_ROWS = 128  # points that are located at a time: bounds their correlation maps to 6 MB and candidates to 8 MB

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class OnlineFeatures:
    """All that the tracker needs of B frames."""

    fused: Tensor  # (B, P, D) finest map, all levels fused into it
    tokens: Tensor  # (B, S, D) all levels, finest first, row by row
    volume: Tensor  # (B, P, D) float32, see ``correlation_volume``
    size: tuple[int, int]  # (H, W) of the frame as given

    def __getitem__(self, i: int) -> OnlineFeatures:
        part = slice(i, i + 1)
        return OnlineFeatures(self.fused[part], self.tokens[part], self.volume[part], self.size)


@dataclass(frozen=True, slots=True)
class OnlineOutputs:
    """What the model returns for one frame; pixels are those of its input. Fields after ``patch`` are for training."""

    query: Tensor  # (B, N, D) token after re-ranking: what is remembered
    offsets: Tensor  # (B, layers, N, 2) offset from ``patch`` by every layer of the head (inference: the last alone)
    visibility_logit: Tensor  # (B, N)
    uncertainty_logit: Tensor  # (B, N) that ``patch`` is more than 12 px off, or the point hidden
    patch: Tensor  # (B, N, 2) centre of the best cell of ``c2``
    c1: Tensor | None = None  # (B, N, P) first correlation
    c2: Tensor | None = None  # (B, N, P) second correlation
    candidate_uncertainty: Tensor | None = None  # (B, N, K) logit
    candidate_score: Tensor | None = None  # (B, N, K) logit
    candidate_patch: Tensor | None = None  # (B, N, K, 2)
    active: Tensor | None = None  # (B, N) bool: the point's query frame has come

    @property
    def xy(self) -> Tensor:
        """(B, N, 2) positions in pixels of the model's input."""
        return self.patch + self.offsets[:, -1]


@dataclass(slots=True)
class _Memory:
    """What R points remember, while a step renews it."""

    tokens: Tensor  # (R, S + 1, D), the current one last; before a first round with projections (R, S, D)
    ignore: Tensor | None  # (R, S + 1) bool, True = nothing remembered there; the current token is always seen
    projected: Tensor | None = None  # (R, S, E) of the tokens, for the first round


class TrackOn2(nn.Module):
    """The online tracker. Implements ``ptrack.models.base.OnlineModel``.

    Args:
        config: the architecture.
        memory: frames remembered per point; by default the number trained with. See :meth:`set_memory`.
        checkpoint: recompute the encoder's stages in the backward pass (training memory only).
        name: as in ``ptrack models``.
    """

    support_grid = 20  # points per side of the grid that the published numbers add

    def __init__(
        self, config: OnlineConfig, *, memory: int | None = None, checkpoint: bool = False, name: str = "track-on2"
    ) -> None:
        super().__init__()
        c = self.config = config
        self.name, self.threshold = name, c.delta_v
        self.dtype = torch.float32  # of the arithmetic; coordinates, correlation and sampling stay float32
        self._compiled: CompiledCall[OnlineOutputs] | None = None
        encoder = build_encoder(c.backbone, c.strides, c.vit_upsample, checkpoint=checkpoint)
        self.backbone: nn.Module = Backbone(encoder, c.dim, c.input_size, c.strides)
        self.fpn = FeaturePyramid(c.dim, c.strides)

        def attention() -> nn.ModuleList:
            blocks = [AttentionBlock(c.dim, c.heads, c.hidden, c.dropout) for _ in range(c.decoder_layers)]
            return nn.ModuleList(blocks)

        self.feature_attention, self.query_attention, self.memory_attention = attention(), attention(), attention()
        self.t_embedding = nn.Parameter(torch.empty(1, c.memory + 1, c.dim))
        self.projection1 = Linear(c.dim, c.dim)
        self.projection2 = Linear(c.dim, c.dim)
        self.ms_corr_proj = nn.Conv2d(len(c.strides), 1, 1)
        self.reranking_head = Reranking(c)
        self.prediction_head = PredictionHead(c)
        nn.init.trunc_normal_(self.t_embedding, std=0.02)
        if memory is not None:
            self.set_memory(memory)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.t_embedding.device

    @property
    def encode_batch(self) -> int:
        """On a CPU one frame fills all cores; a GPU wants more."""
        return 1 if self.device.type == "cpu" else 8

    @property
    def memory(self) -> int:
        """M, frames remembered per point."""
        return self.t_embedding.shape[1] - 1

    def set_memory(self, memory: int) -> None:
        """Remember another number of frames than was trained with: the time embedding is resized linearly.

        The entries of the newest and the oldest remembered frame and of the current one stay as trained.
        """
        if memory < 1:
            raise ModelError(f"memory is {memory}; a tracker must remember at least 1 frame.")
        if memory == self.memory:
            return
        past, now = self.t_embedding.detach()[:, :-1], self.t_embedding.detach()[:, -1:]
        past = F.interpolate(past.transpose(1, 2), size=memory, mode="linear", align_corners=True).transpose(1, 2)
        self.t_embedding = nn.Parameter(torch.cat([past, now], dim=1), requires_grad=self.t_embedding.requires_grad)

    # ---- frame -> features ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fold(self) -> TrackOn2:
        """Take the inference form, in place, and return the model: see ``ptrack.models.online.fold``.

        Results stay equal up to rounding. A folded model can neither be trained nor saved.
        """
        self.eval().requires_grad_(False)
        self.backbone = folded(self.backbone)
        if self.device.type == "cpu" and self.dtype == torch.float32:  # its sums are too coarse in half types
            self.fpn.use_winograd(self.config.shapes[0])
        self.to(memory_format=torch.channels_last)
        if self.dtype == torch.float32:
            pack_model(self)
        return self

    def compile_steps(self, **options: Any) -> TrackOn2:
        """Compile the step, in place, and return the model; for GPUs.

        Compiled steps have fixed shapes: whole buffers are tracked (they grow by doubling). Rows that are no points are
        computed and hidden from the others in query attention, the only place where points meet.

        Args:
            **options: of ``torch.compile``; by default CUDA graphs are captured on CUDA devices.
        """
        if not options and self.device.type == "cuda":
            options = {"mode": "reduce-overhead"}
        self._compiled = CompiledCall(self.arithmetic, **options)
        return self

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Compute in a half type; coordinates, correlation and sampling stay float32. Set it before :meth:`fold`."""
        self.dtype = dtype

    def _precision(self) -> torch.autocast:
        half = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype if half else None, enabled=half)

    def features(self, frames: Tensor) -> OnlineFeatures:
        """Encode (B, H, W, 3) RGB frames, uint8 or floating point in 0..255."""
        c = self.config
        images = prepare(frames.to(self.device), c.input_size)
        with self._precision():
            tokens = self.backbone(images)
            levels = tokens.split([h * w for h, w in c.shapes], dim=1)
            fused = self.fpn(levels, c.shapes)
        volume = correlation_volume(levels, c.shapes, self.ms_corr_proj.weight.flatten())
        return OnlineFeatures(fused, tokens, volume, (frames.shape[1], frames.shape[2]))

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Sequence[OnlineFeatures]:
        """Turn (B, H, W, 3) uint8 RGB frames into B per-frame features."""
        batch = self.features(frames)
        return [batch[i] for i in range(len(frames))]

    def sample(self, frame: OnlineFeatures, xy: Tensor) -> Tensor:
        """Return the fused map (B, N, D) at points (B, N, 2) in pixels of the frame; bilinear, border beyond."""
        cells = frame.fused.float().unflatten(1, self.config.shapes[0])
        centre = geometry.rescale(xy.to(cells), frame.size, self.config.shapes[0]) - 0.5
        clip = torch.arange(xy.shape[0], device=cells.device)[:, None].expand(xy.shape[:2])
        return bilinear_window(cells, clip.flatten(), centre.flatten(0, 1), 0).view(*xy.shape[:2], cells.shape[-1])

    # ---- one frame of tracking --------------------------------------------------------------------------------------

    def track(
        self, frame: OnlineFeatures, state: OnlineState, *, active: Tensor | None = None, detail: bool = False
    ) -> OnlineOutputs:
        """Find the state's points in a frame.

        Args:
            frame: features of B frames.
            state: of B clips.
            active: (B, N) bool, points that exist already; the others are not seen by them. None: all.
            detail: fill the training fields of the result.
        """
        window = state.window(whole=self._compiled is not None)
        time = self.t_embedding[0]
        time = torch.cat([time[self.memory - 1 - window.age], time[-1:]])  # in the ring's order, current frame last
        init = state.init[:, : state.count]
        known = {} if window.projected is None or torch.is_grad_enabled() else {"projected": window.projected}
        with self._precision():
            run = self._compiled or self.arithmetic
            return run(frame, init, window.tokens, time, window.ignore, active=active, detail=detail, **known)

    def arithmetic(
        self,
        frame: OnlineFeatures,
        init: Tensor,
        past: Tensor,
        time: Tensor,
        ignore: Tensor | None,
        *,
        active: Tensor | None = None,
        detail: bool = False,
        projected: Tensor | None = None,
    ) -> OnlineOutputs:
        """The arithmetic of :meth:`track`: tensors in, tensors out; see :meth:`decode` for what they are."""
        q = self.decode(frame, init, past, time, ignore, None if active is None else ~active, projected)
        return self.locate(frame, self.projection1(q), active=active, detail=detail)

    def decode(
        self,
        frame: OnlineFeatures,
        q: Tensor,
        past: Tensor,
        time: Tensor,
        ignore: Tensor | None,
        unseen: Tensor | None,
        projected: Tensor | None = None,
    ) -> Tensor:
        """Look at the frame, at the other points and at the own past, ``decoder_layers`` times: (B, N, D).

        Args:
            frame: features.
            q: (B, N, D) initial tokens.
            past: (B, N, S, D) remembered tokens.
            time: (S + 1, D) time embedding of the remembered tokens and, last, of the current one.
            ignore: (B, N, S) bool, True = nothing remembered there.
            unseen: (B, N) bool, True = no point looks at this one.
            projected: (B, N, S, E) of the remembered tokens, where the state keeps them; without gradients.
        """
        layers: Any = list(zip(self.feature_attention, self.query_attention, self.memory_attention, strict=True))
        memory = self._split(past, ignore, projected)
        for i, (see, compare, recall) in enumerate(layers):
            q = see(q, frame.fused, frame.fused)
            q = compare(q, q, q, unseen)
            q = self._recall(recall, q, memory, time, last=i == len(layers) - 1)
        return q

    def _split(self, past: Tensor, ignore: Tensor | None, projected: Tensor | None) -> list[_Memory]:
        """Remembered tokens (B, N, S, D) in parts that stay in the cache, each with room for the current one."""
        tokens = past.flatten(0, 1)
        whole = torch.is_grad_enabled() or torch.compiler.is_exporting() or len(tokens) <= MEMORY_ROWS
        rows = max(len(tokens), 1) if whole else MEMORY_ROWS
        masks = itertools.repeat(None) if ignore is None else F.pad(ignore.flatten(0, 1), (0, 1)).split(rows)
        parts = zip(tokens.split(rows), masks, strict=False)
        if projected is None:
            return [_Memory(F.pad(part, (0, 0, 0, 1)), mask) for part, mask in parts]
        kept = projected.flatten(0, 1).split(rows)
        return [_Memory(part, mask, known) for (part, mask), known in zip(parts, kept, strict=True)]

    def _recall(self, block: AttentionBlock, q: Tensor, memory: list[_Memory], time: Tensor, *, last: bool) -> Tensor:
        """One round of memory attention: (B, N, D) queries; they and, in place, the remembered tokens are renewed.

        Every remembered token is a query too, except in the last round, whose memory nobody reads.
        """
        rows = q.flatten(0, 1).split([len(part.tokens) for part in memory])
        return torch.cat(
            [self._attend(block, row, part, time, last=last) for row, part in zip(rows, memory, strict=True)]
        ).view_as(q)

    def _attend(self, block: AttentionBlock, q: Tensor, memory: _Memory, time: Tensor, *, last: bool) -> Tensor:
        """:meth:`_recall` for (R, D) queries."""
        if memory.projected is not None:
            return self._attend_projected(block, q, memory, memory.projected, time)
        z, ignore = memory.tokens, memory.ignore
        if self.training and self.config.memory_mask > 0:
            hidden_at_random = F.pad(chosen((len(z), z.shape[1] - 1), self.config.memory_mask, q.device), (0, 1))
            ignore = hidden_at_random if ignore is None else ignore | hidden_at_random
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            z = torch.cat([z[:, :-1], q[:, None]], dim=1)
        else:
            z[:, -1] = q
        zt = z + time
        if last:
            return block.forward_one(zt[:, -1], zt, z, ignore)
        memory.tokens = block(zt, zt, z, ignore)
        return memory.tokens[:, -1]

    def _attend_projected(
        self, block: AttentionBlock, q: Tensor, memory: _Memory, projected: Tensor, time: Tensor
    ) -> Tensor:
        """:meth:`_attend` in the first round, whose remembered tokens ``projected`` (R, S, E) saves projecting.

        Time embedding and biases are added to the projections: W (z + t) + b = W z + (W t + b). Only the current token
        is projected here.
        """
        mha = block.mha
        tokens = _with_last(memory.tokens, q, time)
        queries, keys, values = mha.divide(_with_last(projected, mha.project_only(q), mha.project_added(time)))
        memory.tokens = block.finish_sum(mha.attend(queries, keys, values, memory.ignore, tokens))
        memory.projected = None
        return memory.tokens[:, -1]

    def correlate(self, q: Tensor, frame: OnlineFeatures) -> Tensor:
        """Weighted sum over levels of the cosine of (B, N, D) queries with every cell: (B, N, P) float32."""
        with torch.autocast(q.device.type, enabled=False):
            q = F.normalize(q.float(), dim=-1, eps=1e-12)
            bias = self.ms_corr_proj.bias
            assert bias is not None
            return torch.matmul(q, frame.volume.transpose(1, 2)).add_(bias)

    def locate(
        self, frame: OnlineFeatures, q: Tensor, *, active: Tensor | None = None, detail: bool = False
    ) -> OnlineOutputs:
        """Correlate, re-rank, correlate again, refine: everything after the decoder, point by point."""
        rerank: Any = self.reranking_head.local_decoder
        head: Any = self.prediction_head.offset_transformer
        values = [block.mha.values(frame.tokens) for block in rerank]
        for attention in (block.mha for block in head):
            few = attention.few(q.shape[1], frame.tokens)
            values.append(frame.tokens if few else attention.values(frame.tokens))
        if detail or torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self._locate(frame, q, values, active=active, detail=detail)
        parts = [self._locate(frame, part, values) for part in q.split(LOCATE_ROWS, dim=1)]
        return parts[0] if len(parts) == 1 else _join(parts)

    def _locate(
        self,
        frame: OnlineFeatures,
        q: Tensor,
        values: Sequence[Tensor],
        *,
        active: Tensor | None = None,
        detail: bool = False,
    ) -> OnlineOutputs:
        c, head, rerank = self.config, self.prediction_head, self.reranking_head
        width, (h, w) = c.shapes[0][1], c.input_size
        c1 = self.correlate(q, frame)
        cells = best_cells(c1.detach(), c.candidates)[1]
        candidates = cell_to_xy(cells, width, c.strides[0])
        q, seen = rerank(q, geometry.normalise(candidates, (h, w)), values[: c.rerank_layers], c.shapes)
        q = self.projection2(q)
        c2 = self.correlate(q, frame)
        patch = cell_to_xy(best_cell(c2.detach()), width, c.strides[0])
        place = geometry.normalise(patch, (h, w))
        outputs = OnlineOutputs(
            query=q,
            offsets=head.offsets(q, place, values[c.rerank_layers :], c.shapes, every=detail),
            visibility_logit=head.vis_layer(q).squeeze(-1).float(),
            uncertainty_logit=head.unc_layer(q).squeeze(-1).float(),
            patch=patch,
        )
        if not detail:
            return outputs
        extra = {
            "c1": c1,
            "c2": c2,
            "candidate_uncertainty": rerank.certainty_layer(seen).squeeze(-1),
            "candidate_score": rerank.score_layer(seen).squeeze(-1),
            "candidate_patch": candidates,
            "active": active,
        }
        return OnlineOutputs(**{f.name: getattr(outputs, f.name) for f in fields(outputs)} | extra)

    # ---- streaming --------------------------------------------------------------------------------------------------

    def init_state(self) -> OnlineState:
        """Return the state of a tracker without points."""
        plain = self._compiled is None and self.dtype == torch.float32 and not self.training
        projected = plain and self.device.type == "cpu" and self.config.decoder_layers > 1
        return OnlineState.empty(self.memory, self.config.dim, self.device, projected=projected)

    @torch.inference_mode()
    def add(self, state: OnlineState, features: OnlineFeatures, xy: Tensor) -> OnlineState:
        """Return the state with (N_new, 2) points, in pixels of this frame, appended after the present ones."""
        return state.add(self.sample(features, xy.to(self.device)[None]))

    @torch.inference_mode()
    def keep(self, state: OnlineState, index: Tensor) -> OnlineState:
        """Return the state with only the points of ``index`` (K,) int64, in that order."""
        return state.keep(index.to(self.device))

    @torch.inference_mode()
    def step(self, state: OnlineState, features: OnlineFeatures) -> tuple[OnlineState, StepOutput]:
        """Track all points of the state into this frame. Points added on this frame are tracked too."""
        n = state.count
        if self._compiled is not None:
            outputs = self.track(features, state.whole(), active=state.used()[None])
        else:
            outputs = self.track(features, state)
        xy = geometry.rescale(outputs.xy[0, :n], self.config.input_size, features.size)
        visibility = outputs.visibility_logit[0, :n].sigmoid()
        confidence = (-outputs.uncertainty_logit[0, :n]).sigmoid()
        found = outputs.query[:, :n]
        first: Any = self.memory_attention[0]
        projected = None if state.projected is None else first.mha.project_only(found)
        output = StepOutput(xy=xy, visibility=visibility, confidence=confidence)
        return state.remember(found, projected=projected), output

    # ---- training ---------------------------------------------------------------------------------------------------

    def unroll(self, video: Tensor, queries: Tensor) -> Iterator[OnlineOutputs]:
        """Yield the outputs of every frame of B clips; see :meth:`forward`."""
        clip = _Clip(self, video, queries)
        for t in range(video.shape[1]):
            yield clip.step(t)

    def forward(
        self, video: Tensor, queries: Tensor, reduce: Callable[[int, OnlineOutputs], R], *, checkpoint: bool = False
    ) -> list[R]:
        """Track B clips and hand each frame's outputs to ``reduce``.

        Gradients flow through the memory across all frames. In training mode remembered frames are hidden at random
        (``config.memory_mask``); in evaluation mode the results are those of streaming. The inputs are not changed.

        Args:
            video: (B, T, H, W, 3) RGB, uint8 or floating point in 0..255.
            queries: (B, N, 3) rows (t, x, y), pixels of the video. A ``t`` outside 0..T-1 never starts.
            reduce: called as ``reduce(t, outputs)`` in order of frames; tensors in its result carry gradients. Rows
                with ``outputs.active`` false mean nothing.
            checkpoint: recompute each frame in the backward pass. Then ``reduce`` runs twice, and no correlation map
                outlives it.

        Returns:
            T results of ``reduce``.
        """
        clip = _Clip(self, video, queries)
        return [clip.reduced(t, reduce, checkpoint=checkpoint) for t in range(video.shape[1])]


class _Clip:
    """A batch of clips on its way through the model: features, queries and the running state."""

    def __init__(self, model: TrackOn2, video: Tensor, queries: Tensor) -> None:
        if video.ndim != 5 or queries.ndim != 3 or queries.shape[0] != video.shape[0] or queries.shape[2] != 3:
            raise ModelError(
                f"A clip batch needs a video (B, T, H, W, 3) and queries (B, N, 3), not {tuple(video.shape)} and "
                f"{tuple(queries.shape)}."
            )
        self.model, self.B = model, len(video)
        self.features = model.features(video.flatten(0, 1))  # frame t of clip b is row b * T + t
        queries = queries.to(model.device)
        self.start, self.xy = queries[..., 0].long(), queries[..., 1:].float()  # (B, N), (B, N, 2)
        B, N = self.start.shape
        empty = OnlineState.empty(model.memory, model.config.dim, model.device)
        self.state = replace(
            empty,
            init=empty.init.new_zeros(B, N, model.config.dim),
            slots=empty.slots.new_zeros(B, N, model.memory, model.config.dim),
            filled=empty.filled.new_zeros(B, N),
            count=N,
        )

    def _frame(self, t: int) -> OnlineFeatures:
        f = self.features
        fused, tokens, volume = (x.unflatten(0, (self.B, -1))[:, t] for x in (f.fused, f.tokens, f.volume))
        return OnlineFeatures(fused, tokens, volume, f.size)

    def _step(self, t: int, state: OnlineState) -> tuple[OnlineOutputs, OnlineState]:
        frame, active = self._frame(t), self.start <= t
        init = torch.where((self.start == t)[..., None], self.model.sample(frame, self.xy), state.init)
        state = replace(state, init=init)
        outputs = self.model.track(frame, state, active=active & (self.start >= 0), detail=True)
        return outputs, state.remember(outputs.query, active)

    def step(self, t: int) -> OnlineOutputs:
        outputs, self.state = self._step(t, self.state)
        return outputs

    def reduced(self, t: int, reduce: Callable[[int, OnlineOutputs], R], *, checkpoint: bool) -> R:
        if not (checkpoint and torch.is_grad_enabled()):
            return reduce(t, self.step(t))

        def run(state: OnlineState) -> tuple[R, OnlineState]:
            outputs, after = self._step(t, state)
            return reduce(t, outputs), after

        done: Any = recompute(run, self.state, use_reentrant=False)
        result, self.state = done
        return result


def _with_last(past: Tensor, last: Tensor, added: Tensor) -> Tensor:
    """(R, S, D) and, behind them, (R, D), plus (S + 1, D): (R, S + 1, D), each number written once."""
    joined = past.new_empty(past.shape[0], past.shape[1] + 1, past.shape[2])
    torch.add(past, added[:-1], out=joined[:, :-1])
    torch.add(last, added[-1], out=joined[:, -1])
    return joined


def _join(parts: Sequence[OnlineOutputs]) -> OnlineOutputs:
    """Join outputs for consecutive points."""
    return OnlineOutputs(
        query=torch.cat([p.query for p in parts], dim=1),
        offsets=torch.cat([p.offsets for p in parts], dim=2),
        visibility_logit=torch.cat([p.visibility_logit for p in parts], dim=1),
        uncertainty_logit=torch.cat([p.uncertainty_logit for p in parts], dim=1),
        patch=torch.cat([p.patch for p in parts], dim=1),
    )
