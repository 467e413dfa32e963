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
from unifeat.study.spec import TransferSpec
from unifeat.subspaces.categories import Categories
from unifeat.text.corpus import Corpus
from unifeat.transfer.decoding import Decoding
from unifeat.transfer.steering import Carrier, Vector

VERSION = 2  # raised whenever the results change
COLUMNS = [
    *("category", "variant", "places", "tokens", "contexts", "cosine", "explained", "dose", "kl", "rise"),
    *("per_kl", "per_kl_low", "per_kl_high", "null_mean", "null_sd", "p"),
]
OWN, PAIRS, MAP, RANDOM, EXCHANGED = "own", "from_pairs", "from_map", "random", "exchanged"
ALL = "all"
_TEXT = ("category", "variant")
_KL = 0.1  # nats: directions are compared where they cost as much
_PILOT_DOSE = 0.1  # of the typical norm of an activation
_LEAST_DOSE, _MOST_DOSE = 0.01, 1.0
_DRAWS = 1000


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
    """A unit of work: the rows of `steering.parquet` of one direction, without the names of its spaces."""
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
    if not concepts:
        return pd.DataFrame({name: pd.Series(dtype=object if name in _TEXT else float) for name in COLUMNS})
    carrier = carrier_of(direction, found)
    added = _directions(direction, carrier, rows, fitting, concepts, spec.steering_draws)
    rng = np.random.default_rng([direction.seed, 24])
    probes = probe_tokens(rows, ~direction.fitting, spec.steering, rng)
    model = exact(whole_model(space, "float32"))
    steered = _Steered(model, Side(space, rows.turned()), corpus, probes, [c.heldout for c in concepts])
    units = np.stack([one.direction / max(float(np.linalg.norm(one.direction)), 1e-300) for one in added])
    doses = np.full(len(added), _PILOT_DOSE)
    for _ in range(2):  # at a quarter of the probes: which dose costs as much as the others?
        _, kl = steered(units * (doses * carrier.norms[1])[:, None], np.arange(0, len(probes), 4))
        doses = np.clip(doses * np.sqrt(_KL / np.maximum(kl.mean(1), 1e-12)), _LEAST_DOSE, _MOST_DOSE)
    rise, kl = steered(units * (doses * carrier.norms[1])[:, None], np.arange(len(probes)))
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


@dataclass
class _Table:
    """The table of what came out.

    Attributes:
        rise: (directions, probes, concepts).
        kl: (directions, probes).
    """

    added: list[_Added]
    concepts: list[Concept]
    doses: Vector
    rise: Vector
    kl: Vector
    level: float
    seed: int

    def rows(self) -> pd.DataFrame:
        """A row for each category and variant, and for the mean over the categories."""
        table = [self._row(number, variant) for number in range(len(self.concepts)) for variant in (OWN, PAIRS, MAP)]
        table += [self._mean(variant) for variant in (OWN, PAIRS, MAP)]
        return pd.DataFrame(table, columns=COLUMNS)

    def _row(self, concept: int, variant: str) -> dict[str, Any]:
        place = self._place(variant, concept)
        one, own = self.added[place], self.added[self._place(OWN, concept)]
        known = self.concepts[concept]
        cosine = one.direction @ own.direction
        cosine /= max(float(np.linalg.norm(one.direction) * np.linalg.norm(own.direction)), 1e-300)
        figures = self._per_kl(place, concept)
        return {
            "category": known.name,
            "variant": variant,
            "places": int(known.places.sum()),
            "tokens": len(known.heldout),
            "contexts": self.kl.shape[1],
            "cosine": float(cosine),
            "explained": one.explained,
            "dose": float(self.doses[place]),
            "kl": float(self.kl[place].mean()),
            "rise": float(self.rise[place, :, concept].mean()),
        } | self._judged(figures, self._null(variant, [concept]))

    def _mean(self, variant: str) -> dict[str, Any]:
        """The mean over the categories."""
        every = range(len(self.concepts))
        figures = np.mean([self._per_kl(self._place(variant, concept), concept) for concept in every], axis=0)
        row = {"category": ALL, "variant": variant, "contexts": self.kl.shape[1]}
        return row | self._judged(figures, self._null(variant, list(every)))

    def _place(self, variant: str, concept: int, draw: int = 0) -> int:
        return next(
            i
            for i, one in enumerate(self.added)
            if (one.variant, one.concept, one.draw) == (variant, -1 if variant == RANDOM else concept, draw)
        )

    def _per_kl(self, place: int, concept: int) -> Vector:
        """Rise for each nat of KL where KL is `_KL`, and the same of bootstrap draws of the probes, (1 + draws,).

        Rise grows with a small dose and KL with its square, so rise / √KL does not depend on the dose.
        """
        rng = np.random.default_rng([self.seed, 25])  # the same probes are drawn for every direction
        n = self.kl.shape[1]
        drawn = np.r_[[np.arange(n)], rng.integers(n, size=(_DRAWS, n))]
        rise, kl = self.rise[place, :, concept][drawn].mean(1), self.kl[place][drawn].mean(1)
        return np.asarray(rise / np.sqrt(np.maximum(kl, 1e-12) * _KL))

    def _null(self, variant: str, concepts: list[int]) -> Vector:
        """Means over concepts: of exchanged partners for what pairs carry, else of random directions."""
        kind = EXCHANGED if variant == PAIRS else RANDOM
        draws = 1 + max((one.draw for one in self.added if one.variant == kind), default=-1)
        return np.array(
            [np.mean([self._per_kl(self._place(kind, c, draw), c)[0] for c in concepts]) for draw in range(draws)]
        )

    def _judged(self, figures: Vector, null: Vector) -> dict[str, float]:
        low, high = percentiles(figures[1:, None], self.level, self.kl.shape[1])
        drawn = len(null) > 0
        return {
            "per_kl": float(figures[0]),
            "per_kl_low": float(low[0]),
            "per_kl_high": float(high[0]),
            "null_mean": float(null.mean()) if drawn else np.nan,
            "null_sd": float(null.std(ddof=1)) if len(null) > 1 else np.nan,
            "p": float((np.sum(null >= figures[0]) + 1) / (len(null) + 1)) if drawn else np.nan,
        }
