"""Orders from a file of the user's: one row, one order. CSV with a header line, or JSON Lines. UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from messaging.demo.orders import Order
from messaging.errors import ConfigurationError

Row = tuple[int, dict[str, Any]]
"""The line it starts at (1-based), and its columns."""

_MAX_KEY = 255


class InputError(ConfigurationError):
    """The file cannot be used as it is; the text names it, the line and what to do."""


def read_orders(path: Path, key: str | None = None, limit: int | None = None) -> list[Order]:
    """The rows of `path` as orders, all of them checked before anything is sent.

    key: the column whose value becomes the message key. limit: rows read at most. Raises InputError.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: only .csv and .jsonl files can be read")
    orders: list[Order] = []
    try:
        with path.open("rb") as file:
            for line, row in islice(reader(_text_lines(file, path), path), limit):
                origin = f"{path}, line {line}"
                orders.append(Order(len(orders) + 1, row, None if key is None else _key(row, key, origin), origin))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not orders:
        raise InputError(f"{path}: holds no rows")
    return orders


def _text_lines(file: Iterable[bytes], path: Path) -> Iterator[str]:
    for number, raw in enumerate(file, 1):
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number}: byte {raw[error.start]:#04x} is not UTF-8; convert the file to UTF-8"
            ) from None
        yield text.removeprefix("\ufeff") if number == 1 else text


def _csv_rows(lines: Iterator[str], path: Path) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if columns is None:
                columns = _columns(cells, f"{path}, line {line}")
                continue
            if len(cells) != len(columns):
                raise InputError(f"{path}, line {line}: {len(cells)} fields, but the header names {len(columns)}")
            yield line, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {start}: not valid CSV: {error}") from None


def _columns(cells: list[str], origin: str) -> list[str]:
    for name in cells:
        if not name.strip():
            raise InputError(f"{origin}: the header has a column without a name")
        if cells.count(name) > 1:
            raise InputError(f"{origin}: the header names column {name!r} twice")
    return cells


def _jsonl_rows(lines: Iterator[str], path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise InputError(f"{path}, line {number}: not valid JSON: {error}") from None
        except RecursionError:
            raise InputError(f"{path}, line {number}: nested too deeply to be read") from None
        if not isinstance(row, dict):
            raise InputError(f'{path}, line {number}: a row must be a JSON object such as {{"id": 7}}')
        yield number, row


def _key(row: dict[str, Any], column: str, origin: str) -> str:
    if column not in row:
        raise InputError(f"{origin}: there is no column {column!r}; columns: {', '.join(row) or 'none'}")
    value = row[column]
    if isinstance(value, dict | list) or value is None or value == "":
        shown = "empty" if value in (None, "") else f"a {type(value).__name__}"
        raise InputError(f"{origin}: column {column!r} is {shown}, but it is to be the message key")
    text = str(value)
    if len(text.encode()) > _MAX_KEY:
        raise InputError(f"{origin}: column {column!r} is {len(text.encode())} bytes, a key takes {_MAX_KEY}")
    return text
