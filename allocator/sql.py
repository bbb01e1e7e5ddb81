"""What the two databases say differently, said once."""

from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement


class seconds_between(FunctionElement[int]):  # noqa: N801 - reads as the SQL function that it is
    """``seconds_between(start, end)``: whole seconds from one time to another, as an integer column."""

    type = BigInteger()
    inherit_cache = True


@compiles(seconds_between, "postgresql")
def _postgresql(element: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CAST(EXTRACT(EPOCH FROM {end} - {start}) AS BIGINT)"


@compiles(seconds_between, "sqlite")
def _sqlite(element: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(unixepoch({end}) - unixepoch({start}))"
