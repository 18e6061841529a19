"""The capability table of the adapters that are installed, as rows of text and as Markdown between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import messaging.adapters
from messaging.capabilities import Capabilities, Capability
from messaging.errors import ConfigurationError

BEGIN = "<!-- capabilities -->"
END = "<!-- /capabilities -->"


@dataclass(frozen=True)
class CapabilityTable:
    """labels: one a column, for example "Kafka < 4.2". missing: why an adapter has no column."""

    labels: Sequence[str]
    columns: Sequence[Capabilities]
    missing: Sequence[str]

    def rows(self) -> list[list[str]]:
        """A row for each capability, its name first, then the two limits."""
        rows = [
            [name.replace("_", " "), *(_cell(getattr(column, name)) for column in self.columns)]
            for name in Capabilities.names()
        ]
        rows.append(["largest message", *(_bytes(column.max_message_bytes) for column in self.columns)])
        rows.append(["longest delay", *map(_longest_delay, self.columns)])
        return rows

    def markdown(self) -> str:
        """A GitHub table."""
        lines = [["", *self.labels], ["---"] * (len(self.labels) + 1), *self.rows()]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def installed_capabilities() -> CapabilityTable:
    """What the installed adapters declare; no broker is asked."""
    found: list[tuple[str, Capabilities]] = []
    missing = []
    # The embedded broker last: it is not what anybody compares.
    for name in sorted(messaging.adapters.names(), key=lambda name: (name == "memory", name)):
        try:
            found.extend(messaging.adapters.load(name).declared_capabilities())
        except ConfigurationError as error:
            missing.append(str(error))
    return CapabilityTable([label for label, _ in found], [column for _, column in found], missing)


def embedded(text: str) -> str | None:
    """What stands between the markers of a document; None without markers."""
    begin, end = text.find(BEGIN), text.find(END)
    return None if begin < 0 or end < begin else text[begin + len(BEGIN) : end].strip()


def embed(text: str, table: str) -> str:
    """The document with `table` between its markers, which must be there."""
    head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
    return f"{head}{BEGIN}\n{table}\n{tail}"


def _cell(capability: Capability) -> str:
    word = {"native": "native", "emulated": "emulated", "unsupported": "no"}[capability.support.value]
    return f"{word}: {capability.how}" if capability.how else word


def _bytes(limit: int | None) -> str:
    if limit is None:
        return "no limit"
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if limit % size == 0:
            return f"{limit // size} {unit}"
    return f"{limit:,} bytes"


def _longest_delay(column: Capabilities) -> str:
    if not (column.delayed_queue or column.delayed_topic):
        return "no"
    limit = column.max_delay
    if limit is None:
        return "no limit"
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if limit % size == 0 and limit >= 2 * size:
            return f"{limit / size:g} {unit}"
    return f"{limit:g} s"
