"""The table of families, sets of spaces, presence and triangles, against plain counting; and wrong input."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from made_up_pairs import Plain, random_pairs

from unifeat.errors import UserError
from unifeat.multiway import METHODS, Families, find_families

FEATURES = {f"s{i}": 20 for i in range(5)}


def table(a, b, r, **more):
    return pd.DataFrame({"feature_a": a, "feature_b": b, "correlation": r} | more)


@pytest.fixture
def three() -> Families:
    """One family of three, one of two, and a feature whose pair was not kept."""
    pairs = {
        ("x", "y"): table([0, 1, 2], [5, 6, 7], [0.9, 0.5, 0.99], kept=[True, True, False]),
        ("x", "z"): table([0], [8], [0.7], correlation_heldout=[0.6]),
        ("y", "z"): table([5], [8], [0.8], correlation_heldout=[0.4]),
    }
    return find_families(pairs, features={"x": 10, "y": 20, "z": 30})


def test_the_table(three):
    first, second = three.table.to_dict("records")
    assert first["size"] == 3
    assert (first["x"], first["y"], first["z"]) == (0, 5, 8)
    assert (first["r_min"], first["pairs"]) == (0.7, 3)
    assert first["r_mean"] == pytest.approx(0.8)
    assert (first["r_heldout_min"], first["r_heldout_mean"]) == (0.4, 0.5)
    assert np.isnan(first["r_within_token_mean"])
    assert (first["consistency"], first["coverage"]) == (1.0, 1.0)
    assert (second["x"], second["y"]) == (1, 6)
    assert pd.isna(second["z"])
    assert np.isnan(second["consistency"])
    assert three.table["x"].dtype == "Int32"
    assert len(three) == 2


def test_sets_presence_members_and_one_feature(three):
    assert three.sets.to_dict("list") == {
        "spaces": [("x", "y", "z"), ("x", "y")],
        "size": [3, 2],
        "families": [1, 1],
        "at_least": [1, 2],
    }
    assert three.presence.set_index("space").loc["y"].tolist() == [20, 1, 1, 18]
    assert three.presence.set_index("space").loc["z"].tolist() == [30, 1, 0, 29]
    assert three.members.to_dict("list") == {
        "family": [0, 0, 0, 1, 1],
        "space": ["x", "y", "z", "x", "y"],
        "feature": [0, 5, 8, 1, 6],
    }
    assert three.of("y", 6)["family"] == 1
    assert three.of("y", 7) is None
    with pytest.raises(UserError, match="no space 'w'"):
        three.of("w", 0)


def test_it_shows_itself(three):
    assert repr(three).startswith("2 families over 3 spaces, by consistent, from 4 pairs")
    assert "leads home 100%" in repr(three)
    assert "<th>y</th><td>20</td><td>1</td><td>1</td><td>18</td>" in three._repr_html_()
    hostile = find_families({("<b>", "&"): table([0], [0], [0.5])})
    assert "<b>&" not in hostile._repr_html_()
    assert "&lt;b&gt;" in hostile._repr_html_()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("compared", [1.0, 0.6])
def test_numbers_of_families_against_plain_counting(method, compared):
    seen = []
    for seed in range(15):
        pairs = random_pairs(seed, compared=compared, one_to_one=seed % 2 == 0)
        plain, found = Plain(pairs), find_families(pairs, method)
        for row in found.table.to_dict("records"):
            members = [(i, int(row[name])) for i, name in enumerate(found.spaces) if not pd.isna(row[name])]
            inside = [frozenset(two) for two in combinations(members, 2) if plain.paired(*two)]
            r = [plain.r[edge] for edge in inside]
            assert (row["size"], row["pairs"]) == (len(members), len(inside))
            assert (row["r_min"], row["r_mean"]) == pytest.approx((min(r), np.mean(r)))
            possible = [two for two in combinations(members, 2) if plain.are_compared(*two)]
            assert row["coverage"] == pytest.approx(len(inside) / len(possible))
            triangles = closed = 0
            for three in combinations(members, 3):
                twos = list(combinations(three, 2))
                kept = sum(plain.paired(*two) for two in twos)
                if all(plain.are_compared(*two) for two in twos) and kept >= 2:
                    triangles += 1
                    closed += kept == 3
            expected = closed / triangles if triangles else np.nan
            assert row["consistency"] == pytest.approx(expected, nan_ok=True)
            seen.append(row["consistency"])
        if method == "cliques" and compared == 1:
            assert (found.table["coverage"] == 1).all()
    assert {1.0} < set(np.nan_to_num(seen, nan=-1.0)) or method == "cliques"


def strongest(plain, x, space):
    """The partner of a feature in a space that is followed; ties to the lower feature."""
    found = plain.partners(x, space) if x is not None else []
    return min(found, key=lambda y: (-plain.r[frozenset({x, y})], y)) if found else None


def test_triangles_against_plain_walks():
    for seed in range(15):
        pairs = random_pairs(seed, compared=0.8, one_to_one=seed % 2 == 0)
        plain, found = Plain(pairs), find_families(pairs)
        expected = {}
        for spaces in combinations(range(len(found.spaces)), 3):
            if not all(frozenset(two) in plain.compared for two in combinations(spaces, 2)):
                continue
            made = home = 0
            chance = 0.0
            for a, b, c in permutations(spaces):
                back = {y for y in plain.nodes if y[0] == a and plain.partners(y, c)}
                for x in (node for node in plain.nodes if node[0] == a):
                    z = strongest(plain, strongest(plain, x, b), c)
                    if (end := strongest(plain, z, a)) is not None:
                        made += 1
                        home += end == x
                        chance += (x in back) / len(back)
            expected[spaces] = (made, home, chance)
        assert len(found.triangles) == len(expected)
        for row, (made, home, chance) in zip(found.triangles.itertuples(), expected.values(), strict=True):
            assert (row.walks, row.home) == (made, home)
            if made:
                assert (row.consistency, row.chance) == pytest.approx((home / made, chance / made))


def test_what_chance_says_of_walks_is_what_exchanged_partners_give():
    """The pairs of two spaces of three are shuffled, which leaves every count as it is."""
    rng = np.random.default_rng(0)
    n = 60
    ids = np.arange(n)
    pairs = {key: table(ids, ids, rng.uniform(0.2, 1, n)) for key in combinations("abc", 2)}
    assert find_families(pairs).consistency[0] == 1
    shares, chances = [], []
    for _ in range(300):
        found = find_families(pairs | {("a", "c"): table(ids, rng.permutation(n), rng.uniform(0.2, 1, n))})
        shares.append(found.consistency[0])
        chances.append(found.consistency[1])
    assert np.mean(chances) == pytest.approx(1 / n)
    assert np.mean(shares) == pytest.approx(1 / n, abs=4 * np.std(shares) / np.sqrt(300))


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_input(method):
    empty = table([], [], [])
    found = find_families({("a", "b"): empty, ("b", "c"): empty}, method, features={"a": 3})
    assert len(found) == 0
    assert found.sets.empty
    assert found.presence["in_none"].tolist() == [3, 0, 0]
    assert np.isnan(found.consistency).all()
    assert "0 families over 3 spaces" in repr(found)
    found._repr_html_()
    assert found.members.empty
    alone = find_families({("a", "b"): table([7], [0], [-0.2])}, method)
    assert alone.table[["a", "b"]].iloc[0].tolist() == [7, 0]
    assert alone.table["r_min"].iloc[0] == -0.2


@pytest.mark.parametrize(
    ("pairs", "settings", "message"),
    [
        ({}, {}, "two or more"),
        ({"ab": table([0], [0], [1])}, {}, "does not name two spaces"),
        ({("a", "a"): table([0], [1], [1])}, {}, "compared with itself"),
        ({("a", "b"): table([0], [0], [1]), ("b", "a"): table([0], [0], [1])}, {}, "two tables of b and a"),
        ({("a", "b"): pd.DataFrame({"feature_a": [0], "feature_b": [0]})}, {}, "no column correlation"),
        ({("a", "b"): [(0, 0)]}, {}, "the pairs of a and b are no table, but list"),
        ({("a", "b"): table([0], [0], [np.nan])}, {}, "NaN"),
        ({("a", "b"): table([0, 0], [1, 1], [0.5, 0.6])}, {}, "pair twice"),
        ({("a", "b"): table([-1], [1], [0.5])}, {}, "feature's id, a whole number from 0"),
        ({("a", "b"): table([2**31 + 5], [1], [0.5])}, {}, "feature's id, a whole number from 0"),
        ({("a", "b"): table([0.7], [1], [0.5])}, {}, "feature_a: 0.7 is not a feature's id"),
        ({("a", "b"): table([1], ["x"], [0.5])}, {}, "feature_b: give feature ids, whole numbers"),
        ({("a", "b"): table([1], [1], [7.0])}, {}, "none from -1 to 1"),
        (
            {("a", "b"): table([0], [0], [1]), ("c", "d"): table([0], [0], [1])},
            {"spaces": ["a", "c"]},
            "no two of a, c",
        ),
        ({("a", "b"): table([0], [0], [1])}, {"spaces": ["a", "c"]}, "no pairs of a space 'c'"),
        ({("a", "b"): table([0], [0], [1])}, {"spaces": ["a"]}, "two or more"),
        ({("a", "b"): table([0], [0], [1])}, {"spaces": ["a", "a"]}, "two or more different"),
        ({("size", "b"): table([0], [0], [1])}, {}, "cannot be called 'size'"),
        ({("a", "b"): table([0], [0], [1])}, {"method": "component"}, "did you mean"),
    ],
)
def test_wrong_input(pairs, settings, message):
    with pytest.raises(UserError, match=message):
        find_families(pairs, **settings)


def test_tables_of_every_kind():
    pairs = random_pairs(1)
    expected = find_families(pairs).table
    arrow = {key: pa.Table.from_pandas(own) for key, own in pairs.items()}
    pd.testing.assert_frame_equal(find_families(arrow).table, expected)


def test_some_of_the_spaces(three):
    pairs = random_pairs(1)
    some = find_families(pairs, spaces=["s3", "s0"])
    assert some.spaces == ("s3", "s0")
    assert len(some) == len(pairs["s0", "s3"])
    assert set(some.table["s0"]) == set(pairs["s0", "s3"]["feature_a"])


def test_sets_of_many_spaces_against_plain_counting(monkeypatch):
    """As many sets as families, more than are compared at a time."""
    monkeypatch.setattr("unifeat.multiway.result._SETS_AT_A_TIME", 7)
    found = find_families(random_pairs(3, spaces=9, width=25), "components")
    kinds = [frozenset(own) for own in found.sets["spaces"]]
    members = found.members.groupby("family")["space"].agg(frozenset)
    assert len(kinds) > 20
    for kind, row in zip(kinds, found.sets.itertuples(), strict=True):
        assert row.families == sum(own == kind for own in members)
        assert row.at_least == sum(own >= kind for own in members)
