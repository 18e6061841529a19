"""A child process that is killed without warning: no handler runs in it, nothing is flushed or closed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self


class ChildProcess:
    """Python with these arguments (`["-m", "my.consumer", url]`, `["-c", code]`), which says what it did in lines.

    Killed at the end of a `with` block. Every method may be called from any thread; each line goes to one caller.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._errors = ""
        self._readers = [Thread(target=each, daemon=True) for each in (self._read_lines, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def line(self, timeout: float) -> str | None:
        """The next line of its output, without its end; None when it has ended and there is no more.

        What it wrote before it was killed is still read. Raises TimeoutError after `timeout` seconds.
        """
        try:
            line = self._lines.get(timeout=timeout)
        except Empty:
            raise TimeoutError(f"the process wrote no line within {timeout:g} s") from None
        if line is None:
            self._lines.put(None)
        return line

    def expect(self, line: str, timeout: float) -> None:
        """Returns once it has written `line`; what comes before is dropped.

        Raises AssertionError, with the end of its stderr, when it has ended, TimeoutError after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while (found := self.line(max(deadline - time.monotonic(), 0.001))) != line:
            if found is None:
                self.kill()
                raise AssertionError(f"it ended before it wrote {line!r}: {self._errors[-2000:]}")

    def kill(self) -> None:
        """SIGKILL; returns once it is gone. Idempotent."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()

    @property
    def errors(self) -> str:
        """What it wrote to stderr; complete once it has ended."""
        return self._errors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._errors += line
