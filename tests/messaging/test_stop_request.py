"""A request to stop that comes by a signal, wherever the main thread is."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

import pytest

from messaging.stop_request import StopRequest, stop_signals


@pytest.mark.parametrize("line", range(12))
def test_it_can_be_set_at_every_line_of_its_wait(line: int) -> None:
    """A trace function runs where a signal handler would: in the same thread, between two lines of `wait`."""
    request, lines = StopRequest(), 0

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal lines
        if frame.f_code is not StopRequest.wait.__code__:
            return None
        if event == "line":
            if lines == line:
                request.set()
            lines += 1
        return trace

    sys.settrace(trace)
    try:
        asked = request.wait(0.01)
    finally:
        sys.settrace(None)
    assert asked or lines <= line + 1  # set before the last line, it is seen by this wait
    assert request.wait(0) is (lines > line)


def test_signals_are_given_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    seen: list[int] = []
    with pytest.raises(ZeroDivisionError), stop_signals(seen.append):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    assert seen == [signal.SIGTERM, signal.SIGINT]
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_thread_installs_nothing() -> None:
    before, during = signal.getsignal(signal.SIGTERM), []

    def body() -> None:
        with stop_signals(lambda _number: None):
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert during == [before]
