"""Helios' Earth cluster (May 2020; Hu et al., SC'21, CC-BY-4.0): its demand divided in several ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from allocator.fairshare import Claim, Pool, divide
from allocator.fairshare.credit import CreditRules, PastClaim, credits_of
from allocator.fairshare.levels import Range, level_of

DATA = Path(__file__).parents[3] / "shared" / "data"
HOURS = 744

Demand = Mapping[str, Sequence[int]]  # virtual cluster -> GPU-hours asked in each period
Rule = Callable[[int, Mapping[str, int]], dict[str, int]]


def demand(periods: int) -> dict[str, list[int]]:
    """GPU-hours running and pending of each virtual cluster in each of equal periods."""
    from pyarrow import parquet

    rows = parquet.read_table(DATA / "helios_earth_vc_hourly.parquet").to_pylist()
    start = min(row["time"] for row in rows)
    asked: dict[str, list[float]] = {row["vc"]: [0.0] * periods for row in rows}
    for row in rows:
        period = int((row["time"] - start).total_seconds() // 3600) * periods // HOURS
        asked[row["vc"]][period] += row["running_gpu_num"] + row["pending_gpu_num"]
    return {vc: [round(hours) for hours in asked[vc]] for vc in sorted(asked)}


def pro_rata(capacity: int, asked: Mapping[str, int]) -> dict[str, int]:
    whole = max(1, sum(asked.values()))
    return {vc: min(hours, capacity * hours // whole) for vc, hours in asked.items()}


def biggest_first(capacity: int, asked: Mapping[str, int]) -> dict[str, int]:
    given, left = {}, capacity
    for vc in sorted(asked, key=lambda vc: (-asked[vc], vc)):
        given[vc] = min(asked[vc], left)
        left -= given[vc]
    return given


def replay(asked: Demand, capacity: int, rules: CreditRules | None) -> dict[str, list[int]]:
    """Shares of every period by the divider, equal weights, with credit by ``rules`` or without."""
    history: list[dict[str, PastClaim]] = []
    served: dict[str, list[int]] = {vc: [] for vc in asked}
    for period in range(len(next(iter(asked.values())))):
        credits = credits_of(history, rules) if rules else {}
        claims = [
            Claim(vc, "all", asked[vc][period], credits[vc].factor if vc in credits else 1) for vc in asked
        ]
        shares = divide(capacity, [Pool("all")], claims, period=f"helios-{period}").shares
        history.append({vc: PastClaim(asked[vc][period], shares[vc], 1) for vc in asked})
        for vc, hours in shares.items():
            served[vc].append(hours)
    return served


def replay_by(rule: Rule, asked: Demand, capacity: int) -> dict[str, list[int]]:
    """Shares of every period by another rule."""
    periods = range(len(next(iter(asked.values()))))
    shares = [rule(capacity, {vc: hours[period] for vc, hours in asked.items()}) for period in periods]
    return {vc: [share[vc] for share in shares] for vc in asked}


def ratios(asked: Demand, served: Mapping[str, Sequence[int]], total: int) -> dict[str, float]:
    """Served over entitled: what one division of ``total`` hours among all requests would have given."""
    ranges = {vc: Range(1, Fraction(), Fraction(sum(hours))) for vc, hours in asked.items()}
    level = level_of(total, list(ranges.values()))
    entitled = {vc: float(one.high if level is None else one.at(level)) for vc, one in ranges.items()}
    return {vc: sum(served[vc]) / entitled[vc] if entitled[vc] else 1.0 for vc in asked}


def jain(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def plot(series: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Served/entitled of every virtual cluster, one bar a series, as SVG."""
    names = sorted(next(iter(series.values())))
    colours = ("#8a8f98", "#1f6feb", "#d29922", "#cf222e")
    left, base, tall, step = 50, 260, 200, 60
    wide = left + step * len(names) + 20
    # One virtual cluster has five times its due under biggest first; to scale, nothing else would be seen.
    top = 1.5
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="320"'
    title = (
        "Helios Earth, May 2020: hours served / entitled over all periods; bars end at 1.5, then the number"
    )
    parts = [
        head + ' font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="20" font-size="14">{title}</text>',
    ]
    for mark, place, line in (
        (0.0, 8, "#ddd"),
        (0.5, 8, "#ddd"),
        (0.88, 26, "#999"),
        (1.0, 8, "#ddd"),
        (1.5, 8, "#ddd"),
    ):
        y = base - tall * mark / top
        parts.append(f'<line x1="{left}" x2="{wide - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="{line}"/>')
        parts.append(f'<text x="{place}" y="{y + 4:.1f}">{mark}</text>')
    bar = (step - 12) / len(series)
    for number, (label, values) in enumerate(series.items()):
        colour = colours[number % len(colours)]
        for place, name in enumerate(names):
            high = tall * min(values[name], top) / top
            x = left + place * step + number * bar
            corner = f'x="{x:.1f}" y="{base - high:.1f}"'
            parts.append(f'<rect {corner} width="{bar:.1f}" height="{high:.1f}" fill="{colour}"/>')
            if values[name] > top:
                # Neighbours stand on two lines, or their numbers would run into each other.
                above = base - high - 4 - 11 * (number % 2)
                parts.append(f'<text x="{x - 4:.1f}" y="{above:.1f}">{values[name]:.1f}</text>')
        parts.append(f'<rect x="{left + number * 190}" y="296" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + number * 190 + 15}" y="305">{label}</text>')
    parts += [
        f'<text x="{left + place * step}" y="{base + 16}">{name}</text>' for place, name in enumerate(names)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")
