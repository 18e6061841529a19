"""A topology as a graph, and the graph as text: Mermaid, DOT, a tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich.markup import escape
from rich.tree import Tree

from messaging.patterns import MATCH_ALL
from messaging.topology import Queue, Source, Topic, Topology, sources_of

Shape = Literal["topic", "queue", "dead letters"]


@dataclass(frozen=True)
class Node:
    """layer: how many steps from the producer, for the layout."""

    name: str
    shape: Shape
    layer: int
    label: str


@dataclass(frozen=True)
class Edge:
    """By the names of its nodes."""

    start: str
    end: str
    label: str


@dataclass(frozen=True)
class Diagram:
    """Nodes from left to right; a node's name is unique."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def diagram_of(topology: Topology) -> Diagram:
    """Topics, the queues behind subscriptions, queues, and dead-letter queues."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for destination in topology:
        if isinstance(destination, Topic):
            node = Node(destination.name, "topic", 0, _label(destination.name, destination.ordered))
            nodes.setdefault(destination.name, node)
        for source in sources_of(destination):
            # A dead-letter queue that is declared for itself stays the one behind its source.
            node = Node(source.name, "queue", 1, _label(_short(source), source.ordered))
            if nodes.get(source.name) is None:
                nodes[source.name] = node
            if source.subscription is not None:
                label = "" if source.pattern == MATCH_ALL else printable(source.pattern)
                edges.append(Edge(destination.name, source.name, label))
            dead = source.dead_letter
            if dead is not None:
                nodes[dead.name] = Node(dead.name, "dead letters", 2, _label(dead.name, dead.ordered))
                edges.append(Edge(source.name, dead.name, "rejected"))
    return Diagram(tuple(nodes.values()), tuple(edges))


def _short(source: Source) -> str:
    return source.name if source.subscription is None else source.subscription.group


def printable(text: str) -> str:
    """Without what a terminal would obey and XML cannot hold: a pattern may be any text."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _label(name: str, ordered: bool) -> str:
    return f"{name} (ordered)" if ordered else name


def mermaid(diagram: Diagram) -> str:
    """A flowchart, from left to right."""
    ids = {node.name: f"n{number}" for number, node in enumerate(diagram.nodes)}
    shapes = {"topic": ('{{"', '"}}'), "queue": ('[("', '")]'), "dead letters": ('[/"', '"/]')}
    lines = ["flowchart LR"]
    for node in diagram.nodes:
        start, end = shapes[node.shape]
        lines.append(f"    {ids[node.name]}{start}{_entities(node.label)}{end}")
    for edge in diagram.edges:
        arrow = f'-->|"{_entities(edge.label)}"|' if edge.label else "-->"
        lines.append(f"    {ids[edge.start]} {arrow} {ids[edge.end]}")
    return "\n".join(lines) + "\n"


def _entities(text: str) -> str:
    """Everything that Mermaid could take for its own, as the codes that it has for it."""
    return "".join(c if c.isalnum() or c in " .-_()" else f"#{ord(c)};" for c in text)


def dot(diagram: Diagram) -> str:
    """For Graphviz."""
    shapes = {"topic": "hexagon", "queue": "cylinder", "dead letters": "note"}
    lines = ["digraph topology {", "    rankdir=LR;"]
    for node in diagram.nodes:
        lines.append(f"    {_quoted(node.name)} [label={_quoted(node.label)}, shape={shapes[node.shape]}];")
    for edge in diagram.edges:
        label = f" [label={_quoted(edge.label)}]" if edge.label else ""
        lines.append(f"    {_quoted(edge.start)} -> {_quoted(edge.end)}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def diagram_tree(title: str, topology: Topology) -> Tree:
    """For a terminal."""
    tree = Tree(escape(title))
    for destination in topology:
        if isinstance(destination, Queue):
            node = tree.add(f"[bold]queue[/] {escape(_label(destination.name, destination.ordered))}")
            _add_dead_letters(node, Source(destination))
            continue
        node = tree.add(f"[bold]topic[/] {escape(_label(destination.name, destination.ordered))}")
        for source in sources_of(destination):
            takes = "everything" if source.pattern == MATCH_ALL else printable(source.pattern)
            branch = node.add(f"[bold]group[/] {escape(_short(source))}: {escape(takes)}")
            _add_dead_letters(branch, source)
    return tree


def _add_dead_letters(node: Tree, source: Source) -> None:
    dead = source.dead_letter
    node.add(f"rejected: {escape(dead.name)}" if dead is not None else "[yellow]rejected: discarded[/]")
