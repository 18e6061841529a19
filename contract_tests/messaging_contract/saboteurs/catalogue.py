"""Every saboteur, with the clauses that must fail on it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from messaging import Broker
from messaging_contract.saboteurs import (
    administering,
    anchored,
    closing,
    core,
    line,
    pressing,
    receiving,
    retrying,
    sending,
    transacting,
)
from messaging_contract.saboteurs.saboteur import Saboteur, named
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver, HonestSender


def _receiver(cls: type[HonestReceiver], *clauses: str) -> Saboteur:
    driver = type(cls.__name__, (HonestDriver,), {"Receiver": cls})
    return Saboteur(*named(cls), driver, clauses)


def _sender(cls: type[HonestSender], *clauses: str) -> Saboteur:
    driver = type(cls.__name__, (HonestDriver,), {"Sender": cls})
    return Saboteur(*named(cls), driver, clauses)


def _driver(cls: type[HonestDriver], *clauses: str) -> Saboteur:
    return Saboteur(*named(cls), cls, clauses)


def _core(cls: type[Broker], *clauses: str) -> Saboteur:
    return Saboteur(*named(cls), HonestDriver, clauses, broker=cls)


def _core_on_a_line(cls: type[Broker], *clauses: str) -> Saboteur:
    return Saboteur(*named(cls), line.LineDriver, clauses, on_a_line=True, broker=cls)


def _line(cls: Any, *clauses: str) -> Saboteur:
    members: dict[str, Any] = {}
    if issubclass(cls, line.LineReceiver):
        members["LineReceiver"] = cls
    if issubclass(cls, line.LineSender):
        members["Sender"] = cls
    driver = cls if issubclass(cls, line.LineDriver) else type(cls.__name__, (line.LineDriver,), members)
    return Saboteur(*named(cls), driver, clauses, on_a_line=True)


def _transacting(cls: type[transacting.TransactingReceiver], *clauses: str) -> Saboteur:
    driver = type(cls.__name__, (transacting.TransactingDriver,), {"Receiver": cls})
    return Saboteur(*named(cls), driver, clauses)


_of_sql: tuple[Saboteur, ...] = ()
with suppress(ImportError):  # without SQLAlchemy the clauses about it cannot be run either
    from messaging_contract.saboteurs.catalogue_sql import SQL_SABOTEURS

    _of_sql = SQL_SABOTEURS

HONEST = Saboteur("honest", "Nothing.", HonestDriver, ())
HONEST_LINE = Saboteur("honest-line", "Nothing.", line.LineDriver, (), on_a_line=True)
HONEST_TRANSACTING = Saboteur("honest-transacting", "Nothing.", transacting.TransactingDriver, ())


def honest_for(saboteur: Saboteur) -> Saboteur:
    """The same without a defect."""
    if issubclass(saboteur.driver, transacting.TransactingDriver):
        return HONEST_TRANSACTING
    return HONEST_LINE if saboteur.on_a_line else HONEST


SABOTEURS = (
    # These first: they take the longest.
    _line(line.ForgetsToResubscribe, "faults.consumer-resumes", "faults.restart", "faults.pause-after-a-cut"),
    _line(line.ForgetsPrefetch, "faults.prefetch-after-a-cut"),
    _line(line.ChokesOnStaleAcks, "faults.held-across-a-cut", "faults.stale-settlements"),
    _line(
        line.LosesWhatItHeld,
        "faults.held-across-a-cut",
        "faults.reject-during-an-outage",
        "faults.worker-stops-during-an-outage",
    ),
    _line(line.HangsWhileDown, "faults.close-during-an-outage"),
    _line(
        line.ConfirmsWhileDown, "faults.outage", "faults.frozen-broker", "faults.silent-broker", "faults.producer-full"
    ),
    _line(line.RepeatsWhenSlow, "faults.slow-network"),
    _line(line.WaitsForEver, "faults.futures-end"),
    _line(line.PingsAnyway, "faults.ping"),
    _line(line.AcksWaitForTheBroker, "faults.settled-before-flush-returns"),
    _line(line.FlushesWhileDown, "faults.settled-before-flush-returns"),
    _line(anchored.LosesTheFirstAfterADrop, "faults.first-publish-after-a-drop"),
    _line(anchored.GivesUpSubscribing, "faults.subscribe-during-an-outage"),
    _line(anchored.ReturnsAfterClose, "faults.no-return-after-close"),
    _line(anchored.ForgetsThePattern, "faults.pattern-after-a-cut"),
    _line(line.ConfirmsInVain, "faults.producer-resumes"),
    _line(line.ConnectsLater, "faults.down-at-start"),
    _line(line.KeepsNacksToItself, "faults.periodic-errors-through-cuts"),
    _line(line.StoresInMemory, "faults.restart-keeps-stored", "faults.killed-broker"),
    _line(line.DelaysInMemory, "faults.restart-keeps-waiting"),
    _receiver(receiving.AcksEarly, "settle.unsettled-returns-on-close"),
    _receiver(
        receiving.DropsOnNack,
        "settle.nack-redelivers",
        "meta.side-by-side",
        "dead_letter.is-a-queue",
        "settle.batch-ack",
        "settle.twice-is-harmless",
        "retry.async-handler",
    ),
    _receiver(receiving.NacksToAllGroups, "settle.nack-own-group-only"),
    _receiver(receiving.NacksEarly, "settle.nack-delay"),
    _receiver(receiving.LosesAHeader, "headers.round-trip"),
    _receiver(
        receiving.LeaksInternalHeaders,
        "headers.nothing-leaks",
        "headers.control-characters-in-text",
        "headers.trace-context",
        "headers.long-value",
    ),
    _receiver(receiving.LowersHeaderNames, "headers.round-trip"),
    _receiver(
        receiving.WrongAttempt, "settle.attempt-counts", "receive.iteration", "receive.exposes", "retry.at-most-once"
    ),
    _receiver(
        receiving.ForgetsAttempts, "settle.attempt-counts", "settle.attempt-counts-mixed", "retry.one-settlement"
    ),
    _receiver(receiving.ForgetsTheTime, "headers.fields"),
    _receiver(
        receiving.ReordersAKey,
        "ordering.publish-order",
        "ordering.one-at-a-time",
        "ordering.reject-frees-the-key",
        "ordering.each-group",
        "ordering.given-back-twice",
        "retry.keeps-order-in-a-takeover",
    ),
    _receiver(receiving.OvertakesWhatFailed, "retry.keeps-order", "ordering.nack-keeps-order", "retry.keys-in-order"),
    _receiver(closing.TakesWhileItCloses, "lifecycle.closed-while-waiting"),
    _receiver(closing.CommitsUpToAGap, "settle.out-of-order-acks", "redrive.purge-chosen"),
    _receiver(closing.CommitsPastAGap, "settle.out-of-order-acks", "redrive.purge-chosen"),
    _receiver(
        closing.KeepsOnClose,
        "settle.unsettled-returns-on-close",
        "settle.after-close",
        "groups.member-leaves",
        "ordering.takeover",
        "retry.stop-waits",
        "retry.stop-deadline",
        "retry.async-stop-deadline",
        "retry.no-failure",
    ),
    _receiver(
        closing.AcksOnClose,
        "settle.unsettled-returns-on-close",
        "lifecycle.close-with-unread",
        "lifecycle.broker-closes-consumers",
    ),
    _receiver(closing.LosesUnreadOnClose, "settle.many-nacks", "lifecycle.close-costs-one-attempt"),
    _receiver(receiving.RejectDiscards, "dead_letter.content", "dead_letter.none", "dead_letter.declared-name"),
    _receiver(receiving.RejectForgetsWhy, "dead_letter.content", "redrive.fails-again", "redrive.peek-leaves"),
    _receiver(receiving.RejectRequeues, "dead_letter.leaves-the-source"),
    _receiver(receiving.NeverResumes, "receive.pause", "receive.hold-pause-resume", "backpressure.gate"),
    _receiver(receiving.PausesTheGroup, "groups.pause-one-member"),
    _receiver(receiving.LagIsZero, "groups.lag"),
    _receiver(receiving.LateAtTheDeadline, "receive.empty-deadline"),
    _receiver(receiving.WaitsForAFullBatch, "receive.partial-batch"),
    _receiver(closing.HangsOnClose, "receive.close-ends-blocked-receive", "receive.close-ends-iteration"),
    _receiver(receiving.IgnoresReplay, "groups.replay-beginning", "groups.replay-time"),
    _receiver(receiving.DeadLettersUnconfirmed, "dead_letter.unavailable", "dead_letter.unavailable-at-close"),
    _receiver(receiving.NacksAtOnce, "retry.back-off"),
    _receiver(receiving.SkipsAttempts, "retry.succeeds-later", "retry.outage"),
    _receiver(retrying.LosesDelayedRetries, "settle.nack-delay"),
    _receiver(retrying.BeginsAttemptsAnew, "settle.nack-delay"),
    _receiver(retrying.RetriesToAllGroups, "retry.own-group"),
    _receiver(retrying.SharesAWaitQueue, "retry.deleted-neighbour"),
    _receiver(retrying.RetriesInTurn, "retry.short-overtakes-long"),
    _receiver(retrying.KeepsTheFirstDelay, "retry.back-off", "retry.last-delay-repeats"),
    _receiver(retrying.DropsAtADeliveryLimit, "retry.many-rounds"),
    _receiver(retrying.DeadLettersAtADeliveryLimit, "retry.many-rounds", "settle.nack-without-end"),
    _receiver(retrying.GivesUpTheUnhandled, "retry.unhandled-is-kept"),
    _receiver(retrying.NeverDeadLetters, "retry.exhausted"),
    _receiver(retrying.DeadLettersNeighbours, "dead_letter.only-the-failed", "groups.own-progress"),
    _receiver(
        retrying.DropsEverySecondDeadLetter,
        "dead_letter.only-the-failed",
        "dead_letter.close-carries-out",
        "redrive.dry-run",
    ),
    _receiver(retrying.DropsTheUndecodable, "dead_letter.undecodable", "retry.never"),
    _receiver(retrying.ForgetsHowOften, "dead_letter.content"),
    _receiver(
        receiving.BelongsToOneThread,
        "asyncio.round-trip",
        "asyncio.cancel-receive",
        "asyncio.loop-left-early",
        "asyncio.close-ends-receive",
        "retry.periodic-errors",
        "retry.cancelled-inside",
        "settle.from-other-threads",
    ),
    _receiver(closing.AcksWhenItCloses, "settle.flush", "batching.many-messages"),
    _receiver(
        receiving.SleepsBetweenPolls, "receive.wakes-up", "asyncio.loop-goes-on", "settle.blocked-receive-sees-room"
    ),
    _receiver(receiving.DropsTheForeign, "receive.foreign", "receive.foreign-bodies"),
    _receiver(receiving.TakesAnyDelay, "settle.nack-negative"),
    _receiver(receiving.IgnoresTheMost, "receive.at-most"),
    _receiver(receiving.SharesWhatItDelivers, "settle.failed-attempt-leaves-no-trace"),
    _receiver(closing.ForgetsBufferedAcks, "settle.acked-never-returns"),
    _receiver(receiving.GivesBackLongLeases, "settle.extend-above-maximum"),
    _receiver(receiving.IdlesWhenItIsDeleted, "faults.source-deleted"),
    _receiver(receiving.ExtendsSilently, "settle.extend"),
    _receiver(retrying.StopsForADelay, "settle.nack-delay-blocks-nobody", "retry.others-go-on"),
    _receiver(retrying.LetsDeadLettersExpire, "dead_letter.does-not-expire"),
    _receiver(retrying.KeepsTheOldStory, "dead_letter.back-and-again"),
    _receiver(retrying.SharesADeadLetterQueue, "dead_letter.own-group"),
    _receiver(retrying.ChokesOnALongReason, "dead_letter.long-reason"),
    _receiver(retrying.RefusesADelayTooLate, "retry.delay-refused-at-start", "retry.ordered-delays-together"),
    _receiver(retrying.NeedsItsDeadLetters, "dead_letter.missing-at-subscribe"),
    _receiver(retrying.LosesLargeDeadLetters, "limits.largest-in-every-place"),
    _receiver(administering.ClaimsReplay, "groups.replay-beginning"),
    _sender(
        sending.DropsEverySeventh,
        "publish.many-complete",
        "asyncio.many-at-once",
        "asyncio.cancel-publish",
        "limits.many-keys",
        "publish.concurrent",
        "publish.nowait",
        "publish.flush",
        "publish.bounded-in-flight",
        "receive.competing-consumers",
    ),
    _sender(
        sending.DuplicatesInBatches,
        "retry.handler-stops-the-worker",
        "publish.many-complete",
        "asyncio.iteration",
        "receive.pause-while-iterating",
        "settle.at-most-once",
    ),
    _sender(
        sending.LosesTheEndOfBatches,
        "batching.chunked",
        "batching.chunked-by-size",
        "batching.acks-chunked",
        "groups.more-members-than-work",
        "headers.typed-values",
    ),
    _sender(sending.SendsBatchesBackwards, "batching.keeps-order"),
    _sender(
        sending.LeaksToOthers,
        "receive.no-leak-between-queues",
        "delay.own-queue",
        "lifecycle.shared-connection",
        "receive.many-topics-at-once",
        "receive.one-handler-many-sources",
        "topology.names-with-dots",
    ),
    _sender(sending.IgnoresTheDelay, "delay.queue", "limits.delay-above-maximum"),
    _sender(retrying.CutsTheDelayShort, "delay.queue", "delay.topic"),
    _sender(retrying.DelaysTheFirst, "delay.queue", "delay.topic"),
    _sender(retrying.DelaysInTurn, "delay.overtakes"),
    _sender(sending.IgnoresMandatory, "publish.mandatory-unroutable"),
    _sender(sending.SwallowsErrors, "publish.mandatory-unroutable"),
    _sender(sending.RedrivesToEverybody, "redrive.origin-only"),
    _sender(sending.RedrivesAsNew, "redrive.as-it-was", "redrive.keeps-order", "redrive.chosen"),
    _sender(sending.RedrivesUnheard, "redrive.refused"),
    _sender(sending.RedrivesWithTheStory, "redrive.as-it-was"),
    _sender(sending.NewIds, "publish.round-trip", "headers.id"),
    _sender(sending.ManglesEmptyBodies, "publish.empty-body"),
    _sender(sending.IgnoresTtl, "publish.ttl-expired", "settle.nack-delay-unchanged"),
    _sender(
        sending.LosesTheKey,
        "headers.unicode",
        "headers.odd-values",
        "headers.control-characters",
        "headers.many",
        "limits.short-texts",
        "ordering.other-keys-go-on",
        "ordering.several-publishers",
    ),
    _sender(sending.StripsWhitespace, "headers.any-bytes"),
    _sender(sending.NeverFlushes, "publish.close-flushes"),
    _sender(sending.ForgetsOneFailure, "publish.mandatory-unroutable"),
    _sender(sending.StaysBroken, "publish.deleted-destination", "publish.failed-leaves-producer-usable"),
    _sender(sending.SwallowsBatchFailures, "publish.deleted-destination"),
    _sender(sending.CutsOffHeaders, "bad_input.huge-fields"),
    _sender(anchored.SwallowsRefusals, "publish.refused-by-the-broker"),
    _receiver(anchored.LosesPatience, "settle.outlasts-impatience"),
    _receiver(anchored.LeavesWithItsWork, "retry.more-and-fewer-workers"),
    _sender(sending.CutsOffBodies, "limits.near-the-limit", "limits.large-to-a-topic", "batching.mixed-sizes"),
    _sender(sending.ForgetsUnknownContentTypes, "headers.own-codec", "headers.content-type"),
    _sender(sending.LeavesTheEnvelope, "receive.typed", "headers.as-type", "headers.decode-error"),
    _sender(sending.OnePropertySetABatch, "publish.many-of-values"),
    _sender(sending.NeedsASubscriber, "publish.no-subscriber"),
    _sender(sending.ConfirmsWithTheNext, "lifecycle.future-callback"),
    _sender(sending.DelaysInTheClient, "delay.waits-in-the-broker"),
    _sender(sending.DeduplicatesById, "ordering.same-id-again"),
    _sender(sending.LeaksToOtherTopics, "receive.no-leak-between-topics"),
    _sender(sending.ConfirmsFirst, "publish.confirmed-is-stored"),
    _driver(
        administering.CreatesWhenChecking,
        "topology.check-creates-nothing",
        "publish.missing-destination",
        "publish.undeclared-name",
        "receive.missing-source",
        "receive.missing-subscription",
        "topology.check-subscription",
    ),
    _driver(administering.PlansNoDeadLetters, "topology.plan-is-what-is-made"),
    _driver(administering.FindsEverything, "topology.plan-is-what-is-made"),
    _driver(administering.MakesWhatItLooksFor, "topology.inspect-creates-nothing"),
    _driver(administering.IgnoresPatterns, "receive.patterns", "topology.another-pattern"),
    _driver(administering.StartsAtTheBeginning, "groups.start-at-declaration", "receive.subscription-added-later"),
    _driver(
        administering.DeclaringStartsAnew,
        "groups.declare-again-keeps-position",
        "lifecycle.connect-close-connect",
        "topology.idempotent",
    ),
    _driver(administering.IgnoresPrefetch, "receive.prefetch-bound", "receive.prefetch-through-pause"),
    _driver(administering.NoHeartbeat, "settle.heartbeat"),
    _driver(administering.LeasesForEver, "settle.lease-expires", "settle.lease-frees-prefetch"),
    _driver(administering.PurgesAllGroups, "topology.purge-own-group"),
    _driver(administering.CountsOneTooMany, "topology.fresh-is-empty", "publish.destination-value", "topology.depth"),
    _driver(administering.DeletesNothing, "topology.delete", "topology.delete-and-declare-again"),
    _driver(administering.SharesOneGroup, "groups.each-gets-all", "groups.retain"),
    _driver(administering.IgnoresOrderedDeclarations, "topology.contradiction"),
    _driver(administering.PretendsToExtend, "meta.unsupported-refuses"),
    _driver(administering.RefusesNothing, "meta.unsupported-refuses"),
    _driver(administering.ExpiresAnyway, "publish.ttl-expired"),
    _driver(administering.DelaysAnyway, "settle.nack-delay"),
    _driver(administering.TakesAnySize, "limits.too-large", "limits.batch-checked-first"),
    _driver(administering.ClosesEverybody, "lifecycle.independent"),
    _driver(
        administering.StarvesTheSecond,
        "groups.member-joins",
        "lifecycle.ten-at-once",
        "groups.rebalance-keeps-acks",
        "retry.start-again",
    ),
    _driver(administering.LocksNoKeys, "ordering.competing-consumers"),
    _driver(administering.StartsAtTheEnd, "publish.before-consumer", "groups.restart-resumes"),
    _driver(administering.PrefetchesOne, "retry.concurrency"),
    _driver(administering.PurgesNothing, "topology.purge"),
    _driver(administering.CountsWhatIsMissing, "redrive.origin-gone"),
    _driver(administering.PurgesDeadLettersToo, "topology.purge"),
    _driver(administering.DeletesOthersDeadLetters, "topology.delete-leaves-dead-letters"),
    _driver(administering.FreesOnlyByAck, "receive.prefetch-freed-by-nack-and-reject"),
    _driver(administering.FailsToPing, "lifecycle.ping"),
    _driver(administering.CallsItselfOtherwise, "meta.name"),
    _driver(administering.HidesItsClient, "meta.native"),
    _driver(administering.ExplainsNothing, "meta.capabilities"),
    _driver(administering.LeasesShortly, "settle.slow-handler"),
    _driver(administering.LeavesItsThread, "lifecycle.nothing-left-running"),
    _driver(
        administering.JoinsForTooLong, "lifecycle.context-managers", "lifecycle.close-by-many", "lifecycle.close-twice"
    ),
    _driver(administering.TakesAnyOption, "bad_input.option"),
    _driver(administering.TakesAnyNativeOption, "topology.options-of-other-brokers"),
    _transacting(transacting.ShowsBeforeTheCommit, "exactly_once.commit"),
    _transacting(transacting.ForgetsToSettle, "exactly_once.commit"),
    _transacting(transacting.KeepsWhatWasAborted, "exactly_once.abort", "exactly_once.to-a-queue"),
    _transacting(transacting.SettlesWhenAborting, "exactly_once.abort"),
    _transacting(transacting.TurnsAround, "exactly_once.abort"),
    _transacting(transacting.SettlesAllItHandedOut, "exactly_once.worker-stops"),
    _transacting(transacting.RejectsAtOnce, "exactly_once.worker"),
    _transacting(transacting.LetsOneGoBack, "exactly_once.asked-wrongly"),
    _driver(transacting.TransactsQueues, "exactly_once.refused-on-queues"),
    _core(
        core.TakesAnyMessage,
        "bad_input.value",
        "delay.invalid",
        "headers.invalid-refused",
        "ordering.key-required",
        "publish.batch-failures",
        "publish.deadline-passed",
    ),
    _core(core.TakesOutWhatHasAKnownId, "redrive.again-without-a-time"),
    _core(core.WorksWhenClosed, "lifecycle.closed-broker", "publish.after-close"),
    _core(core.IgnoresUnknownOptions, "bad_input.consumer-option"),
    _sender(pressing.TellsNothing, "backpressure.says-why"),
    _sender(pressing.NeverSaysThatItGoesOn, "backpressure.says-why"),
    _sender(pressing.NamesAnotherReason, "backpressure.says-why"),
    _sender(pressing.TrustsTheCallback, "backpressure.callback-raises"),
    _core_on_a_line(pressing.ForgetsTheCallback, "backpressure.in-flight"),
    _driver(pressing.DepthIsZero, "backpressure.lag-throttle"),
    _line(pressing.GuessesTheDepth, "backpressure.lag-unknown"),
    _receiver(pressing.GivesBackOnPause, "backpressure.gate"),
    _core(core.LetsGoForAll, "backpressure.two-pauses"),
    _core(pressing.FindsAnySource, "backpressure.bad-input"),
    _core(core.GuessesWhatIsMeant, "topology.queue-or-topic", "receive.group-or-not"),
    _core(core.IgnoresThePattern, "topology.patterns-checked"),
    _core(core.ForgetsThatItIsClosed, "lifecycle.closed-consumer"),
    *_of_sql,
)
