"""The planner's inner loops, compiled by numba. Only imported when something is planned or asked."""
