from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, String, Table, create_engine, func, insert, select, update

import messaging
from messaging import ConfigurationError, Delivery, InvalidMessage, Message, Queue, RetryPolicy, Worker
from messaging.delivery import PlainDelivery
from messaging.topology import Source
from messaging_sql import Inbox, Tables, create_tables


@pytest.fixture
def payments(engine: Engine, tables: Tables) -> Table:
    """Where the effect of a message can be counted."""
    payments = Table(
        "payments", tables.metadata, Column("number", Integer, primary_key=True), Column("id", String(255))
    )
    payments.create(engine)
    return payments


def delivered(message_id: str, attempt: int = 1) -> Delivery:
    delivery = PlainDelivery(None, Source(Queue("orders")), None, attempt)  # type: ignore[arg-type]
    delivery._message = Message(b"{}", id=message_id)
    return delivery


def count(engine: Engine, table: Table) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def test_a_message_without_id_is_refused(engine: Engine, tables: Tables) -> None:
    inbox = Inbox("payment", tables=tables)
    with engine.begin() as connection:
        with pytest.raises(InvalidMessage, match="has no id"):
            inbox.first_time(connection, delivered(""))
        with pytest.raises(InvalidMessage, match="has no id"):
            inbox.only_new(connection, [delivered("1"), delivered("")])
        with pytest.raises(InvalidMessage, match="up to 255 characters"):
            inbox.first_time(connection, "x" * 256)
        assert inbox.first_time(connection, "1"), "nothing was remembered of the batch that was refused"
    with pytest.raises(ConfigurationError, match="name of a subscriber"):
        Inbox("")


def test_of_two_at_once_one_waits_for_the_other(engine: Engine, tables: Tables) -> None:
    inbox = Inbox("payment", tables=tables)
    holds, let_go = threading.Event(), threading.Event()
    seen: list[bool] = []

    def first() -> None:
        with engine.begin() as connection:
            seen.append(inbox.first_time(connection, "1"))
            holds.set()
            assert let_go.wait(10)

    def second() -> bool:
        with engine.begin() as connection:
            return inbox.first_time(connection, "1")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert holds.wait(10)
        two = pool.submit(second)
        with pytest.raises(TimeoutError):
            two.result(0.2)  # it does not know yet
        let_go.set()
        one.result(10)
        assert (seen, two.result(10)) == ([True], False)


def test_when_the_one_that_was_first_rolls_back_the_other_is_first(engine: Engine, tables: Tables) -> None:
    inbox = Inbox("payment", tables=tables)
    with ThreadPoolExecutor(1) as pool:
        with engine.connect() as connection:
            assert inbox.first_time(connection, "1")

            def second() -> bool:
                with engine.begin() as other:
                    return inbox.first_time(other, "1")

            two = pool.submit(second)
            with pytest.raises(TimeoutError):
                two.result(0.2)
            connection.rollback()
        assert two.result(10)


def test_workers_that_race_for_the_same_messages_have_each_effect_once(
    engine: Engine, tables: Tables, payments: Table
) -> None:
    inbox = Inbox("payment", tables=tables)
    ids = [str(number) for number in range(50)]
    start = threading.Barrier(4)

    def work() -> int:
        start.wait(10)
        effects = 0
        for message_id in ids:
            with engine.begin() as connection:
                if inbox.first_time(connection, message_id):
                    connection.execute(insert(payments).values(id=message_id))
                    effects += 1
        return effects

    with ThreadPoolExecutor(4) as pool:
        effects = sum(future.result(60) for future in [pool.submit(work) for _ in range(4)])
    assert effects == count(engine, payments) == 50


def test_a_batch_gives_each_message_once_and_in_order(engine: Engine, tables: Tables) -> None:
    inbox = Inbox("payment", tables=tables)
    with engine.begin() as connection:
        inbox.first_time(connection, "b")
        new = inbox.only_new(connection, [delivered(i) for i in ("d", "b", "a", "d", "c", "a")])
        assert [delivery.id for delivery in new] == ["d", "a", "c"]
        assert inbox.only_new(connection, [delivered("a")]) == []
        assert inbox.only_new(connection, []) == []


def test_batches_in_opposite_order_do_not_wait_for_each_other_for_ever(engine: Engine, tables: Tables) -> None:
    inbox = Inbox("payment", tables=tables)
    ids = [f"{number:04}" for number in range(1000)]
    start = threading.Barrier(2)

    def work(order: list[str]) -> int:
        start.wait(10)
        with engine.begin() as connection:
            return len(inbox.only_new(connection, [delivered(i) for i in order]))

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(work, ids), pool.submit(work, ids[::-1])
        assert sorted((one.result(30), two.result(30))) == [0, 1000]


