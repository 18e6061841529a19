"""One queue against a model of it: nothing is lost, nothing is there twice, whatever happens in which order."""

from threading import Condition, RLock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from messaging.message import Message
from messaging_memory import ManualClock
from messaging_memory.store import Store

OWNERS = ("one", "two")


class StoreMachine(RuleBasedStateMachine):
    ordered = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.changed = Condition(RLock())
        self.store = Store("jobs", self.ordered, self.changed, self.clock, None)
        self.published = 0
        self.done: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.leases: dict[int, tuple[str, str, str | None, float]] = {}

    @rule(key=st.sampled_from("ab"), delay=st.sampled_from([0.0, 0.0, 5.0]))
    def publish(self, key: str, delay: float) -> None:
        with self.changed:
            self.store.add(Message(b"", key, id=str(self.published)), 0.0 if self.ordered else delay)
        self.published += 1

    @rule(owner=st.sampled_from(OWNERS), most=st.integers(1, 3), lease=st.sampled_from([None, 3.0]))
    def take(self, owner: str, most: int, lease: float | None) -> None:
        self.expire()
        with self.changed:
            taken = self.store.take(owner, most, lease)
        assert len(taken) <= most
        for number, entry in taken:
            id, key = entry.message.id, entry.message.key
            assert number not in self.leases
            assert id not in self.done
            assert all(id != held for _, held, _, _ in self.leases.values()), "leased twice at a time"
            if self.ordered:
                assert all(owner == by for by, _, k, _ in self.leases.values() if k == key), "a key at two consumers"
            assert entry.attempts > self.attempts.get(id, 0)
            self.attempts[id] = entry.attempts
            until = float("inf") if lease is None else self.clock.now() + lease
            self.leases[number] = (owner, id, key, until)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.leases)))
        self.expire()
        held = self.leases.pop(number, None)
        assert self.store.remove(number) is (held is not None)
        assert not self.store.remove(number)
        if held:
            self.done.add(held[1])

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), delay=st.sampled_from([0.0, 2.0]))
    def give_back(self, data: st.DataObject, delay: float) -> None:
        number = data.draw(st.sampled_from(sorted(self.leases)))
        self.expire()
        assert self.store.give_back(number, delay) is (self.leases.pop(number, None) is not None)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.leases)))
        self.expire()
        held = self.leases.get(number)
        assert self.store.extend(number, 4.0) is (held is not None)
        if held:
            self.leases[number] = (*held[:3], self.clock.now() + 4.0)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def expire(self) -> None:
        now = self.clock.now()
        self.leases = {n: held for n, held in self.leases.items() if held[3] > now}

    @invariant()
    def nothing_is_lost(self) -> None:
        self.expire()
        depth = self.store.depth()
        assert depth.leased == len(self.leases)
        assert depth.total == self.published - len(self.done)

    def teardown(self) -> None:
        self.expire()
        for number in self.leases:
            self.store.give_back(number, 0.0)
        self.clock.advance(100)
        with self.changed:
            rest = self.store.take("last", 1000, None)
        ids = [entry.message.id for _, entry in rest]
        assert sorted(ids) == sorted({str(n) for n in range(self.published)} - self.done)
        assert ids == sorted(ids, key=int), "given back in its original place"


class OrderedStoreMachine(StoreMachine):
    ordered = True


TestStore = StoreMachine.TestCase
TestOrderedStore = OrderedStoreMachine.TestCase
TestStore.settings = TestOrderedStore.settings = settings(max_examples=60, stateful_step_count=40)
