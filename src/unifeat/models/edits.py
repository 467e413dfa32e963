"""What a change at one position does to the next token there: many such changes, few forward passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifeat.errors import UserError
from unifeat.models.copies import copying
from unifeat.models.language import LanguageModel
from unifeat.models.splicing import splicing
from unifeat.vocabulary.hook_points import HookPoint

Way = Literal["auto", "copies", "plain"]
Indices = NDArray[np.int64]

_BATCH_LOGITS = 1 << 26  # logits in a batch: a quarter of a gigabyte in float32, whatever the size of the vocabulary
_BATCH_TOKENS = 4096
_MOST_COPIES = 256  # behind one window: attention takes time that grows with the square
_CHECKED_EDITS = 16


@dataclass(frozen=True)
class Edits:
    """Changes of single positions, each made by itself, all else as it was.

    Attributes:
        window: (edits,) int64, which window.
        position: (edits,) int64, which position of it.
        delta: (edits, width) float32, what is added to the value at the hook point there.
    """

    window: Indices
    position: Indices
    delta: Tensor

    def __len__(self) -> int:
        return len(self.window)

    def some(self, chosen: Indices) -> Edits:
        """A part of them."""
        return Edits(self.window[chosen], self.position[chosen], self.delta[torch.from_numpy(chosen)])


@dataclass(frozen=True)
class EditedLogits:
    """The logits of some of the edits.

    Attributes:
        edit: (n,) int64, which edits.
        logits: (n, vocabulary) in the dtype of the model's head, of the token after each edit's position.
        clean: (places, vocabulary), the same without an edit, a row for each edited position.
        place: (n,) int64, the row of `clean` at each edit's position.
    """

    edit: Indices
    logits: Tensor
    clean: Tensor
    place: Indices


@dataclass(frozen=True)
class _Row:
    """A window and some of its edits."""

    window: int
    length: int
    edits: Indices
    places: Indices  # positions with an edit, ascending
    place: Indices  # of each edit


def edited_logits(
    model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits, *, way: Way = "auto"
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
            copies if they give the same up to rounding. They do not in recurrent or convolutional models, or where
            attention makes its masks by itself (ALiBi, GPT-Neo).

    Yields:
        Batches that hold every edit once. Which edits are in which batch depends on the lengths of windows and the
        number of edits alone. A batch holds about 67 million logits, clean ones included.

    Raises:
        UserError: a model without a head, or edits or logits with NaN or Inf.
        ValueError: a model that was cut, or edits that do not fit the windows or the hook point.
    """
    lengths = _checked(model, ids, point, edits)
    if not len(edits):
        return iter(())
    if way == "auto":
        way = "copies" if copies_agree(model, ids, point, edits) else "plain"
    run = _with_copies if way == "copies" else _plainly
    return (run(model, ids, point, edits, batch) for batch in _batches(model, lengths, edits))


