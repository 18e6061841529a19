"""Every saboteur, with the clauses that should catch it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from messaging.driver import Driver
from messaging_contract.saboteurs import administering, line, receiving, sending
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver, HonestSender


@dataclass(frozen=True)
class Saboteur:
    """defect: what is wrong with it. likely: clauses to try first; all the others follow."""

    name: str
    defect: str
    driver: type[Driver]
    likely: tuple[str, ...] = ()
    on_a_line: bool = False


def _named(cls: type) -> tuple[str, str]:
    words = "".join(f"-{c.lower()}" if c.isupper() else c for c in cls.__name__).lstrip("-")
    return words, (cls.__doc__ or "").strip()


def _receiver(cls: type[HonestReceiver], *likely: str) -> Saboteur:
    driver = type(cls.__name__, (HonestDriver,), {"Receiver": cls})
    return Saboteur(*_named(cls), driver, likely)


def _sender(cls: type[HonestSender], *likely: str) -> Saboteur:
    driver = type(cls.__name__, (HonestDriver,), {"Sender": cls})
    return Saboteur(*_named(cls), driver, likely)


def _driver(cls: type[HonestDriver], *likely: str) -> Saboteur:
    return Saboteur(*_named(cls), cls, likely)


def _line(cls: Any, *likely: str) -> Saboteur:
    members: dict[str, Any] = {}
    if issubclass(cls, line.LineReceiver):
        members["LineReceiver"] = cls
    if issubclass(cls, line.LineSender):
        members["Sender"] = cls
    driver = cls if issubclass(cls, line.LineDriver) else type(cls.__name__, (line.LineDriver,), members)
    return Saboteur(*_named(cls), driver, likely, on_a_line=True)


HONEST = Saboteur("honest", "Nothing.", HonestDriver)
HONEST_LINE = Saboteur("honest-line", "Nothing.", line.LineDriver, on_a_line=True)

SABOTEURS = (
    # These first: they take the longest.
    _line(line.ForgetsToResubscribe, "faults.consumer-resumes"),
    _line(line.ForgetsPrefetch, "faults.prefetch-after-a-cut"),
    _line(line.ChokesOnStaleAcks, "faults.held-across-a-cut"),
    _line(line.LosesWhatItHeld, "faults.held-across-a-cut"),
    _line(line.HangsWhileDown, "faults.close-during-an-outage"),
    _line(line.ConfirmsWhileDown, "faults.outage"),
    _line(line.RepeatsWhenSlow, "faults.slow-network"),
    _line(line.WaitsForEver, "faults.futures-end"),
    _line(line.PingsAnyway, "faults.ping"),
    _line(line.AcksWaitForTheBroker, "faults.settled-before-flush-returns"),
    _line(line.FlushesWhileDown, "faults.settled-before-flush-returns"),
    _receiver(receiving.AcksEarly, "settle.unsettled-returns-on-close"),
    _receiver(receiving.DropsOnNack, "settle.nack-redelivers"),
    _receiver(receiving.NacksToAllGroups, "settle.nack-own-group-only"),
    _receiver(receiving.NacksEarly, "settle.nack-delay"),
    _receiver(receiving.LosesAHeader, "headers.round-trip"),
    _receiver(receiving.LeaksInternalHeaders, "headers.nothing-leaks"),
    _receiver(receiving.LowersHeaderNames, "headers.round-trip"),
    _receiver(receiving.WrongAttempt, "settle.attempt-counts"),
    _receiver(receiving.ForgetsAttempts, "settle.attempt-counts"),
    _receiver(receiving.ForgetsTheTime, "headers.fields"),
    _receiver(receiving.ReordersAKey, "ordering.publish-order"),
    _receiver(receiving.CommitsPastAGap, "settle.out-of-order-acks"),
    _receiver(receiving.KeepsOnClose, "settle.unsettled-returns-on-close"),
    _receiver(receiving.AcksOnClose, "settle.unsettled-returns-on-close"),
    _receiver(receiving.LosesUnreadOnClose, "settle.many-nacks"),
    _receiver(receiving.RejectDiscards, "dead_letter.content"),
    _receiver(receiving.RejectForgetsWhy, "dead_letter.content"),
    _receiver(receiving.RejectRequeues, "dead_letter.leaves-the-source"),
    _receiver(receiving.NeverResumes, "receive.pause"),
    _receiver(receiving.PausesTheGroup, "groups.pause-one-member"),
    _receiver(receiving.LagIsZero, "groups.lag"),
    _receiver(receiving.LateAtTheDeadline, "receive.empty-deadline"),
    _receiver(receiving.WaitsForAFullBatch, "receive.partial-batch"),
    _receiver(receiving.HangsOnClose, "receive.close-ends-blocked-receive"),
    _receiver(receiving.IgnoresReplay, "groups.replay-beginning"),
    _receiver(receiving.DeadLettersUnconfirmed, "dead_letter.unavailable"),
    _receiver(receiving.NacksAtOnce, "retry.back-off"),
    _receiver(receiving.SkipsAttempts, "retry.succeeds-later"),
    _receiver(receiving.BelongsToOneThread, "asyncio.round-trip"),
    _receiver(receiving.AcksWhenItCloses, "settle.flush"),
    _receiver(administering.ClaimsReplay, "groups.replay-beginning"),
    _sender(sending.DropsEverySeventh, "publish.many-complete"),
    _sender(sending.DuplicatesInBatches, "publish.many-complete"),
    _sender(sending.LosesTheEndOfBatches, "batching.chunked"),
    _sender(sending.SendsBatchesBackwards, "batching.keeps-order"),
    _sender(sending.LeaksToOthers, "receive.no-leak-between-queues"),
    _sender(sending.IgnoresTheDelay, "delay.queue"),
    _sender(sending.IgnoresMandatory, "publish.mandatory-unroutable"),
    _sender(sending.SwallowsErrors, "publish.mandatory-unroutable"),
    _sender(sending.NewIds, "publish.round-trip"),
    _sender(sending.ManglesEmptyBodies, "publish.empty-body"),
    _sender(sending.IgnoresTtl, "publish.ttl-expired"),
    _sender(sending.LosesTheKey, "headers.unicode"),
    _sender(sending.StripsWhitespace, "headers.any-bytes"),
    _sender(sending.NeverFlushes, "publish.close-flushes"),
    _sender(sending.ForgetsOneFailure, "publish.mandatory-unroutable"),
    _sender(sending.SwallowsBatchFailures, "publish.deleted-destination"),
    _sender(sending.CutsOffHeaders, "bad_input.huge-fields"),
    _driver(administering.CreatesWhenChecking, "topology.check-creates-nothing"),
    _driver(administering.IgnoresPatterns, "receive.patterns"),
    _driver(administering.StartsAtTheBeginning, "groups.start-at-declaration"),
    _driver(administering.DeclaringStartsAnew, "groups.declare-again-keeps-position"),
    _driver(administering.IgnoresPrefetch, "receive.prefetch-bound"),
    _driver(administering.NoHeartbeat, "settle.heartbeat"),
    _driver(administering.LeasesForEver, "settle.lease-expires"),
    _driver(administering.PurgesAllGroups, "topology.purge-own-group"),
    _driver(administering.CountsOneTooMany, "topology.fresh-is-empty"),
    _driver(administering.DeletesNothing, "topology.delete"),
    _driver(administering.SharesOneGroup, "groups.each-gets-all"),
    _driver(administering.IgnoresOrderedDeclarations, "topology.contradiction"),
    _driver(administering.PretendsToExtend, "meta.unsupported-refuses"),
    _driver(administering.RefusesNothing, "meta.unsupported-refuses"),
    _driver(administering.ExpiresAnyway, "publish.ttl-expired"),
    _driver(administering.DelaysAnyway, "settle.nack-delay"),
    _driver(administering.TakesAnySize, "limits.too-large"),
    _driver(administering.ClosesEverybody, "lifecycle.independent"),
    _driver(administering.StarvesTheSecond, "groups.member-joins"),
)
