#!/usr/bin/env python3
"""Recompute a published division of GPU-hours and say whether it is right.

    python3 check_division.py FILE.json

For outsiders: needs Python 3.9 or newer and nothing else, and was written apart from the program that made
the division, from the published rules alone. It goes the slow and plain way, in exact fractions: levels by
halving an interval, and everything again from the start after each claim that is set aside.

The rules. Pools get clip(level x weight, guarantee, min(demand, cap)) with one level for all, so that the
sum is the capacity, or everyone's upper limit. A pool's lower limit is never below the fixed shares in it;
while lower limits are together above the capacity, they are the upper limits, and the fixed shares the
lower ones. In a pool, claims get min(request, level x weight) of what the fixed shares leave. Claims whose
minimum is above all that their pool could ever give are set aside first; then, while exact shares are
below their own minimums, the claim of the highest rank among those (then of the higher hash) is set aside
and all is computed again. Exact amounts are rounded, pools first, then claims in each pool: down, and the
largest fractions up (then the lower hash) until the sum is right. Hours left idle go to claims set aside,
the last set aside first, up to the request and the pool's cap, if that reaches the minimum. A hash is the
SHA-256 of "period:id".

Answers "identical" (exit code 0), each difference (1), or why the file cannot be read (2).
"""

import hashlib
import json
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple


class Line(NamedTuple):
    """One party at a level: at least ``least``, at most ``most``, in between ``weight`` for each level."""

    key: str
    weight: Fraction
    least: Fraction
    most: Fraction

    def at(self, level: Fraction) -> Fraction:
        return max(self.least, min(self.most, self.weight * level))


def public_hash(period: str, name: str) -> str:
    return hashlib.sha256(f"{period}:{name}".encode()).hexdigest()


def fill(lines: list[Line], total: Fraction) -> dict[str, Fraction]:
    """Exact amounts of all lines at the level where they sum to ``total`` (or all they can take)."""
    most = sum((line.most for line in lines), Fraction(0))
    if most <= total:
        return {line.key: line.most for line in lines}
    low, high = Fraction(0), max(line.most / line.weight for line in lines)
    bends = {bend / line.weight for line in lines for bend in (line.least, line.most)}
    # Halve until the level is known to lie on a straight piece; there one division finds it.
    while any(low < bend < high for bend in bends):
        middle = (low + high) / 2
        if sum(line.at(middle) for line in lines) <= total:
            low = middle
        else:
            high = middle
        bends = {bend for bend in bends if low < bend < high}
        if len(bends) == 1:
            # A single bend between: halving could go on for ever if the level is the bend itself.
            bend = bends.pop()
            if sum(line.at(bend) for line in lines) <= total:
                low = bend
            else:
                high = bend
    at_low = sum((line.at(low) for line in lines), Fraction(0))
    at_high = sum((line.at(high) for line in lines), Fraction(0))
    level = low if at_high == at_low else low + (high - low) * (total - at_low) / (at_high - at_low)
    return {line.key: line.at(level) for line in lines}


