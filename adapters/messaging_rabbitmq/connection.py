"""A pika connection whose busy channels read their frames without pika's objects for each of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from struct import Struct
from typing import Any

from pika import SelectConnection, exceptions, frame
from pika.channel import Channel

from messaging_rabbitmq.wire import DELIVER, FRAME_END, METHOD, OVERHEAD, RETURN

_frame_header = Struct(">BHI").unpack_from
_method_id = Struct(">I").unpack_from
_RECEIVE_BYTES = 128 * 1024
_WRITE_BYTES = 128 * 1024


class FrameHandler(ABC):
    """Takes the frames of one channel, on the connection's I/O thread."""

    @abstractmethod
    def frame(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        """`data[start:stop]` is the payload of one frame. False leaves the frame to pika."""

    @abstractmethod
    def frames_end(self) -> None:
        """All frames of this read were given: hand over what they brought in one go."""


class _Discard(FrameHandler):
    """Takes the content of a channel that is being closed. pika could not: the half before may have gone elsewhere."""

    def frame(self, kind: int, data: bytes, start: int, stop: int) -> bool:
        return kind != METHOD or _method_id(data, start)[0] in (DELIVER, RETURN)

    def frames_end(self) -> None:
        pass


_DISCARD = _Discard()

# The typed face of pika leaves out what is overridden here.
_SelectConnection: Any = SelectConnection


class FrameConnection(_SelectConnection):  # type: ignore[misc]
    """pika's SelectConnection, with a short way in and a short way out.

    In: frames of channels in `handlers` go there first; everything else is pika's. Out: `write` takes whole
    encoded frames. It relies on pika's `_on_data_available`, `_frame_buffer`, `_process_frame` and
    `_output_marshaled_frames`, which are the same from pika 1.0 to 1.4. Only the I/O thread uses it.
    """

    _frame_buffer: bytes

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.handlers: dict[int, FrameHandler] = {}
        super().__init__(*arguments, **options)

    @property
    def frame_max(self) -> int:
        """The largest frame both sides take, bytes, with its 8 bytes of overhead."""
        return int(self.params.frame_max)

    def open_channel(
        self, opened: Callable[[Channel], None], closed: Callable[[Channel, BaseException], None]
    ) -> Channel:
        """A new channel. `closed` is called once, whoever closes it; a channel's number is not used again before."""
        channel: Channel = self.channel(on_open_callback=opened)
        channel.add_on_close_callback(lambda gone, _reason: self.handlers.pop(gone.channel_number, None))
        channel.add_on_close_callback(closed)
        return channel

    def let_go(self, channel: Channel) -> None:
        """Closes `channel`, also while it is being opened. Does nothing when it is closed or about to be."""
        if not (channel.is_closed or channel.is_closing):
            self.handlers[channel.channel_number] = _DISCARD
            channel.close()

    def read_in_large_pieces(self) -> None:
        """Raises what one read takes from pika's 4 KiB; otherwise every read splits a frame."""
        self._transport._MAX_RECV_BYTES = _RECEIVE_BYTES

    def write(self, frames: list[bytes]) -> None:
        """Sends whole frames, joined, in pieces that a partly full socket buffer does not make expensive."""
        if not self.is_open:
            return
        piece: list[bytes] = []
        size = 0
        for data in frames:
            piece.append(data)
            size += len(data)
            if size >= _WRITE_BYTES:
                self._output_marshaled_frames([b"".join(piece)])
                piece.clear()
                size = 0
        if piece:
            self._output_marshaled_frames([b"".join(piece)])

    def abort(self, reason: str) -> None:
        """Drops the connection without a word to the broker."""
        if not self.is_closed:
            self._terminate_stream(exceptions.StreamLostError(reason))

    def _on_data_available(self, data_in: bytes) -> None:
        if not self._opened:
            super()._on_data_available(data_in)
            return
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        # Frames left to pika may end the connection, which empties the buffer: then nothing may be put back.
        self._frame_buffer = b""
        self.bytes_received += len(data_in)
        handlers = self.handlers
        touched = set()
        at, end = 0, len(data)
        while end - at >= OVERHEAD:
            kind, channel, size = _frame_header(data, at)
            stop = at + OVERHEAD + size
            if stop > end:
                break
            if data[stop - 1] != FRAME_END:
                raise exceptions.InvalidFrameError("a frame does not end with its end marker")
            handler = handlers.get(channel)
            if handler is not None and handler.frame(kind, data, at + 7, stop - 1):
                touched.add(handler)
            else:
                self._process_frame(frame.decode_frame(data[at:stop])[1])
                if self.is_closed:
                    return
            at = stop
        self._frame_buffer = data[at:] if at else data
        for handler in touched:
            handler.frames_end()
