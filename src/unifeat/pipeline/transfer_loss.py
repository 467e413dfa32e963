"""What a model loses when it runs on another's features: rebuilt activations are spliced in, and it reads on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.beside import Beside
from unifeat.engine import Held, Unit
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import permutations_within
from unifeat.inference.strata import strata_of
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.models.placement import ONE_GPU
from unifeat.pipeline.placed import windows_of
from unifeat.pipeline.spaces import Space
from unifeat.pipeline.transfer import Direction, Fits, Rebuilder
from unifeat.store import TABLE, Piece
from unifeat.study.transfer import TransferSpec
from unifeat.text.corpus import Corpus
from unifeat.text.windows import Window
from unifeat.transfer.shares import p_of, share_carried
from unifeat.transfer.splicing_loss import CLEAN, Losses, rows_in, spliced_losses
from unifeat.transfer.sums import MIXED, OWN, ZERO, predicted, variants

VERSION = 2  # raised whenever the results change
_WHOLE = Held(1)
_DRAW = "draw "
_ROUNDING = 1e-6  # of a loss: models compute in float32


@dataclass(frozen=True)
class Reading:
    """Some windows of one document and the tokens in them that are replaced.

    Attributes:
        windows: each with the row of every position, −1 where the activation stays.
        rows: the tokens.
    """

    windows: list[tuple[Window, NDArray[np.int64]]]
    rows: Beside


def loss_unit(direction: Direction, fits: Unit[Any], corpus: Corpus, spec: TransferSpec) -> Unit[pd.DataFrame]:
    """A unit of work: one row for each variant and document: `variant`, `document`, `tokens`, `nats` (Σ cross-entropy)
    and `divergence` (Σ KL from the clean model). Exchanges of partners are called `draw 0` …
    """
    loader = direction.target.loader
    assert loader is not None
    made_from = direction.made_from | {
        "loss": VERSION,
        "draws": spec.loss_draws,
        "tokens": spec.loss_tokens,
        "model": loader.identity,
        "text": corpus.digest,
    }
    piece = Piece("transfer-loss", made_from, TABLE, "what a model loses on another's features")
    work = partial(_losses, direction, fits, corpus, spec)
    on_gpu = loader.spec.device in ONE_GPU
    return Unit(piece, work, fills_machine=True, model=f"whole {loader.identity}", gpu=on_gpu)


def _losses(direction: Direction, fits: Unit[Any], corpus: Corpus, spec: TransferSpec) -> pd.DataFrame:
    found: Fits = fits.result().fits
    rebuilder = Rebuilder(direction, found)
    pairs = direction.pairs
    exchange = Exchange.of(len(pairs), strata_of(pairs["count"].to_numpy()))
    orders = list(permutations_within(exchange, spec.loss_draws, direction.seed))
    model = whole_model(direction.target)
    (planned,) = direction.target.loader.spaces  # type: ignore[union-attr]
    losses = Losses()
    for reading in _readings(direction, corpus, model, spec.loss_tokens):
        made = partial(_variants, rebuilder, found, reading.rows, orders)
        spliced_losses(model, reading.windows, planned.writes_at, made, losses)
    rows = [
        {"variant": name, "document": document, "tokens": losses.tokens[document], "nats": nats}
        | {"divergence": losses.divergence[name][document]}
        for name, by_document in losses.nats.items()
        for document, nats in sorted(by_document.items())
    ]
    return pd.DataFrame(rows, columns=["variant", "document", "tokens", "nats", "divergence"])


def whole_model(space: Space, what: str = "") -> LanguageModel:
    """A space's model with its head, loaded.

    Args:
        what: tells apart models that are changed after loading.
    """
    loader = space.loader
    assert loader is not None
    spec, point = loader.spec, loader.spaces[0].point

    def load() -> LanguageModel:
        return load_language_model(
            spec.name,
            [point],
            dtype=spec.dtype,
            device=spec.device,
            randomise=spec.randomise,
            whole=True,
            revision=spec.revision,
            max_memory=spec.max_memory,
            trust_remote_code=spec.trust_remote_code,
        )

    return _WHOLE.get((loader.identity, what), load)


def _readings(direction: Direction, corpus: Corpus, model: LanguageModel, tokens: int) -> Iterator[Reading]:
    """Windows of the judged documents that have sampled tokens: as many of each document as give so many tokens."""
    judged = ~direction.fitting
    stretches = [rows.document[judged[rows.document]] for rows in direction.stretches()]
    documents = np.unique(np.concatenate(stretches)) if stretches else np.zeros(0, np.int32)
    left = dict.fromkeys(documents.tolist(), -(-tokens // max(len(documents), 1)))
    for rows in direction.stretches():
        for part in corpus.parts(rows.group):
            if left.get(part.document, 0) <= 0:
                continue
            chosen = []
            for window in windows_of(direction.target, model, part):
                at = rows_in(window, rows.places_b)
                wanted = np.flatnonzero(at[:-1] >= 0)[: max(left[part.document], 0)]
                if len(wanted):
                    left[part.document] -= len(wanted)
                    end = int(wanted[-1]) + 2  # the token after the last one is predicted
                    chosen.append((_cut(window, end), at[:end]))
            if chosen:
                yield Reading(chosen, rows)


def _cut(window: Window, end: int) -> Window:
    """The first positions of a window."""
    rows = max(end - window.lead, 0)
    arrays = {name: getattr(window, name)[:rows] for name in ("char_end", "order", "is_opening", "is_pad")}
    return replace(window, ids=window.ids[:end], **arrays)


def _variants(
    rebuilder: Rebuilder, fits: Fits, rows: Beside, orders: list[NDArray[np.intp]], chosen: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    own = rows.at(chosen)
    tokens = rebuilder.tokens(own)
    made = variants(fits.fitted, rebuilder.decoder, rebuilder.at_mean, tokens)
    yield from made.items()
    yield from rebuilder.mapped(own).items()
    for number, order in enumerate(orders):
        yield f"{_DRAW}{number}", made[ZERO] + predicted(fits.fitted, rebuilder.decoder, tokens, order)


def summarise_losses(table: pd.DataFrame, level: float, seed: int) -> pd.DataFrame:
    """One row for each variant, the clean model's first.

    `variant`, `loss_tokens`, `loss` and `kl` (nats a token), `recovered` (see `share_carried`, of the loss) with its
    interval over documents, and of `own_and_from_a` the null of exchanged partners, `null_recovered_mean`,
    `null_recovered_sd`, and `p_recovered`.
    """
    if not len(table):
        return pd.DataFrame({"variant": []})
    wide = table.pivot_table(index="document", columns="variant", values="nats", fill_value=0.0, sort=False)
    nats = {str(name): own.to_numpy(np.float64) for name, own in wide.items()}
    divergence = table.groupby("variant")["divergence"].sum()
    tokens = int(table.loc[table["variant"] == CLEAN, "tokens"].sum())
    drawn = [values for name, values in nats.items() if name.startswith(_DRAW)]
    rows = []
    for name, values in nats.items():
        if name.startswith(_DRAW):
            continue
        share, low, high = share_carried(nats, name, level, seed)
        row: dict[str, Any] = {"variant": name, "loss_tokens": tokens, "loss": values.sum() / tokens}
        row |= {"kl": divergence[name] / tokens, "recovered": share, "recovered_low": low, "recovered_high": high}
        if name == MIXED and drawn:
            span = float((nats[ZERO] - nats[OWN]).sum())
            null = np.array([float((nats[ZERO] - own).sum()) / span if span > 0 else np.nan for own in drawn])
            row |= {"null_recovered_mean": null.mean()}
            row |= {"null_recovered_sd": null.std(ddof=1) if len(null) > 1 else np.nan}
            rounding = _ROUNDING * abs(float(nats[ZERO].sum())) / span if span > 0 else np.nan
            row |= {"p_recovered": p_of(share, null, rounding)}
        rows.append(row)
    return pd.DataFrame(rows)
