"""Families against the plain way, over graphs with no structure and with ties, and what each method promises."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from made_up_pairs import Plain, partition, random_pairs

from unifeat.errors import UserError
from unifeat.multiway.graph import graph_of
from unifeat.multiway.methods import METHODS, find_method

KINDS = [
    {"one_to_one": True},
    {"one_to_one": True, "ties": True},
    {"one_to_one": False},
    {"one_to_one": False, "compared": 0.6},
    {"one_to_one": True, "compared": 0.5, "ties": True},
]
SEEDS = range(25)


def plain_components(g: Plain) -> set[frozenset]:
    """Remove the weakest pair of a component with a space twice, again and again."""
    found, waiting = set(), [(part, g.edges) for part in g.split(set(g.nodes), g.edges)]
    while waiting:
        part, edges = waiting.pop()
        own = [edge for edge in edges if edge <= part]
        if len({space for space, _ in part}) == len(part):
            found.add(frozenset(part))
        else:
            waiting += [(smaller, own[:-1]) for smaller in g.split(part, own[:-1])]
    return {family for family in found if len(family) > 1}


def plain_consistent(g: Plain) -> set[frozenset]:
    families = [{node} for node in g.nodes]

    def contradict(x, y) -> bool:
        if not g.are_compared(x, y) or g.paired(x, y):
            return False
        return bool(g.partners(x, y[0]) or g.partners(y, x[0]))

    for edge in g.edges:
        one, other = (next(family for family in families if node in family) for node in edge)
        if one is other or {s for s, _ in one} & {s for s, _ in other}:
            continue
        possible = [g.paired(x, y) for x in one for y in other if g.are_compared(x, y)]
        if not any(contradict(x, y) for x in one for y in other) and np.mean(possible) > 0.5:
            families.remove(other)
            one |= other
    return {frozenset(family) for family in families if len(family) > 1}


def plain_cliques(g: Plain) -> set[frozenset]:
    free, found = set(g.nodes), set()

    def fit(x, y) -> bool:
        return x[0] != y[0] and (g.paired(x, y) or not g.are_compared(x, y))

    for edge in g.edges:
        if not edge <= free:
            continue
        members = set(edge)
        while True:
            near = {x for x in free - members if any(g.paired(x, m) for m in members)}
            candidates = [x for x in near if all(fit(x, m) for m in members)]
            if not candidates:
                break

            def worth(x, candidates=candidates, members=members):
                agree = sum(fit(x, y) for y in candidates)
                return agree, sum(g.r.get(frozenset({x, m}), 0.0) for m in members), (-x[0], -x[1])

            members.add(max(candidates, key=worth))
        found.add(frozenset(members))
        free -= members
    return found


PLAIN = {"components": plain_components, "consistent": plain_consistent, "cliques": plain_cliques}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_families_are_those_of_the_plain_way(method, kind):
    sizes = []
    for seed in SEEDS:
        pairs = random_pairs(seed, **kind)
        graph, plain = graph_of(pairs), Plain(pairs)
        found = partition(METHODS[method].group(graph), graph)
        assert found == PLAIN[method](plain), seed
        sizes += [len(family) for family in found]
    assert max(sizes) >= 3


@pytest.mark.parametrize("method", METHODS)
def test_no_space_appears_twice_and_every_member_has_a_pair_inside(method):
    for seed in SEEDS:
        pairs = random_pairs(seed, spaces=7, width=9, one_to_one=False, compared=0.7)
        graph, plain = graph_of(pairs), Plain(pairs)
        for family in partition(METHODS[method].group(graph), graph):
            assert len({space for space, _ in family}) == len(family)
            assert len(plain.split(set(family), [edge for edge in plain.edges if edge <= family])) == 1


def test_cliques_are_complete_and_nothing_free_fits():
    for seed in SEEDS:
        pairs = random_pairs(seed, spaces=6, width=9)
        graph, plain = graph_of(pairs), Plain(pairs)
        families = partition(METHODS["cliques"].group(graph), graph)
        for family in families:
            assert all(plain.paired(x, y) for x, y in combinations(family, 2))
        alone = set(plain.nodes).difference(*families)
        assert not any(plain.paired(x, y) for x, y in combinations(alone, 2))


def test_a_missing_pair_splits_a_clique_and_no_other_family():
    """Five spaces share a feature; the pair of the last two was not kept."""
    pairs = {
        (a, b): pd.DataFrame({"feature_a": [3], "feature_b": [3], "correlation": [0.9]})
        for a, b in combinations("abcde", 2)
    }
    pairs["d", "e"] = pairs["d", "e"].head(0)
    graph = graph_of(pairs)
    sizes = {name: sorted(map(len, partition(m.group(graph), graph))) for name, m in METHODS.items()}
    assert sizes == {"cliques": [4], "consistent": [5], "components": [5]}


def test_chains_of_chance_are_no_families_where_partners_agree():
    """a0–b0, b0–c0, and no feature of c is a0's partner: nothing contradicts, and nothing supports it either."""
    one = pd.DataFrame({"feature_a": [0], "feature_b": [0], "correlation": [0.9]})
    graph = graph_of({("a", "b"): one, ("b", "c"): one.assign(correlation=0.3), ("a", "c"): one.head(0)})
    two = frozenset({(0, 0), (1, 0)})
    assert partition(METHODS["consistent"].group(graph), graph) == {two}
    assert partition(METHODS["cliques"].group(graph), graph) == {two}
    assert partition(METHODS["components"].group(graph), graph) == {two | {(2, 0)}}


