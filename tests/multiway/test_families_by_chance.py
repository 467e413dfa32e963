"""Documents re-paired over many spaces, and families beside those of draws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import random_pairs
from scipy import sparse

from unifeat.correlation.rearranged import Stretch
from unifeat.errors import UserError
from unifeat.multiway import find_families
from unifeat.multiway.chance import beside_chance, with_intervals
from unifeat.multiway.rearrange import Repaired, orders
from unifeat.vocabulary.paired_codes import CsrArrays


@pytest.mark.parametrize(("documents", "spaces"), [(2, 2), (5, 5), (9, 3), (40, 3), (100, 12), (30, 20)])
def test_no_two_spaces_meet_in_a_document(documents, spaces):
    length = np.random.default_rng(0).integers(1, 500, documents)
    for number in range(5):
        order = orders(length, spaces, 7, number)
        assert (order[0] == np.arange(documents)).all()
        assert all(sorted(row) == list(range(documents)) for row in order.tolist())
        for one, other in combinations(order, 2):
            assert (one != other).all()


def test_draws_differ_and_come_back():
    length = np.arange(64)
    drawn = [orders(length, 3, 1, number) for number in range(10)]
    assert len({order.tobytes() for order in drawn}) == 10
    assert (orders(length, 3, 1, 4) == drawn[4]).all()
    assert (orders(length, 3, 2, 4) != drawn[4]).any()
    # Any two spaces meet in many ways: how B's documents stand beside C's is not how they stand beside A's.
    meet = {tuple(np.argsort(order[1])[order[2]].tolist()) for order in drawn}
    assert len(meet) == 10


def test_documents_of_like_length_meet():
    length = np.sort(np.random.default_rng(0).integers(1, 10_000, 320))
    order = orders(length, 4, 0, 0)
    apart = np.abs(order - np.arange(320))
    assert apart.max() < 8


def test_too_few_documents():
    with pytest.raises(UserError, match="3 documents cannot be re-paired over 4 spaces"):
        orders(np.arange(3), 4, 0, 0)


def test_rows_beside_each_other_are_those_of_the_documents():
    rng = np.random.default_rng(3)
    numbers = np.array([2, 3, 7, 8, 11, 20, 21, 30, 31])
    length = rng.integers(0, 6, len(numbers))  # some have no row that both spaces have
    document = np.repeat(numbers, length)
    stretch = _stretch(document)
    order = orders(length, 3, 0, 0)
    for one, other in combinations(range(3), 2):
        rows_a, rows_b = Repaired(numbers, np.zeros(len(numbers)), order[one], order[other]).rows(stretch)
        expected = []
        for a, b in zip(numbers[order[one]], numbers[order[other]], strict=True):
            expected += list(zip(np.flatnonzero(document == a), np.flatnonzero(document == b), strict=False))
        assert list(zip(rows_a, rows_b, strict=True)) == expected
        assert (document[rows_a] != document[rows_b]).all()


def _stretch(document):
    n = len(document)
    codes = sparse.csr_array(np.ones((n, 1), np.float32))
    arrays = CsrArrays(codes.indptr.astype(np.int64), codes.indices.astype(np.int32), codes.data)
    word = np.arange(n, dtype=np.uint64)
    return Stretch(arrays, arrays, document, word, word, np.zeros(n, np.int64))


def table(n, r=0.5, start=0):
    ids = np.arange(start, start + n)
    return pd.DataFrame({"feature_a": ids, "feature_b": ids, "correlation": np.full(n, r)})


def families_of(all_three: int, of_two: int):
    """This many families of a, b and c, and of a and b alone."""
    pairs = {("a", "b"): table(all_three + of_two), ("a", "c"): table(all_three), ("b", "c"): table(all_three)}
    return find_families(pairs)


def test_counts_beside_those_of_draws():
    draws = [families_of(i % 3, 4 + i % 5) for i in range(30)]
    found = beside_chance(families_of(20, 6), draws)
    assert found.draws == 30
    sets = found.sets.set_index("spaces")
    whole, two = sets.loc[[("a", "b", "c")]].iloc[0], sets.loc[[("a", "b")]].iloc[0]
    assert (whole["families"], whole["at_least"], whole["null_mean"], whole["p"]) == (20, 20, 1.0, 1 / 31)
    assert whole["null_sd"] == pytest.approx(np.std([i % 3 for i in range(30)], ddof=1))
    reached = sum(4 + i % 5 >= 6 for i in range(30))
    assert (two["families"], two["at_least"], two["p"]) == (6, 26, (reached + 1) / 31)
    assert two["at_least_null_mean"] == pytest.approx(np.mean([i % 3 + 4 + i % 5 for i in range(30)]))
    assert two["at_least_p"] == 1 / 31
    assert sorted([whole["q"], two["q"]]) == pytest.approx([2 / 31, (reached + 1) / 31])
    sizes = found.sizes.set_index("size")
    assert sizes["families"].to_dict() == {2: 6, 3: 20}
    assert sizes["p"].to_dict() == {2: two["p"], 3: whole["p"]}
    assert sizes["p_family"][3] == pytest.approx(1 / 31)
    assert len(found.consistency) == 30


def test_counts_of_models_beside_those_of_draws():
    """a and b are of one model: families of a and b alone are of one, those of all three of both."""
    models = {"a": "one", "b": "one", "c": "two"}
    draws = [families_of(i % 3, 4 + i % 5) for i in range(30)]
    found = families_of(20, 6)
    rows = beside_chance(found, draws, models).models.to_dict("records")
    assert [(row["models"], row["families"]) for row in rows] == [(("one", "two"), 20), (("one",), 6)]
    assert (rows[0]["null_mean"], rows[0]["p"]) == (1.0, 1 / 31)
    assert rows[1]["p"] == (sum(4 + i % 5 >= 6 for i in range(30)) + 1) / 31
    presence = found.presence_in(models).set_index("space")
    assert presence["in_all"].tolist() == [20, 20, 20]
    assert presence["in_some"].tolist() == [0, 0, 0]
    assert presence["in_none"].tolist() == [6, 6, 0]
    each = beside_chance(found, draws).models
    assert each["models"].tolist() == [("a", "b", "c"), ("a", "b")]


def test_sets_that_only_draws_have_are_there_and_count_for_no_q():
    found = beside_chance(families_of(3, 0), [families_of(0, 5)] * 9)
    only = found.sets.set_index("spaces").loc[[("a", "b")]].iloc[0]
    assert (only["families"], only["null_mean"], only["p"]) == (0, 5, 1)
    assert np.isnan(only["q"])
    assert found.sets["q"].notna().sum() == 1
    assert np.isnan(found.consistency).all()  # no walks


def test_without_draws_there_is_no_null():
    found = beside_chance(families_of(3, 1), [])
    assert found.draws == 0
    assert found.sets[["null_mean", "p", "q", "at_least_p"]].isna().all(axis=None)
    assert found.sizes["p_family"].isna().all()
    nothing = beside_chance(families_of(0, 0), [families_of(0, 1)])
    assert nothing.sets["families"].tolist() == [0]


def test_p_is_uniform_where_observed_and_draws_are_alike():
    ps = []
    for seed in range(60):
        own, *draws = (find_families(random_pairs(10 * seed + i, spaces=3, width=30)) for i in range(10))
        sets = beside_chance(own, draws).sets
        ps.append(sets.set_index("spaces").loc[[("s0", "s1")]]["p"].iloc[0])
    assert min(ps) == pytest.approx(0.1)
    # 60 at a rate of 0.1, or a little less because of ties: above 14 with a probability of 0.001.
    assert 1 <= np.sum(np.array(ps) <= 0.1) <= 14
    assert 0.45 < np.mean(ps) < 0.7


def test_intervals_are_centred_on_the_estimate():
    rng = np.random.default_rng(0)
    own = families_of(40, 20)
    draws = [families_of(int(38 + rng.integers(-3, 4)), int(rng.integers(0, 100))) for _ in range(200)]
    sets = with_intervals(beside_chance(own, []).sets, draws, 60, 0.95).set_index("spaces")
    whole, two = sets.loc[[("a", "b", "c")]].iloc[0], sets.loc[[("a", "b")]].iloc[0]
    assert 36 <= whole["low"] <= 38
    assert 42 <= whole["high"] <= 44
    assert np.isnan(two["low"])  # the draws' mean lies more than a quarter off
    none = with_intervals(beside_chance(own, []).sets, [], 60, 0.95)
    assert none[["low", "high"]].isna().all(axis=None)
