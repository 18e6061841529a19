"""Which Kafka a broker is. No client library tells, so this asks as clients do when they connect: ApiVersions.

A broker lists the features that it supports, and the highest level of `metadata.version` names its release. It answers
before anybody has logged in.
"""

from __future__ import annotations

import socket
import ssl
import struct

SINCE_4_2 = 28

_RELEASES = ((30, ""), (SINCE_4_2, "4.2"), (26, "4.1"), (22, "4.0"))
"""From this level of metadata.version on it is that release; above the last one known, the level is told instead."""

_REQUEST = struct.Struct(">hhih")
_API_VERSIONS, _VERSION = 18, 3
_MOST = 1 << 20
_SUPPORTED_FEATURES = 0


def metadata_version(host: str, port: int, encrypted: bool, timeout: float) -> int | None:
    """The highest level that the broker knows, None when it does not answer within `timeout` seconds. Never raises."""
    try:
        with socket.create_connection((host, port), timeout) as plain:
            if not encrypted:
                return _level(_ask(plain))
            with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as secure:
                return _level(_ask(secure))
    except (OSError, ValueError, struct.error, IndexError):
        return None


def release(level: int | None) -> str:
    """The release with that highest level, "Kafka 4.2"; empty for None."""
    if level is None:
        return ""
    name = next((name for least, name in _RELEASES if level >= least), "")
    return f"Kafka {name}" if name else f"Kafka (metadata.version {level})"


def _ask(connection: socket.socket) -> bytes:
    name = b"anybroker"
    text = bytes([len(name) + 1]) + name
    request = _REQUEST.pack(_API_VERSIONS, _VERSION, 1, len(name)) + name + b"\0" + text + b"\x021" + b"\0"
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    if not 6 < size < _MOST:
        raise ValueError(f"an answer of {size} bytes")
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise OSError("the broker closed the connection")
        data += more
    return data


def _level(answer: bytes) -> int | None:
    return _features(answer).get("metadata.version")


def _features(answer: bytes) -> dict[str, int]:
    """The highest level of each feature that the broker supports, from its answer without the length."""
    reader = _Reader(answer, 4)  # behind the correlation id
    if reader.number(2) != 0:
        raise ValueError("the broker does not know this request")
    for _ in range(reader.varint() - 1):
        reader.skip(6)
        reader.tags()
    reader.skip(4)
    supported = reader.tags().get(_SUPPORTED_FEATURES, b"\1")
    found: dict[str, int] = {}
    features = _Reader(supported, 0)
    for _ in range(features.varint() - 1):
        name = features.take(features.varint() - 1).decode()
        features.skip(2)
        found[name] = features.number(2)
        features.tags()
    return found


class _Reader:
    """Kafka's compact encoding: lengths and counts are varints, one more than they mean."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        self._at += size

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big", signed=True)

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def tags(self) -> dict[int, bytes]:
        found = {}
        for _ in range(self.varint()):
            tag = self.varint()
            found[tag] = self.take(self.varint())
        return found
