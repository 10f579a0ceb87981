"""Plots as inline SVG, each with its numbers as a table, coloured by the page's style sheet."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 38
_INNER_WIDTH, _INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


@dataclass(frozen=True)
class Axes:
    """Where numbers lie on the paper: x in [0, x_max], y in [0, y_max]."""

    x_max: float
    y_max: float
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_min: float = 0.0

    def x(self, value: float) -> float:
        """Pixels from the left."""
        return LEFT + (value - self.x_min) / (self.x_max - self.x_min or 1) * _INNER_WIDTH

    def y(self, value: float) -> float:
        """Pixels from the top."""
        return TOP + (1 - value / (self.y_max or 1)) * _INNER_HEIGHT

    def svg(self) -> str:
        """Lines, ticks and labels."""
        bottom = TOP + _INNER_HEIGHT
        parts = [
            f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}"/>',
        ]
        for value, words in self.y_ticks:
            at = self.y(value)
            parts.append(
                f'<line class="axis" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>'
                f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">'
                f"{html.escape(words)}</text>"
            )
        parts += [
            f'<text x="{self.x(value):.1f}" y="{bottom + 16}" text-anchor="middle">'
            f"{html.escape(words)}</text>"
            for value, words in self.x_ticks
        ]
        parts.append(
            f'<text x="{LEFT + _INNER_WIDTH / 2}" y="{HEIGHT - 5}" text-anchor="middle">'
            f"{html.escape(self.x_label)}</text>"
            f'<text x="12" y="{TOP + _INNER_HEIGHT / 2}" text-anchor="middle" '
            f'transform="rotate(-90 12 {TOP + _INNER_HEIGHT / 2})">'
            f"{html.escape(self.y_label)}</text>"
        )
        return "".join(parts)


def figure(
    title: str,
    summary: str,
    drawing: str,
    rows: Sequence[Sequence[str]],
    legend: Sequence[str] = (),
) -> str:
    """A card: title, plot (with its summary for those who cannot see it), numbers.

    Args:
        title: heading.
        summary: one sentence.
        drawing: the inside of an SVG of `WIDTH` x `HEIGHT`.
        rows: the numbers, the first row being the headings.
        legend: names of what is drawn in the first, second, ... colour.
    """
    head, *body = rows
    heads = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    cells = "".join(
        "<tr>"
        + f'<th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in body
    )
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>{_legend(legend) if legend else ''}"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(summary)}">'
        f"{drawing}</svg>"
        f"<details><summary>Numbers</summary><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{cells}</tbody></table></details></figure>"
    )


_SHARES = tuple((k / 4, f"{k / 4:.2f}") for k in range(5))


def histogram(groups: Mapping[str, Sequence[int]], title: str, x_label: str) -> str:
    """Stacked bars of counts over [0, 1].

    Args:
        groups: by name, counts of bins of equal width; stacked in this order. At most five.
        title: heading.
        x_label: what is counted.
    """
    bins = len(next(iter(groups.values())))
    tallest = max(sum(counts[k] for counts in groups.values()) for k in range(bins)) or 1
    top, ticks = nice_ticks(tallest)
    axes = Axes(1.0, top, x_label, "steps", _SHARES, ticks)
    parts = [axes.svg()]
    base = [0] * bins
    for number, counts in enumerate(groups.values(), start=1):
        for k, count in enumerate(counts):
            left, right = axes.x(k / bins) + 0.8, axes.x((k + 1) / bins) - 0.8
            high, low = axes.y(base[k] + count), axes.y(base[k])
            base[k] += count
            parts.append(
                f'<rect class="{_fill(number, groups)}" x="{left:.1f}" y="{high:.1f}" '
                f'width="{right - left:.1f}" height="{low - high:.1f}"/>'
            )
    head = ["from", *groups]
    rows = [
        [f"{k / bins:.2f}", *(f"{counts[k]:,}" for counts in groups.values())] for k in range(bins)
    ]
    total = sum(sum(counts) for counts in groups.values())
    legend = list(groups) if len(groups) > 1 else []
    return figure(title, f"{title}: {total:,} steps.", "".join(parts), [head, *rows], legend)


def _fill(number: int, groups: Mapping[str, Sequence[int]]) -> str:
    return "f3" if len(groups) == 1 else f"f{number}"


def position_plot(means: Sequence[float], counts: Sequence[int]) -> str:
    """Mean step probability by the step's position, with how many steps each mean is over."""
    last = max(2, len(means))
    every = 1 if last <= 10 else 2 if last <= 20 else 5
    ticks = tuple((k, str(k)) for k in range(1, last + 1) if k == 1 or k % every == 0)
    axes = Axes(last, 1.0, "position of the step", "mean p", ticks, _SHARES, x_min=1)
    largest = max(counts)
    dots = "".join(
        f'<circle class="f3" cx="{axes.x(k):.1f}" cy="{axes.y(mean):.1f}" '
        f'r="{2 + 4 * (count / largest) ** 0.5:.1f}"/>'
        for k, (mean, count) in enumerate(zip(means, counts, strict=True), start=1)
    )
    line = _polyline(axes, [(k, mean) for k, mean in enumerate(means, start=1)], "s3")
    rows = [["step", "mean p", "steps"]]
    rows += [
        [str(k), f"{mean:.3f}", f"{count:,}"]
        for k, (mean, count) in enumerate(zip(means, counts, strict=True), start=1)
    ]
    summary = f"Mean p goes from {means[0]:.2f} at step 1 to {means[-1]:.2f} at step {len(means)}."
    return figure("Mean p by position of the step", summary, axes.svg() + line + dots, rows)


