"""What a change at one position does to the next token there: many such changes, few forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.edit_passes import BATCH_TOKENS, EditedLogits, Edits, Indices, Row, plainly, row_of, with_copies
from unifeat.models.heads import head_of
from unifeat.models.language import LanguageModel
from unifeat.vocabulary.hook_points import HookPoint

__all__ = ["EditedLogits", "Edits", "Way", "copies_agree", "edited_logits"]

Way = Literal["auto", "copies", "plain"]

_BATCH_LOGITS = 1 << 26  # logits in a batch: a quarter of a gigabyte in float32, whatever the size of the vocabulary
_MOST_COPIES = 256  # behind one window: attention takes time that grows with the square
_CHECKED_EDITS = 16


def edited_logits(
    model: LanguageModel,
    ids: Tensor,
    point: HookPoint,
    edits: Edits,
    *,
    way: Way = "auto",
    observe: HookPoint | None = None,
) -> Iterator[EditedLogits]:
    """The next-token logits at each edited position, batch by batch.

    An edit adds its delta to the value at `point` at its position alone. The sum is made in float32 and rounded to the
    model's dtype. All other positions keep their values, so only what the position itself computes after the point
    changes. Logits are those of the model's own head, with its softcap or scale.

    Args:
        model: loaded with `whole=True`.
        ids: (windows, positions) int64, padded on the right with −1.
        point: where the value is changed.
        edits: which; any number at one position.
        way: `copies` adds a token for each edit behind its window (`copies.copying`); `plain` runs the window again for
            each edit, cut after its position. `auto` compares the two on a few edits of the longest window and takes
            copies if they give the same up to rounding. They do not in recurrent models, or where attention adds to the
            mask (BLOOM's slopes) or cuts it by itself (GPT-Neo).
        observe: a hook point of a later block, whose values at the edited positions are given too.

    Yields:
        Batches that hold every edit once. Which edits are in which batch depends on the lengths of windows and the
        number of edits alone. A batch holds about 67 million logits, clean ones included.

    Raises:
        UserError: a model without a head, or edits or logits with NaN or Inf.
        ValueError: a model that was cut, edits that do not fit the windows or the hook point, or an observed point that
            the model does not compute after the edited one.
    """
    lengths = _checked(model, ids, point, edits)
    if observe is not None and not is_later(observe, point):
        raise ValueError(f"{observe} is not computed after {point}")
    if not len(edits):
        return iter(())
    if way == "auto":
        way = "copies" if copies_agree(model, ids, point, edits) else "plain"
    run = with_copies if way == "copies" else plainly
    return (run(model, ids, point, edits, batch, observe) for batch in _batches(model, lengths, edits))


def is_later(observed: HookPoint, edited: HookPoint) -> bool:
    """Whether a value is computed in a later block than the edited one, and so can be observed beside its edits."""
    same_stream = observed.kind == "resid_pre" and observed.layer == edited.layer + 1
    return observed.layer > edited.layer and not same_stream


def copies_agree(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits) -> bool:
    """Whether copies give what the plain way gives, tried on up to 16 edits of the longest edited window.

    Compared are the clean logits, those of copies without an edit, and those of edits, centred over the vocabulary.
    They agree if they differ by at most 2√eps of the model's dtype, as a share of their norm: 0.0007 in float32, 0.18
    in bfloat16. (There, the two ways differ by 0.01 for the demo's models, and by 0.06 for weights drawn at random,
    since rounding grows through 30 blocks. With a wrong mask or place they differ as much as edits do.)
    """
    lengths = _checked(model, ids, point, edits)
    window = edits.window[np.argmax(lengths[edits.window])]
    own = np.flatnonzero(edits.window == window)
    own = own[np.argsort(edits.position[own], kind="stable")]
    own = own[np.unique(np.linspace(0, len(own) - 1, min(_CHECKED_EDITS, len(own))).round().astype(np.int64))]
    some = edits.some(own)
    # Each edit twice, first without its delta: that copy has to be what the model says without any edit.
    both = Edits(
        np.tile(some.window, 2),
        np.tile(some.position, 2),
        torch.cat([torch.zeros_like(some.delta), some.delta]),
    )
    row = row_of(lengths, both, np.arange(len(both)))
    try:
        copied = with_copies(model, ids, point, both, [row])
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # of any type, where blocks take something that copies do not fit; or logits that are no numbers
        return False
    plain = plainly(model, ids, point, some, [row_of(lengths, some, np.arange(len(some)))])
    clean = plain.clean[torch.from_numpy(plain.place)]
    return (
        _alike(copied.clean, plain.clean)
        and _alike(copied.logits[: len(some)], clean)
        and _alike(copied.logits[len(some) :], plain.logits)
    )


def _alike(found: Tensor, expected: Tensor) -> bool:
    eps = torch.finfo(expected.dtype).eps
    found, expected = found.to(torch.float64), expected.to(torch.float64)
    error, spread = (rows - rows.mean(dim=-1, keepdim=True) for rows in (found - expected, expected))
    return bool(error.norm() <= 2 * eps**0.5 * spread.norm())


def _checked(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits) -> Indices:
    """The lengths of the windows."""
    head_of(model)
    lengths = (ids >= 0).sum(dim=1).cpu().numpy().astype(np.int64)
    n, width = len(edits), model.width(point)
    if edits.position.shape != (n,) or tuple(edits.delta.shape) != (n, width):
        raise ValueError(f"give a window, a position and a delta of {width} values for each of {n} edits")
    if n and not (edits.window.min() >= 0 and edits.window.max() < len(ids)):
        raise ValueError(f"edits of windows {edits.window.min()} to {edits.window.max()}, but there are {len(ids)}")
    if n and not ((edits.position >= 0) & (edits.position < lengths[edits.window])).all():
        raise ValueError("an edit's position lies outside its window")
    if not bool(torch.isfinite(edits.delta).all()):
        raise UserError(f"edits at layer {point.layer} ({point.kind}) of {model.name} hold NaN or Inf: lower the dose")
    return lengths


def _batches(model: LanguageModel, lengths: Indices, edits: Edits) -> Iterator[list[Row]]:
    """Windows of similar length together, each with its edits; the edits of one window may need several rows."""
    most_logits = max(2, _BATCH_LOGITS // int(model.causal.config.get_text_config().vocab_size))
    by_window = np.lexsort((np.arange(len(edits)), edits.position, edits.window))
    starts = np.flatnonzero(np.r_[True, np.diff(edits.window[by_window]) != 0])
    size = min(_MOST_COPIES, most_logits // 2)  # each edit may need a clean row too
    rows = [
        row_of(lengths, edits, own[start : start + size])
        for own in np.split(by_window, starts[1:])
        for start in range(0, len(own), size)
    ]
    rows.sort(key=lambda row: -row.length)
    batch: list[Row] = []
    longest = copies = logits = 0
    for row in rows:
        copies, logits = max(copies, len(row.edits)), logits + len(row.edits) + len(row.places)
        if batch and (logits > most_logits or (longest + copies) * (len(batch) + 1) > BATCH_TOKENS):
            yield batch
            batch, copies, logits = [], len(row.edits), len(row.edits) + len(row.places)
        longest = row.length if not batch else longest
        batch.append(row)
    yield batch
