"""A bar per promise, as long as the share of its limit that was used: left of the line is kept."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.outcome import Target

ROW, LABEL, LIMIT, WIDTH = 26, 330, 400, 890
MARGIN = 12
KEPT, MISSED = "#2a9d5c", "#c8553d"


def svg(targets: Sequence[Target]) -> str:
    """The picture as an SVG document."""
    height = MARGIN * 2 + ROW * (len(targets) + 1)
    line = LABEL + LIMIT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *(_bar(target, MARGIN + ROW * number) for number, target in enumerate(targets)),
        # Over the bars and under the figures, which stand on it where nearly all was used.
        f'<line x1="{line}" x2="{line}" y1="{MARGIN}" y2="{height - MARGIN - ROW}" '
        'stroke="black" stroke-dasharray="4 3"/>',
        *(_figure(target, MARGIN + ROW * number) for number, target in enumerate(targets)),
        f'<text x="{line}" y="{height - MARGIN}" text-anchor="middle">limit</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _length(target: Target) -> float:
    # A miss is cut off at the right edge; its figure says how far it went.
    return max(1.0, min(target.value / target.limit * LIMIT, WIDTH - LABEL - 110))


def _bar(target: Target, top: int) -> str:
    return (
        f'<text x="{LABEL - 8}" y="{top + 17}" text-anchor="end">{escape(target.promise)}</text>'
        f'<rect x="{LABEL}" y="{top + 4}" width="{_length(target):.1f}" height="{ROW - 8}" '
        f'fill="{KEPT if target.met else MISSED}"/>'
    )


def _figure(target: Target, top: int) -> str:
    said = f"{target.value:.3g} of {target.limit:g} {target.unit}"
    return (
        f'<text x="{LABEL + _length(target) + 6:.1f}" y="{top + 17}" stroke="white" '
        f'stroke-width="4" paint-order="stroke">{escape(said)}</text>'
    )
