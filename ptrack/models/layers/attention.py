"""Attention over tokens: modules that project into and out of it.

:class:`SelfAttention` is the offline tracker's, :class:`AttentionBlock` that of Track-On2 (arXiv 2509.19115):
post-norm, four heads, ReLU feed-forward.

Letters: R independent rows, Q queries, K keys, D channels, h heads, d = D / h.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ptrack.models.layers.dropout import attend, dropout
from ptrack.models.layers.linear import Linear, linear, linear_add, pack


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(R, L, D) -> (R, h, L, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(R, h, L, d) -> (R, L, D)."""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the last but one axis; nobody looks at inactive tokens."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, active: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attend within ``x`` (B, G, A, D), G groups of A tokens; ``active`` (B, G, A) bool.

        Returns:
            (B, G, A, D) and, if ``weights``, the mean over heads of the probabilities (B, G, A, A), queries in rows.
        """
        B, G, A, D = x.shape
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(x).view(B * G, A, 3 * D).chunk(3, dim=-1))
        mask = active.reshape(B * G, 1, 1, A)
        mask = mask | ~mask.any(-1, keepdim=True)  # a group without active tokens sees all of them; nobody uses it
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0)
        probabilities = None
        if weights:
            score = (q.float() @ k.float().transpose(-1, -2)) / math.sqrt(D // self.heads)
            probabilities = score.masked_fill(~mask, -math.inf).softmax(-1).mean(1).view(B, G, A, A)
        return self.out(join_heads(y).view(B, G, A, D)), probabilities


class MultiHead(nn.Module):
    """Multi-head attention with the parameters of ``nn.MultiheadAttention`` (packed rows q, k, v)."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.width, self.dropout = heads, dim // heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self._parts: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # packed parts of the weights, see ``pack``

    def pack(self) -> None:
        """Lay out the weights of every run of q, k, v for inference on a CPU; they must not change any more."""
        self._parts = {(i, j): self._part(i, j) for i in range(3) for j in range(i + 1, 4)}
        pack(*(weight for weight, _ in self._parts.values()))

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._parts.clear()  # of another device or number type from now on
        return super()._apply(*args, **kwargs)

    def _part(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        rows = slice(first * self.in_proj_weight.shape[1], last * self.in_proj_weight.shape[1])
        return self.in_proj_weight[rows], self.in_proj_bias[rows]

    def _weights(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """:meth:`_part`, packed where it is and can be used."""
        packed = None if torch.compiler.is_compiling() else self._parts.get((first, last))
        return packed or self._part(first, last)

    def project(self, x: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        """Project (R, L, D) tokens with parts ``first`` .. ``last - 1`` of q, k, v (0, 1, 2): each (R, h, L, d)."""
        return self.divide(linear(x, *self._weights(first, last)))

    def divide(self, y: Tensor) -> tuple[Tensor, ...]:
        """Projections (R, L, n * D), next to each other, to n times (R, h, L, d)."""
        return tuple(part.transpose(1, 2) for part in y.unflatten(-1, (-1, self.heads, self.width)).unbind(2))

    def project_only(self, x: Tensor) -> Tensor:
        """Project (..., D) tokens with q, k and v next to each other, without biases: (..., 3 D)."""
        weight, _ = self._weights(0, 3)
        return linear(x, weight)

    def project_added(self, added: Tensor) -> Tensor:
        """What (L, D), added to the tokens of queries and keys but not of values, and the biases add to
        :meth:`project_only`: (L, 3 D)."""
        keys = linear(added, *self._weights(0, 2))
        return torch.cat([keys, self._part(2, 3)[1].expand_as(added)], dim=-1)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, ignore: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Attend with projected (R, h, L, d) heads; ``ignore`` (R, K) bool, True = key unseen. Returns (R, Q, D).

        A row whose keys are all ignored gives zeros. A ``residual`` (R, Q, D) is added, without a pass for the sum.
        """
        seen = dead = None
        if ignore is not None:
            dead = ignore.all(-1)[:, None, None]
            seen = ~ignore[:, None, None, :] | dead[..., None]  # a dead row looks at everything, then is zeroed: no NaN
        y = join_heads(attend(q, k, v, seen, self.dropout if self.training else 0.0))
        if residual is not None and dead is None:
            return linear_add(y, self.out_proj.weight, self.out_proj.bias, residual)
        y = self.out_proj(y) if dead is None else self.out_proj(y).masked_fill(dead, 0.0)
        return y if residual is None else residual + y

    def attend_one(self, q: Tensor, keys: Tensor, values: Tensor, ignore: Tensor | None = None) -> Tensor:
        """Attend from one query per row, (R, D), to unprojected (R, K, D) keys and values. Returns (R, D).

        The key and value projections are moved to the query's side (they are linear): about 1 / K of the work of
        projecting every key. ``ignore`` (R, K) must leave at least one key per row.
        """
        R, _, D = keys.shape
        h, d = self.heads, D // self.heads
        wq, wk, wv = self.in_proj_weight.unflatten(0, (3, h, d)).unbind(0)  # each (h, d, D)
        bq, _, bv = self.in_proj_bias.unflatten(0, (3, h, d)).unbind(0)  # the key bias moves all scores alike
        heads = linear(q, wq.flatten(0, 1), bq.flatten()).view(R, h, d).transpose(0, 1) * d**-0.5
        score = torch.matmul(torch.matmul(heads, wk).transpose(0, 1), keys.transpose(1, 2))  # (R, h, K)
        if ignore is not None:
            score = score.masked_fill(ignore[:, None], float("-inf"))
        p = dropout(score.softmax(-1), self.dropout, self.training)
        seen = torch.matmul(p, values).transpose(0, 1)  # (h, R, D)
        y = torch.matmul(seen, wv.transpose(1, 2)).transpose(0, 1) + p.sum(-1, keepdim=True) * bv
        return self.out_proj(y.flatten(1))


class PostNormBlock(nn.Module):
    """What both kinds of attention block share: residual and LayerNorm, feed-forward, residual and LayerNorm.

    Args:
        mha: the attention.
        dim: token width D.
        hidden: width of the feed-forward part.
        dropout: share of values dropped in training.
    """

    def __init__(self, mha: nn.Module, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mha = mha
        self.linear1 = Linear(dim, hidden)
        self.linear2 = Linear(hidden, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = dropout

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)

    def finish(self, q: Tensor, attended: Tensor) -> Tensor:
        """Everything after the attention: ``q`` is the residual, ``attended`` the attention's output; both (..., D)."""
        return self.finish_sum(q + self._drop(attended))

    def finish_sum(self, total: Tensor) -> Tensor:
        """Everything after the residual was added to the attention's output: (..., D) -> (..., D)."""
        q = self.norm1(total)
        hidden = self._drop(self.linear1(q, "relu"))
        if self.training:
            return self.norm2(q + self._drop(self.linear2(hidden)))
        return self.norm2(linear_add(hidden, self.linear2.weight, self.linear2.bias, q))


class AttentionBlock(PostNormBlock):
    """Attention, residual and LayerNorm, feed-forward, residual and LayerNorm. The residual is the query argument."""

    mha: MultiHead

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float = 0.1) -> None:
        super().__init__(MultiHead(dim, heads, dropout), dim, hidden, dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, ignore: Tensor | None = None) -> Tensor:
        """(R, Q, D) queries, (R, K, D) keys and values, ``ignore`` (R, K) bool -> (R, Q, D)."""
        mha = self.mha
        if k is v:
            (qh,) = mha.project(q, 0, 1)
            kh, vh = mha.project(k, 1, 3)
        elif q is k:
            qh, kh = mha.project(q, 0, 2)
            (vh,) = mha.project(v, 2, 3)
        else:
            (qh,), (kh,), (vh,) = mha.project(q, 0, 1), mha.project(k, 1, 2), mha.project(v, 2, 3)
        if self.training:  # what is added is dropped out first
            return self.finish(q, mha.attend(qh, kh, vh, ignore))
        return self.finish_sum(mha.attend(qh, kh, vh, ignore, q))

    def forward_one(self, q: Tensor, keys: Tensor, values: Tensor, ignore: Tensor | None = None) -> Tensor:
        """The same block for one query per row: (R, D), (R, K, D), (R, K, D) -> (R, D)."""
        return self.finish(q, self.mha.attend_one(q, keys, values, ignore))
