"""Steering across models: directions of words' concepts in A, carried into B, beside B's own and random ones.

The direction of a category of words is the difference of mean activations: tokens after which one of its words follows,
minus all tokens. Added to B's activation at probe tokens, it is judged by the rise in log-probability of the category's
held-out words, for what it costs in KL divergence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unifeat.codes.beside import Beside
from unifeat.engine import Unit
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import permutations_within
from unifeat.inference.strata import strata_of
from unifeat.matching.bootstrap import percentiles
from unifeat.models.edits import edited_logits
from unifeat.models.language import LanguageModel
from unifeat.pipeline.concepts import Concept, concepts_of, next_words
from unifeat.pipeline.effect_edits import Side, probe_tokens
from unifeat.pipeline.effects import exact, vocabulary_of
from unifeat.pipeline.placed import placed
from unifeat.pipeline.transfer import AFFINE, Direction, Fits, sae_of
from unifeat.pipeline.transfer_loss import whole_model
from unifeat.store import TABLE, Piece
from unifeat.store.keys import digest_of
from unifeat.study.transfer import TransferSpec
from unifeat.subspaces.categories import Categories
from unifeat.text.corpus import Corpus
from unifeat.transfer.decoding import Decoding
from unifeat.transfer.shares import p_of
from unifeat.transfer.steering import Carrier, Vector

VERSION = 3  # raised whenever the results change
COLUMNS = [
    *("category", "variant", "places", "tokens", "contexts", "cosine", "explained", "dose", "kl", "rise"),
    *("per_kl", "per_kl_low", "per_kl_high", "null_mean", "null_sd", "p"),
]
_VARIANTS = OWN, PAIRS, MAP = "own", "from_pairs", "from_map"
RANDOM, EXCHANGED = "random", "exchanged"
ALL = "all"
_TEXT = ("category", "variant")
_KL = 0.1  # nats: directions are compared where they cost as much
_PILOT_DOSE = 0.1  # of the typical norm of an activation
_LEAST_DOSE, _MOST_DOSE = 0.01, 1.0
_DRAWS = 1000
_ROUNDING = 1e-4  # figures come from float32 logits, at doses that were set by such


def carrier_of(direction: Direction, fits: Fits) -> Carrier:
    """What carries directions of the source into the target."""
    weights = [
        Decoding(sae_of(space), space.info["sae"]).weights(ids)
        for space, ids in zip((direction.source, direction.target), fits.features, strict=True)
    ]
    norms = float(fits.norms[0]), float(fits.norms[1])
    return Carrier(weights[0], weights[1], fits.fitted.gain, fits.maps[AFFINE], norms)


def steering_unit(
    direction: Direction, fits: Unit[Any], corpus: Corpus, spec: TransferSpec, categories: Categories, level: float
) -> Unit[pd.DataFrame]:
    """A unit of work: the rows of `steering.parquet` of one direction, without the names of its spaces.

    There is none if no category can be used (see `Concept.usable`), or no token can be steered (see `probe_tokens`).
    """
    loader = direction.target.loader
    assert loader is not None
    made_from = direction.made_from | {
        "steering": VERSION,
        "contexts": spec.steering,
        "draws": spec.steering_draws,
        "level": level,
        "categories": digest_of({name: list(words) for name, words in categories.items()}),
        "model": loader.identity,
        "text": corpus.digest,
    }
    piece = Piece("steering", made_from, TABLE, "steering with another model's directions")
    work = partial(_steering, direction, fits, corpus, spec, categories, level)
    return Unit(piece, work, fills_machine=True, model=f"whole {loader.identity}", gpu=True)


@dataclass(frozen=True)
class _Added:
    """A direction of the target.

    Attributes:
        concept: its number; −1 for one that belongs to none.
        draw: number of the draw, for `RANDOM` and `EXCHANGED`.
        explained: the share of the source's direction that the matched features reach.
    """

    variant: str
    concept: int
    direction: Vector
    draw: int = 0
    explained: float = np.nan


def _steering(
    direction: Direction, fits: Unit[Any], corpus: Corpus, spec: TransferSpec, categories: Categories, level: float
) -> pd.DataFrame:
    found: Fits = fits.result().fits
    rows = Beside.joined(list(direction.stretches()))
    fitting = direction.fitting[rows.document]
    following = next_words(corpus, rows.places_a)
    space = direction.target
    concepts = concepts_of(categories, following, fitting, space.tokenizer(), vocabulary_of(space))
    concepts = [concept for concept in concepts if concept.usable]
    rng = np.random.default_rng([direction.seed, 24])
    probes = probe_tokens(rows, ~direction.fitting, spec.steering, rng)
    if not concepts or not len(probes):
        return pd.DataFrame({name: pd.Series(dtype=object if name in _TEXT else float) for name in COLUMNS})
    carrier = carrier_of(direction, found)
    added = _directions(direction, carrier, rows, fitting, concepts, spec.steering_draws)
    model = exact(whole_model(space, "float32"))
    steered = _Steered(model, Side(space, rows.turned()), corpus, probes, [c.heldout for c in concepts])
    units = np.stack([one.direction / max(float(np.linalg.norm(one.direction)), 1e-300) for one in added])
    doses = np.full(len(added), _PILOT_DOSE)
    every = np.arange(len(probes))
    for some in (every[::4], every):  # which dose costs as much as the others? At last, at the tokens that it is for
        _, kl = steered(units * (doses * carrier.norms[1])[:, None], some)
        doses = np.clip(doses * np.sqrt(_KL / np.maximum(kl.mean(1), 1e-12)), _LEAST_DOSE, _MOST_DOSE)
    rise, kl = steered(units * (doses * carrier.norms[1])[:, None], every)
    return _Table(added, concepts, doses, rise, kl, level, direction.seed).rows()


def _directions(
    direction: Direction,
    carrier: Carrier,
    rows: Beside,
    fitting: NDArray[np.bool_],
    concepts: list[Concept],
    draws: int,
) -> list[_Added]:
    x_a, x_b = rows.x_a.astype(np.float64), rows.x_b.astype(np.float64)
    counts = direction.pairs["count"].to_numpy()
    orders = list(permutations_within(Exchange.of(len(counts), strata_of(counts)), draws, direction.seed))
    added = []
    for number, concept in enumerate(concepts):
        source = np.asarray(x_a[concept.places].mean(axis=0) - x_a[fitting].mean(axis=0))
        target = np.asarray(x_b[concept.places].mean(axis=0) - x_b[fitting].mean(axis=0))
        codes = carrier.coefficients(source)
        share = carrier.explained(source, codes)
        added += [
            _Added(OWN, number, target),
            _Added(PAIRS, number, carrier.through_pairs(codes), explained=share),
            _Added(MAP, number, carrier.through_map(source)),
        ]
        added += [_Added(EXCHANGED, number, carrier.through_pairs(codes, order), d) for d, order in enumerate(orders)]
    rng = np.random.default_rng([direction.seed, 23])
    return added + [_Added(RANDOM, -1, rng.standard_normal((x_b.shape[1],)), draw) for draw in range(draws)]


class _Steered:
    """Adds directions at probe tokens, and reads the next token's probabilities.

    Args:
        tokens: for each concept, the ids of its held-out tokens.
    """

    def __init__(
        self, model: LanguageModel, side: Side, corpus: Corpus, probes: NDArray[np.int64], tokens: list[Any]
    ) -> None:
        self._model, self._side = model, side
        self._at = placed(side.space, side.rows.places_a, probes, model, corpus)
        self._probes = probes[self._at.window[probes] >= 0]
        self._tokens = [torch.from_numpy(ids) for ids in tokens]

    @torch.inference_mode()
    def __call__(self, deltas: Vector, probes: NDArray[np.integer]) -> tuple[Vector, Vector]:
        """Rise in log-probability of each concept's tokens (directions, probes, concepts), and KL (directions, probes).

        Args:
            deltas: (directions, d) what is added.
            probes: which of the probes.
        """
        probes = probes[probes < len(self._probes)]
        of, at = np.repeat(np.arange(len(deltas)), len(probes)), np.tile(probes, len(deltas))
        edits = self._at.edits(self._probes[at], deltas[of].astype(np.float32))
        rise = np.full((len(of), len(self._tokens)), np.nan)
        kl = np.full(len(of), np.nan)
        for batch in edited_logits(self._model, self._at.ids, self._side.point, edits):
            place = torch.from_numpy(batch.place).to(batch.clean.device)
            clean, edited = (values.float().log_softmax(-1) for values in (batch.clean, batch.logits))
            logs = [
                torch.stack([values[:, ids.to(values.device)].logsumexp(-1) for ids in self._tokens], 1)
                for values in (clean, edited)
            ]
            rise[batch.edit] = (logs[1] - logs[0][place]).double().cpu().numpy()
            before = clean[place]
            kl[batch.edit] = (before.exp() * (before - edited)).sum(-1).double().cpu().numpy()
        shape = len(deltas), len(probes)
        return rise.reshape(*shape, -1), kl.reshape(shape)


class _Table:
    """The table of what came out.

    Args:
        doses: (directions,).
        rise: (directions, probes, concepts).
        kl: (directions, probes).
    """

    def __init__(
        self,
        added: list[_Added],
        concepts: list[Concept],
        doses: Vector,
        rise: Vector,
        kl: Vector,
        level: float,
        seed: int,
    ) -> None:
        self._added, self._concepts, self._doses = added, concepts, doses
        self._rise, self._kl, self._level = rise, kl, level
        self._place = {(one.variant, one.concept, one.draw): i for i, one in enumerate(added)}
        self._draws = sum(one.variant == RANDOM for one in added)
        probes = kl.shape[1]
        # The same probes are drawn for every direction.
        self._drawn = np.random.default_rng([seed, 25]).integers(probes, size=(_DRAWS, probes))

    def rows(self) -> pd.DataFrame:
        """A row for each category and variant, and for the mean over the categories."""
        numbers = range(len(self._concepts))
        table = [self._row(number, variant) for number in numbers for variant in _VARIANTS]
        every = list(numbers)
        table += [self._judged(variant, every) | {"category": ALL, "variant": variant} for variant in _VARIANTS]
        return pd.DataFrame(table, columns=COLUMNS)

    def _row(self, number: int, variant: str) -> dict[str, Any]:
        place, concept = self._place[variant, number, 0], self._concepts[number]
        one, own = self._added[place].direction, self._added[self._place[OWN, number, 0]].direction
        return {
            "category": concept.name,
            "variant": variant,
            "places": int(concept.places.sum()),
            "tokens": len(concept.heldout),
            "cosine": float(one @ own) / max(float(np.linalg.norm(one) * np.linalg.norm(own)), 1e-300),
            "explained": self._added[place].explained,
            "dose": float(self._doses[place]),
            "kl": float(self._kl[place].mean()),
            "rise": float(self._rise[place, :, number].mean()),
        } | self._judged(variant, [number])

    def _judged(self, variant: str, concepts: list[int]) -> dict[str, Any]:
        """The mean over some concepts, its interval over the probes, and its null: exchanged partners for what pairs
        carry, else random directions.
        """
        probes = self._kl.shape[1]
        value = self._per_kl(variant, 0, concepts, np.arange(probes)[None])[0]
        low, high = percentiles(self._per_kl(variant, 0, concepts, self._drawn)[:, None], self._level, probes)
        kind = EXCHANGED if variant == PAIRS else RANDOM
        null = np.array([self._per_kl(kind, n, concepts, np.arange(probes)[None])[0] for n in range(self._draws)])
        return {
            "contexts": probes,
            "per_kl": float(value),
            "per_kl_low": float(low[0]),
            "per_kl_high": float(high[0]),
            "null_mean": float(null.mean()) if len(null) else np.nan,
            "null_sd": float(null.std(ddof=1)) if len(null) > 1 else np.nan,
            "p": p_of(float(value), null, _ROUNDING) if len(null) else np.nan,
        }

    def _per_kl(self, variant: str, draw: int, concepts: list[int], probes: NDArray[np.integer]) -> Vector:
        """Rise / √(KL · `_KL`), the mean over concepts, for some draws of the probes (draws, n).

        Where KL is `_KL`, it is the rise by the KL. Rise grows with a small dose and KL with its square, so rise / √KL
        does not depend on the dose.
        """
        found = []
        for concept in concepts:
            place = self._place[variant, -1 if variant == RANDOM else concept, draw]
            rise, kl = self._rise[place, :, concept][probes].mean(1), self._kl[place][probes].mean(1)
            found.append(rise / np.sqrt(np.maximum(kl, 1e-12) * _KL))
        return np.asarray(np.mean(found, axis=0))
