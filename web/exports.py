"""CSV for spreadsheets, a line at a time however long, with nothing in it that a spreadsheet would run."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from typing import TypeVar

from flask import Response, stream_with_context
from sqlalchemy import Select

from web.session import database

T = TypeVar("T")
# A cell that begins so is a formula to a spreadsheet; a leading apostrophe makes it text.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
# Without this mark Excel reads UTF-8 as something else.
MARK = "\ufeff"
BATCH = 1_000


def cell(value: object) -> str:
    """The text of one cell; numbers stay numbers, also negative ones."""
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, int) or not text.startswith(FORMULA_STARTS):
        return text
    return f"'{text}"


def csv_lines(header: Sequence[object], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """The lines of a CSV file, the header first."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    buffer.write(MARK)
    writer.writerow([cell(value) for value in header])
    yield _taken(buffer)
    for row in rows:
        writer.writerow([cell(value) for value in row])
        yield _taken(buffer)


def read_rows(statement: Select[T], row: Callable[[T], Sequence[object]]) -> Iterator[Sequence[object]]:
    """`row` of everything that the statement finds, in its order; a batch at a time is in memory."""
    # The request's own session is closed before the last line is sent.
    with database().reader() as session:
        yield from map(row, session.scalars(statement.execution_options(yield_per=BATCH)))


def csv_response(filename: str, header: Sequence[object], rows: Iterable[Sequence[object]]) -> Response:
    """A download that is sent while it is read; `rows` must not need the request's own session."""
    response = Response(stream_with_context(csv_lines(header, rows)), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    response.headers["Cache-Control"] = "private, no-store"
    return response


def _taken(buffer: StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text
