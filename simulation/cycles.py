"""Cycles of directed graphs: where they are (Tarjan), and a short one to show.

Pure functions on graphs given as successors by node. Nodes are numbers; the order of results
follows from the order of the graph alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

Graph = Mapping[int, Iterable[int]]


def strongly_connected(graph: Graph) -> list[list[int]]:
    """The components of more than one node (Tarjan, "Depth-first search", 1972), iteratively."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for root in graph:
        if root in order:
            continue
        work: list[tuple[int, Iterator[int]]] = []
        _enter(root, graph, order, lowest, stack, on_stack, work)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in order:
                    _enter(successor, graph, order, lowest, stack, on_stack, work)
                    break
                if successor in on_stack:
                    lowest[node] = min(lowest[node], order[successor])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[node])
                if lowest[node] == order[node]:
                    component = _popped(node, stack, on_stack)
                    if len(component) > 1:
                        found.append(sorted(component))
    return found


def _enter(
    node: int,
    graph: Graph,
    order: dict[int, int],
    lowest: dict[int, int],
    stack: list[int],
    on_stack: set[int],
    work: list[tuple[int, Iterator[int]]],
) -> None:
    order[node] = lowest[node] = len(order)
    stack.append(node)
    on_stack.add(node)
    work.append((node, iter(graph.get(node, ()))))


def _popped(node: int, stack: list[int], on_stack: set[int]) -> list[int]:
    """The component whose first node is ``node``: everything above it on the stack."""
    component = []
    while True:
        member = stack.pop()
        on_stack.discard(member)
        component.append(member)
        if member == node:
            return component


def shortest_path(graph: Graph, source: int, target: int) -> list[int] | None:
    """Nodes from ``source`` to ``target``, both included; None if there is no way."""
    came_from = {source: source}
    queue = deque([source])
    while queue:
        node = queue.popleft()
        if node == target:
            path = [node]
            while node != source:
                node = came_from[node]
                path.append(node)
            return path[::-1]
        for successor in graph.get(node, ()):
            if successor not in came_from:
                came_from[successor] = node
                queue.append(successor)
    return None


def shortest_cycle(graph: Graph) -> list[int] | None:
    """The nodes of a cycle of least length, each once; None if there is no cycle."""
    best: list[int] | None = None
    for component in strongly_connected(graph):
        members = set(component)
        inside = {node: [to for to in graph.get(node, ()) if to in members] for node in component}
        for node in component:
            for successor in inside[node]:
                path = shortest_path(inside, successor, node)
                if path is not None and (best is None or len(path) < len(best)):
                    best = path
                    if len(best) == 2:
                        return best
    return best
