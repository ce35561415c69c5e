"""A finding as a small bar: the interval, the line, and the side that is allowed."""

from __future__ import annotations

from html import escape

from safescale_ammt.fairness import Finding

_WIDTH, _HEIGHT, _PAD = 230.0, 34.0, 8.0


def measure_bar(finding: Finding) -> str:
    """Draws a finding as inline SVG; "" when nothing was measured."""
    line, value = finding.threshold, finding.value
    lower, upper = finding.lower, finding.upper
    if line is None or value is None or lower is None or upper is None:
        return ""
    low, high = _domain(finding.op, line, value, lower, upper)

    def x(at: float) -> float:
        share = (min(max(at, low), high) - low) / (high - low)
        return _PAD + share * (_WIDTH - 2 * _PAD)

    left, right = (x(low), x(line)) if finding.op == "<=" else (x(line), x(high))
    label = escape(
        f"measured {value:.4f}, from {lower:.4f} to {upper:.4f}; "
        f"the line is {finding.op} {line:.4f}: {finding.outcome}"
    )
    return (
        f'<svg class="measure {finding.outcome}" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" '
        f'role="img" aria-label="{label}"><title>{label}</title>'
        f'<rect class="allowed" x="{left:.1f}" y="5" width="{right - left:.1f}" '
        'height="24" rx="3"/>'
        f'<line class="axis" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="29" y2="29"/>'
        f'<line class="range" x1="{x(lower):.1f}" x2="{x(upper):.1f}" y1="17" y2="17"/>'
        f'<circle cx="{x(value):.1f}" cy="17" r="5"/>'
        f'<line class="line" x1="{x(line):.1f}" x2="{x(line):.1f}" y1="1" y2="33"/>'
        "</svg>"
    )


def _domain(
    op: str, line: float, value: float, lower: float, upper: float
) -> tuple[float, float]:
    """Chooses the ends of the scale: all four numbers, with room around them."""
    low, high = min(line, value, lower, upper), max(line, value, lower, upper)
    room = 0.25 * max(high - low, 1e-6)
    if op == "<=" and line >= 0:
        return 0.0, high + room  # gaps and errors begin at 0
    return low - room, high + room
