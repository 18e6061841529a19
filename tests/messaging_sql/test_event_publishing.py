from __future__ import annotations

from sqlalchemy import Engine

import messaging
from messaging import Queue
from messaging_contract.sql.accounts import Account, Closed, Opened, account_store
from messaging_sql import EventStore, Outbox, Relay, Repository, Tables, to_outbox
from messaging_sql.events import Recorded


def test_events_reach_the_broker_as_they_were_stored(engine: Engine, tables: Tables) -> None:
    store = account_store(engine, tables, publish=to_outbox(Outbox(tables=tables), "accounts"))
    accounts = Repository(store, Account, snapshot_every=2)
    account = Account("7")
    account.open("Ada")
    account.deposit(5)
    accounts.save(account, correlation_id="c", causation_id="d")
    with (
        messaging.connect("memory://", topology=Queue("accounts")) as broker,
        Relay(engine, broker, tables=tables),
        broker.subscribe("accounts") as consumer,
    ):
        found = consumer.receive(2, 10.0)
        found += consumer.receive(1, 10.0) if len(found) < 2 else []
        for delivery in found:
            delivery.ack()
    stored = list(store.read_stream("account-7"))
    assert [each.id for each in found] == [event.id for event in stored]
    first = found[0]
    assert (first.type, first.key, first.correlation_id) == ("account.opened", "account-7", "c")
    assert first.message.headers == {
        "causation_id": "d",
        "event-version": "1",
        "event-position": "1",
        "event-schema": "1",
    }
    assert (first.value, found[1].value) == ({"owner": "Ada"}, {"cents": 5})


def test_a_topic_for_each_event_or_none(engine: Engine, tables: Tables) -> None:
    def topic(event: Recorded) -> str | None:
        return {"account.opened": "openings", "account.closed": None}.get(event.type, "movements")

    store: EventStore = account_store(engine, tables, publish=to_outbox(Outbox(tables=tables), topic))
    store.append("account-1", [Opened("Ada"), Closed()], 0)
    with engine.connect() as connection:
        rows = connection.execute(tables.outbox.select()).all()
    assert [(row.aggregatetype, row.type) for row in rows] == [("openings", "account.opened")]
