"""What must hold between the parts of a policy: each check looks at parts that are right in themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

from allocator.policy.policy import Policy
from allocator.policy.reading import Faults
from allocator.policy.rules import DecisionPath, FundingMode

Check = Callable[[Policy, Faults], None]
DAY = timedelta(days=1)


def check(policy: Policy, faults: Faults) -> None:
    """Add every contradiction to ``faults``; a section with a fault of its own is left out, because what is
    read in its place would only cause more."""
    # chosen before the first one runs: what one check finds must not keep another from looking
    due = [inspect for sections, inspect in CHECKS if not faults.below(*((name,) for name in sections))]
    for inspect in due:
        inspect(policy, faults)


def _pools_add_up(policy: Policy, faults: Faults) -> None:
    pools, reserve = sum(pool.percent for pool in policy.pools), policy.periods.reserve_percent
    if pools + reserve != 100:
        message = f"the pools' {pools} % and the reserve's {reserve} % make {pools + reserve} %, not 100 %"
        faults.add(("pools",), message)


def _caps_above_guarantees(policy: Policy, faults: Faults) -> None:
    for pool in policy.pools:
        if pool.cap_percent is not None and pool.cap_percent < pool.percent:
            path = ("pools", pool.slug, "cap_percent")
            faults.add(path, f"must not be below the {pool.percent} % that the pool is guaranteed")


def _categories_have_pools(policy: Policy, faults: Faults) -> None:
    known = [pool.slug for pool in policy.pools]
    for category in policy.categories:
        if category.pool not in known:
            path = ("categories", category.slug, "pool")
            faults.add(path, f"there is no pool {category.pool}; there are {', '.join(known)}")
    used = {category.pool for category in policy.categories}
    for slug in known:
        if slug not in used:
            faults.add(("pools", slug), "no category has this pool, so nobody could ever be served from it")


def _free_hours_before_a_price(policy: Policy, faults: Faults) -> None:
    for category in policy.categories:
        free = category.funding.mode in {FundingMode.FREE, FundingMode.ORDER}
        if free and category.funding.free_hours_a_year:
            path = ("categories", category.slug, "funding", "free_hours_a_year")
            faults.add(path, "means nothing where nobody pays")


def _tiers_grow(policy: Policy, faults: Faults) -> None:
    paths = list(DecisionPath)
    for smaller, larger in pairwise(policy.tiers):
        if paths.index(larger.path) < paths.index(smaller.path):
            faults.add(("tiers", larger.slug, "path"), f"is shorter than that of {smaller.slug} before it")
        for key in ("max_gpu_hours", "max_gpus", "max_days"):
            most, least = getattr(larger, key), getattr(smaller, key)
            if most is not None and (least is None or most < least):
                faults.add(("tiers", larger.slug, key), f"is less than that of {smaller.slug} before it")


def _last_tier_holds_all(policy: Policy, faults: Faults) -> None:
    last = policy.tiers[-1]
    for key in ("max_gpu_hours", "max_gpus", "max_days"):
        if getattr(last, key) is not None:
            faults.add(("tiers", last.slug, key), "must be left out: the last tier is for all that is larger")
    longest = list(DecisionPath).index(last.path)
    for category in policy.categories:
        least = category.least_path
        if least and list(DecisionPath).index(least) > longest:
            faults.add(("categories", category.slug, "least_path"), "no tier has this path or a longer one")


def _tiers_have_one_deadline(policy: Policy, faults: Faults) -> None:
    for tier in policy.tiers:
        if (tier.working_days is None) == (tier.calendar_days is None):
            faults.add(("tiers", tier.slug), "must have either working_days or calendar_days")


def _codes_belong_to_one_sector(policy: Policy, faults: Faults) -> None:
    owner: dict[str, str] = {}
    for sector in policy.sectors:
        for number, code in enumerate(sector.oked):
            if code in owner:
                path = ("sectors", sector.slug, "oked", number)
                faults.add(path, f"{code} belongs to {owner[code]} already")
            owner.setdefault(code, sector.slug)


def _the_default_band_exists(policy: Policy, faults: Faults) -> None:
    known = [band.slug for band in policy.merit_bands]
    if policy.default_band not in known:
        message = f"there is no band {policy.default_band}; there are {', '.join(known)}"
        faults.add(("merit", "default"), message)


def _credit_is_bounded(policy: Policy, faults: Faults) -> None:
    if not policy.credit.minimum <= 1 <= policy.credit.maximum:
        faults.add(("credit",), "minimum and maximum must have 1 between them: whoever is owed nothing has 1")


def _steps_fall(policy: Policy, faults: Faults) -> None:
    steps = policy.use_or_lose.steps
    for number, (low, high) in enumerate(pairwise(steps), 1):
        if high.below_percent <= low.below_percent or high.take_percent >= low.take_percent:
            path = ("use_or_lose", "steps", number)
            faults.add(path, "must have a higher below_percent and a lower take_percent than the step before")


def _the_proposal_comes_first(policy: Policy, faults: Faults) -> None:
    if policy.periods.proposal_days < policy.periods.publication_days:
        faults.add(("periods", "proposal_days"), "must not be less than publication_days")
    if 0 < policy.periods.open_days < policy.periods.proposal_days:
        faults.add(("periods", "open_days"), "must not be less than proposal_days, or 0")


def _lengths_in_order(policy: Policy, faults: Faults) -> None:
    if policy.bookings.min_length > policy.bookings.max_length:
        faults.add(("bookings", "min_minutes"), "must not be longer than max_days")
    if policy.bookings.min_length % policy.bookings.boundary:
        faults.add(("bookings", "min_minutes"), "must be a multiple of boundary_minutes")
    if DAY % policy.bookings.boundary:
        faults.add(("bookings", "boundary_minutes"), "must divide a day into equal parts")


CHECKS: tuple[tuple[tuple[str, ...], Check], ...] = (
    (("pools", "periods"), _pools_add_up),
    (("pools",), _caps_above_guarantees),
    (("pools", "categories"), _categories_have_pools),
    (("categories",), _free_hours_before_a_price),
    (("tiers",), _tiers_grow),
    (("tiers", "categories"), _last_tier_holds_all),
    (("tiers",), _tiers_have_one_deadline),
    (("sectors",), _codes_belong_to_one_sector),
    (("merit",), _the_default_band_exists),
    (("credit",), _credit_is_bounded),
    (("use_or_lose",), _steps_fall),
    (("periods",), _the_proposal_comes_first),
    (("bookings",), _lengths_in_order),
)