def copies_agree(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits) -> bool:
    """Whether copies give what the plain way gives, tried on up to 16 edits of the longest edited window.

    Compared are the clean logits, those of copies without an edit, and those of edits. They agree if no row differs by
    more than √eps of the model's dtype, as a share of the row's spread over the vocabulary.
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
    row = _row(lengths, both, np.arange(len(both)))
    try:
        copied = _with_copies(model, ids, point, both, [row])
    except (torch.OutOfMemoryError, MemoryError, UserError):
        raise
    except Exception:  # an architecture whose blocks take something of another shape: of any type
        return False
    plain = _plainly(model, ids, point, some, [_row(lengths, some, np.arange(len(some)))])
    clean = plain.clean[torch.from_numpy(plain.place)]
    return (
        _alike(copied.clean, plain.clean)
        and _alike(copied.logits[: len(some)], clean)
        and _alike(copied.logits[len(some) :], plain.logits)
    )


def _alike(found: Tensor, expected: Tensor) -> bool:
    eps = torch.finfo(expected.dtype).eps
    found, expected = found.to(torch.float64), expected.to(torch.float64)
    spread = (expected - expected.mean(dim=-1, keepdim=True)).norm(dim=-1)
    return bool(((found - expected).norm(dim=-1) <= eps**0.5 * spread).all())


def _checked(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits) -> Indices:
    """The lengths of the windows."""
    if model.causal is None:
        raise ValueError("the model was loaded without its head: load_language_model(..., whole=True)")
    if model.causal.get_output_embeddings() is None:
        raise UserError(f"model {model.name} has no unembedding, so an edit does nothing to a next token")
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


def _row(lengths: Indices, edits: Edits, own: Indices) -> _Row:
    places, place = np.unique(edits.position[own], return_inverse=True)
    window = int(edits.window[own[0]])
    return _Row(window, int(lengths[window]), own, places, place.reshape(-1).astype(np.int64))


def _batches(model: LanguageModel, lengths: Indices, edits: Edits) -> Iterator[list[_Row]]:
    """Windows of similar length together, each with its edits; the edits of one window may need several rows."""
    most_logits = max(2, _BATCH_LOGITS // int(model.causal.config.get_text_config().vocab_size))
    by_window = np.lexsort((np.arange(len(edits)), edits.position, edits.window))
    starts = np.flatnonzero(np.r_[True, np.diff(edits.window[by_window]) != 0])
    size = min(_MOST_COPIES, most_logits // 2)  # each edit may need a clean row too
    rows = [
        _row(lengths, edits, own[start : start + size])
        for own in np.split(by_window, starts[1:])
        for start in range(0, len(own), size)
    ]
    rows.sort(key=lambda row: -row.length)
    batch: list[_Row] = []
    longest = copies = logits = 0
    for row in rows:
        copies, logits = max(copies, len(row.edits)), logits + len(row.edits) + len(row.places)
        if batch and (logits > most_logits or (longest + copies) * (len(batch) + 1) > _BATCH_TOKENS):
            yield batch
            batch, copies, logits = [], len(row.edits), len(row.edits) + len(row.places)
        longest = row.length if not batch else longest
        batch.append(row)
    yield batch


@torch.no_grad()
def _with_copies(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits, batch: list[_Row]) -> EditedLogits:
    length = max(row.length for row in batch) + 1  # one column of padding at least: see `copying`
    copies = max(len(row.edits) for row in batch)
    tokens, mask = _padded(ids, batch, length)
    copied = torch.zeros((len(batch), copies), dtype=torch.int64)
    for i, row in enumerate(batch):
        copied[i, : len(row.edits)] = torch.from_numpy(edits.position[row.edits])
    total = length + copies
    edited = [(i, length + k) for i, row in enumerate(batch) for k in range(len(row.edits))]
    clean = [(i, int(position)) for i, row in enumerate(batch) for position in row.places]
    wanted = _flat(edited + clean, total)
    order = np.concatenate([row.edits for row in batch])
    start, at = point.layer, point
    if point.kind == "resid_post" and point.layer + 1 < len(model.blocks):
        # The output of a block is the next one's input: copies of it need not run the block itself.
        start, at = point.layer + 1, HookPoint(point.layer + 1, "resid_pre")
    edit = _adding(model, at, _flat(edited, total), edits.delta[torch.from_numpy(order)])
    with copying(model.blocks, start, length, copied, edit, wanted), _head_at(model, torch.arange(len(wanted))):
        logits = model.causal(
            input_ids=tokens.to(model.device), attention_mask=mask.to(model.device), use_cache=False
        ).logits[0]
    return _result(model, point, order, batch, logits[: len(order)], logits[len(order) :])


@torch.no_grad()
def _plainly(model: LanguageModel, ids: Tensor, point: HookPoint, edits: Edits, batch: list[_Row]) -> EditedLogits:
    length = max(row.length for row in batch)
    tokens, _ = _padded(ids, batch, length)
    clean = _flat([(i, int(position)) for i, row in enumerate(batch) for position in row.places], length)
    with _head_at(model, clean):
        without = model.causal(input_ids=tokens.to(model.device), use_cache=False).logits[0]
    order = np.concatenate([row.edits for row in batch])
    found = []
    step = max(1, _BATCH_TOKENS // length)
    for first in range(0, len(order), step):
        own = order[first : first + step]
        last = edits.position[own]
        cut = int(last.max()) + 1
        # Padding is on the right, where it affects no earlier position, so any token will do.
        rows = ids[torch.from_numpy(edits.window[own])][:, :cut].clamp(min=0)
        at = _flat(list(enumerate(last.tolist())), cut)
        with _adding(model, point, at, edits.delta[torch.from_numpy(own)]), _head_at(model, at):
            found.append(model.causal(input_ids=rows.to(model.device), use_cache=False).logits[0])
    return _result(model, point, order, batch, torch.cat(found), without)


def _flat(places: list[tuple[int, int]], length: int) -> Tensor:
    """Numbers of (row, position) among all positions of rows of a length."""
    return torch.tensor([row * length + position for row, position in places], dtype=torch.int64)


def _padded(ids: Tensor, batch: list[_Row], length: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of the rows' windows, (rows, length)."""
    tokens = torch.zeros((len(batch), length), dtype=torch.int64)
    mask = torch.zeros((len(batch), length), dtype=torch.int64)
    for i, row in enumerate(batch):
        tokens[i, : row.length] = ids[row.window, : row.length]
        mask[i, : row.length] = 1
    return tokens, mask


def _adding(model: LanguageModel, point: HookPoint, places: Tensor, delta: Tensor) -> AbstractContextManager[None]:
    """A context in which deltas are added at `places` among all positions of all rows."""

    def added(value: Tensor, _: Tensor) -> Tensor:
        rows = value.reshape(-1, value.shape[-1]).clone()  # OPT's second MLP layer gets all positions as one list
        at = places.to(rows.device)
        rows[at] = (rows[at].to(torch.float32) + delta.to(rows.device, torch.float32)).to(rows.dtype)
        return rows.reshape(value.shape)

    return splicing(model.blocks, point, added)


@contextmanager
def _head_at(model: LanguageModel, places: Tensor) -> Iterator[None]:
    """Inside this context, the head runs at `places` alone; its output is (1, places, vocabulary)."""

    def chosen(_: Any, args: Any) -> Any:
        x = args[0]
        return (x.reshape(-1, x.shape[-1])[places.to(x.device)][None], *args[1:])

    handle = model.causal.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()


def _result(
    model: LanguageModel, point: HookPoint, order: Indices, batch: list[_Row], logits: Tensor, clean: Tensor
) -> EditedLogits:
    if not bool(torch.isfinite(logits).all() & torch.isfinite(clean).all()):
        raise UserError(
            f"model {model.name}: edits at layer {point.layer} ({point.kind}) make logits with NaN or Inf in "
            f"{model.dtype}; lower the dose, or try dtype float32"
        )
    starts = np.cumsum([0] + [len(row.places) for row in batch[:-1]])
    place = np.concatenate([row.place + start for row, start in zip(batch, starts, strict=True)])
    return EditedLogits(order, logits, clean, place)
