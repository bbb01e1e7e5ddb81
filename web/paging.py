"""Long lists, a page at a time, sorted only by what the view allows. Two queries, whatever the size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from flask import Flask, request, url_for
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

T = TypeVar("T")
DEFAULT_LIMIT = 25
MAX_LIMIT = 100
# Beyond this an OFFSET costs more than anybody reads; a filter leads further than turning pages.
MAX_PAGE = 10_000


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list: `number` counts from 1, `pages` is at least 1, `total` counts the whole list."""

    items: Sequence[T]
    number: int
    pages: int
    total: int
    limit: int
    name: str = "page"  # of the parameter that turns this list, and of its heading where a page has several

    @property
    def first(self) -> int:
        """The place in the whole list of this page's first item, 0 when the list is empty."""
        return (self.number - 1) * self.limit + 1 if self.total else 0

    @property
    def last(self) -> int:
        """The place in the whole list of this page's last item."""
        return self.first + len(self.items) - 1 if self.items else self.first


@dataclass(frozen=True)
class Sorting:
    """How a list is sorted, as the headers of the table need it."""

    key: str
    descending: bool


def _number(name: str, default: int, most: int) -> int:
    """A number of the query string within 1…most.

    Nonsense counts as the default, since nobody types these.
    """
    text = request.args.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        return default
    return min(max(int(text), 1), most)


def sorting(allowed: Mapping[str, Any], default: str, descending: bool = False) -> Sorting:
    """What `?sort=` and `?dir=` ask for, if the view allows it. `allowed` maps the keys to columns."""
    key = request.args.get("sort", default)
    if key not in allowed:
        return Sorting(default, descending)
    asked = request.args.get("dir")
    return Sorting(key, asked == "desc" if asked in ("asc", "desc") else descending and key == default)


def order(
    statement: Select[Any], allowed: Mapping[str, Any], by: Sorting, last: ColumnElement[Any] | Any
) -> Select[Any]:
    """The statement in that order.

    `last` (a unique column) decides between equals, else pages could overlap.
    """
    column = allowed[by.key]
    return statement.order_by(None).order_by(column.desc() if by.descending else column.asc(), last)


def paginate(session: Session, statement: Select[T], limit: int | None = None, name: str = "page") -> Page[T]:
    """The page of entities that the query string asks for (`?page=`, `?limit=` ≤ 100), with the total.

    A page beyond the end is the last one: rows may have gone since the link was made. Where a page has
    several lists each has its own `name`, and a heading with that id to come back to.
    """
    total, number, pages, size = _measure(session, statement, limit, name)
    items = session.scalars(statement.limit(size).offset((number - 1) * size)).all()
    return Page(items, number, pages, total, size, name)


def paginate_rows(
    session: Session, statement: Select[*tuple[Any, ...]], limit: int | None = None, name: str = "page"
) -> Page[Any]:
    """Like `paginate`, for a statement of several columns: the items are rows."""
    total, number, pages, size = _measure(session, statement, limit, name)
    items = session.execute(statement.limit(size).offset((number - 1) * size)).all()
    return Page(items, number, pages, total, size, name)


def paginate_list(items: Sequence[T], limit: int | None = None, name: str = "page") -> Page[T]:
    """Like `paginate`, for a list that is in memory as a whole already (a division is computed as one)."""
    size = _number("limit", limit or DEFAULT_LIMIT, MAX_LIMIT)
    pages = max(1, -(-len(items) // size))
    number = min(_number(name, 1, MAX_PAGE), pages)
    return Page(items[(number - 1) * size : number * size], number, pages, len(items), size, name)


def _measure(
    session: Session, statement: Select[*tuple[Any, ...]], limit: int | None, name: str
) -> tuple[int, int, int, int]:
    size = _number("limit", limit or DEFAULT_LIMIT, MAX_LIMIT)
    total = session.scalar(select(func.count()).select_from(statement.order_by(None).subquery())) or 0
    pages = max(1, -(-total // size))
    return total, min(_number(name, 1, MAX_PAGE), pages), pages, size


def here(**changes: str | int | None) -> str:
    """The address of this page with some of the query changed; None takes a part out."""
    query: dict[str, Any] = {key: values for key, values in request.args.lists() if key != "lang"}
    query |= changes
    return _address(request.path, query)


def same_query(endpoint: str) -> str:
    """Another page with this page's query, for an export of what a list shows."""
    return _address(url_for(endpoint), {key: values for key, values in request.args.lists() if key != "lang"})


def _address(path: str, query: Mapping[str, Any]) -> str:
    # Not url_for(): anybody can write into a query what are words of its own there, such as `_scheme`.
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def init_app(app: Flask) -> None:
    """Let templates make links to another page or order of the same list."""
    app.add_template_global(here, "page_url")
    app.add_template_global(same_query)
