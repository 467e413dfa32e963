"""`find_families`: from tables of pairs to families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unifeat.multiway.graph import Pairs, graph_of
from unifeat.multiway.methods import find_method
from unifeat.multiway.result import Families, described


def find_families(
    pairs: Pairs,
    method: str = "consistent",
    *,
    spaces: Sequence[str] | None = None,
    features: Mapping[str, int] | None = None,
) -> Families:
    """Group the features of several spaces into families: at most one feature of each, held together by kept pairs.

    Args:
        pairs: for each two spaces that were compared, their pairs, as from `unifeat.match`: `{("a", "b"): table, …}`.
            Columns `feature_a` (of the first space named), `feature_b`, `correlation`; optional
            `correlation_heldout`, `correlation_within_token`, and `kept` (other rows are left out).
        method: `consistent` (partners agree around every triangle), `cliques` (every two are partners) or `components`
            (connected, and split at the weakest links).
        spaces: which spaces, and their order; by default all.
        features: how many features each space has, for the shares of features in families.

    Raises:
        UserError: unknown method or space; tables that are not as described (see `graph_of`).
    """
    chosen = find_method(method)
    graph = graph_of(pairs, spaces)
    return described(graph, chosen.group(graph), method, features or {})
