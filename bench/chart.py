"""A comparison as an SVG bar chart, made of text: CPU per operation by workload and server.

The axis is logarithmic, since servers differ by factors of ten. The background is transparent and
the text follows the reader's colour scheme, so the chart reads on light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .report import Row
from .servers import DYNALITE, DYNAMODB_LOCAL, MOTO, OURS
from .workloads import WORKLOADS

_WIDTH = 860
_LEFT = 270
_RIGHT = 90
_BAR = 15
_GAP = 14
_TOP = 74
_COLOURS = {OURS: "#2a9d8f", DYNALITE: "#e9a23b", DYNAMODB_LOCAL: "#d1605e", MOTO: "#8d7fc7"}
_STYLE = """
text { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.small { font-size: 11px; fill: #57606a }
.grid { stroke: #8c959f; stroke-opacity: 0.35 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9da7b1 } }
"""


def chart(table: Sequence[Row], note: str) -> str:
    """The SVG document for the rows at their highest number of connections."""
    connections = max(row.connections for row in table)
    shown = [row for row in table if row.connections == connections and row.cpu_us > 0]
    groups: dict[str, list[Row]] = {}
    for row in shown:
        groups.setdefault(row.workload, []).append(row)
    low = 10 ** math.floor(math.log10(min((row.cpu_us for row in shown), default=10)))
    high = 10 ** math.ceil(math.log10(max((row.cpu_us for row in shown), default=100) * 1.0001))

    def x(value: float) -> float:
        share = math.log10(value / low) / math.log10(high / low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    body: list[str] = []
    y = _TOP
    for workload, rows in groups.items():
        middle = y + len(rows) * _BAR / 2 + 4
        title = escape(WORKLOADS[workload].title)
        body.append(f'<text x="{_LEFT - 12}" y="{middle:.0f}" text-anchor="end">{title}</text>')
        for row in rows:
            body += _bar(row, y, x(row.cpu_us))
            y += _BAR
        y += _GAP
    grid = []
    value = low
    while value <= high:
        at = f"{x(value):.1f}"
        grid.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP - 6}" y2="{y - 6}"/>')
        grid.append(
            f'<text class="small" x="{at}" y="{y + 10}" text-anchor="middle">{value:,}</text>'
        )
        value *= 10
    height = y + 40
    servers = list(dict.fromkeys(row.server for row in shown))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img">',
            f"<title>CPU per operation, {connections} connections</title>",
            f"<style>{_STYLE}</style>",
            f'<text class="title" x="16" y="26">CPU microseconds per operation, {connections} '
            "connections (less is better; logarithmic)</text>",
            *_legend(servers),
            *grid,
            *body,
            f'<text class="small" x="16" y="{height - 10}">{escape(note)}</text>',
            "</svg>",
            "",
        ]
    )


def _bar(row: Row, y: int, end: float) -> list[str]:
    text = f"{row.cpu_us:,.0f}" if row.cpu_us >= 100 else f"{row.cpu_us:.1f}"
    if row.ratio is not None:
        text += f" ({row.ratio:.1f}x)"
    return [
        f'<rect x="{_LEFT}" y="{y}" width="{max(end - _LEFT, 1):.1f}" height="{_BAR - 2}" '
        f'rx="2" fill="{_COLOURS.get(row.server, "#6e7781")}"/>',
        f'<text class="small" x="{end + 5:.1f}" y="{y + 10}">{text}</text>',
    ]


def _legend(servers: Sequence[str]) -> list[str]:
    parts = []
    x = 16
    for server in servers:
        colour = _COLOURS.get(server, "#6e7781")
        parts.append(f'<rect x="{x}" y="40" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="51">{escape(server)}</text>')
        x += 40 + 8 * len(server)
    return parts
