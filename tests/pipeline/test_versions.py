"""What was stored by an older version of a measure, a method or a null is not taken for what the newer one gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores import places, shard_of, written
from unifeat.codes import near_copies
from unifeat.engine import Local
from unifeat.geometry import MEASURES, heldout_counterpart
from unifeat.inference.nulls import NULLS
from unifeat.matching import beyond_token, bootstrap, candidates, elsewhere
from unifeat.matching.candidates import Comparison
from unifeat.matching.filters import Filters
from unifeat.matching.methods import METHODS
from unifeat.matching.rule import Rule
from unifeat.pipeline import elsewhere as read_there
from unifeat.pipeline import match, pair_set, rematch, score, subspaces
from unifeat.pipeline.match import Cell
from unifeat.pipeline.score import PairSet, score_sets
from unifeat.pipeline.spaces import Space
from unifeat.study.spec import Study
from unifeat.subspaces import within

DOCUMENTS, TOKENS, FEATURES = 12, 40, 32
METRICS = [{"metric": "rsa", "settings": {}}, {"metric": "svcca", "settings": {"dims": 2}}, {"metric": "cka"}]


@pytest.fixture
def study() -> Study:
    return Study.model_validate(
        {
            "text": {"source": "text.txt"},
            "models": {"one": {"name": "one"}, "two": {"name": "two"}},
            "spaces": [{"model": name, "layers": 0, "sae": "sae"} for name in ("one", "two")],
            "geometry": METRICS,
            "inference": {
                "permutations": 9,
                "rematches": 2,
                "same_token": 2,
                "same_two_tokens": 2,
                "bootstraps": 5,
                "subsamples": 4,
            },
            "subspaces": {"categories": "paper", "subsets": 9},
        }
    )


@pytest.fixture
def cell(tmp_path: Path, study: Study) -> Cell:
    """Two spaces over one text; half their features are shared. The same codes are read elsewhere again."""
    rng = np.random.default_rng(0)
    where = places(np.repeat(np.arange(DOCUMENTS), TOKENS), np.tile(np.arange(1, TOKENS + 1), DOCUMENTS))
    a, b = (np.maximum(rng.normal(size=(DOCUMENTS * TOKENS, FEATURES)) - 0.8, 0) for _ in range(2))
    b[:, : FEATURES // 2] = a[:, : FEATURES // 2] * rng.uniform(0.8, 1.2, (len(a), FEATURES // 2))
    spaces: list[Any] = [
        Space(
            *(f"{name}@0", name, 0),
            written(tmp_path, [shard_of(codes.astype(np.float32), where)], sae=name),
            tokenizer=None,  # type: ignore[arg-type]
            decoder=Rows(rng.normal(size=(FEATURES, 12)).astype(np.float32)),  # type: ignore[arg-type]
            tokens={},  # type: ignore[arg-type]
            info={"model": name, "hook": "resid_post", "layer": 0},
        )
        for name, codes in (("one", a), ("two", b))
    ]
    comparison = Comparison(spaces[0].store, spaces[1].store, 2, True, DOCUMENTS, study.seed)
    there = replace(comparison, heldout=False)
    return Cell(spaces[0], spaces[1], Rule(Filters(0.2, 3), "mutual"), comparison, study.inference, there)


@dataclass(frozen=True)
class Rows:
    """A decoder in memory."""

    matrix: np.ndarray

    def rows(self, features: np.ndarray) -> np.ndarray:
        return self.matrix[features]


class Kept:
    """The ways to what is stored of a cell; each fails if it has to compute."""

    def __init__(self, study: Study, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
        self.study, self.cell = study, cell
        self.pairs, self.found = PairSet.of(cell, "all", cell.kept), cell.candidates()
        self.facts = cell.matched().facts
        ids = np.arange(FEATURES // 4)
        self.pool = cell.kept.assign(inside=within(cell.kept, ids, np.arange(FEATURES)))
        assert len(cell.kept) >= 12
        assert 3 < self.pool["inside"].sum() < len(self.pool)
        for name in self.names:
            getattr(self, name)()  # computed and stored

        def fail(*_: object, **__: object) -> None:
            raise Computed

        for module, name in (
            *(
                (score, "_shuffles"),
                (score, "_within_strata"),
                (score, "_by_cluster"),
                (score, "_interval"),
                (rematch, "_batch"),
                (rematch, "_own"),
                (subspaces, "_subsets"),
            ),
            *((match, "_draw"), (match, "_match"), (match, "_beyond_token"), (candidates, "_candidates")),
            (read_there, "_read"),
        ):
            monkeypatch.setattr(module, name, fail)
        assert self.computed() == set()  # all of it is found

    names = (
        "shuffles",
        "strata",
        "clusters",
        "interval",
        "rematches",
        "subsets",
        "bootstrap",
        "beyond_token",
        "there",
        "matched",
        "candidates",
    )

    def shuffles(self) -> None:
        for spec in self.study.geometry:
            score._shuffle_unit(self.study, self.pairs, spec).result()

    def strata(self) -> None:
        for spec in self.study.geometry:
            score._strata_unit(self.study, self.pairs, spec, "token_share").result()

    def clusters(self) -> None:
        for spec in self.study.geometry:
            score._cluster_unit(self.study, self.pairs, spec).result()

    def interval(self) -> None:
        for spec in self.study.geometry:
            score._interval_unit(self.study, self.pairs, spec).result()

    def rematches(self) -> None:
        for null in rematch.again(self.study):
            rematch.rematch_cells(self.study, null, [self.cell], [self.facts], Local())

    def subsets(self) -> None:
        for spec in self.study.geometry:
            unit = subspaces._subset_unit(self.study, self.pairs, self.pool, spec)
            assert unit is not None
            unit.result()

    def bootstrap(self) -> None:
        self.cell.intervals(self.found).result()

    def beyond_token(self) -> None:
        self.cell.beyond_token(self.pool).result()

    def there(self) -> None:
        assert read_there.pairs_elsewhere(self.cell) is not None

    def matched(self) -> None:
        self.cell.matched()

    def candidates(self) -> None:
        self.cell.comparison.candidates().result()

    def computed(self) -> set[str]:
        """What is not taken from the disk now."""
        found = set()
        for name in self.names:
            try:
                getattr(self, name)()
            except Computed:
                found.add(name)
        return found


class Computed(Exception):
    """Something is computed, not read."""


@pytest.fixture
def kept(study: Study, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> Kept:
    return Kept(study, cell, monkeypatch)


def raised(known: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table's entry with its version raised."""
    monkeypatch.setitem(known, name, replace(known[name], version=known[name].version + 1))


