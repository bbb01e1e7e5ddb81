"""Time in SQL that both databases understand: whole seconds between moments, windows cut to each other."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, BigInteger, ColumnElement, Integer, case, column, values
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from allocator.models.base import UtcDateTime

Window = tuple[datetime, datetime]


class seconds_between(GenericFunction[int]):  # noqa: N801 - it is a function of SQL
    """Whole seconds from the first moment to the second; both databases give integers."""

    type = BigInteger()
    inherit_cache = True


@compiles(seconds_between, "postgresql")
def _postgresql(element: seconds_between, compiler: SQLCompiler, **kw: Any) -> str:
    start, end = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"CAST(floor(EXTRACT(EPOCH FROM {end})) - floor(EXTRACT(EPOCH FROM {start})) AS BIGINT)"


@compiles(seconds_between, "sqlite")
def _sqlite(element: seconds_between, compiler: SQLCompiler, **kw: Any) -> str:
    start, end = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(CAST(strftime('%s', {end}) AS INTEGER) - CAST(strftime('%s', {start}) AS INTEGER))"


def window_table(windows: Sequence[Window]) -> CTE:
    """The windows (at least one) as a table with columns ``n`` (0, 1, …), ``since`` and ``until``."""
    return (
        values(column("n", Integer), column("since", UtcDateTime), column("until", UtcDateTime))
        .data([(n, since, until) for n, (since, until) in enumerate(windows)])
        .cte("windows")
    )


def overlap_seconds(start: Any, end: Any, since: Any, until: Any) -> ColumnElement[int]:
    """Seconds that [start, end) and [since, until) have in common, of windows known to overlap."""
    first = case((start > since, start), else_=since)
    last = case((end < until, end), else_=until)
    return seconds_between(first, last)
