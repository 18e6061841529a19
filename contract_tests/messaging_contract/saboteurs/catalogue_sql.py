"""The saboteurs of the patterns on SQL. Needs SQLAlchemy."""

from __future__ import annotations

from typing import Any

from messaging_contract.saboteurs import recording, relaying
from messaging_contract.saboteurs.saboteur import Saboteur, named
from messaging_contract.saboteurs.wrap import HonestDriver
from messaging_contract.sql.kinds import Kinds


def _made(kinds: Kinds, cls: type, clauses: tuple[str, ...], several_writers: bool = False) -> Saboteur:
    return Saboteur(*named(cls), HonestDriver, clauses, kinds=kinds, several_writers=several_writers)


def _outbox(cls: Any, *clauses: str) -> Saboteur:
    return _made(Kinds(outbox=cls), cls, clauses)


def _relay(cls: Any, *clauses: str, several_writers: bool = False) -> Saboteur:
    return _made(Kinds(relay=cls), cls, clauses, several_writers)


def _inbox(cls: Any, *clauses: str) -> Saboteur:
    return _made(Kinds(inbox=cls), cls, clauses)


def _store(cls: Any, *clauses: str, several_writers: bool = False) -> Saboteur:
    return _made(Kinds(store=cls), cls, clauses, several_writers)


def _repository(cls: Any, *clauses: str) -> Saboteur:
    return _made(Kinds(repository=cls), cls, clauses)


def _projection(cls: Any, *clauses: str, several_writers: bool = False) -> Saboteur:
    return _made(Kinds(projection=cls), cls, clauses, several_writers)


SQL_SABOTEURS = (
    _outbox(relaying.AddsApart, "outbox.as-added", "outbox.late-commit"),
    _relay(relaying.GivesNewIds, "outbox.as-added"),
    _relay(relaying.ReadsFromACursor, "outbox.late-commit", several_writers=True),
    _relay(relaying.TakesOutFirst, "outbox.confirmed-first"),
    _relay(relaying.IgnoresLeases, "outbox.one-relay-a-row", "outbox.crashed-relay"),
    _relay(relaying.SharesKeys, "outbox.keys-in-order"),
    _relay(relaying.NeverTakesOver, "outbox.crashed-relay"),
    _relay(relaying.LetsLaterRowsPass, "outbox.failed-row"),
    _relay(relaying.DropsWhatFails, "outbox.failed-row"),
    _relay(relaying.StopsForOneTopic, "outbox.other-topics-go-on"),
    _relay(relaying.ForgetsOnStop, "outbox.stop-in-a-batch"),
    _relay(relaying.KeepsLanesOnStop, "outbox.stop-in-a-batch"),
    _relay(relaying.GoesOnThroughStop, "outbox.stop-in-a-batch"),
    _relay(relaying.PollsHotly, "outbox.no-hot-polling"),
    _relay(relaying.Hammers, "outbox.no-hammering"),
    _inbox(relaying.ForgetsMessages, "inbox.redelivered", "inbox.first-time"),
    _inbox(relaying.RemembersApart, "inbox.rolled-back"),
    _inbox(relaying.SharesMemory, "inbox.own-memory"),
    _inbox(relaying.AsksFirst, "inbox.two-at-once"),
    _store(recording.ForgetsTheVersion, "event_store.lost-update", "event_store.conflict"),
    _store(recording.ChecksBeforeTheTransaction, "event_store.lost-update"),
    _store(recording.CommitsRowByRow, "event_store.all-or-nothing"),
    _store(recording.AppendsApart, "event_store.late-commit"),
    _store(recording.SkipsLateCommits, "event_store.late-commit", several_writers=True),
    _store(recording.ReadsTheLastAgain, "event_store.one-order"),
    _store(recording.OrdersByTheClock, "event_store.clock"),
    _store(recording.PublishesAfterwards, "event_store.outbox"),
    _store(recording.PublishesOnItsOwn, "event_store.outbox", several_writers=True),
    _repository(recording.BelievesTheSnapshot, "event_store.snapshot"),
    _repository(recording.AppliesTheSnapshotTwice, "event_store.snapshot"),
    _projection(recording.CommitsThePositionFirst, "projection.crash"),
    _projection(recording.CommitsThePositionLast, "projection.crash"),
    _projection(recording.TakesNoTurns, "projection.turns"),
    _projection(recording.RebuildsOnTop, "projection.rebuild"),
    _projection(recording.ForgetsToRewind, "projection.rebuild"),
    _projection(recording.PassesOverFailures, "projection.failure"),
)
