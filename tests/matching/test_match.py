"""Matching methods: against planted truth, brute force and SciPy's dense assignment."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from unifeat.correlation.correlate import Correlation, correlate
from unifeat.correlation.csls import csls
from unifeat.errors import UserError
from unifeat.matching.match import match
from unifeat.matching.methods import METHODS, select


@pytest.fixture(scope="module")
def planted() -> tuple[Correlation, np.ndarray]:
    """B's features are A's in another order with noise; five of A have no twin. And the order."""
    rng = np.random.default_rng(0)
    x = rng.gamma(2, 1, (4000, 40)) * (rng.random((4000, 40)) < 0.05)
    order = rng.permutation(40)[:35]
    y = x[:, order] + rng.gamma(2, 1, (4000, 35)) * (rng.random((4000, 35)) < 0.02)
    return correlate(sparse.csr_array(x), sparse.csr_array(y)), order


@pytest.mark.parametrize("method", [m for m in METHODS if m != "first-seen"])  # which loses some: see below
@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
def test_planted_twins_are_found(planted: tuple[Correlation, np.ndarray], method: str, direction: str) -> None:
    corr, order = planted
    pairs = match(corr, method, direction=direction, min_correlation=0.3)
    assert dict(zip(pairs["feature_b"], pairs["feature_a"], strict=True)) == dict(enumerate(order))
    assert list(pairs) == ["feature_a", "feature_b", "correlation", "cofiring", "csls", "count_a", "count_b"]
    assert pairs["correlation"].is_monotonic_decreasing
    np.testing.assert_array_equal(pairs["count_a"], corr.moments_a.count[pairs["feature_a"]])
    np.testing.assert_array_equal(pairs["count_b"], corr.moments_b.count[pairs["feature_b"]])


def test_max_without_threshold_pairs_every_feature(planted: tuple[Correlation, np.ndarray]) -> None:
    corr, _ = planted
    forth, back = match(corr, "max"), match(corr, "max", direction="b_to_a")
    assert sorted(forth["feature_a"]) == list(range(40))
    assert sorted(back["feature_b"]) == list(range(35))
    best = dict(zip(forth["feature_a"], forth["feature_b"], strict=True))
    assert [best[a] for a in range(40)] == corr.a_to_b.index[:, 0].tolist()


def table(rows: list[tuple[int, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["feature_a", "feature_b", "correlation"])


graphs = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.sampled_from([-0.5, 0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0]),
    max_size=20,
).map(lambda edges: table([(a, b, r) for (a, b), r in edges.items()]))


def chosen(graph: pd.DataFrame, method: str, direction: str = "a_to_b") -> set[tuple[int, int]]:
    picked = graph[select(graph, method, direction)]
    return set(zip(picked["feature_a"], picked["feature_b"], strict=True))


@settings(max_examples=100, deadline=None)
@given(graphs, st.randoms(use_true_random=False))
def test_methods_do_what_they_say(graph: pd.DataFrame, shuffler: np.random.Generator) -> None:
    r = {(row.feature_a, row.feature_b): row.correlation for row in graph.itertuples()}
    best_a = {min((-value, b, (a, b)) for (a, b), value in r.items() if a == one)[2] for one in {a for a, _ in r}}
    best_b = {min((-value, a, (a, b)) for (a, b), value in r.items() if b == one)[2] for one in {b for _, b in r}}
    assert chosen(graph, "max") == best_a
    assert chosen(graph, "max", "b_to_a") == best_b
    assert chosen(graph, "mutual") == best_a & best_b
    greedy: set[tuple[int, int]] = set()
    for a, b in sorted(r, key=lambda pair: (-r[pair], pair)):
        if all(a != c and b != d for c, d in greedy):
            greedy.add((a, b))
    assert chosen(graph, "one-to-one") == greedy
    assert chosen(graph, "first-seen") == first_claims(best_a)
    assert chosen(graph, "first-seen", "b_to_a") == {(a, b) for b, a in first_claims({(b, a) for a, b in best_b})}
    score = {pair: round(csls_of(r, pair, 99), 12) for pair in r}
    assert chosen(graph, "csls") == {
        (a, b)
        for a, b in score
        if (a, b) == min((pair for pair in score if pair[0] == a), key=lambda pair: (-score[pair], pair))
        and (a, b) == min((pair for pair in score if pair[1] == b), key=lambda pair: (-score[pair], pair))
    }
    rows = list(range(len(graph)))
    shuffler.shuffle(rows)  # type: ignore[arg-type]
    for method in ("max", "mutual", "one-to-one", "csls", "first-seen"):
        assert chosen(graph.iloc[rows], method) == chosen(graph, method)


@settings(max_examples=100, deadline=None)
@given(graphs)
def test_assignment_is_optimal(graph: pd.DataFrame) -> None:
    gain = np.zeros((6, 6))
    gain[graph["feature_a"], graph["feature_b"]] = graph["correlation"].clip(lower=0)
    best = gain[linear_sum_assignment(gain, maximize=True)].sum()
    picked = chosen(graph, "assignment")
    assert sum(gain[a, b] for a, b in picked) == pytest.approx(best)
    assert all(gain[a, b] > 0 for a, b in picked)
    for side in (0, 1):
        assert len({pair[side] for pair in picked}) == len(picked)


def first_claims(pairs: set[tuple[int, int]]) -> set[tuple[int, int]]:
    taken: dict[int, int] = {}
    for one, other in sorted(pairs):
        taken.setdefault(other, one)
    return {(one, other) for other, one in taken.items()}


def csls_of(r: dict[tuple[int, int], float], pair: tuple[int, int], top: int) -> float:
    near = [sorted((v for p, v in r.items() if p[side] == pair[side]), reverse=True)[:top] for side in (0, 1)]
    return 2 * r[pair] - sum(near[0]) / len(near[0]) - sum(near[1]) / len(near[1])


@settings(max_examples=100, deadline=None)
@given(graphs, st.integers(1, 4))
def test_csls_against_plain_arithmetic(graph: pd.DataFrame, top: int) -> None:
    a, b, r = (graph[c].to_numpy(t) for c, t in zip(graph, (np.int64, np.int64, np.float64), strict=True))
    plain = dict(zip(zip(a.tolist(), b.tolist(), strict=True), r.tolist(), strict=True))
    expected = [csls_of(plain, pair, top) for pair in plain]
    np.testing.assert_allclose(csls(a, b, r, top), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("top", [1, 3, 8])
def test_csls_of_a_correlation_is_that_of_the_whole_matrix(top: int) -> None:
    """Neighbourhoods over all features, though only the best partners are in the table."""
    rng = np.random.default_rng(top)
    x, y = (rng.exponential(1, (300, f)) * (rng.random((300, f)) < 0.3) for f in (20, 35))
    y[:, :12] += 0.5 * x[:, [4]]  # a hub
    r = np.corrcoef(x, y, rowvar=False)[:20, 20:]
    near_a, near_b = np.sort(r, axis=1)[:, -top:].mean(axis=1), np.sort(r, axis=0)[-top:].mean(axis=0)
    got = correlate(sparse.csr_array(x), sparse.csr_array(y), top=top).candidates()
    a, b = got["feature_a"].to_numpy(), got["feature_b"].to_numpy()
    np.testing.assert_allclose(got["csls"], (2 * r - near_a[:, None] - near_b)[a, b], rtol=0, atol=1e-9)


def test_csls_ignores_what_has_no_correlation() -> None:
    ids, r = np.array([0, 0, 1, 1]), np.array([0.5, np.nan, 0.1, np.nan])
    got = csls(ids, np.array([0, 1, 0, 1]), r, 1)
    np.testing.assert_allclose(got[[0, 2]], [0.0, 0.2 - 0.1 - 0.5])
    assert np.isnan(got[[1, 3]]).all()


def test_csls_takes_the_hubs_lead() -> None:
    """Feature 0 of B is everyone's best; each feature of A has a partner just behind that is nobody else's."""
    own = [(a, b + 1, 0.5 * (a == b)) for a, b in itertools.product(range(5), range(5))]
    graph = table([(a, 0, 0.6) for a in range(5)] + own)
    assert chosen(graph, "mutual") == {(0, 0)}
    assert chosen(graph, "csls") == {(a, a + 1) for a in range(5)}


def test_first_seen_loses_what_the_paper_lost(planted: tuple[Correlation, np.ndarray]) -> None:
    """A feature without a twin that comes first takes the twin of another; the threshold then drops the pair."""
    corr, order = planted
    twins = {(int(a), b) for b, a in enumerate(order)}
    pairs = match(corr, "first-seen", min_correlation=0.3)
    kept = set(zip(pairs["feature_a"], pairs["feature_b"], strict=True))
    best = dict(enumerate(corr.a_to_b.index[:, 0].tolist()))
    claims = first_claims(set(best.items()))
    assert kept == claims & twins
    assert 20 < len(kept) < len(twins)
    assert set(match(corr, "first-seen", min_correlation=0.3, min_count=1)["feature_a"]) == {a for a, _ in kept}
    back = match(corr, "first-seen", direction="b_to_a", min_correlation=0.3)
    assert set(zip(back["feature_a"], back["feature_b"], strict=True)) == twins  # every feature of B has its own


def test_assignment_beats_greed() -> None:
    graph = table([(0, 0, 0.9), (0, 1, 0.8), (1, 0, 0.8)])
    assert chosen(graph, "one-to-one") == {(0, 0)}
    assert chosen(graph, "assignment") == {(0, 1), (1, 0)}


def test_filters_come_before_the_method() -> None:
    rng = np.random.default_rng(1)
    x = rng.gamma(2, 1, (1000, 3)) * (rng.random((1000, 3)) < [0.2, 0.2, 0.01])
    y = np.stack([x[:, 2] + 1e-3 * x[:, 0], x[:, 0] + rng.gamma(2, 1, 1000) * (rng.random(1000) < 0.1)], axis=1)
    y[:, 0] *= x[:, 2] > 0
    corr = correlate(sparse.csr_array(x), sparse.csr_array(y))
    rare = int(corr.moments_a.count[2])
    assert 2 in set(match(corr, "max")["feature_a"])
    pairs = match(corr, "max", min_count=rare + 1)
    assert 2 not in set(pairs["feature_a"])
    assert 0 not in set(pairs["feature_b"])
    assert (match(corr, "max", min_correlation=0.1)["correlation"] > 0.1).all()
    assert len(match(corr, "assignment", min_correlation=1.0)) == 0


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_match(method: str) -> None:
    empty = correlate(sparse.csr_array((4, 3)), sparse.csr_array((4, 2)))
    assert len(match(empty, method)) == 0


def test_unknown_method_or_direction(planted: tuple[Correlation, np.ndarray]) -> None:
    with pytest.raises(UserError, match=r"unknown matching method 'mutuel' \(did you mean 'mutual'\?\): max, mutual"):
        match(planted[0], "mutuel")
    with pytest.raises(UserError, match="direction 'up' must be a_to_b or b_to_a"):
        match(planted[0], direction="up")


def test_brute_force_over_all_matchings() -> None:
    rng = np.random.default_rng(2)
    r = rng.random((4, 4)).round(2)
    graph = table([(a, b, r[a, b]) for a, b in itertools.product(range(4), range(4))])
    best = max(sum(r[a, b] for a, b in enumerate(order)) for order in itertools.permutations(range(4)))
    assert sum(r[a, b] for a, b in chosen(graph, "assignment")) == pytest.approx(best)