def test_a_storm_of_100_000_duplicates(engine: Engine, tables: Tables, payments: Table) -> None:
    inbox = Inbox("payment", tables=tables)
    storm = [delivered(str(number % 100), attempt=1 + number // 100) for number in range(100_000)]
    began = time.monotonic()
    for start in range(0, len(storm), 1000):
        with engine.begin() as connection:
            new = inbox.only_new(connection, storm[start : start + 1000])
            if new:
                connection.execute(insert(payments), [{"id": delivery.id} for delivery in new])
    assert count(engine, payments) == 100
    assert time.monotonic() - began < 30


def test_forgets_what_is_old_and_nothing_else(engine: Engine, tables: Tables) -> None:
    inbox, other = Inbox("payment", tables=tables), Inbox("shipping", tables=tables)
    with engine.begin() as connection:
        inbox.first_time(connection, "old")
        other.first_time(connection, "old")
        connection.execute(update(tables.inbox).values(seen_at=tables.inbox.c.seen_at - 7200))
        inbox.first_time(connection, "young")
        assert inbox.forget(connection, older_than=3600) == 1
        assert not inbox.first_time(connection, "young")
        assert inbox.first_time(connection, "old"), "so it must be longer than a message can come again"
        assert not other.first_time(connection, "old")
        with pytest.raises(ConfigurationError, match="positive number of seconds"):
            inbox.forget(connection, older_than=0)


def test_a_clock_that_goes_backwards_changes_nothing(engine: Engine, tables: Tables) -> None:
    inbox = Inbox("payment", tables=tables)
    with engine.begin() as connection:
        inbox.first_time(connection, "1")
        connection.execute(update(tables.inbox).values(seen_at=tables.inbox.c.seen_at + 86400))  # now it is yesterday
        assert not inbox.first_time(connection, "1")
        assert inbox.forget(connection, older_than=1) == 0


def test_a_handler_of_a_worker(
    engine: Engine, tables: Tables, payments: Table, eventually: Callable[..., None]
) -> None:
    inbox = Inbox("payment", tables=tables)
    calls: list[int] = []
    with messaging.connect("memory://", topology=Queue("orders")) as broker:
        worker = Worker(broker)

        @worker.on("orders", retry=RetryPolicy(attempts=3, delays=(0.0,)))
        @inbox.handler(engine)
        def pay(connection: Connection, delivery: Delivery) -> None:
            """Pays."""
            calls.append(delivery.attempt)
            connection.execute(insert(payments).values(id=delivery.id))
            if len(calls) == 1:
                raise ConnectionError("after the effect, before the commit")

        assert (pay.__name__, pay.__doc__) == ("pay", "Pays.")
        with worker:
            for _ in range(3):
                broker.publish("orders", Message(b"7", id="order-7"))
            eventually(lambda: worker.registrations[0].stats.handled == 3)
    assert len(calls) == 2, "the one that failed, and one that had its effect"
    assert count(engine, payments) == 1


def test_an_async_handler_is_refused(engine: Engine) -> None:
    async def pay(connection: Connection, delivery: Delivery) -> None: ...

    with pytest.raises(ConfigurationError, match="is async"):
        Inbox("payment").handler(engine)(pay)

    def several(connection: Connection, delivery: Delivery) -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="contains a yield"):
        Inbox("payment").handler(engine)(several)


def test_what_an_awaitable_would_have_done_is_not_remembered(engine: Engine, tables: Tables) -> None:
    async def pay() -> None: ...

    inbox = Inbox("payment", tables=tables)
    handle = inbox.handler(engine)(lambda _connection, _delivery: pay())
    with pytest.raises(TypeError, match="awaitable"):
        handle(delivered("1"))
    with engine.begin() as connection:
        assert inbox.first_time(connection, "1")


def test_no_message_is_given_up_because_the_database_is_down(tmp_path: Path, eventually: Callable[..., None]) -> None:
    there, away = tmp_path / "there", tmp_path / "away"
    there.mkdir()
    engine = create_engine(f"sqlite:///{there}/shop.db")
    create_tables(engine)
    engine.dispose()
    there.rename(away)
    done: list[int] = []
    with messaging.connect("memory://", topology=[Queue("orders", dead_letter=False)]) as broker:
        worker = Worker(broker)

        @worker.on("orders", retry=RetryPolicy(attempts=2, delays=(0.01,)))
        @Inbox("payment").handler(engine)
        def pay(connection: Connection, delivery: Delivery) -> None:
            done.append(delivery.value)

        with worker:
            broker.publish_many("orders", list(range(5)))
            stats = worker.registrations[0].handling.stats
            eventually(lambda: stats.failed >= 15)  # three attempts each
            away.rename(there)
            eventually(lambda: sorted(done) == list(range(5)))
        assert stats.dead_lettered == 0
    engine.dispose()
