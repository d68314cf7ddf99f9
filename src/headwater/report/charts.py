"""Charts as SVG text: pure functions from numbers to markup. Colours are the page's business, by class names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Number = int | float
COLOURS = 10  # classes beyond this many share colours


@dataclass(frozen=True)
class Point:
    """A mean at position `x` with its interval, and what to say about it."""

    x: int
    mean: Number
    low: Number
    high: Number
    note: str


@dataclass(frozen=True)
class Series:
    name: str
    points: list[Point]
    main: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Curve:
    """One small chart over steps. `reference` is a level to compare with: (its name, its value)."""

    title: str
    steps: list[Number]
    values: list[Number]
    unit: str = ""
    reference: tuple[str, Number] | None = None
    logarithmic: bool = False
    sparse: bool = False  # measured now and then: the points are marked


def ticks(low: Number, high: Number, most: int = 5) -> list[Number]:
    """Round numbers between `low` and `high`, at most about `most` of them."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: Number) -> str:
    """Three digits that matter: 12,345 -> '12.3k', 0.00123 -> '0.00123', 1e-6 -> '1e-06'."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if size >= 1e-4 or value == 0 else f"{value:.1e}"


def budget_chart(series: Sequence[Series], positions: Sequence[str], axis: str, percent: bool) -> Markup:
    """Means with their intervals over label budgets, one line per series, each named at its end."""
    right = min(340, max(150, 46 + round(8.4 * max(len(s.name) for s in series))))  # room for the longest name
    width, height, left, top, bottom = 800, 380, 54, 14, 46
    scale = 100 if percent else 1
    shown = [p for s in series for p in s.points]
    low, high = scale * min(p.low for p in shown), scale * max(p.high for p in shown)
    margin = 0.06 * (high - low) or 0.05 * scale
    low, high = low - margin, high + margin
    if percent:
        low, high = max(0.0, low), min(100.0, high)
    marks = ticks(low, high, 6)
    y = _Axis(low, high, height - bottom, top)
    pad = 34
    slot = (width - left - right - 2 * pad) / max(1, len(positions) - 1)
    parts = [Markup('<g class="grid">')]
    for m in marks:
        text = f"{m:g}" + (" %" if percent and m == marks[-1] else "")
        parts.append(markup('<line x1="{}" x2="{}" y1="{}" y2="{}"/>', left, width - right, number(y(m)), number(y(m))))
        parts.append(markup('<text x="{}" y="{}" text-anchor="end">{}</text>', left - 8, number(y(m) + 4.5), text))
    for i, position in enumerate(positions):
        x = left + pad + i * slot
        parts.append(
            markup('<text x="{}" y="{}" text-anchor="middle">{}</text>', number(x), height - bottom + 22, position)
        )
    middle = left + (width - left - right) / 2
    parts.append(
        markup('<text x="{}" y="{}" text-anchor="middle" class="axis">{}</text></g>', number(middle), height - 4, axis)
    )
    ends = _spread([y(scale * s.points[-1].mean) for s in series], 20, top, height - bottom + 4)
    for i, s in sorted(enumerate(series), key=lambda pair: pair[1].main):
        nudge = 6 * (i - (len(series) - 1) / 2)  # so that intervals at one budget stand beside each other
        at = [(left + pad + p.x * slot + nudge, p) for p in s.points]
        kind = " ".join(["series", "main" if s.main else "other", *(["dashed"] if s.dashed else [])])
        parts.append(markup('<g class="{}"><title>{}</title>', kind, s.name))
        if s.main and len(at) > 1:
            edge = [(x, y(scale * p.high)) for x, p in at] + [(x, y(scale * p.low)) for x, p in reversed(at)]
            parts.append(markup('<path class="band" d="{}Z"/>', _path(edge)))
        parts.append(markup('<path class="line" d="{}"/>', _path([(x, y(scale * p.mean)) for x, p in at])))
        for x, p in at:
            whisker = (number(x), number(x), number(y(scale * p.low)), number(y(scale * p.high)))
            parts.append(markup('<line class="whisker" x1="{}" x2="{}" y1="{}" y2="{}"/>', *whisker))
            parts.append(
                markup(
                    '<circle cx="{}" cy="{}" r="{}"><title>{}</title></circle>',
                    *(number(x), number(y(scale * p.mean)), "4.5" if s.main else "3.2", p.note),
                )
            )
        x, end = at[-1][0], y(scale * s.points[-1].mean)
        start, stop = (x + 7, end), (width - right + 18, ends[i])
        parts.append(markup('<path class="leader" d="{}"/>', _path([start, stop])))
        parts.append(markup('<text x="{}" y="{}">{}</text></g>', width - right + 23, number(ends[i] + 4.5), s.name))
    return svg(width, height, f"{axis}: " + ", ".join(s.name for s in series), parts)


def curve_chart(curve: Curve, events: Sequence[tuple[Number, str]] = ()) -> Markup:
    """A small chart with its last value written at its end; events are thin upright lines."""
    width, height, left, right, top, bottom = 300, 170, 42, 50, 34, 22
    kept = [(s, v) for s, v in zip(curve.steps, curve.values, strict=True) if math.isfinite(v)]
    logarithmic = curve.logarithmic and min(v for _, v in kept) > 0
    inside = [v for _, v in kept] + ([curve.reference[1]] if curve.reference else [])
    low, high = min(inside), max(inside)
    if not logarithmic and 0 <= low < 0.35 * high:
        low = 0.0
    if high <= low:
        low, high = low - 0.05 * abs(low or 1), high + 0.05 * abs(high or 1)
    first, last = kept[0][0], max(kept[-1][0], kept[0][0] + 1)
    y = _Axis(low, high, height - bottom, top, logarithmic)
    x = _Axis(first, last, left, width - right)
    parts = [markup('<text class="title" x="0" y="14">{}</text><g class="grid">', curve.title)]
    for m in _decades(low, high) if logarithmic else ticks(low, high, 3):
        parts.append(markup('<line x1="{}" x2="{}" y1="{}" y2="{}"/>', left, width - right, number(y(m)), number(y(m))))
        parts.append(markup('<text x="{}" y="{}" text-anchor="end">{}</text>', left - 6, number(y(m) + 4), short(m)))
    for value, anchor in ((first, "start"), (last, "end")):
        text = f"step {value:,.0f}" if anchor == "end" else f"{value:,.0f}"
        parts.append(
            markup('<text x="{}" y="{}" text-anchor="{}">{}</text>', number(x(value)), height - 4, anchor, text),
        )
    parts.append(Markup("</g>"))
    for at, text in events:
        if first <= at <= last:
            parts.append(
                markup(
                    '<path class="event" d="M{} {}V{}"><title>{}</title></path>',
                    *(number(x(at)), top, height - bottom, f"step {at:,.0f}: {text}"),
                )
            )
    if curve.reference:
        name, level = curve.reference
        near = y(level) - 5 if y(level) - 5 > top - 8 else y(level) + 13
        parts.append(markup('<path class="reference" d="M{} {}H{}"/>', left, number(y(level)), width - right))
        parts.append(
            markup(
                '<text class="reference" x="{}" y="{}" text-anchor="end">{}</text>', width - right, number(near), name
            )
        )
    line = [(x(s), y(v)) for s, v in _thinned(kept)]
    parts.append(markup('<path class="line" d="{}"/>', _path(line)))
    dots = line if curve.sparse and len(line) <= 40 else line[-1:]
    parts += [markup('<circle cx="{}" cy="{}" r="2.5"/>', number(a), number(b)) for a, b in dots]
    end = short(kept[-1][1]) + curve.unit
    parts.append(
        markup('<text class="end" x="{}" y="{}">{}</text>', number(line[-1][0] + 6), number(line[-1][1] + 4), end)
    )
    return svg(width, height, f"{curve.title}, last {end}", parts, "curve")


def dots_chart(x: Sequence[Number], y: Sequence[Number], labels: Sequence[int] | None) -> Markup:
    """The map without its pictures: one dot per sample, one path per colour."""
    width, pad = 1000, 12
    height = round(max(y) * (width - 2 * pad)) + 2 * pad
    strokes: dict[int, list[str]] = {}
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        group = -1 if labels is None or labels[i] < 0 else labels[i] % COLOURS
        strokes.setdefault(group, []).append(f"M{pad + a * (width - 2 * pad):.1f} {pad + b * (width - 2 * pad):.1f}h0")
    parts = [
        markup('<path class="dots c{}" d="{}"/>', g if g >= 0 else "none", "".join(strokes[g])) for g in sorted(strokes)
    ]
    return svg(width, height, f"map of {len(x)} samples", parts)


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high` onto positions from `start` to `stop`."""

    low: Number
    high: Number
    start: Number
    stop: Number
    logarithmic: bool = False

    def __call__(self, value: Number) -> Number:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.stop - self.start)


def _spread(wanted: Sequence[Number], gap: Number, low: Number, high: Number) -> list[Number]:
    """Positions near the wanted ones, in the same order, at least `gap` apart, inside [low, high] if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + gap
    ceiling = max(high, low + gap * (len(wanted) - 1))
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def _decades(low: Number, high: Number) -> list[Number]:
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    marks = [10.0**p for p in powers]
    return marks[:: max(1, math.ceil(len(marks) / 4))] if len(marks) > 1 else [low, high]


def _thinned(points: list[tuple[Number, Number]], most: int = 240) -> list[tuple[Number, Number]]:
    """Of each stretch of a long curve its lowest and highest point, so that no spike is lost."""
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _path(points: Sequence[tuple[Number, Number]]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def number(value: Number) -> str:
    return f"{value:.1f}".removesuffix(".0")


def markup(template: str, *values: object) -> Markup:
    return Markup(template).format(*values)


def svg(width: int, height: int, label: str, parts: Sequence[Markup], kind: str = "chart") -> Markup:
    opening = markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">', kind, width, height, escape(label)
    )
    return opening + Markup("").join(parts) + Markup("</svg>")
