"""The report of a run as a file, in the format of its name."""

from __future__ import annotations

import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from messaging_contract.matrix import Matrix
from messaging_contract.report_html import as_html
from messaging_contract.report_json import as_json
from messaging_contract.report_junit import as_junit
from messaging_contract.report_markdown import as_markdown

FORMATS: dict[str, Callable[[Matrix, str], str]] = {
    "md": as_markdown,
    "json": as_json,
    "html": as_html,
    "xml": as_junit,
}
"""By the suffix of the file. `xml` is JUnit's. Each takes the matrix, and a line that tells when and with what."""


def write(matrix: Matrix, path: Path) -> None:
    """Writes the report in the format of the suffix. Raises ValueError for one that is not in `FORMATS`."""
    render = FORMATS[check_path(path)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(matrix, made()), "utf-8", errors="replace")


def check_path(path: Path) -> str:
    """The format of a report file. Raises ValueError when it is not in `FORMATS`."""
    suffix = path.suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"report {str(path)!r}: the name must end in .{', .'.join(FORMATS)}")
    return suffix


def made() -> str:
    """When, and with what."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{now}, anybroker {version('anybroker')}, Python {platform.python_version()}, {platform.platform()}"