def test_a_contradiction_splits_consistent_families():
    """a0–b0–c0, but a0's partner in c is c1: components follow strength, consistent ones refuse c0."""
    one = pd.DataFrame({"feature_a": [0], "feature_b": [0], "correlation": [0.9]})
    pairs = {("a", "b"): one, ("b", "c"): one.assign(correlation=0.8)}
    pairs["a", "c"] = pd.DataFrame({"feature_a": [0], "feature_b": [1], "correlation": [0.3]})
    graph = graph_of(pairs)
    whole = frozenset({(0, 0), (1, 0), (2, 0)})
    assert partition(METHODS["components"].group(graph), graph) == {whole}
    assert partition(METHODS["consistent"].group(graph), graph) == {whole - {(2, 0)}}
    del pairs["a", "c"]  # not compared: nothing contradicts
    graph = graph_of(pairs)
    for name in METHODS:
        assert partition(METHODS[name].group(graph), graph) == {whole}, name


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_tables_rows_and_sides_does_not_matter(method):
    rng = np.random.default_rng(0)
    for seed in SEEDS:
        pairs = random_pairs(seed, one_to_one=False, ties=True)
        names = [f"s{i}" for i in range(5)]
        mixed = {}
        for key in rng.permutation(np.array(list(pairs), object)).tolist():
            table = pairs[tuple(key)].sample(frac=1, random_state=seed)
            if rng.random() < 0.5:
                key = key[::-1]
                table = table.rename(columns={"feature_a": "feature_b", "feature_b": "feature_a"})
            mixed[tuple(key)] = table
        one, other = graph_of(pairs, names), graph_of(mixed, names)
        assert partition(METHODS[method].group(one), one) == partition(METHODS[method].group(other), other)


@pytest.mark.parametrize("method", METHODS)
def test_more_than_64_spaces(method):
    """Bits of spaces take several words; a chain of pairs that comes back to its first space is cut."""
    n = 130
    pairs = {
        (f"s{i}", f"s{(i + 1) % n}"): pd.DataFrame(
            {"feature_a": [0], "feature_b": [int(i == n - 1)], "correlation": [0.9 - i / 1000]}
        )
        for i in range(n)
    }
    graph = graph_of(pairs)
    families = partition(METHODS[method].group(graph), graph)
    for family in families:
        assert len({space for space, _ in family}) == len(family)
    # The last pair, the weakest, leads into s0 again, to another feature, which contradicts the family of the first.
    assert max(map(len, families)) == (n if method == "components" else n - 1)


def test_unknown_method():
    with pytest.raises(UserError, match="did you mean 'cliques'"):
        find_method("clique")
