"""The whole way over a small text: codes → strongest tokens → words → members → pairs inside → tests.

Two spaces with different tokenizers are made by hand: each has one feature for each of some words, which fires where a
token ends the word, and features that fire at random. So it is known who belongs where and who is whose partner.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from texts import corpus_of

from stores import places, shard_of, written
from tiny import sentences, tiny_tokenizer
from unifeat.codes.store import CodeStore
from unifeat.codes.top_activations import top_activations
from unifeat.matching.candidates import Comparison
from unifeat.matching.filters import Filters
from unifeat.matching.rule import Rule
from unifeat.subspaces import (
    control_lists,
    load_categories,
    members,
    pair_frequency,
    rate_test,
    subset_test,
    within,
    word_counts,
    words_at,
)
from unifeat.text.corpus import Corpus
from unifeat.text.windows import tokenize_part

LISTS = {
    "Sea": ("harbour", "sailor", "tide", "ship", "fisherman", "lighthouse", "storm", "whale"),
    "City": ("mayor", "bus", "street", "baker", "station", "council", "tower"),
    "Garden": ("gardener", "rose", "hedge", "bee", "tree", "soil", "spade"),
}
WORDS = [word for own in LISTS.values() for word in own]  # `whale` is not in the text: its feature never fires
NOISE = 30
FEATURES = len(WORDS) + NOISE
RULE = Rule(Filters(min_correlation=0.1, min_count=3), "mutual")


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return sentences(60, seed=11)


def space(root: Path, corpus: Corpus, kind: Any, order: np.ndarray, seed: int) -> CodeStore:
    """A store whose feature `order[w]` is that of word w; a few of its firings are on other tokens, weaker."""
    tokenizer = tiny_tokenizer(kind)
    rng = np.random.default_rng(seed)
    shards = []
    for group in range(corpus.groups):
        cells, where = [], []
        for part in corpus.parts(group):
            cut = tokenize_part(tokenizer, part)
            dense = np.zeros((len(cut.token), FEATURES), np.float32)
            for number, word in enumerate(WORDS):
                at, begin = [], part.text.lower().find(word)
                while begin >= 0:
                    end = begin + len(word)
                    whole = not part.text[begin - 1 : begin].isalpha() and not part.text[end : end + 1].isalpha()
                    at += [int(np.searchsorted(cut.char_end, part.start + end))] if whole else []
                    begin = part.text.lower().find(word, end)
                dense[at, order[number]] = 2 + rng.random(len(at))
            stray = rng.random(dense.shape) < 0.004
            stray[:, order[[WORDS.index("whale")]]] = False
            stray[:, order[len(WORDS) :]] |= rng.random((len(dense), NOISE)) < 0.03
            dense = np.where(stray & (dense == 0), rng.random(dense.shape), dense).astype(np.float32)
            cells.append(dense)
            where.append((np.full(len(cut.token), part.document), cut.char_end, cut.token))
        document, char_end, token = (np.concatenate(column) for column in zip(*where, strict=True))
        at_places = places(document, char_end)
        at_places.token[:] = token
        shards.append(shard_of(np.concatenate(cells), at_places))
    return written(root / kind, shards, d_sae=FEATURES, text=corpus.digest, tokenizer=kind)


class Chain:
    """Both spaces with the words and members of each, and the candidates between them."""

    def __init__(self, folder: Path, documents: list[str]) -> None:
        (folder / "lists.yaml").write_text(
            "".join(f"{name}: [{', '.join(own)}]\n" for name, own in LISTS.items()), encoding="utf-8"
        )
        self.categories = load_categories(str(folder / "lists.yaml"))
        self.corpus = corpus_of(folder, documents)
        rng = np.random.default_rng(0)
        self.order = [rng.permutation(FEATURES), rng.permutation(FEATURES)]
        kinds = ("bpe", "wordish")
        self.stores = [
            space(folder, self.corpus, kind, order, seed)
            for seed, (kind, order) in enumerate(zip(kinds, self.order, strict=True))
        ]
        self.words = [
            words_at(top_activations(store, 10), self.corpus, tiny_tokenizer(kind), top_tokens=5)
            for store, kind in zip(self.stores, kinds, strict=True)
        ]
        self.members = [members(words, self.categories, top_tokens=5, at_least=3) for words in self.words]
        comparison = Comparison(*self.stores, top=4, heldout=True, documents=self.corpus.documents, seed=0)
        self.candidates = comparison.candidates().result().table

    def of(self, side: int, category: str) -> np.ndarray:
        table = self.members[side]
        return table.loc[table["category"] == category, "feature"].to_numpy()

    def paired(self, candidates: pd.DataFrame) -> pd.DataFrame:
        return RULE.decide(candidates).query("kept")


@pytest.fixture
def chain(tmp_path: Path, documents: list[str]) -> Chain:
    return Chain(tmp_path, documents)


def test_members_are_the_features_of_the_words(chain: Chain) -> None:
    for side in (0, 1):
        for name, own in LISTS.items():
            expected = {int(chain.order[side][WORDS.index(word)]) for word in own if word != "whale"}
            assert set(chain.of(side, name)) == expected
        assert (chain.members[side]["hits"] == 5).mean() > 0.9


def test_pairs_inside_a_category_are_the_true_ones(chain: Chain) -> None:
    partner = dict(zip(chain.order[0].tolist(), chain.order[1].tolist(), strict=True))
    everywhere = chain.paired(chain.candidates)
    for name, own in LISTS.items():
        mask = within(chain.candidates, chain.of(0, name), chain.of(1, name))
        inside = chain.paired(chain.candidates[mask])
        assert len(inside) == len(own) - ("whale" in own)
        assert all(partner[int(a)] == b for a, b in zip(inside["feature_a"], inside["feature_b"], strict=True))
        # Here the best partners are inside the category, so that matching inside it changes nothing.
        assert set(inside.index) == set(everywhere.index[within(everywhere, chain.of(0, name), chain.of(1, name))])
    assert not within(chain.candidates, chain.of(0, "Sea"), chain.of(1, "City"))[everywhere.index].any()


def test_a_partner_outside_gives_way_to_the_best_inside(chain: Chain) -> None:
    sea_a, sea_b = chain.of(0, "Sea"), chain.of(1, "Sea")
    best = chain.paired(chain.candidates)
    lost = best.loc[within(best, sea_a, sea_b), "feature_b"].iloc[0]
    rest = sea_b[sea_b != lost]
    inside = chain.paired(chain.candidates[within(chain.candidates, sea_a, rest)])
    assert lost not in set(inside["feature_b"])
    assert set(inside["feature_b"]) == set(rest)


def test_features_of_words_are_matched_more_often(chain: Chain) -> None:
    paired = chain.paired(chain.candidates)
    count = np.bincount(np.concatenate([s.feature for s in chain.stores[0].shards()]), minlength=FEATURES)
    alive = count > 0
    matched, inside = np.isin(np.arange(FEATURES), paired["feature_a"]), np.zeros(FEATURES, bool)
    inside[chain.members[0]["feature"]] = True
    test = rate_test(matched[alive], inside[alive], count[alive], bins=2)
    assert test.n_inside == len(WORDS) - 1
    assert test.rate_inside == 1.0
    assert test.rate_outside < 0.5
    assert test.p < 0.01


def test_the_random_subset_null_finds_the_category_whose_rows_are_alike(chain: Chain) -> None:
    paired = chain.paired(chain.candidates).reset_index(drop=True)
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, FEATURES, 12))
    partner = dict(zip(chain.order[0].tolist(), chain.order[1].tolist(), strict=True))
    for feature in chain.of(0, "Sea"):
        y[partner[int(feature)]] = x[feature] + 0.1 * rng.normal(size=12)
    rows_a, rows_b = x[paired["feature_a"]], y[paired["feature_b"]]
    frequency = pair_frequency(paired["count_a"], paired["count_b"])
    p = {}
    for name in LISTS:
        chosen = np.flatnonzero(within(paired, chain.of(0, name), chain.of(1, name)))
        p[name] = subset_test("rsa", rows_a, rows_b, chosen, frequency, draws=99, seed=1, bins=2).p_high
    assert p["Sea"] == pytest.approx(0.01)
    assert min(p["City"], p["Garden"]) > 0.05


def test_control_lists_have_members_of_their_own(chain: Chain) -> None:
    counts = word_counts(chain.corpus)
    assert counts["whale"] == 0
    assert sum(counts[word] for word in WORDS) == sum(
        text.lower().replace(".", " ").split().count(word) for text in _texts(chain.corpus) for word in WORDS
    )
    lists = control_lists(counts, chain.categories, 3, seed=0)
    for name, own in LISTS.items():
        for control in lists[name]:
            assert len(control) == len([word for word in own if counts[word]])
            assert not set(control) & set(WORDS)
            # No feature was made for any of these words.
            got = members(chain.words[0], {"control": control}, top_tokens=5, at_least=3)
            assert not set(got["feature"]) & set(chain.members[0]["feature"])


def _texts(corpus: Corpus) -> list[str]:
    return [part.text for group in range(corpus.groups) for part in corpus.parts(group)]