def reliability_plot(bins: Sequence[Mapping[str, float]], error: float) -> str:
    """Share of correct steps against mean probability: on the diagonal, a p means what it says.

    Args:
        bins: `mean_p`, `share_correct` and `steps` of each.
        error: expected calibration error.
    """
    axes = Axes(1.0, 1.0, "mean p of the bin", "share correct", _SHARES, _SHARES)
    largest = max(each["steps"] for each in bins)
    diagonal = _polyline(axes, [(0, 0), (1, 1)], "guide")
    line = _polyline(axes, [(b["mean_p"], b["share_correct"]) for b in bins], "s1")
    dots = "".join(
        f'<circle class="f1" cx="{axes.x(b["mean_p"]):.1f}" cy="{axes.y(b["share_correct"]):.1f}" '
        f'r="{2.5 + 5 * (b["steps"] / largest) ** 0.5:.1f}"/>'
        for b in bins
    )
    rows = [["mean p", "share correct", "steps"]]
    rows += [[f"{b['mean_p']:.3f}", f"{b['share_correct']:.3f}", f"{b['steps']:,}"] for b in bins]
    title = f"Reliability (calibration error {error:.3f})"
    return figure(title, f"{title}.", axes.svg() + diagonal + line + dots, rows)


def n_curves(curves: Mapping[str, Mapping[int, float]], problems: int) -> str:
    """Accuracy against N, a line per rule. At most five rules."""
    ns = list(next(iter(curves.values())))
    ticks = tuple((float(k), str(n)) for k, n in enumerate(ns))
    values = [value for curve in curves.values() for value in curve.values()]
    low = max(0.0, min(values) - 0.1)
    low = int(low * 10) / 10
    marks = tuple((k / 10 - low, f"{k / 10:.1f}") for k in range(round(low * 10), 11, 2))
    axes = Axes(max(1, len(ns) - 1), 1.0 - low, "N", "accuracy", ticks, marks)
    parts = [axes.svg()]
    for number, curve in enumerate(curves.values(), start=1):
        points = [(float(k), curve[n] - low) for k, n in enumerate(ns)]
        parts.append(_polyline(axes, points, f"s{number}"))
        parts += [
            f'<circle class="f{number}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3"/>'
            for x, y in points
        ]
    rows = [["rule", *(f"N = {n}" for n in ns)]]
    rows += [[name, *(f"{curve[n]:.3f}" for n in ns)] for name, curve in curves.items()]
    best = ", ".join(f"{name} {curve[ns[-1]]:.2f}" for name, curve in curves.items())
    title = f"Accuracy of best of N ({problems:,} problems)"
    return figure(title, f"{title}; at N = {ns[-1]}: {best}.", "".join(parts), rows, list(curves))


def _polyline(axes: Axes, points: Sequence[tuple[float, float]], name: str) -> str:
    spelt = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    kind = name if name == "guide" else f"line {name}"
    return f'<polyline class="{kind}" points="{spelt}"/>'


def _legend(names: Sequence[str]) -> str:
    """Names with their colours, as a list above the plot."""
    items = (
        f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><rect class="f{number}" width="12" '
        f'height="12"/></svg>{html.escape(name)}</li>'
        for number, name in enumerate(names, start=1)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def nice_ticks(largest: float) -> tuple[float, tuple[tuple[float, str], ...]]:
    """A round number that is at least `largest`, and four or five marks up to it."""
    step = 1
    while largest / step > 5:
        step = step * 2 if str(step)[0] in "15" else step * 5 // 2
    count = -(-int(largest) // step) or 1
    return float(count * step), tuple((float(k * step), f"{k * step:,}") for k in range(count + 1))
