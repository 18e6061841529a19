"""From what the user asked for to a harness."""

from __future__ import annotations

from pathlib import Path

import pytest

from messaging import adapters
from messaging.config import build_options, load, parse_url, resolve
from messaging_contract.brokers import url_harness, url_of

PROFILES = """
[profiles.rabbit]
url = "rabbitmq://app:${SECRET}@one.example,[::1]:5671/a%2Fb?heartbeat=10"
tls = true
reconnect_max = 2.5

[profiles.emulator]
url = "sqs://127.0.0.1:4566"
region = "eu-west-1"
access_key = "a&b"
secret_key = "c=d"
wait_time = 2

[profiles.keys]
url = "kafka://one:9092"
config = { "ssl.ca.location" = "ca.pem" }
"""


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "messaging.toml").write_text(PROFILES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESSAGING_CONFIG", raising=False)
    monkeypatch.setenv("SECRET", "p@ss/w?rd:1")


@pytest.mark.parametrize("profile", ["rabbit", "emulator", "keys"])
def test_the_url_of_a_profile_means_the_same(profile: str) -> None:
    url, beside = url_of(profile)
    asked, found = resolve(profile, load(), {}), parse_url(url, beside)
    assert asked.scheme == found.scheme
    options = adapters.load(asked.scheme).Options
    assert build_options(options, found.options, profile) == build_options(options, asked.options, profile)


def test_only_what_no_url_can_hold_stays_beside_it() -> None:
    assert url_of("emulator")[1] == {}
    assert url_of("keys") == ("kafka://one:9092", {"config": {"ssl.ca.location": "ca.pem"}})
    assert url_of("rabbitmq://x/?tls=true") == ("rabbitmq://x/?tls=true", {})


def test_a_profile_has_the_controls_of_its_url() -> None:
    harness = url_harness(url_of("emulator")[0], "emulator")
    assert harness.name == "emulator"
    assert harness.volume == 300
    assert [name for name in ("url", "remote", "link", "at", "foreign") if not harness.can(name)] == []
