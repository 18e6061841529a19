"""Throughput over time with the faults marked, as one SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from messaging_contract.soak.run import Result, Sample

_WIDTH, _HEIGHT = 1200, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 110, 50
_COLOURS = {
    "cut": "#d62728",
    "blackhole": "#4a4a4a",
    "delay": "#c5a000",
    "throttle": "#8c564b",
    "pause": "#17a2b8",
    "restart": "#9467bd",
    "kill": "#e377c2",
    "alarm": "#ff7f0e",
    "clock": "#7f9f00",
    "kill-consumer": "#bb2277",
    "close-consumer": "#6699cc",
}
_LINES = (("confirmed", "#1f77b4"), ("received", "#2ca02c"))


def svg(result: Result) -> str:
    """The chart: messages confirmed and deliveries received a second, and a band a fault."""
    points = rates(result.samples)
    length = max([result.samples[-1].at if result.samples else 0.0, *(each.end or 0.0 for each in result.faults), 1.0])
    top = max([rate for point in points for rate in point[1:]], default=1.0) * 1.05 or 1.0

    def x(at: float) -> float:
        return round(_LEFT + at / length * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(rate: float) -> float:
        return round(_HEIGHT - _BOTTOM - rate / top * (_HEIGHT - _TOP - _BOTTOM), 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="16">{escape(_title(result))}</text>',
    ]
    for each in result.faults:
        colour = _COLOURS[each.fault.kind]
        width = max(x(length if each.end is None else each.end) - x(each.start), 2.0)
        out.append(
            f'<rect x="{x(each.start)}" y="{_TOP}" width="{width:.1f}" height="{_HEIGHT - _TOP - _BOTTOM}" '
            f'fill="{colour}" fill-opacity="0.3"><title>{each.start:.1f} s: {escape(str(each.fault))}</title></rect>'
        )
    out += _axes(x, y, length, top)
    for column, (_, colour) in enumerate(_LINES, 1):
        path = " ".join(f"{x(point[0])},{y(point[column])}" for point in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    out += _legend(result)
    out.append("</svg>")
    return "\n".join(out) + "\n"


def rates(samples: Sequence[Sample]) -> list[tuple[float, float, float]]:
    """(at, confirmed a second, received a second) from one sample to the next, of at most about 600 steps."""
    step = max(len(samples) // 600, 1)
    kept = list(samples[::step])
    return [
        (b.at, (b.confirmed - a.confirmed) / (b.at - a.at), (b.received - a.received) / (b.at - a.at))
        for a, b in pairwise(kept)
        if b.at > a.at
    ]


def _title(result: Result) -> str:
    lost = sum(balance.lost for balance in result.balances)
    return f"{result.broker}, seed {result.plan.seed}: {result.confirmed:,} messages confirmed, {lost:,} lost"


def _axes(x: object, y: object, length: float, top: float) -> list[str]:
    assert callable(x)
    assert callable(y)
    out = []
    for part in range(5):
        rate = top * part / 4
        out.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(rate)}" y2="{y(rate)}" stroke="#ddd"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y(rate) + 4}" text-anchor="end">{rate:,.0f}/s</text>')
    for part in range(11):
        at = length * part / 10
        out.append(f'<text x="{x(at)}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{at:,.0f} s</text>')
    return out


def _legend(result: Result) -> list[str]:
    entries = [(f"{name} a second", colour) for name, colour in _LINES]
    entries += [(kind, _COLOURS[kind]) for kind in sorted({each.fault.kind for each in result.faults})]
    out, at = [], _LEFT
    row = 46
    for text, colour in entries:
        width = 30 + 7 * len(text)
        if at + width > _WIDTH - _RIGHT:
            at, row = _LEFT, row + 20
        out.append(f'<rect x="{at}" y="{row}" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{at + 17}" y="{row + 11}">{escape(text)}</text>')
        at += width
    return out
