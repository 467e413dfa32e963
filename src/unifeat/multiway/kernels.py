"""The hot loops over the graph of pairs, compiled by numba. Arrays are those of `Graph`.

Spaces of a cluster are a row of bits, 64 to a word, so that whether two clusters have a space in common takes a few
instructions however many spaces there are.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def words_of(spaces: int) -> int:
    """How many 64-bit words hold a bit for each space."""
    return max(-(-spaces // 64), 1)


@njit(nogil=True, cache=True)
def _find(parent, v):  # type: ignore[no-untyped-def]
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


@njit(nogil=True, cache=True)
def _disjoint(bits, one, other):  # type: ignore[no-untyped-def]
    for word in range(bits.shape[1]):  # noqa: SIM110 (numba has no generators here)
        if bits[one, word] & bits[other, word]:
            return False
    return True


@njit(nogil=True, cache=True)
def _join(parent, bits, one, other):  # type: ignore[no-untyped-def]
    """The smaller number stays the root, so that the result does not depend on anything but the graph."""
    if other < one:
        one, other = other, one
    parent[other] = one
    for word in range(bits.shape[1]):
        bits[one, word] |= bits[other, word]
    return one, other


@njit(nogil=True, cache=True)
def bits_of(space, words):  # type: ignore[no-untyped-def]
    """(nodes, words) uint64: one bit each, of the node's space."""
    bits = np.zeros((space.size, words), np.uint64)
    for v in range(space.size):
        bits[v, space[v] // 64] = np.uint64(1) << np.uint64(space[v] % 64)
    return bits


@njit(nogil=True, cache=True)
def _at(start, neighbour, v, node):  # type: ignore[no-untyped-def]
    """Where in `neighbour` the first of v's that is at least `node` stands."""
    low, high = start[v], start[v + 1]
    while low < high:
        middle = (low + high) // 2
        if neighbour[middle] < node:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True)
def are_paired(start, neighbour, v, w):  # type: ignore[no-untyped-def]
    at = _at(start, neighbour, v, w)
    return at < start[v + 1] and neighbour[at] == w


@njit(nogil=True, cache=True)
def has_partner(start, neighbour, first, v, space):  # type: ignore[no-untyped-def]
    """Whether v has a partner in a space."""
    at = _at(start, neighbour, v, first[space])
    return at < start[v + 1] and neighbour[at] < first[space + 1]


@njit(nogil=True, cache=True)
def components(low, high, space, words):  # type: ignore[no-untyped-def]
    """(nodes,) the root of each node's family.

    Removing edges from the weakest up is the same as adding them from the strongest down and keeping the last clusters
    in which no space appears twice: the single-linkage tree, cut where it first has to be. `tree` joins everything, and
    `family` only as long as it may.
    """
    nodes = space.size
    tree, family = np.arange(nodes), np.arange(nodes)
    bits = bits_of(space, words)
    family_bits = bits.copy()
    whole = np.ones(nodes, np.bool_)  # no space twice
    for e in range(low.size):
        one, other = _find(tree, low[e]), _find(tree, high[e])
        if one == other:
            continue
        fits = whole[one] and whole[other] and _disjoint(bits, one, other)
        one, other = _join(tree, bits, one, other)
        whole[one] = fits
        if fits:
            _join(family, family_bits, _find(family, low[e]), _find(family, high[e]))
    for v in range(nodes):
        family[v] = _find(family, v)
    return family


@njit(nogil=True, cache=True)
def consistent(low, high, space, first, compared, start, neighbour, words):  # type: ignore[no-untyped-def]
    """(nodes,) the root of each node's family: clusters are joined from the strongest edge down, where they agree."""
    nodes = space.size
    root, bits = np.arange(nodes), bits_of(space, words)
    following = np.full(nodes, -1, np.int64)  # the next member of a cluster; the first is its root
    last = np.arange(nodes)
    for e in range(low.size):
        one, other = _find(root, low[e]), _find(root, high[e])
        if one == other or not _disjoint(bits, one, other):
            continue
        if not _agree(one, other, following, space, first, compared, start, neighbour):
            continue
        one, other = _join(root, bits, one, other)
        following[last[one]] = other
        last[one] = last[other]
    for v in range(nodes):
        root[v] = _find(root, v)
    return root


@njit(nogil=True, cache=True)
def _agree(one, other, following, space, first, compared, start, neighbour):  # type: ignore[no-untyped-def]
    """Whether more than half of the pairs between two clusters are kept, of those whose spaces were compared, and no
    member has a partner in the space of a member of the other that is not this one."""
    possible, kept = 0, 0
    x = one
    while x >= 0:
        y = other
        while y >= 0:
            if compared[space[x], space[y]]:
                possible += 1
                if are_paired(start, neighbour, x, y):
                    kept += 1
                elif has_partner(start, neighbour, first, x, space[y]) or has_partner(
                    start, neighbour, first, y, space[x]
                ):
                    return False
            y = following[y]
        x = following[x]
    return 2 * kept > possible


@njit(nogil=True, cache=True)
def _fits(v, members, size, space, compared, start, neighbour):  # type: ignore[no-untyped-def]
    """Whether a node is paired with every member whose space its own was compared with, and is of none of theirs."""
    for i in range(size):
        m = members[i]
        if space[m] == space[v]:
            return False
        if compared[space[m], space[v]] and not are_paired(start, neighbour, v, m):
            return False
    return True


