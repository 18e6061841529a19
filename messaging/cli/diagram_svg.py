"""A diagram as SVG: a column a layer, from the producer to the dead letters, and lines between them."""

from __future__ import annotations

from html import escape

from messaging.cli.diagram import Diagram, Node

_CHARACTER = 7.8
"""Pixels of one character of the 13 pixel monospaced font."""
_PADDING, _HEIGHT, _GAP, _LINE = 14, 34, 18, 13
_BEND = 60
_INK = "#475569"
_FILLS = {"topic": "#dbeafe", "queue": "#dcfce7", "dead letters": "#fee2e2"}
_STROKES = {"topic": "#2563eb", "queue": "#16a34a", "dead letters": "#dc2626"}
_HEADINGS = {"topic": "topics", "queue": "queues and subscriptions", "dead letters": "dead letters"}


def svg(diagram: Diagram) -> str:
    """A picture of its own, without scripts, fonts or styles from elsewhere."""
    columns = _columns(diagram)
    labels = {edge.label for edge in diagram.edges}
    between = _BEND + max((_width(label) for label in labels), default=0.0)
    left: dict[int, float] = {}
    widths: dict[int, float] = {}
    x = float(_PADDING)
    for layer, nodes in columns.items():
        left[layer] = x
        widths[layer] = max(_width(text) for text in (*(n.label for n in nodes), _HEADINGS[nodes[0].shape]))
        x += widths[layer] + between
    total = x - between + _PADDING if columns else 2.0 * _PADDING
    rows = _rows(diagram)
    bottom = _PADDING * 2 + _LINE + (max(rows.values(), default=0) + 1) * (_HEIGHT + _GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total:.0f}" height="{bottom:.0f}" '
        f'viewBox="0 0 {total:.0f} {bottom:.0f}" font-family="monospace" font-size="{_LINE}">',
        f'<rect width="{total:.0f}" height="{bottom:.0f}" fill="#ffffff"/>',
    ]
    for layer, nodes in columns.items():
        lines.append(
            f'<text x="{left[layer]:.1f}" y="{_PADDING + _LINE}" fill="#64748b">{_HEADINGS[nodes[0].shape]}</text>'
        )
    by_name = {node.name: node for node in diagram.nodes}
    for edge in diagram.edges:
        start, end = by_name[edge.start], by_name[edge.end]
        x1, x2 = left[start.layer] + widths[start.layer], left[end.layer]
        y1, y2 = _middle(rows[start.name]), _middle(rows[end.name])
        # Bent before the label begins, so that no other line runs through it.
        lines.append(
            f'<path d="M{x1:.1f} {y1:.1f} c{_BEND / 2:.1f} 0 {_BEND / 2:.1f} {y2 - y1:.1f} {_BEND} {y2 - y1:.1f} '
            f'H{x2 - 6:.1f}" fill="none" stroke="{_INK}"/>'
            f'<path d="M{x2 - 8:.1f} {y2 - 4:.1f} l8 4 l-8 4 z" fill="{_INK}"/>'
        )
        if edge.label:
            lines.append(
                f'<text x="{x2 - 12:.1f}" y="{y2 - 6:.1f}" text-anchor="end" fill="{_INK}">{escape(edge.label)}</text>'
            )
    for layer, nodes in columns.items():
        for node in nodes:
            lines.append(_box(node, left[layer], widths[layer], rows[node.name]))
    return "\n".join([*lines, "</svg>"]) + "\n"


def _columns(diagram: Diagram) -> dict[int, list[Node]]:
    columns: dict[int, list[Node]] = {}
    for node in sorted(diagram.nodes, key=lambda node: node.layer):
        columns.setdefault(node.layer, []).append(node)
    return columns


def _rows(diagram: Diagram) -> dict[str, float]:
    """A row for each source, its dead letters in the same one, and a topic in the middle of its subscriptions."""
    rows: dict[str, float] = {}
    sources = {edge.end: edge.start for edge in diagram.edges}
    below = 0
    for node in diagram.nodes:
        if node.layer == 2 and rows.get(sources.get(node.name, "")) is not None:
            rows[node.name] = rows[sources[node.name]]
        elif node.layer > 0 or not any(edge.start == node.name for edge in diagram.edges):
            rows[node.name] = float(below)
            below += 1
    for node in diagram.nodes:
        if node.name not in rows:
            ends = [rows[edge.end] for edge in diagram.edges if edge.start == node.name]
            rows[node.name] = (min(ends) + max(ends)) / 2
    return rows


def _middle(row: float) -> float:
    return _PADDING * 2 + _LINE + row * (_HEIGHT + _GAP) + _HEIGHT / 2


def _box(node: Node, x: float, width: float, row: float) -> str:
    y = _middle(row)
    return (
        f'<rect x="{x:.1f}" y="{y - _HEIGHT / 2:.1f}" width="{width:.1f}" height="{_HEIGHT}" rx="6" '
        f'fill="{_FILLS[node.shape]}" stroke="{_STROKES[node.shape]}"/>'
        f'<text x="{x + width / 2:.1f}" y="{y + _LINE / 3:.1f}" text-anchor="middle" fill="#0f172a">'
        f"{escape(node.label)}</text>"
    )


def _width(text: str) -> float:
    return len(text) * _CHARACTER + 2 * _PADDING
