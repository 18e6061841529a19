from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from messaging import ConfigurationError
from messaging_contract.sql.accounts import Deposited, Opened, account_store
from messaging_sql import EventStore, Recorded, Subscription, Tables


@pytest.fixture
def store(engine: Engine, tables: Tables) -> EventStore:
    return account_store(engine, tables)


class Follower:
    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.seen: list[Recorded] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for event in self.subscription:
            self.seen.append(event)

    def positions(self) -> list[int]:
        return [event.position for event in self.seen]

    def close(self) -> None:
        self.subscription.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_what_is_there_and_then_what_comes(store: EventStore, eventually: Callable[..., None]) -> None:
    store.append("account-1", [Opened("Ada"), Deposited(1)], 0)
    follower = Follower(Subscription(store, after=1))
    try:
        eventually(lambda: follower.positions() == [2])
        store.append("account-1", [Deposited(2)], 2)
        store.append("account-2", [Opened("Bob")], 0)
        eventually(lambda: follower.positions() == [2, 3, 4])
        eventually(lambda: follower.subscription.position == 4)
    finally:
        follower.close()


def test_filters_do_not_hold_the_position_back(store: EventStore, eventually: Callable[..., None]) -> None:
    follower = Follower(Subscription(store, types=[Opened], category="account"))
    try:
        store.append("savings-1", [Opened("Ada")], 0)
        store.append("account-1", [Opened("Ada"), Deposited(1)], 0)
        eventually(lambda: follower.subscription.position == 3)
        assert follower.positions() == [2]
    finally:
        follower.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_postgresql_tells_at_once(store: EventStore, eventually: Callable[..., None]) -> None:
    follower = Follower(Subscription(store, poll=60))
    try:
        for version in range(5):
            store.append("account-1", [Deposited(1)], version)
            eventually(lambda seen=version + 1: len(follower.seen) == seen)
    finally:
        follower.close()


def test_a_closed_one_ends(store: EventStore) -> None:
    subscription = Subscription(store)
    subscription.close()
    assert list(subscription) == []


def test_a_wrong_poll(store: EventStore) -> None:
    with pytest.raises(ConfigurationError, match="poll"):
        Subscription(store, poll=0)
