"""The state machine: each rule calls the interface, tells the model the same, and compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from messaging import Broker, Closed, Consumer, Delivery, LeaseLost, Message, Queue, Subscription, Topic
from messaging.errors import MessagingError, UnsupportedCapability
from messaging.patterns import matches
from messaging_contract.model.model import Broken, ModelConsumer, ModelDelivery, ModelSource, Seen, Sent
from messaging_contract.model.script import Script, call, names
from messaging_contract.model.world import World

_PATTERN = "order.#"
_INDEX = st.integers(0, 5)
"""Which of those there are, from the newest; what is beyond begins again."""
_ANY = 4
"""From here on an index is one of all, also of those that are closed or settled."""
_HEADERS = st.dictionaries(st.sampled_from(["tenant", "x-trace", "Größe"]), st.sampled_from(["", "a b", "ü\n"]))
_BODIES = st.sampled_from([b"", b"x", b"\x00\xff", "{}é".encode()])


@dataclass
class _Reader:
    """A consumer, its number in the script, and the model's side of it."""

    number: int
    consumer: Consumer
    model: ModelConsumer


@dataclass
class _Held:
    number: int
    delivery: Delivery
    model: ModelDelivery
    reader: _Reader


class Machine(RuleBasedStateMachine):
    """Not for use itself: `machine_of` makes one for a world. One destination an example."""

    world: ClassVar[World]
    last: ClassVar[Script]
    """What the example that failed last did: after shrinking the smallest one."""
    what: ClassVar[str]
    """What was wrong in it."""

    def __init__(self) -> None:
        super().__init__()
        self.script = Script()
        self.sources: list[ModelSource] = []
        self.readers: list[_Reader] = []
        self.held: list[_Held] = []
        self.sent = 0
        self.redriven = False
        self.failed = False

    @initialize(topic=st.booleans(), ordered=st.booleans(), listen=st.booleans())
    def begin(self, topic: bool, ordered: bool, listen: bool) -> None:
        able = self.world.able
        self.world.begin()
        self.topic = topic if able.queues and able.topics else bool(able.topics)
        self.ordered = ordered and bool(able.ordering)
        name = self.world.new_name()
        pattern = _PATTERN if able.patterns else "#"
        self.patterns = {"": "#"} if not self.topic else {"all": "#", "some": pattern}
        self.destination: Queue | Topic = Queue(name, ordered=self.ordered)
        if self.topic:
            groups = [Subscription(group, pattern) for group, pattern in self.patterns.items()]
            self.destination = Topic(name, *groups, ordered=self.ordered)
        told = f"Queue({name!r}{', ordered=True' if self.ordered else ''})"
        if self.topic:
            told = (
                f"Topic({name!r}, 'all', Subscription('some', {pattern!r}){', ordered=True' if self.ordered else ''})"
            )
        self.script.say(f"destination = {told}")
        with self._watched("broker = connect(url, topology=destination)"):
            self.broker: Broker = self.world.connect()
            self.broker.declare(self.destination)
        for group in self.patterns:
            own = f"{name}--{group}" if group else name
            # A dead-letter queue is a queue, also that of a subscription.
            letters = ModelSource(f"{own}--dlq", self.world.promises(False, self.ordered))
            self.sources.append(ModelSource(own, self.world.promises(self.topic, self.ordered), letters))
        self.groups = list(self.patterns)
        if listen:
            for which in range(len(self.groups)):
                self.open(which, False, 10, False, None)

    @rule(
        key=st.sampled_from(["k0", "k1", None]),
        type=st.sampled_from(["order.new", "", "invoice"]),
        headers=_HEADERS,
        body=_BODIES,
        delay=_INDEX,
    )
    def publish(self, key: str | None, type: str, headers: dict[str, str], body: bytes, delay: int) -> None:
        able = self.world.able
        delayed = not self.ordered and (able.delayed_topic if self.topic else able.delayed_queue)
        after = (0.0, *self.world.delays)[delay % (len(self.world.delays) + 1)] if delayed else 0.0
        sent = self._message(key, type, headers, body)
        fields = {"id": sent.id, "key": sent.key, "type": type, "headers": headers, "delay": after or None}
        due = self.world.now() + after
        with self._watched(call("broker.publish", "destination", body, **fields)):
            id = self.broker.publish(self.destination, self._real(sent), delay=after)
            if id != sent.id:
                raise Broken(f"publish returned {id!r}, not the id {sent.id!r}")
        self._published(sent, due, bool(after))

    @rule(keys=st.lists(st.sampled_from(["k0", "k1"]), min_size=2, max_size=4), type=st.sampled_from(["", "order.x"]))
    def publish_many(self, keys: list[str], type: str) -> None:
        messages = [self._message(key, type, {}, b"many") for key in keys]
        due = self.world.now()
        told = [f"Message(b'many', id={m.id!r}, key={m.key!r}, type={type!r})" for m in messages]
        with self._watched(f"broker.publish_many(destination, [{', '.join(told)}])"):
            self.broker.publish_many(self.destination, [self._real(m) for m in messages])
        for message in messages:
            self._published(message, due, False)

    @rule(
        which=_INDEX,
        letters=st.sampled_from([False, False, True]),
        prefetch=st.sampled_from([1, 3, 50]),
        at_most_once=st.sampled_from([False, False, False, True]),
        lease=st.sampled_from([None, None, 2.0]),
    )
    def open(self, which: int, letters: bool, prefetch: int, at_most_once: bool, lease: float | None) -> None:
        group = self.groups[which % len(self.groups)]
        source = self._source(group, letters)
        if len(source.open) >= self.world.consumers(source.promises):
            return
        lease = lease if self.world.leases and self.world.able.lease and not self.ordered else None
        options: dict[str, Any] = {"prefetch": prefetch}
        if at_most_once:
            options["delivery"] = "at-most-once"
        told = dict(options)
        if lease is not None:
            options |= {"lease": lease, "heartbeat": False}
            told |= {"lease": lease}
        number = len(self.readers)
        function = f"c{number} = broker.{'dead_letters' if letters else 'subscribe'}"
        given = ("destination", repr(group)) if group else ("destination",)
        line = call(function, *given, **told)
        with self._watched(line[:-1] + ", heartbeat=False)" if lease is not None else line):
            opening = self.broker.dead_letters if letters else self.broker.subscribe
            consumer = opening(self.destination, group or None, **options)
        self.readers.append(_Reader(number, consumer, source.subscribe(prefetch, at_most_once, lease)))

    @precondition(lambda self: self.readers)
    @rule(which=_INDEX, most=st.sampled_from([1, 2, 10]))
    def receive(self, which: int, most: int) -> None:
        reader = self._reader(which)
        name = f"c{reader.number}"
        if reader.model.closed:
            with self._watched(f"{name}.receive({most}, timeout=0)"):
                self._raises(Closed, lambda: reader.consumer.receive(most, timeout=0))
            return
        self._receive(reader, most)

    @rule(which=_INDEX)
    def receive_all(self, which: int) -> None:
        """What can come: most of what else is done needs deliveries."""
        for reader in [r for r in self.readers if r.model.source.must_deliver(r.model, self.world.now())]:
            self._receive(reader, 1 + which)

    @precondition(lambda self: self.held)
    @rule(which=_INDEX)
    def ack(self, which: int) -> None:
        held = self._delivery(which)
        with self._watched(f"d{held.number}.ack()"):
            self._settles(held, held.delivery.ack)
        self._tell(held, lambda: self._of(held).ack(held.model))

    @precondition(lambda self: self.held)
    @rule(which=_INDEX, delay=_INDEX)
    def nack(self, which: int, delay: int) -> None:
        held = self._delivery(which)
        after = (0.0, *self.world.delays)[delay % (len(self.world.delays) + 1)] if self._may_delay(held) else 0.0
        due = self.world.now() + after
        with self._watched(f"d{held.number}.nack({after or ''})"):
            self._settles(held, lambda: held.delivery.nack(after))
        self._tell(held, lambda: self._of(held).nack(held.model, due, bool(after)))

    @precondition(lambda self: self.held)
    @rule(which=_INDEX, reason=st.sampled_from(["bad", "sehr böse"]))
    def reject(self, which: int, reason: str) -> None:
        held = self._delivery(which)
        with self._watched(f"d{held.number}.reject({reason!r})"):
            self._settles(held, lambda: held.delivery.reject(reason))
        self._tell(held, lambda: self._of(held).reject(held.model, reason, self.world.now()))

    @precondition(lambda self: self.held)
    @rule(which=_INDEX, seconds=st.sampled_from([1.0, 5.0]))
    def extend(self, which: int, seconds: float) -> None:
        held = self._delivery(which)
        until = self.world.now() + seconds
        with self._watched(f"d{held.number}.extend({seconds})"):
            try:
                held.delivery.extend(seconds)
            except Closed:
                if not held.reader.model.closed:
                    raise
                return
            except UnsupportedCapability:
                if self.world.able.lease:
                    raise
                return
            except LeaseLost:
                if held.model.live:
                    raise Broken(f"{held.model.copy.sent.id} is held, and extend raised LeaseLost") from None
                return
            if not self.world.able.lease:
                raise Broken("extend did not refuse, though leases are declared unsupported")
            if not held.model.live and not held.model.settled:
                raise Broken(f"{held.model.copy.sent.id} is held no longer, and extend did not say so")
        self._of(held).extend(held.model, until)

    def _ack_many(self, which: int) -> None:
        """One of them twice, and maybe some that are settled."""
        reader = self._reader(which)
        its = [held for held in self.held if held.reader is reader][-1 - which :]
        if not its or reader.model.closed:
            return
        its += its[:1]
        with self._watched(f"c{reader.number}.ack({names([held.number for held in its])})"):
            reader.consumer.ack([held.delivery for held in its])
        for held in its:
            self._of(held).ack(held.model)

    def _flush(self, which: int) -> None:
        reader = self._reader(which)
        if not reader.model.closed:
            with self._watched(f"c{reader.number}.flush()"):
                reader.consumer.flush(self.world.patience or 1.0)

    def _pause_or_resume(self, which: int) -> None:
        reader = self._reader(which)
        if reader.model.closed or (which % 2 and not reader.model.paused):
            return
        paused = not reader.model.paused
        with self._watched(f"c{reader.number}.{'pause' if paused else 'resume'}()"):
            (reader.consumer.pause if paused else reader.consumer.resume)()
        reader.model.source.pause(reader.model, paused)

    @precondition(lambda self: self.readers)
    @rule(what=st.sampled_from(["count", "flush", "pause", "ack_many"]), which=_INDEX)
    def operate(self, what: str, which: int) -> None:
        if what == "count":
            self._count(which)
        elif not self.readers:
            return
        elif what == "flush":
            self._flush(which)
        elif what == "pause":
            self._pause_or_resume(which)
        else:
            self._ack_many(which)

    @rule(what=st.sampled_from(["redrive", "close", "purge", "reconnect", None]), which=_INDEX)
    def end(self, what: str | None, which: int) -> None:
        """What ends much of what an example has built up, so it comes seldom."""
        if what == "redrive" and which == 0:  # to see that no more come takes it a second
            self._redrive(which)
        elif what == "purge" and which < 2:
            self._purge(which)
        elif what == "reconnect" and which < 2:
            self._reconnect()
        elif what == "close" and which < 4 and self.readers:
            self._close(self._reader(which))

    def _reconnect(self) -> None:
        with self._watched("broker.close()"):
            self.broker.close()
        for reader in self.readers:
            reader.model.source.close(reader.model, self.world.now())
        with self._watched("broker = connect(url, topology=destination)"):
            self.broker = self.world.connect()
            self.broker.declare(self.destination)

    @rule(which=_INDEX)
    def let_pass(self, which: int) -> None:
        seconds = self.world.waits[which % len(self.world.waits)]
        with self._watched(f"let_pass({seconds})"):
            self.world.let_pass(seconds)
        self._time_passed()

    def _purge(self, which: int) -> None:
        group = self.groups[which % len(self.groups)]
        source = self._source(group, False)
        if source.open and not source.promises.exact:
            return
        with self._watched(call("broker.purge", "destination", *([repr(group)] if group else []))):
            self.broker.purge(self.destination, group or None)
        source.purge()

    def _redrive(self, which: int) -> None:
        group = self.groups[which % len(self.groups)]
        source = self._source(group, False)
        letters = self._source(group, True)
        if (
            self.redriven
            or letters.open
            or not letters.waiting()
            or any(c.due > self.world.now() for c in letters.waiting())
        ):
            return
        self.redriven = True
        given = ("destination", repr(group)) if group else ("destination",)
        with self._watched(call("broker.dead_letter_queue", *given) + ".redrive()"):
            result = self.broker.dead_letter_queue(self.destination, group or None).redrive()
            there = len(letters.waiting())
            if result.failed or result.moved != there:
                raise Broken(f"of {there} dead letters {result.moved} were moved, and {result.failed} failed")
        source.redrive(self.world.now())

    def _count(self, which: int) -> None:
        if not self.world.exact:
            return
        group = self.groups[which % len(self.groups)]
        source = self._source(group, False)
        if (source.promises.ordered and source.open) or any(copy.may_vanish for copy in source.copies):
            return
        letters = self._source(group, True)
        with self._watched(call("broker.depth", "destination", *([repr(group)] if group else []))):
            depth = self.broker.depth(self.destination, group or None)
            if depth != source.depth():
                raise Broken(f"depth of {source.name} is {depth}, not {source.depth()}")
            if not letters.open and (depth := self.broker.dead_letter_depth(self.destination, group or None)) != (
                letters.depth()
            ):
                raise Broken(f"depth of {letters.name} is {depth}, not {letters.depth()}")
            for reader in self.readers:
                if reader.model.source is source and not reader.model.closed and reader.consumer.lag() != source.lag():
                    raise Broken(f"lag of {source.name} is {reader.consumer.lag()}, not {source.lag()}")

    def teardown(self) -> None:
        """Everything that is still to come does, and nothing else."""
        if not self.sources:
            return
        try:
            if not self.failed:
                self._drain()
        finally:
            try:
                if not self.world.exact and not self.broker.closed:
                    self.broker.delete(self.destination)
            finally:
                self.broker.close()

    def _drain(self) -> None:
        for reader in self.readers:
            if not reader.model.closed:
                self._close(reader)
        readers = []
        for letters in (False, True):
            for which, group in enumerate(self.groups):
                if self._source(group, letters).copies or self.world.exact:
                    self.open(which, letters, 50, False, None)
                    readers.append(self.readers[-1])
        for part in (0.6, 1.0):  # what comes early is seen after the first
            due = max((copy.due for r in readers for copy in r.model.source.waiting()), default=0.0) - self.world.now()
            if due > 0:
                with self._watched(f"let_pass({part * due + 0.001:.3f})"):
                    self.world.let_pass(part * due + 0.001)
                self._time_passed()
            for reader in readers:
                while self._receive_and_ack(reader):
                    pass
        for reader in readers:
            while reader.model.source.waiting():
                self._receive_and_ack(reader)
            self._receive_and_ack(reader)  # a purge may have left something
            self._close(reader)

    def _receive_and_ack(self, reader: _Reader) -> list[_Held]:
        held = self._receive(reader, 50)
        for one in held:
            with self._watched(f"d{one.number}.ack()"):
                one.delivery.ack()
            self._of(one).ack(one.model)
        return held

    def _receive(self, reader: _Reader, most: int) -> list[_Held]:
        source, name = reader.model.source, f"c{reader.number}"
        must = source.must_deliver(reader.model, self.world.now())
        timeout = self.world.patience if must else self.world.quiet
        with self._watched(f"{name}.receive({most}, timeout={timeout})"):
            began = monotonic()
            deliveries = reader.consumer.receive(most, timeout=timeout)
            took = monotonic() - began
            if must and not deliveries:
                came = ", ".join(copy.sent.id for copy in source.waiting() if copy.due <= self.world.now())
                raise Broken(f"nothing came from {source.name} within {took:.1f} s, where {came} should")
            first = self.held[-1].number + 1 if self.held else 0
            told = [f"d{first + n} = {d.id} attempt {d.attempt}" for n, d in enumerate(deliveries)]
            self.script.note(", ".join(told) or "[]")
            models = source.receive(reader.model, [_seen(d) for d in deliveries], most, self.world.now())
        pairs = enumerate(zip(deliveries, models, strict=True), first)
        new = [_Held(number, delivery, model, reader) for number, (delivery, model) in pairs]
        self.held += new
        return new

    def _close(self, reader: _Reader) -> None:
        with self._watched(f"c{reader.number}.close()"):
            reader.consumer.close()
        reader.model.source.close(reader.model, self.world.now())

    def _time_passed(self) -> None:
        for source in self.sources:
            for each in (source, source.dead_letter):
                if each is not None:
                    each.pass_time(self.world.now())

    def _settles(self, held: _Held, settle: Callable[[], None]) -> None:
        """After the consumer is closed it is refused; a second time it does nothing."""
        if held.reader.model.closed and not held.model.settled:
            self._raises(Closed, settle)
        else:
            settle()

    def _tell(self, held: _Held, tell: Callable[[], None]) -> None:
        if not held.reader.model.closed:
            tell()

    def _raises(self, error: type[MessagingError], does: Callable[[], object]) -> None:
        try:
            does()
        except error:
            return
        raise Broken(f"it did not raise {error.__name__}")

    def _may_delay(self, held: _Held) -> bool:
        # A redrive takes what is there: on a real broker what was put off is not in the dead-letter queue itself.
        return bool(self.world.able.nack_delay) and (self.world.exact or self._of(held).dead_letter is not None)

    def _message(self, key: str | None, type: str, headers: dict[str, str], body: bytes) -> Sent:
        number, self.sent = self.sent, self.sent + 1
        return Sent(f"m{number}", body, (key or "k0") if self.ordered else key, type, headers)

    def _published(self, sent: Sent, due: float, delayed: bool) -> None:
        for group, source in zip(self.groups, self.sources, strict=True):
            if matches(self.patterns[group], sent.type):
                source.publish(sent, due, delayed=delayed)

    def _real(self, sent: Sent) -> Message:
        return Message(sent.body, sent.key, sent.type, dict(sent.headers), sent.id)

    def _source(self, group: str, letters: bool) -> ModelSource:
        source = self.sources[self.groups.index(group)]
        if letters:
            assert source.dead_letter is not None
            return source.dead_letter
        return source

    def _of(self, held: _Held) -> ModelSource:
        return held.reader.model.source

    def _reader(self, which: int) -> _Reader:
        open = [reader for reader in self.readers if not reader.model.closed]
        among = open if open and which < _ANY else self.readers
        return among[-1 - which % len(among)]

    def _delivery(self, which: int) -> _Held:
        live = [held for held in self.held if held.model.live]
        among = live if live and which < _ANY else self.held
        return among[-1 - which % len(among)]

    def _keep(self, error: BaseException) -> None:
        kind, words = type(error).__name__, str(error)
        type(self).what = words if isinstance(error, Broken) else f"{kind}: {words}"
        self.script.say(f"# {type(self).what}")
        type(self).last = self.script

    @contextmanager
    def _watched(self, line: str) -> Iterator[None]:
        """Notes the call; what goes wrong in it ends the example, and is kept with it."""
        self.script.say(line)
        try:
            yield
        except BaseException as error:
            if not self.failed and not isinstance(error, HypothesisException):
                self.failed = True
                self._keep(error)
            raise


def machine_of(driven: World) -> type[Machine]:
    """The machine for one world."""
    return type("Machine", (Machine,), {"world": driven, "last": Script(), "what": ""})


def _seen(delivery: Delivery) -> Seen:
    sent = Sent(delivery.id, delivery.body, delivery.key, delivery.type, dict(delivery.headers))
    return Seen(sent, delivery.attempt)
