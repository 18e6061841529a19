"""What a redrive has moved, on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from messaging.dead_letter import TIME
from messaging.delivery import Delivery
from messaging.errors import ConfigurationError


class RedriveLedger:
    """JSON lines: which source it is for, then an id a dead letter that was moved. Without a file it remembers nothing.

    A line that a crash cut short is ignored: its dead letter counts as not moved. Not thread-safe.
    """

    def __init__(self, file: IO[str] | None, moved: set[str]) -> None:
        self._file = file
        self._moved = moved

    @classmethod
    @contextmanager
    def open(cls, path: str | Path | None, broker: str, source: str, *, dry_run: bool = False) -> Iterator[Self]:
        """Reads what is there and appends. Raises ConfigurationError for another source's file, or another kind.

        dry_run: no file is made or written.
        """
        if path is None or (dry_run and not Path(path).exists()):
            yield cls(None, set())
            return
        about = {"redrive": source, "broker": broker}
        try:
            with Path(path).open("r" if dry_run else "a+", encoding="utf-8") as file:
                file.seek(0)
                lines = file.read().split("\n")
                if lines != [""]:
                    _check(lines[0], about, path)
                ledger = cls(file, {moved for line in lines[1:] if (moved := _moved(line)) is not None})
                if not dry_run:
                    if lines == [""]:
                        ledger._write([about])
                    elif lines[-1]:
                        file.write("\n")
                yield ledger
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"ledger {path}: {error}") from error

    def __contains__(self, letter: Delivery) -> bool:
        return bool(self._moved) and _name(letter) in self._moved

    def add(self, letters: Sequence[Delivery]) -> None:
        """They are stored in their source, and may not be moved again."""
        names = [name for letter in letters if (name := _name(letter)) is not None]
        if self._file is not None and names:
            self._moved.update(names)
            self._write([{"moved": name} for name in names])

    def _write(self, lines: Sequence[dict[str, str]]) -> None:
        assert self._file is not None
        self._file.write("".join(json.dumps(line) + "\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())


def _name(letter: Delivery) -> str | None:
    """One message may be dead-lettered again after it was moved: then it is another dead letter.

    None for one that does not tell when it was given up, as the broker's own: it may be either, and is moved again.
    """
    time = letter.headers.get(TIME)
    return f"{letter.id}@{time}" if time else None


def _moved(line: str) -> str | None:
    try:
        moved = json.loads(line)["moved"]
    except (ValueError, KeyError, TypeError):
        return None
    return moved if isinstance(moved, str) else None


def _check(line: str, about: dict[str, str], path: str | Path) -> None:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if found != about:
        raise ConfigurationError(
            f"ledger {path} is not one of a redrive to {about['redrive']!r} on {about['broker']}: name another file"
        )
