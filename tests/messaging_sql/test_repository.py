from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from messaging import ConfigurationError
from messaging_contract.sql.accounts import Account, Deposited, account_store
from messaging_sql import (
    Aggregate,
    EventStore,
    Repository,
    Snapshots,
    StreamNotFound,
    Tables,
    VersionConflict,
    retry_conflicts,
)


@pytest.fixture
def store(engine: Engine, tables: Tables) -> EventStore:
    return account_store(engine, tables)


@pytest.fixture
def accounts(store: EventStore) -> Repository[Account]:
    return Repository(store, Account, snapshot_every=5)


def opened(accounts: Repository[Account], deposits: int) -> Account:
    account = Account("1")
    account.open("Ada")
    for _ in range(deposits):
        account.deposit(1)
    accounts.save(account)
    return account


def test_what_was_decided_is_loaded(accounts: Repository[Account]) -> None:
    account = opened(accounts, 2)
    assert (account.version, account.pending) == (3, [])
    loaded = accounts.load("1")
    assert (loaded.owner, loaded.balance, loaded.version, loaded.pending) == ("Ada", 2, 3, [])
    with pytest.raises(ValueError):
        loaded.withdraw(3)
    assert accounts.save(loaded) == 3


def test_an_aggregate_that_is_not_there(accounts: Repository[Account]) -> None:
    assert accounts.find("7") is None
    with pytest.raises(StreamNotFound, match="'account-7'"):
        accounts.load("7")


def test_two_who_change_one_aggregate(accounts: Repository[Account]) -> None:
    opened(accounts, 1)
    mine, yours = accounts.load("1"), accounts.load("1")
    yours.withdraw(1)
    accounts.save(yours)
    mine.withdraw(1)
    with pytest.raises(VersionConflict):
        accounts.save(mine)
    with pytest.raises(ValueError, match="1 of 0"):  # decided again on what is there now
        accounts.update("1", lambda account: account.withdraw(1))


def test_an_update_decides_again_after_a_conflict(accounts: Repository[Account], store: EventStore) -> None:
    opened(accounts, 1)
    seen = []

    def change(account: Account) -> int:
        seen.append(account.balance)
        if len(seen) < 3:
            store.append("account-1", [Deposited(10)], account.version)  # somebody else is faster
        account.deposit(100)
        return account.balance

    assert accounts.update("1", change, correlation_id="c") == 121
    assert seen == [1, 11, 21]
    assert list(store.read_stream("account-1"))[-1].correlation_id == "c"


def test_retries_end() -> None:
    calls = []

    def work() -> None:
        calls.append(1)
        raise VersionConflict("no", "s", 1, 2)

    with pytest.raises(VersionConflict):
        retry_conflicts(work, attempts=3, delay=0.001)
    assert len(calls) == 3
    with pytest.raises(ConfigurationError):
        retry_conflicts(work, attempts=0)


def snapshot_version(engine: Engine, tables: Tables) -> int | None:
    with engine.connect() as connection:
        return connection.scalar(select(tables.snapshots.c.version))


def test_a_snapshot_every_so_many_events(accounts: Repository[Account], engine: Engine, tables: Tables) -> None:
    account = opened(accounts, 3)
    assert snapshot_version(engine, tables) is None
    for version in (5, 5, 5, 5, 5, 10):
        account.deposit(1)
        accounts.save(account)
        assert snapshot_version(engine, tables) == version
    for _ in range(13):
        account.deposit(1)
    accounts.save(account)
    assert snapshot_version(engine, tables) == 23


def test_only_what_came_after_the_snapshot_is_applied(
    accounts: Repository[Account], store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(accounts, 9)
    store.append("account-1", [Deposited(1)], 10)
    applied: list[object] = []
    apply = Account.apply
    monkeypatch.setattr(Account, "apply", lambda self, event: (applied.append(event), apply(self, event))[1])
    assert accounts.load("1").balance == 10
    assert applied == [Deposited(1)]


def test_snapshots_may_be_discarded(accounts: Repository[Account], engine: Engine, tables: Tables) -> None:
    opened(accounts, 9)
    with engine.begin() as connection:
        assert Snapshots(tables).discard(connection, "account-2") == 0
        assert Snapshots(tables).discard(connection) == 1
    assert accounts.load("1").balance == 9


@pytest.mark.parametrize(
    "spoilt",
    [
        {"schema": 2, "data": '{"owner":"Eve","balance":0}'},
        {"data": '{"name":"Eve"}'},
        {"data": "no JSON"},
        {"version": 99},
        {"event_id": "of another stream"},
    ],
    ids=lambda each: next(iter(each)),
)
def test_a_snapshot_that_does_not_fit_is_passed_over(
    accounts: Repository[Account], engine: Engine, tables: Tables, spoilt: dict[str, Any]
) -> None:
    opened(accounts, 9)
    with engine.begin() as connection:
        connection.execute(update(tables.snapshots).values(**spoilt))
    account = accounts.load("1")
    assert (account.owner, account.balance, account.version) == ("Ada", 9, 10)


def test_an_older_snapshot_does_not_replace_a_newer_one(engine: Engine, tables: Tables) -> None:
    snapshots = Snapshots(tables)
    with engine.begin() as connection:
        snapshots.save(connection, "s", 20, "b", {"n": 20}, schema=1)
        snapshots.save(connection, "s", 10, "a", {"n": 10}, schema=1)
        found = snapshots.load(connection, "s", dict, schema=1)
        assert found is not None
        assert (found.version, found.state) == (20, {"n": 20})


def test_save_and_load_in_the_callers_transaction(
    accounts: Repository[Account], store: EventStore, engine: Engine, tables: Tables
) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        account = Account("1")
        account.open("Ada")
        for _ in range(9):
            account.deposit(1)
        accounts.save(account, connection=connection)
        assert accounts.load("1", connection=connection).balance == 9
        transaction.rollback()
    assert accounts.find("1") is None
    assert snapshot_version(engine, tables) is None


def test_snapshots_need_an_aggregate_that_has_them(store: EventStore) -> None:
    class Plain(Aggregate):
        category = "plain"

        def apply(self, event: object) -> None:
            pass

    with pytest.raises(ConfigurationError, match="SnapshotAggregate"):
        Repository(store, Plain, snapshot_every=5)
    with pytest.raises(ConfigurationError, match="positive"):
        Repository(store, Account, snapshot_every=0)
    plain = Plain("1")
    plain.record(Deposited(1))
    assert Repository(store, Plain).save(plain) == 1


def test_a_snapshot_without_its_stream_is_no_aggregate(
    accounts: Repository[Account], engine: Engine, tables: Tables
) -> None:
    row = {"stream": "account-1", "version": 3, "schema": 1, "event_id": "x", "data": '{"owner":"Eve","balance":1}'}
    with engine.begin() as connection:
        connection.execute(insert(tables.snapshots).values(**row))
    assert accounts.find("1") is None