OF_MEASURES = {"shuffles", "strata", "clusters", "interval", "rematches", "subsets"}
CHANGES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    **{
        f"measure {name}": (lambda patch, name=name: raised(MEASURES, name, patch), OF_MEASURES)
        for name in ("rsa", "svcca", "cka")
    },
    # SVCCA's held-out score is this measure's.
    "measure heldout_cca": (lambda patch: raised(MEASURES, "heldout_cca", patch), {"shuffles"}),
    "another measure": (lambda patch: raised(MEASURES, "procrustes", patch), set()),
    "method mutual": (
        lambda patch: raised(METHODS, "mutual", patch),
        {"rematches", "bootstrap", "beyond_token", "there", "matched"},
    ),
    "another method": (lambda patch: raised(METHODS, "max", patch), set()),
    "null shuffle": (lambda patch: raised(NULLS, "shuffle", patch), {"shuffles"}),
    "null strata": (lambda patch: raised(NULLS, "strata", patch), {"strata"}),
    "null cluster": (lambda patch: raised(NULLS, "cluster", patch), {"clusters"}),
    "clusters": (
        lambda patch: patch.setattr(pair_set, "CLUSTERS", pair_set.CLUSTERS + 1),
        {"shuffles", "strata", "clusters", "interval", "subsets"},
    ),
    "near-copies": (
        lambda patch: patch.setattr(near_copies, "VERSION", near_copies.VERSION + 1),
        {"shuffles", "strata", "clusters", "interval", "subsets"},
    ),
    "null rematch": (lambda patch: raised(NULLS, "rematch", patch), {"rematches"}),
    "null same_token": (lambda patch: raised(NULLS, "same_token", patch), {"rematches"}),
    "null same_two_tokens": (lambda patch: raised(NULLS, "same_two_tokens", patch), {"rematches"}),
    "null subset": (lambda patch: raised(NULLS, "subset", patch), {"subsets"}),
    "intervals of scores": (lambda patch: patch.setattr(score, "VERSION", score.VERSION + 1), {"interval"}),
    "intervals of pairs": (
        lambda patch: patch.setattr(match, "VERSION", bootstrap.VERSION + 1),
        {"bootstrap", "matched"},
    ),
    "r within token": (
        lambda patch: patch.setattr(beyond_token, "VERSION", beyond_token.VERSION + 1),
        {"beyond_token", "matched"},
    ),
    "r elsewhere": (
        lambda patch: patch.setattr(read_there, "VERSION", elsewhere.VERSION + 1),
        {"there"},
    ),
    "pairs": (lambda patch: patch.setattr(match, "_VERSION", match._VERSION + 1), {"matched"}),
    "candidates": (
        lambda patch: patch.setattr(candidates, "VERSION", candidates.VERSION + 1),
        {"candidates", "rematches", "bootstrap", "beyond_token", "there", "matched"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_new_version_may_change_is_computed_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    raise_it, expected = CHANGES[change]
    raise_it(monkeypatch)
    assert kept.computed() == expected


def test_every_null_that_is_stored_has_its_version_in_a_key() -> None:
    """A null that is added to the table is to be added above."""
    assert {f"null {name}" for name in NULLS} <= set(CHANGES)


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_has_its_version_in_the_key(
    study: Study, cell: Cell, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    spec = study.geometry[0].model_copy(update={"metric": name, "settings": {}})
    pairs = PairSet.of(cell, "all", cell.kept)

    def keys() -> list[str]:
        units = (score._shuffle_unit(study, pairs, spec), score._interval_unit(study, pairs, spec))
        return [unit.piece.key for unit in units] + [pairs.unit("any", 1, spec, lambda: None).piece.key]

    before = keys()
    counterpart = heldout_counterpart(name, {})
    raised(MEASURES, name, monkeypatch)
    after = keys()
    assert not set(before) & set(after)
    if counterpart is not None and counterpart[0] != name:
        raised(MEASURES, counterpart[0], monkeypatch)
        assert keys()[0] != after[0]
        assert keys()[1:] == after[1:]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_version_in_the_rule(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    rule = Rule(Filters(0.1, 5), name)
    before = rule.identity()
    raised(METHODS, name, monkeypatch)
    assert rule.identity() != before


def test_rules_differ_by_all_that_decides() -> None:
    """And by nothing else: words that no filter reads leave it as it is."""
    filters = Filters(0.1, 5, (",",), False)
    words = {1: ["sea"], 2: [","]}
    rules = [
        Rule(filters, words_a=words),
        Rule(filters, words_b=words),
        Rule(filters, words_a={1: ["sea"]}),
        Rule(filters, "max", words_a=words),
        Rule(filters, "max", "b_to_a", words_a=words),
        Rule(replace(filters, min_correlation=0.2), words_a=words),
        Rule(replace(filters, min_count=6), words_a=words),
        Rule(replace(filters, exclude_tokens=(".",)), words_a=words),
        Rule(replace(filters, exclude_tokens=()), words_a=words),
        Rule(replace(filters, shared_top_token=True), words_a=words),
    ]
    assert len({repr(rule.identity()) for rule in rules}) == len(rules)
    again = Rule(filters, words_a=dict(reversed(words.items())))
    assert again.identity() == rules[0].identity()
    plain = Filters(0.1, 5)
    assert Rule(plain, words_a=words).identity() == Rule(plain, words_b=words).identity()


def test_the_new_version_s_scores_take_the_old_one_s_place(
    study: Study, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the version tells: a measure that changes without it goes unnoticed, which is what it is there for."""
    study = study.model_copy(
        update={"inference": study.inference.model_copy(update={"permutations": 0, "subsamples": 0})}
    )
    pairs, rsa = PairSet.of(cell, "all", cell.kept), MEASURES["rsa"]

    def scored() -> float:
        return float(score_sets(study, [pairs], 1, study.geometry[:1], Local())["score"].iloc[0])

    def other(x: Any, y: Any, **settings: Any) -> Any:
        return replace(rsa.function(x, y, **settings), value=0.125)

    first = scored()
    assert first != 0.125
    monkeypatch.setitem(MEASURES, "rsa", replace(rsa, function=other))
    assert scored() == first
    monkeypatch.setitem(MEASURES, "rsa", replace(rsa, function=other, version=rsa.version + 1))
    assert scored() == 0.125


def test_a_gpu_is_named_in_the_keys_of_the_scores_that_it_shuffles(study: Study, cell: Cell) -> None:
    on_gpu = study.model_copy(update={"inference": study.inference.model_copy(update={"device": "cuda"})})
    pairs = PairSet.of(cell, "all", cell.kept)
    for spec in study.geometry:
        here, there = (score._shuffle_unit(one, pairs, spec) for one in (study, on_gpu))
        moves = spec.metric in ("rsa", "cka")
        assert (here.gpu, there.gpu) == (False, moves)
        assert (here.piece.key != there.piece.key) == moves
        assert score._interval_unit(study, pairs, spec).piece.key == score._interval_unit(on_gpu, pairs, spec).piece.key
