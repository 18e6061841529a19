"""What a saboteur is tried on: a memory broker of its own, and what the suite may do to that."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from messaging import Broker, Message, Topology, config
from messaging.topology import Source
from messaging_contract.conditions import Narrow, full_queue, impatience_for
from messaging_contract.faults import Direction
from messaging_contract.harness import Harness
from messaging_contract.saboteurs.line import Line, LineDriver
from messaging_contract.saboteurs.saboteur import Saboteur
from messaging_contract.sql.database import Database
from messaging_memory import MemoryServer


class MemoryLink:
    """A `Link` of a driver in memory. Cutting and silence are the same to it, and both ways are."""

    def __init__(self, connect: Any, line: Line) -> None:
        self.connect = connect
        self._line = line
        self.resume = line.resume

    def cut(self, _direction: Direction = "both") -> None:
        self._line.cut()

    def blackhole(self, _direction: Direction = "both") -> None:
        self._line.cut()

    def delay(self, seconds: float, _direction: Direction = "both") -> None:
        self._line.delay(seconds)

    def throttle(self, _bytes_per_second: float, _direction: Direction = "both") -> None:
        raise NotImplementedError("no bytes go over this line")

    def close(self) -> None:
        self.resume()


def harness_of(
    saboteur: Saboteur, patience: float = 6.0, server: MemoryServer | None = None, database: str | None = None
) -> Harness:
    """A harness of one saboteur: a memory server of its own, unless one is given, and a driver a connection.

    database: its URL; SQLite in a temporary file unless told.
    """
    server = server or MemoryServer()
    lines: list[Line] = []

    def connect(line: Line | None = None, **keywords: Any) -> Broker:
        topology, create = keywords.pop("topology", None), keywords.pop("create", True)
        options = config.build_options(saboteur.driver.Options, {"server": server, **keywords}, "memory")
        driver = saboteur.driver(options)
        if isinstance(driver, LineDriver):
            driver.line = line or Line()
            lines.append(driver.line)
        try:
            driver.open()
            broker = saboteur.broker(driver, create=create)
            broker.declare(Topology.of(topology))
        except BaseException:
            driver.close()
            raise
        return broker

    def link() -> MemoryLink:
        line = Line()
        return MemoryLink(lambda **keywords: connect(line, **keywords), line)

    def pause() -> None:
        for line in lines:
            line.cut()

    def unpause() -> None:
        for line in lines:
            line.resume()

    def restart() -> None:
        pause()
        saboteur.driver.restarted(server)  # type: ignore[attr-defined]
        unpause()

    def foreign(source: Source, body: bytes, headers: dict[str, str]) -> None:
        with server.changed:
            server.publish(source.destination, Message(body, headers=headers, id=uuid4().hex), 0.0)

    harness = Harness(saboteur.name, connect, url="memory://", volume=300, quiet=0.1, patience=patience, pace=0.25)
    harness.foreign = foreign
    harness.database, harness.in_memory = Database(database, saboteur.kinds), True
    harness.impatient = impatience_for("memory://")
    harness.narrow = Narrow(connect=lambda: connect(server=MemoryServer(capacity=3)))
    harness.congested = lambda: full_queue(connect)
    if saboteur.on_a_line:
        harness.link, harness.restart, harness.pause, harness.unpause = link, restart, pause, unpause
        harness.kill = restart
    return harness
