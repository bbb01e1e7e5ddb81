"""Plans of bookings near the optimum, with a bound that proves how near. Pure; numba comes when used."""

from .demand import Asked, BadDemand, Demand, Pin, by_pool
from .plan import Moment, Plan, plan
from .repair import Change, Drop, Move, Repair, Variant, Why, repair

__all__ = [
    "Asked",
    "BadDemand",
    "Change",
    "Demand",
    "Drop",
    "Moment",
    "Move",
    "Pin",
    "Plan",
    "Repair",
    "Variant",
    "Why",
    "by_pool",
    "plan",
    "repair",
]
