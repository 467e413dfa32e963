"""From the graph of pairs to families: at most one feature of each space, held together by kept pairs.

Every method is a function from a `Graph` to one number a node: nodes with the same number are a family. What it gives
depends on the pairs alone, not on the order of rows; of pairs with the very same r, those of the space that is named
first come first. A feature is in at most one family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError, did_you_mean
from unifeat.multiway import kernels
from unifeat.multiway.graph import Graph

Labels = NDArray[np.int64]


def cliques(graph: Graph) -> Labels:
    """Families in which every two members are partners, where their spaces were compared.

    Cliques are grown from the strongest pair whose features are still free. The next member is the candidate that the
    most other candidates fit (ties: the largest sum of r with the members), until none is left. A clique found later
    takes only features that are free, so a feature of several cliques is in the one of the strongest pair.

    Returns:
        (nodes,) int64.
    """
    g = graph
    return kernels.cliques(g.low, g.high, g.space, g.compared, g.start, g.neighbour, g.strength)


def consistent(graph: Graph) -> Labels:
    """Families without contradiction: partners agree around every triangle of members.

    Pairs are taken from the strongest down. Each joins the families of its two features, unless

    * these have a space in common,
    * a member of one has a partner in the space of a member of the other, and that partner is another feature, or
    * no more than half of the pairs between the two are kept, of those whose spaces were compared.

    So a few missing pairs do not tear a family apart (in `cliques` one does), and chains of pairs that are by chance do
    not make one (in `components` they do).

    Returns:
        (nodes,) int64.
    """
    g, words = graph, kernels.words_of(len(graph.spaces))
    return kernels.consistent(g.low, g.high, g.space, g.first, g.compared, g.start, g.neighbour, words)


def components(graph: Graph) -> Labels:
    """Connected families: in a component with a space twice, the weakest pair is removed, until no such one is left.

    That is single-linkage clustering, cut for each cluster at the highest level at which no space appears twice.

    Returns:
        (nodes,) int64.
    """
    return kernels.components(graph.low, graph.high, graph.space, kernels.words_of(len(graph.spaces)))


@dataclass(frozen=True)
class Method:
    """An entry of the table of methods.

    Attributes:
        group: from a graph to one number a node.
        version: raised whenever `group` gives other families; part of the keys of stored results.
    """

    group: Callable[[Graph], Labels]
    version: int = 1


METHODS: dict[str, Method] = {
    "cliques": Method(cliques),
    "consistent": Method(consistent),
    "components": Method(components),
}


def find_method(name: str) -> Method:
    """The table's entry.

    Raises:
        UserError: no such method.
    """
    if name not in METHODS:
        raise UserError(f"unknown method for families {name!r}{did_you_mean(name, METHODS)}: {', '.join(METHODS)}")
    return METHODS[name]
