"""What others' suites test and what fails in production: the list this suite is measured against.

`ANCHORS`: clauses gathered from the suites of Watermill, Go CDK, Dapr, Spring Cloud Stream, Kombu, FastStream,
NServiceBus, Rebus, Wolverine, Brighter, Benthos, queue-interop, omniqueue, MassTransit, SmallRye, Jepsen and repid.
`FAILURES`: what their users' issues report and none of them tests well. A clause names the numbers it covers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from messaging_contract.clause import Clause

ANCHORS = {
    1: "A published message is received once with byte-identical body and the same id.",
    2: "A list of N messages published in one call arrives complete.",
    3: (
        "Messages published before any consumer is attached (queue/group already initialised) are delivered "
        "when one attaches."
    ),
    4: "Concurrent publishers sharing one publisher object lose nothing (50 threads, 5000 messages).",
    5: (
        "publish() returning normally means the broker accepted it; a confirmation carries message id and destination."
    ),
    6: (
        "Publishing to a missing destination with auto-create off fails with a NotFound-class error at send, "
        "not at open."
    ),
    7: "Unroutable publish is reported, one error per message.",
    8: "Publish with no subscriber at all succeeds when the adapter says unroutable is allowed.",
    9: "publish() under an already expired/cancelled deadline fails promptly with the cancel/timeout error.",
    10: "publish() on a closed publisher raises.",
    11: "A send that fails reports the failure with the message id to the caller / error channel.",
    12: (
        "Messages sent inside a rolled-back transaction never appear; on commit all appear; explicitly "
        "isolated sends appear regardless."
    ),
    13: "Closing the publisher flushes everything already accepted.",
    14: "A send-only client works with no receiver configured, and reports zero receivers.",
    15: "Empty body and None body are preserved or rejected, never dropped or turned into another value.",
    16: "A message past its TTL is not delivered; one not yet expired is; message TTL overrides queue TTL.",
    17: "Higher priority overtakes lower; after requeue a newly arrived maximum priority still goes first.",
    18: "Batch publish returns per-entry failures; entries that failed are the only ones not delivered.",
    19: (
        "Publish during an outage either raises or blocks to its deadline and succeeds after recovery without "
        "losing confirmed messages."
    ),
    20: "Receiving from an empty source returns none/timeout close to the deadline, no exception storm.",
    21: "A partial batch is returned without waiting for the full batch.",
    22: "Two topics never leak into each other.",
    23: "One handler on several topics gets all of them.",
    24: "20 topics x 100 messages concurrently all complete.",
    25: "50 competing consumers on one queue: union of received = sent.",
    26: "Iterator/stream consumption yields messages and can be stopped early; handler can stop the consumer.",
    27: "In-flight messages never exceed prefetch / concurrency limit.",
    28: "Raising and lowering concurrency while running takes effect without failing in-flight messages.",
    29: "More messages than the limit are all eventually processed.",
    30: "A consumer that holds many unacked messages and pauses resumes cleanly after acking.",
    31: "Receiving from a missing source raises within a bounded time rather than hanging.",
    32: "Cancelling a blocked receive returns promptly; two concurrent receives are both cancelled.",
    33: (
        "Received message exposes native id, receive address/topic, headers, partition+offset or delivery "
        "tag, loggable id."
    ),
    34: "Pattern / wildcard subscription matches what fits the pattern and nothing else.",
    35: (
        "Messages not produced by this library (no headers, no id, non-JSON) are delivered or dead-lettered; "
        "they never crash the loop."
    ),
    36: "A subscription added after start works; removing it stops delivery.",
    37: "A consumer on another channel sees nothing.",
    38: "Receive returns a message enqueued while it was already blocked waiting.",
    39: (
        "An acked message never returns (including after visibility timeout, restart, or new consumer in the "
        "same group)."
    ),
    40: "A nacked / requeued message is delivered again with identical content.",
    41: "Delivery count is 1 on first delivery and +1 on each redelivery.",
    42: "Delivery count resets after a delayed (re-published) retry.",
    43: "reject(requeue=False) drops or dead-letters and never redelivers.",
    44: "Acking twice is harmless; a second settlement after the first is ignored.",
    45: "Nack of a batch containing already acked ids succeeds and still redelivers the unacked one.",
    46: "Unacked messages of a closed consumer are redelivered to another one.",
    47: "Message-scoped context is cancelled on ack and on close.",
    48: "In ordered mode no second message is delivered before the first is acked.",
    49: (
        "Acks out of order never move the committed position past the lowest unsettled message; after restart "
        "delivery resumes there."
    ),
    50: "Handler exception triggers the configured policy (ack / nack / reject), exactly one settlement.",
    51: (
        "Framework cancellation of a handler at shutdown settles nothing (no ack, nack or reject) and the "
        "message is redelivered after restart."
    ),
    52: "Ack does not block the handler; an asynchronous ack failure surfaces on a later call.",
    53: (
        "A message held longer than the visibility/ack deadline is redelivered; extending the deadline "
        "prevents it; a second consumer does not see it meanwhile."
    ),
    54: "An ack extension beyond the broker maximum is rejected locally.",
    55: "Manual ack is refused when auto-commit is on.",
    56: (
        "If the error handler itself throws, a critical error is raised and the message is retried; nothing "
        "else is logged above Info."
    ),
    57: "3 consumers x 100 nacks each, then a good consumer still receives every message.",
    58: "In a batch, failing one entry neither loses nor re-runs the others.",
    59: "Header or body changes made by a failed attempt are not visible to the retry or error handler.",
    60: "Data a handler put in the message context is visible to the error handler of that attempt.",
    61: "Auto-ack / auto-commit mode settles without handler action.",
    62: "Same-key messages arrive in publish order with one consumer (1000 messages, 16 keys).",
    63: "FIFO group order holds with several publishers and several groups.",
    64: "Same key -> same partition; distinct keys spread; explicit partition honoured.",
    65: "Order per key/partition survives a rebalance.",
    66: "FIFO publish without group id (or dedup id) fails.",
    67: "Offsets and values agree across all observers; polls neither skip nor go backwards within one assignment.",
    68: "Two groups each receive every message.",
    69: "Within a group each message is handled by exactly one member; the sum equals the published count.",
    70: "Anonymous groups each get their own copy and miss messages sent while detached.",
    71: "A group declared before publish retains messages until it attaches (one group, two groups).",
    72: "A member joining triggers a rebalance after which both receive and nothing is lost.",
    73: "A member leaving hands its work over; nothing lost.",
    74: "More members than partitions: extra members idle without error.",
    75: "New group starts at earliest/latest as configured.",
    76: "A restarted member resumes from the committed position; explicit reset works.",
    77: "Offsets are committed on revoke and never race with the revoke.",
    78: "Pause state is kept across a rebalance.",
    79: "Handler failing k times below the limit then succeeding is processed on attempt k+1.",
    80: "After the maximum attempts the message is in the DLQ and gone from the source.",
    81: "Non-retryable exception types go to the DLQ at attempt 1.",
    82: "DLQ message keeps body, key, headers, and adds origin, reason, exception, attempt count.",
    83: "The DLQ write is confirmed before the source message is settled.",
    84: "With no DLQ configured the documented fallback happens (ack + log, or keep) and is observable.",
    85: "Undecodable messages go to an invalid-message channel, falling back to the DLQ.",
    86: "DLQ name and partition are configurable.",
    87: "Retry delays follow the back-off policy.",
    88: "A failing message does not stop others.",
    89: "In batch mode only failed records reach the DLQ.",
    90: "A fault event with the original payload and exception type reaches subscribers.",
    91: "DLQ redrive either works or raises Unsupported.",
    92: "A delayed message is not seen before the delay and is seen within tolerance.",
    93: "Requeue with delay redelivers only after the delay.",
    94: "A short delay overtakes a longer one published earlier.",
    95: "A delay above the broker maximum is handled (chained) or rejected locally.",
    96: "When delay is unsupported or switched off the call raises clearly.",
    97: "String headers round-trip exactly.",
    98: "Unicode header values round-trip.",
    99: "Odd keys and values survive: slashes, quotes, backslashes, spaces, digits first, ASCII 0-127.",
    100: "Non-UTF-8 header key or value is rejected at publish.",
    101: "Arbitrary bytes body round-trips.",
    102: (
        "Typed payloads (str, int, float, bool, dict, list, datetime, dataclass, model) round-trip through "
        "the serializer."
    ),
    103: "Content type and encoding are preserved, and choose the deserializer.",
    104: "Message id: generated unique when absent, preserved when given.",
    105: "correlation id, reply-to, source, timestamp, type, subject are preserved.",
    106: "Trace context (traceparent, tracestate, baggage) is propagated.",
    107: "Internal headers do not leak to the receiver; excluded prefixes are filtered.",
    108: "Null or non-string header values are handled without crash.",
    109: "A decoder error in one message leaves the consumer alive.",
    110: "Compression is transparent.",
    111: "Payload at the limit round-trips; above it a typed error is raised locally and nothing is sent.",
    112: "For a batch, sizes are checked before the first chunk is sent (all or nothing).",
    113: "Characters the broker cannot carry are escaped or rejected (SQS).",
    114: "More header attributes than the broker allows (SQS 10) raise locally or are packed.",
    115: "A batch of n is sent and received whole.",
    116: "Batches above the broker limit are chunked.",
    117: "Receive-batch returns up to n or what is there at the deadline.",
    118: (
        "Client-side batcher flushes on size, bytes, time and on shutdown; an item larger than the byte limit "
        "is rejected."
    ),
    119: "Batched acks group correctly and split when too many.",
    120: "Middleware that rewrites batch bodies keeps keys aligned.",
    121: "connect -> close -> connect works on one object.",
    122: "stop before start is a no-op.",
    123: "Second close has one defined outcome.",
    124: "Ten consumers opened and closed concurrently leave the system usable.",
    125: "Graceful stop waits for in-flight handlers and does not cancel their token.",
    126: "When the stop is itself cancelled, in-flight handlers are cancelled, and recoverability is not invoked.",
    127: "Close ends blocked iterators/channels.",
    128: "receive() after close raises.",
    129: "start -> stop -> start receives messages again.",
    130: "Prefetched but unstarted messages are back on the queue after stop.",
    131: "Several consumers/publishers share one connection without interference.",
    132: "Unreachable broker or wrong credentials: an error is raised, not a hang.",
    133: "Ping/health is healthy when up.",
    134: "Open and close finish within a bound.",
    135: "Several URLs: dead ones are skipped.",
    136: "Context-manager start/stop.",
    137: "Two independent brokers in one process do not share state.",
    138: "A broken pooled connection is not handed out again.",
    139: "Connections are lazy.",
    140: "Broker restarted twice during 10 000 publishes by 100 publishers: every confirmed message is received.",
    141: "Broker down at start, later up: bindings come alive.",
    142: "TCP cut after connect (proxy): consumer resumes, producer resumes, no restart of the app.",
    143: "30 s of total packet loss: count sent = count received.",
    144: "One, two, then all nodes stopped and restarted.",
    145: "Declared queues/bindings are recreated when they disappeared.",
    146: "Nacks and consumer restarts mixed under parallel load: set complete.",
    147: "Publish outcome unknown: the message may appear or not, but nothing never attempted ever appears.",
    148: "Errors are classified retryable / permanent.",
    149: "Pausing/resuming while the broker is down.",
    150: "Periodic handler errors throughout any of the above lose nothing.",
    151: "Create is idempotent; existing with the same settings is fine, different settings have a defined outcome.",
    152: "Modes create / validate / assume behave as named.",
    153: "Auto-create on first use works; when disabled nothing is created and publish errors.",
    154: "Partition count can grow, is never shrunk; new partitions are picked up.",
    155: "Queue type requested (classic/quorum/stream) is what exists.",
    156: "Queue length of a fresh queue is 0.",
    157: "Purge empties.",
    158: "Name prefixing and name validation.",
    159: "Unbind/cleanup leaves nothing running.",
    160: "Whole suite N times in parallel passes.",
    161: "Many messages: each id exactly once in quiet conditions.",
    162: "Shared throughput benchmark for send and for receive.",
    163: (
        "Native object escape hatch returns the documented type and false for others; wrapped errors expose "
        "the native error."
    ),
    164: "Unsupported operations raise a typed error rather than silently doing nothing.",
    165: "The in-memory adapter passes the same suite.",
    166: "Suite fails if a component matched no test.",
}

FAILURES = {
    1: "Connection comes back but the consumer is not re-registered: queue has no consumers until pod restart",
    2: 'First publish after a silent drop / broker restart / idle proxy "succeeds" and is lost; second raises',
    3: (
        "Broker refuses the publish asynchronously (oversize, alarm, channel closed) and without confirms the "
        "caller never learns"
    ),
    4: (
        "Async producer buffer: tail lost at exit without flush; local queue full drops or blocks; delivery "
        "callback never polled"
    ),
    5: "A later ack commits past a failed or still-running earlier message (Kafka), so it is lost on restart",
    6: 'Close, cancel or "auto-commit off" still commits unprocessed work',
    7: "Graceful shutdown nacks queued or prefetched messages so they land in the DLQ",
    8: "Handler slower than max.poll.interval: kicked from the group, then stuck or fatal",
    9: "Handler blocks heartbeats (pika): broker closes, ack fails, message re-runs",
    10: "RabbitMQ delivery-ack timeout (30 min default) closes the channel; worker dies or idles",
    11: "Ack with a delivery tag from before reconnect -> 406 -> channel dead, consumer loop dead",
    12: "Server-side consumer cancel (queue deleted, leader moved) goes unnoticed",
    13: "Blocked connection (memory/disk alarm): publish or close hangs forever",
    14: "Rebalance: commit overlapping it stalls fetchers; one member owns partitions and receives nothing",
    15: "Rebalance: finished work's offsets are dropped, so it re-runs; or in-flight work runs twice",
    16: "Client shared across threads corrupts the stream; client created before fork never sends",
    17: "consumer.close() hangs",
    18: "SQS batch send/delete partial failure ignored: messages silently lost or redelivered",
    19: (
        "Visibility timeout lapses mid-handler: duplicate run; two receipts of one message then break the "
        "batch delete; shutdown re-publishes and doubles"
    ),
    20: (
        "SQS reject/requeue deletes the message, so the redrive policy never fires; rejected message keeps "
        "its prefetch slot"
    ),
    21: "Temporary AWS credentials expire and the consumer dies",
    22: "SQS FIFO: later messages of the group run while the first is being retried",
    23: "DLQ publish fails but the source is acked anyway",
    24: "Poison message loops hot or stalls the partition; decode error raises out of poll",
    25: 'offset reset "latest": first messages of a new topic/partition are skipped',
    26: "Subscribe during an outage gives up once and is never retried",
    27: "Prefetch/QoS or filter not re-applied after reconnect",
    28: "Reconnect loop races with close and logs errors or reconnects after close",
    29: "Delayed-exchange plugin: delayed messages lost on node loss; mandatory always returned",
}

ANCHORS_NOT_COVERED = {
    17: (
        "refused by design: SQS and Kafka have no priorities, and whatever overtakes breaks the order of a key; a "
        "queue for each priority does the same on every broker. `publish(priority=)` is a TypeError"
    ),
    42: "by design the other way: attempt counts every redelivery, delayed or not (settle.attempt-counts)",
    47: (
        "not offered: a delivery is the only thing a handler gets; it knows whether it is settled, and settling after "
        "close raises Closed (settle.after-close)"
    ),
    55: (
        "by design the other way: a settlement after the first is ignored, also after the one of at-most-once "
        "(settle.at-most-once, settle.twice-is-harmless)"
    ),
    56: (
        "not offered: there is no error handler that could fail; what decides is a RetryPolicy, a value, and what it "
        "decides is carried out or told (retry.one-settlement)"
    ),
    60: "not offered: no message context beside the delivery, and no error handler that could look into it",
    70: (
        "refused by design: a group without a name cannot be found again and would keep its messages for ever; a topic "
        "is not consumed without one (receive.group-or-not)"
    ),
    86: "by design fixed: <source>--dlq, so that it is found by name (dead_letter.declared-name)",
    120: "not offered: no middleware",
    139: "by design the other way: connect connects, and says so when it cannot (faults.down-at-start)",
    162: "measured, not asserted: benchmarks/ sends and receives through every adapter and beside the bare clients",
    166: "the command itself: it ends with an error when no clause was run (tests/messaging_contract/test_command.py)",
}
"""Why no clause covers an anchor. All failures are covered."""


def coverage(clauses: Sequence[Clause]) -> dict[str, list[dict[str, object]]]:
    """Both lists, each entry with the ids of the clauses that cover it, or why none does."""
    return {
        "anchors": _table(ANCHORS, ANCHORS_NOT_COVERED, {c.id: c.anchors for c in clauses}),
        "failures": _table(FAILURES, {}, {c.id: c.failures for c in clauses}),
    }


def _table(
    texts: Mapping[int, str], excuses: Mapping[int, str], covered: Mapping[str, tuple[int, ...]]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, text in texts.items():
        by = [id for id, numbers in covered.items() if number in numbers]
        why_not = "" if by else excuses.get(number, "")
        rows.append({"number": number, "text": text, "clauses": by, "why not": why_not})
    return rows
