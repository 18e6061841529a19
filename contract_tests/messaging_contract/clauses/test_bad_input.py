"""Wrong URLs, options, profiles and values: a typed error at once that says what to do."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

import messaging
from messaging import ConfigurationError, InvalidMessage
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause


@clause(
    "bad_input.scheme",
    "An unknown URL scheme raises ConfigurationError that names the nearest adapter.",
    anchors=[158],
    on=(),
)
def test_scheme(bench: Bench) -> None:
    name = bench.broker.name
    with pytest.raises(ConfigurationError, match=name):
        messaging.connect(f"{name[:-1]}://localhost")
    for url in ("nosuch://", "://x", "http//x"):
        with pytest.raises(ConfigurationError):
            messaging.connect(url)


@clause(
    "bad_input.option",
    "An unknown option raises ConfigurationError that names the nearest one; a wrong value says what is expected.",
    anchors=[158],
    on=(),
)
def test_option(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="connect_timeout"):
        bench.connect(connect_timeuot=1)
    with pytest.raises(ConfigurationError, match=r"connect_timeout.*float"):
        bench.connect(connect_timeout="soon")


@clause(
    "bad_input.consumer-option",
    "Wrong consumer and producer options raise ConfigurationError, before anything is opened.",
    anchors=[158],
)
def test_consumer_option(bench: Bench) -> None:
    source = bench.source()
    with pytest.raises(ConfigurationError, match="prefetch"):
        bench.consume(source, prefecth=5)
    for wrong in ({"prefetch": 0}, {"prefetch": "many"}, {"lease": -1.0}):
        with pytest.raises(ConfigurationError):
            bench.consume(source, **wrong)
    with pytest.raises(ConfigurationError, match="max_in_flight"):
        bench.broker.producer(max_inflight=5)
    for wrong in ({"timeout": 0}, {"max_in_flight": 0}, {"on_full": "drop"}):
        with pytest.raises(ConfigurationError):
            bench.broker.producer(**wrong)


@clause(
    "bad_input.profile",
    "A profile names a broker; an unknown one raises ConfigurationError that names the nearest.",
    anchors=[158],
    on=(),
    controls="url",
)
def test_profile(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "messaging.toml"
        file.write_text(f'[profiles.staging]\nurl = "{bench.harness.url}"\n')
        with messaging.connect("staging", config_file=file) as broker:
            broker.ping()
            assert broker.name == bench.broker.name
        with pytest.raises(ConfigurationError, match="staging"):
            messaging.connect("stagign", config_file=file)
        file.write_text("[profiles.staging\n")
        with pytest.raises(ConfigurationError, match=r"messaging\.toml"):
            messaging.connect("staging", config_file=file)
        with pytest.raises(ConfigurationError, match="absent"):
            messaging.connect("staging", config_file=Path(folder) / "absent.toml")


@clause(
    "bad_input.value",
    "A value that cannot be encoded, and a time to live that is none, are refused before anything is sent.",
    anchors=[102],
)
def test_value(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    for value in (object(), {1, object()}, lambda: None):
        with pytest.raises(InvalidMessage):
            bench.broker.publish(source.destination, value)
        with pytest.raises(InvalidMessage):
            bench.broker.publish_many(source.destination, [ledger.message(), value])
    for ttl in (0, -1.0):
        with pytest.raises(InvalidMessage):
            bench.broker.publish(source.destination, 1, ttl=ttl)
    with pytest.raises(InvalidMessage):
        bench.broker.publish(source.destination, ledger.message(), key="beside")
    bench.quiet(consumer, ledger)


@clause(
    "bad_input.huge-fields",
    "Huge headers are carried or refused with a typed error; never cut off.",
    anchors=[111, 113],
    on=QUEUE,
)
def test_huge_fields(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    message = ledger.message(headers={"huge": "x" * 300_000})
    try:
        ledger.publish_one(bench.broker, source.destination, message)
    except InvalidMessage:
        bench.quiet(consumer, ledger)
    else:
        [delivery] = bench.take(consumer, ledger, ack=True)
        assert len(delivery.headers["huge"]) == 300_000
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    ledger.check()
