"""Small random graphs of pairs, and families the plain way."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

Node = tuple[int, int]  # (space, feature)


def random_pairs(
    seed: int,
    spaces: int = 5,
    width: int = 7,
    *,
    one_to_one: bool = True,
    compared: float = 1.0,
    ties: bool = False,
) -> dict[tuple[str, str], pd.DataFrame]:
    """Pairs with no structure at all: what families do with contradictions shows best there."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for i, j in combinations(range(spaces), 2):
        if rng.random() >= compared and (i, j) != (0, 1):
            continue
        if one_to_one:
            n = int(rng.integers(0, width + 1))
            a, b = rng.permutation(width)[:n], rng.permutation(width)[:n]
        else:
            chosen = rng.permutation(width * width)[: int(rng.integers(0, 2 * width))]
            a, b = np.divmod(chosen, width)
        r = rng.integers(1, 4, len(a)) / 4 if ties else rng.uniform(0.1, 1, len(a))
        table = pd.DataFrame({"feature_a": a, "feature_b": b, "correlation": r})
        table["correlation_heldout"] = rng.uniform(-1, 1, len(a))
        pairs[f"s{i}", f"s{j}"] = table
    return pairs


class Plain:
    """A graph of pairs in dictionaries."""

    def __init__(self, pairs: dict[tuple[str, str], pd.DataFrame]) -> None:
        names = list(dict.fromkeys(name for key in pairs for name in key))
        self.compared = {frozenset(names.index(name) for name in key) for key in pairs}
        self.r: dict[frozenset[Node], float] = {}
        for key, table in pairs.items():
            one, other = (names.index(name) for name in key)
            for a, b, r in table[["feature_a", "feature_b", "correlation"]].itertuples(index=False):
                self.r[frozenset({(one, int(a)), (other, int(b))})] = float(r)
        # The strongest first; ties by the lower node, then the higher one.
        self.edges = sorted(self.r, key=lambda edge: (-self.r[edge], *sorted(edge)))
        self.nodes = sorted({node for edge in self.edges for node in edge})

    def paired(self, x: Node, y: Node) -> bool:
        return frozenset({x, y}) in self.r

    def are_compared(self, x: Node, y: Node) -> bool:
        return frozenset({x[0], y[0]}) in self.compared

    def partners(self, x: Node, space: int) -> list[Node]:
        return [y for y in self.nodes if y[0] == space and self.paired(x, y)]

    def split(self, nodes: set[Node], edges: list[frozenset[Node]]) -> list[set[Node]]:
        """The connected components of some nodes by some edges."""
        left, found = set(nodes), []
        while left:
            part, fresh = set(), {min(left)}
            while fresh:
                part |= fresh
                fresh = {n for edge in edges if edge & fresh for n in edge} - part
            found.append(part)
            left -= part
        return found


def partition(labels: np.ndarray, graph) -> set[frozenset[Node]]:
    """Families as sets of nodes, without those of one member."""
    space = graph.space
    found: dict[int, set[Node]] = {}
    for node, label in enumerate(labels.tolist()):
        found.setdefault(label, set()).add((int(space[node]), int(graph.feature[node])))
    return {frozenset(own) for own in found.values() if len(own) > 1}