def rounded(exact: dict[str, Fraction], total: int, period: str) -> dict[str, int]:
    whole = {key: value.numerator // value.denominator for key, value in exact.items()}
    queue = sorted(exact, key=lambda key: (whole[key] - exact[key], public_hash(period, key)))
    for key in queue[: total - sum(whole.values())]:
        whole[key] += 1
    return whole


class Division:
    """What a document says went in, and the way from there to the shares."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.period = str(document["period"])
        self.capacity = int(document["capacity"])
        self.pools = {pool["name"]: pool for pool in document["pools"]}
        self.claims = {claim["id"]: claim for claim in document["claims"]}
        self.fixed = {id: int(hours) for id, hours in document.get("fixed", {}).items()}
        self.out: list[str] = []
        self.set_aside: list[dict[str, Any]] = []

    def fixed_in(self, pool: str) -> int:
        return sum(hours for id, hours in self.fixed.items() if self.claims[id]["pool"] == pool)

    def kept_in(self, pool: str) -> list[dict[str, Any]]:
        gone = {*self.out, *self.fixed}
        return [claim for claim in self.claims.values() if claim["pool"] == pool and claim["id"] not in gone]

    def reach(self, pool: str) -> int:
        elsewhere = sum(self.fixed_in(name) for name in self.pools if name != pool)
        cap = self.pools[pool]["cap"]
        most = self.capacity - elsewhere
        return (most if cap is None else min(most, cap)) - self.fixed_in(pool)

    def exact(self) -> tuple[dict[str, Fraction], dict[str, Fraction]]:
        """Amounts of the pools and of the kept claims, before rounding."""
        lines = []
        for name, pool in self.pools.items():
            demand = self.fixed_in(name) + sum(claim["request"] for claim in self.kept_in(name))
            most = demand if pool["cap"] is None else min(demand, pool["cap"])
            least = max(min(pool["guarantee"], most), self.fixed_in(name))
            lines.append(Line(name, Fraction(pool["weight"]), Fraction(least), Fraction(most)))
        if sum(line.least for line in lines) > self.capacity:
            lines = [Line(one.key, one.weight, Fraction(self.fixed_in(one.key)), one.least) for one in lines]
        amounts = fill(lines, Fraction(self.capacity))
        shares: dict[str, Fraction] = {}
        for name in self.pools:
            inside = [
                Line(claim["id"], Fraction(claim["weight"]), Fraction(0), Fraction(claim["request"]))
                for claim in self.kept_in(name)
            ]
            shares.update(fill(inside, amounts[name] - self.fixed_in(name)))
        return amounts, shares

    def put_out(self, ids: list[str], reason: str) -> None:
        """Set aside the worst of ``ids``: of the highest rank, then of the higher hash."""
        worst = max(ids, key=lambda id: (self.claims[id]["rank"], public_hash(self.period, id)))
        self.out.append(worst)
        self.set_aside.append({"id": worst, "reason": reason, "served": 0})

    def compute(self) -> tuple[dict[str, int], dict[str, int]]:
        """Whole-number amounts of the pools, and shares of all claims."""
        hopeless = [
            claim["id"]
            for name in self.pools
            for claim in self.kept_in(name)
            if claim["minimum"] > self.reach(name)
        ]
        while hopeless:
            self.put_out(hopeless, "beyond_reach")
            hopeless.remove(self.out[-1])
        amounts, shares = self.exact()
        while below := [id for id, share in shares.items() if share < self.claims[id]["minimum"]]:
            self.put_out(below, "below_minimum")
            amounts, shares = self.exact()
        total = sum(amounts.values(), Fraction(0))
        pools = rounded(amounts, int(total), self.period)
        result = {**dict.fromkeys(self.claims, 0), **self.fixed}
        for name in self.pools:
            inside = {claim["id"]: shares[claim["id"]] for claim in self.kept_in(name)}
            result.update(rounded(inside, pools[name] - self.fixed_in(name), self.period))
        self.give_the_remainder(pools, result)
        return pools, result

    def give_the_remainder(self, pools: dict[str, int], result: dict[str, int]) -> None:
        for note in reversed(self.set_aside):
            claim = self.claims[note["id"]]
            cap = self.pools[claim["pool"]]["cap"]
            room = self.capacity - sum(pools.values())
            if cap is not None:
                room = min(room, cap - pools[claim["pool"]])
            hours = min(claim["request"], room)
            if hours >= claim["minimum"]:
                note["served"] = result[claim["id"]] = hours
                pools[claim["pool"]] += hours


def differences(document: dict[str, Any]) -> list[str]:
    """What the document says against what comes out; empty when they are identical."""
    own = Division(document)
    pools, shares = own.compute()
    found = []
    for what, said, right in (
        ("pool", document.get("pool_shares", pools), pools),
        ("share of", document["shares"], shares),
    ):
        for key in sorted({*said, *right}):
            if said.get(key) != right.get(key):
                found.append(f"{what} {key}: published {said.get(key)}, computed {right.get(key)}")

    def by_id(notes: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
        return {note["id"]: (note.get("reason"), note.get("served", 0)) for note in notes}

    published, computed = by_id(document["set_aside"]), by_id(own.set_aside)
    for id in sorted({*published, *computed}):
        if published.get(id) != computed.get(id):
            found.append(f"set aside {id}: published {published.get(id)}, computed {computed.get(id)}")
    return found


def main(arguments: list[str], say: Callable[[str], object] = print) -> int:
    if arguments in (["-h"], ["--help"]):
        say((__doc__ or "").rstrip())
        return 0
    if len(arguments) != 1:
        say("usage: check_division.py FILE.json")
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as file:
            found = differences(json.load(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"cannot read {arguments[0]}: {type(error).__name__}: {error}")
        return 2
    for line in found:
        say(line)
    say(f"{len(found)} differences" if found else "identical")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
