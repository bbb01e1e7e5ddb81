"""Plans of bookings near the optimum, with a bound that proves how near. Pure; numba comes when first used."""

from .demand import Asked, BadDemand, Demand, Pin, by_pool
from .plan import Moment, Plan, plan

__all__ = ["Asked", "BadDemand", "Demand", "Moment", "Pin", "Plan", "by_pool", "plan"]
