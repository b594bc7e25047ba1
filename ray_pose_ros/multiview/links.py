"""How matches join views: which views stand and fall together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .residuals import LIMIT
from .two_view import RayMatches, agreement_nats


def pair_support(
    R: np.ndarray, t: np.ndarray, matches: dict[tuple[int, int], RayMatches]
) -> np.ndarray:
    """(N, N) symmetric: nats by which the matches of each two views agree with cameras R, t."""
    support = np.zeros((len(R), len(R)))
    for (i, j), m in matches.items():
        relative = R[j] @ R[i].T
        move = t[j] - relative @ t[i]
        move = move / max(np.linalg.norm(move), 1e-9)
        support[i, j] = support[j, i] = agreement_nats(relative, move, m, LIMIT)
    return support


def weakest_links(links: np.ndarray) -> np.ndarray:
    """(N,) of links (N, N), the weakest on the strongest way to view 0; for 0, its best one."""
    best = links[0].copy()
    best[0] = np.inf
    for _ in range(len(links)):
        best = np.maximum(best, np.minimum(best[:, None], links).max(0))
    best[0] = links[0].max()
    return best


def other_ways(links: np.ndarray) -> np.ndarray:
    """(N, N) of links (N, N), the weakest on the strongest way between two views that does not use
    the link of the two."""
    ways = links.copy()
    for k in range(len(links)):
        ways = np.maximum(ways, np.minimum(ways[:, k, None], ways[None, k]))
    # Only of the tree of the strongest links that way may be their own link. Of the others that
    # join what its cut would part, none is stronger than any of the tree on its way round.
    for (i, j), part in _cuts(links):
        across = np.where(part[:, None] != part, links, -np.inf)
        across[i, j] = across[j, i] = -np.inf
        ways[i, j] = ways[j, i] = across.max()
    return ways


def groups(links: np.ndarray) -> list[np.ndarray]:
    """Masks (N,) of views that may be wrong together, none twice and none with its complement.

    They are what comes off when an edge of the tree of the strongest links (N, N) is cut, and each
    view alone. View 0 is in none of them, unless it is the one that is alone.
    """
    found = {}
    for _, part in _cuts(links):
        found[tuple(part != part[0])] = None
    for view in range(len(links)):
        alone = np.arange(len(links)) == view
        if tuple(~alone) not in found:
            found[tuple(alone)] = None
    return [np.array(mask) for mask in found]


def _cuts(links: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Each edge of the tree of the strongest links, and the parts (N,) that it alone joins."""
    tree = _strongest_tree(links)
    for n, edge in enumerate(tree):
        yield edge, parts(len(links), tree[:n] + tree[n + 1 :])


def _strongest_tree(links: np.ndarray) -> list[tuple[int, int]]:
    """Edges that join all views, the sum of their links as large as can be (Kruskal)."""
    tree = []
    part = np.arange(len(links))
    i, j = np.triu_indices(len(links), 1)
    for k in np.argsort(-links[i, j], kind='stable'):
        if part[i[k]] != part[j[k]]:
            part[part == part[j[k]]] = part[i[k]]
            tree.append((int(i[k]), int(j[k])))
    return tree


def parts(count: int, edges: Iterable[tuple[int, int]]) -> np.ndarray:
    """(N,) the number of the part that each of so many views is in, which edges (i, j) join."""
    part = np.arange(count)
    for i, j in edges:
        part[part == part[j]] = part[i]
    return part