@njit(nogil=True, cache=True)
def cliques(low, high, space, compared, start, neighbour, strength):  # type: ignore[no-untyped-def]
    """(nodes,) the first member of each node's family: cliques, grown one after the other from the strongest free edge.

    The next member is the candidate that most other candidates fit, of these the one with the largest sum of r.
    """
    nodes, spaces = space.size, compared.shape[0]
    family = np.arange(nodes)
    taken = np.zeros(nodes, np.bool_)
    seen = np.full(nodes, -1, np.int64)
    members = np.empty(spaces, np.int64)
    everything = True
    for a in range(spaces):
        for b in range(spaces):
            everything = everything and (a == b or compared[a, b])
    candidates = np.empty(nodes, np.int64)
    for e in range(low.size):
        if taken[low[e]] or taken[high[e]]:
            continue
        members[0], members[1] = low[e], high[e]
        size, count = 2, 0
        for i in range(2):
            count = _gather(members[i], i == 0 or not everything, e, seen, taken, candidates, count, start, neighbour)
        while True:
            left = 0
            for c in range(count):
                v = candidates[c]
                if _fits(v, members, size, space, compared, start, neighbour):
                    candidates[left] = v
                    left += 1
            count = left
            if not count:
                break
            best, most, strongest = -1, -1, 0.0
            for c in range(count):
                v = candidates[c]
                agree, total = 0, 0.0
                for d in range(count):
                    w = candidates[d]
                    if space[w] != space[v] and (
                        not compared[space[v], space[w]] or are_paired(start, neighbour, v, w)
                    ):
                        agree += 1
                for i in range(size):
                    at = _at(start, neighbour, v, members[i])
                    if at < start[v + 1] and neighbour[at] == members[i]:
                        total += strength[at]
                if agree > most or (agree == most and (total > strongest or (total == strongest and v < best))):
                    best, most, strongest = v, agree, total
            members[size] = best
            size += 1
            if not everything:
                count = _gather(best, True, e, seen, taken, candidates, count, start, neighbour)
        for i in range(size):
            taken[members[i]] = True
            family[members[i]] = members[0]
    return family


@njit(nogil=True, cache=True)
def _gather(m, wanted, mark, seen, taken, candidates, count, start, neighbour):  # type: ignore[no-untyped-def]
    """Add m's free neighbours to the candidates, each once for an edge (`mark`)."""
    if wanted:
        for q in range(start[m], start[m + 1]):
            v = neighbour[q]
            if seen[v] != mark and not taken[v]:
                seen[v] = mark
                candidates[count] = v
                count += 1
    return count


@njit(nogil=True, cache=True)
def close_triangles(begin, member, space, compared, start, neighbour):  # type: ignore[no-untyped-def]
    """For each family, its triangles and how many of them are closed: two (families,) int64.

    A triangle is three members, every two of whose spaces were compared, with at least two pairs between them.
    """
    families = begin.size - 1
    triangles, closed = np.zeros(families, np.int64), np.zeros(families, np.int64)
    for f in range(families):
        for i in range(begin[f], begin[f + 1]):
            x = member[i]
            for j in range(i + 1, begin[f + 1]):
                y = member[j]
                if not compared[space[x], space[y]]:
                    continue
                xy = are_paired(start, neighbour, x, y)
                for k in range(j + 1, begin[f + 1]):
                    z = member[k]
                    if not (compared[space[x], space[z]] and compared[space[y], space[z]]):
                        continue
                    pairs = int(xy)
                    pairs += int(are_paired(start, neighbour, x, z)) + int(are_paired(start, neighbour, y, z))
                    triangles[f] += pairs >= 2
                    closed[f] += pairs == 3
    return triangles, closed


@njit(nogil=True, cache=True)
def walks(space, first, compared, start, partner, paired):  # type: ignore[no-untyped-def]
    """Walks from a feature to its partner in a second space, from there into a third, and back into its own.

    Args:
        start, partner: as `Graph.start` and `Graph.neighbour`, with only the strongest partner in each space.
        paired: (spaces, spaces) int64, `paired[a, c]` features of a that have a partner in c.

    Returns:
        made, home (int64) and chance (float64), each (spaces, spaces, spaces); only [i, j, k] with i < j < k are used.
        `chance` sums the probabilities of coming home if the last step went to a random feature of the space that has
        a partner there.
    """
    spaces = compared.shape[0]
    made = np.zeros((spaces, spaces, spaces), np.int64)
    home = np.zeros((spaces, spaces, spaces), np.int64)
    chance = np.zeros((spaces, spaces, spaces))
    for a in range(space.size):
        for p in range(start[a], start[a + 1]):
            b = partner[p]
            for q in range(start[b], start[b + 1]):
                c = partner[q]
                if space[a] == space[c] or not compared[space[a], space[c]]:
                    continue
                back = _at(start, partner, c, first[space[a]])
                if back == start[c + 1] or partner[back] >= first[space[a] + 1]:
                    continue
                i, j, k = sorted3(space[a], space[b], space[c])
                made[i, j, k] += 1
                home[i, j, k] += partner[back] == a
                if has_partner(start, partner, first, a, space[c]):
                    chance[i, j, k] += 1.0 / paired[space[a], space[c]]
    return made, home, chance


@njit(nogil=True, cache=True)
def sorted3(a, b, c):  # type: ignore[no-untyped-def]
    if a > b:
        a, b = b, a
    if b > c:
        b, c = c, b
    if a > b:
        a, b = b, a
    return a, b, c
