"""Two runs drawn one over the other, as SVG and in the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 60
_WIDTH, _HEIGHT = 900, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 40, 30
_COLOURS = ("#d62728", "#1f77b4")


@dataclass(frozen=True)
class Sample:
    """at: seconds since the start. backlog: messages. memory: bytes more than at the start."""

    at: float
    backlog: int
    memory: int


@dataclass(frozen=True)
class Run:
    """held: seconds that the producer was held."""

    name: str
    samples: list[Sample]
    held: float

    @property
    def seconds(self) -> float:
        return self.samples[-1].at if self.samples else 0.0

    def most(self, value: Callable[[Sample], float]) -> float:
        return max(map(value, self.samples), default=0.0)


def _backlog(sample: Sample) -> float:
    return sample.backlog


def _megabytes(sample: Sample) -> float:
    return sample.memory / 1e6


_PANELS: Sequence[tuple[str, str, Callable[[Sample], float]]] = (
    ("backlog", "messages", _backlog),
    ("memory", "MB more", _megabytes),
)


def lines(runs: Sequence[Run]) -> list[str]:
    """A line a run and panel; all on the same scale of time, and each panel on its own of height."""
    length = max(run.seconds for run in runs) or 1.0
    out = []
    for title, unit, value in _PANELS:
        top = max(run.most(value) for run in runs) or 1.0
        for run in runs:
            bars, seen = [0.0] * _COLUMNS, -1
            for sample in run.samples:
                column = min(int(sample.at / length * _COLUMNS), _COLUMNS - 1)
                for missed in range(seen + 1, column):  # nobody looked then
                    bars[missed] = bars[seen] if seen >= 0 else 0.0
                bars[column] = max(bars[column], value(sample))
                seen = column
            drawn = "".join(_BARS[round(bar / top * (len(_BARS) - 1))] for bar in bars)
            out.append(f"{title:8}{run.name:18} |{drawn}| most {run.most(value):,.0f} {unit}")
    return [*out, *(f"{run.name}: {run.seconds:.1f} s, the producer held for {run.held:.1f} s" for run in runs)]


def svg(runs: Sequence[Run], high: int, low: int) -> str:
    """Backlog above, with both marks, and memory below."""
    length = max(run.seconds for run in runs) or 1.0
    height = _HEIGHT * len(_PANELS)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{height}" fill="white"/>'
    ]
    for number, (title, unit, value) in enumerate(_PANELS):
        top = max(run.most(value) for run in runs) * 1.05 or 1.0
        floor = (number + 1) * _HEIGHT - _BOTTOM

        def x(at: float) -> float:
            return round(_LEFT + at / length * (_WIDTH - _LEFT - _RIGHT), 1)

        def y(of: float, floor: float = floor, top: float = top) -> float:
            return round(floor - of / top * (_HEIGHT - _TOP - _BOTTOM), 1)

        def line(of: float, text: str, dash: str, y: Callable[[float], float] = y) -> str:
            return (
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(of)}" y2="{y(of)}" stroke="#aaa" '
                f'stroke-dasharray="{dash}"/><text x="{_LEFT - 6}" y="{y(of) + 4}" text-anchor="end">{text}</text>'
            )

        out.append(f'<text x="{_LEFT}" y="{number * _HEIGHT + 24}" font-size="14">{title} ({unit})</text>')
        out += [line(0, "0", "0"), line(top, f"{top:,.0f}", "0")]
        if not number:
            out += [line(high, f"high {high:,}", "5"), line(low, f"low {low:,}", "5")]
        for place, (run, colour) in enumerate(zip(runs, _COLOURS, strict=True)):
            path = " ".join(f"{x(sample.at)},{y(value(sample))}" for sample in run.samples)
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            at = (_WIDTH - 360 + 180 * place, number * _HEIGHT + 24)
            out.append(f'<text x="{at[0]}" y="{at[1]}" fill="{colour}">{escape(run.name)}</text>')
        out.append(f'<text x="{x(length)}" y="{floor + 18}" text-anchor="end">{length:.1f} s</text>')
    return "\n".join([*out, "</svg>"]) + "\n"
