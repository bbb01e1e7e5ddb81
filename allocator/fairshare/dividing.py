"""``divide``: pools, then claims, setting aside whom the level leaves below a minimum, then rounding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm

from .checking import BadDivision, check, shortage
from .lending import loans
from .levels import Range, Water, level_of
from .model import Claim, Cut, Division, Loan, Pool, PoolShare, Reason, SetAside, digest
from .rounding import round_up_which


def divide(
    capacity: int,
    pools: Sequence[Pool],
    claims: Sequence[Claim],
    *,
    period: str,
    fixed: Mapping[str, int] | None = None,
) -> Division:
    """Divide ``capacity`` among ``claims``; raises BadDivision with every fault of the input.

    ``fixed`` holds a person's adjustments: the claim gets exactly these hours (0 up to its request,
    whatever its minimum), charged to its pool before anything else, and all others are divided around
    them. They may use up what pools leave, but no pool's cap, nor a guarantee that claims still kept would
    need. ``period`` only breaks ties.
    """
    given = dict(fixed or {})
    check(capacity, pools, claims, given)
    pools = sorted(pools, key=lambda pool: pool.name)
    claims = tuple(sorted(claims, key=lambda claim: claim.id))
    work = _Work(period, capacity, pools, claims, given)
    work.set_aside_beyond_reach()
    work.pour()
    work.set_aside_below_minimum()
    return work.result()


class _Work:
    """One division under way."""

    def __init__(
        self,
        period: str,
        capacity: int,
        pools: Sequence[Pool],
        claims: tuple[Claim, ...],
        fixed: Mapping[str, int],
    ) -> None:
        self.period, self.capacity, self.pools, self.claims = period, capacity, pools, claims
        self.fixed = {id: fixed[id] for id in sorted(fixed)}
        paid: Counter[str] = Counter()
        members: dict[str, list[Claim]] = {pool.name: [] for pool in pools}
        for claim in claims:
            if claim.id in fixed:
                paid[claim.pool] += fixed[claim.id]
            else:
                members[claim.pool].append(claim)
        self.waters = {pool.name: Water(pool, members[pool.name], paid[pool.name]) for pool in pools}
        self.worst_first = self._worst_first()
        self.gone: dict[str, SetAside] = {}
        self.gone_claims: dict[str, Claim] = {}
        self.level: Fraction | None = None

    def _worst_first(self) -> list[tuple[Water, int]]:
        """Claims with a minimum, the first to go first: highest rank, then highest hash."""
        found = [
            (claim.rank, digest(self.period, claim.id), water, place)
            for water in self.waters.values()
            for place, claim in enumerate(water.claims)
            if claim.minimum
        ]
        found.sort(key=lambda one: one[1], reverse=True)
        # Sorting is stable, so ranks need no more than to be comparable.
        found.sort(key=lambda one: one[0], reverse=True)
        return [(water, place) for _rank, _hash, water, place in found]

    def pour(self) -> None:
        """Give every pool its exact amount."""
        ranges = [water.range for water in self.waters.values()]
        if self._short() > 0:
            # Fixed shares press on guarantees; whoever wants those may still turn out to be set aside. Until
            # then no pool has more than its promise, which keeps levels rising all the way.
            ranges = [
                Range(water.pool.weight, Fraction(water.fixed), one.low)
                for water, one in zip(self.waters.values(), ranges, strict=True)
            ]
        self.level = level_of(self.capacity, ranges)
        for water, one in zip(self.waters.values(), ranges, strict=True):
            water.pour(one.high if self.level is None else one.at(self.level))

    def _short(self) -> int:
        """Hours missing for every pool's lower limit, as far as its kept claims want it."""
        return int(sum(water.range.low for water in self.waters.values())) - self.capacity

    def reach(self, water: Water) -> int:
        """The most that a single claim of the pool could get, beside what a person fixed."""
        elsewhere = sum(other.fixed for other in self.waters.values() if other is not water)
        most = self.capacity - elsewhere
        return (most if water.pool.cap is None else min(most, water.pool.cap)) - water.fixed

    def set_aside_beyond_reach(self) -> None:
        """Minimums that can never be met go first, lest they push others out and then go themselves."""
        reaches = {name: self.reach(water) for name, water in self.waters.items()}
        remaining = []
        for water, place in self.worst_first:
            reach = reaches[water.pool.name]
            if water.claims[place].minimum > reach:
                water.remove(place)
                self._note(water.claims[place], Reason.BEYOND_REACH, None, reach)
            else:
                remaining.append((water, place))
        self.worst_first = remaining

    def set_aside_below_minimum(self) -> None:
        """Set aside the worst-ranked of those below their minimums until there is none.

        One pass is enough. Setting a claim aside never lowers a level: either its pool keeps its amount for
        fewer claims, or its claims become full and the other pools get more. So whoever was passed over
        stays above its minimum, and pools are poured anew at most once for each pool.
        """
        for water, place in self.worst_first:
            if water.violates(place):
                self._note(water.claims[place], Reason.BELOW_MINIMUM, water.level, self.reach(water))
                water.remove(place)
                if water.exact > water.high:
                    self.pour()
        if (short := self._short()) > 0:
            raise BadDivision([shortage(short)])

    def _note(self, claim: Claim, reason: Reason, level: Fraction | None, reach: int) -> None:
        self.gone_claims[claim.id] = claim
        self.gone[claim.id] = SetAside(claim.id, reason, len(self.gone) + 1, level, reach)

    def _serve_the_remainder(self, amounts: Mapping[str, int]) -> Counter[str]:
        """Hours nobody else wants, to those set aside, best rank first, each if it reaches its minimum.

        Only what is idle after everyone kept is full or stopped by a cap: nobody gets less by it, so there
        is nothing to gain by being set aside on purpose.
        """
        idle = self.capacity - sum(amounts.values())
        extra: Counter[str] = Counter()
        for id in reversed(list(self.gone)) if idle else ():
            claim = self.gone_claims[id]
            cap = self.waters[claim.pool].pool.cap
            room = idle if cap is None else min(idle, cap - amounts[claim.pool] - extra[claim.pool])
            hours = min(claim.request, room)
            if hours >= claim.minimum:
                self.gone[id] = replace(self.gone[id], served=hours)
                extra[claim.pool] += hours
                idle -= hours
        return extra

    def _rounded_pools(self) -> dict[str, int]:
        """The pools' exact amounts in whole numbers with the same sum."""
        waters = list(self.waters.values())
        common = lcm(*(water.exact.denominator for water in waters))
        parts = [divmod(int(water.exact * common), common) for water in waters]
        ups, rest = divmod(sum(remainder for _floor, remainder in parts), common)
        assert rest == 0  # level_of hits its total exactly
        raised, _last = round_up_which(
            [remainder for _floor, remainder in parts],
            ups,
            lambda n: digest(self.period, waters[n].pool.name),
        )
        return {water.pool.name: parts[place][0] + (place in raised) for place, water in enumerate(waters)}

    def _rounded_claims(self, water: Water, amount: int, shares: dict[str, int]) -> Cut | None:
        """Write the whole-number shares of one pool's kept claims; returns where rounding up stopped."""
        floors, thirsty, remainders, whole = water.shares()
        ups = amount - water.fixed - sum(floors)
        raised, last = round_up_which(
            remainders, ups, lambda n: digest(self.period, water.claims[thirsty[n]].id)
        )
        for one in raised:
            floors[thirsty[one]] += 1
        for claim, hours in zip(water.claims, floors, strict=True):
            shares[claim.id] = hours
        if last is None:
            return None
        return Cut(Fraction(remainders[last], whole), digest(self.period, water.claims[thirsty[last]].id))

    def result(self) -> Division:
        """Round, serve the remainder, and write down everything an explanation needs."""
        amounts = self._rounded_pools()
        shares = dict.fromkeys((claim.id for claim in self.claims), 0)
        cuts = {
            name: self._rounded_claims(water, amounts[name], shares) for name, water in self.waters.items()
        }
        extra = self._serve_the_remainder(amounts)
        shares.update({id: one.served for id, one in self.gone.items()})
        shares.update(self.fixed)
        totals = {name: amount + extra[name] for name, amount in amounts.items()}
        lent = loans(self.period, self.capacity, self.pools, totals)
        return Division(
            period=self.period,
            capacity=self.capacity,
            shares=shares,
            pools={
                name: self._pool_share(water, totals[name], extra[name], cuts[name], lent)
                for name, water in self.waters.items()
            },
            level=self.level,
            loans=lent,
            set_aside=self.gone,
            fixed=self.fixed,
            idle=self.capacity - sum(totals.values()),
            claims=self.claims,
        )

    def _pool_share(
        self, water: Water, amount: int, remainder: int, cut: Cut | None, lent: Sequence[Loan]
    ) -> PoolShare:
        pool = water.pool
        return PoolShare(
            name=pool.name,
            guarantee=pool.guarantee,
            cap=pool.cap,
            weight=pool.weight,
            demand=water.demand,
            fixed=water.fixed,
            exact=water.exact,
            amount=amount,
            bound=water.bound,
            level=water.level,
            remainder=remainder,
            cut=cut,
            lent=sum(loan.amount for loan in lent if loan.lender == pool.name),
            borrowed=sum(loan.amount for loan in lent if loan.borrower == pool.name),
        )
