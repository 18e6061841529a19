from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from messaging import ConfigurationError, DecodeError
from messaging_sql import EventTypes, UnknownEventType


@dataclass
class Opened:
    owner: str
    currency: str


class Struct(msgspec.Struct):
    n: int


def add_currency(old: dict[str, Any]) -> dict[str, Any]:
    return {**old, "currency": "EUR"}


def rename_name(old: dict[str, Any]) -> dict[str, Any]:
    return {"owner": old.pop("name"), **old}


def test_every_old_version_becomes_the_newest() -> None:
    types = EventTypes()
    types.add("account.opened", Opened, version=3, upcasts={1: rename_name, 2: add_currency})
    assert types.encode(Opened("Ada", "USD")) == ("account.opened", 3, '{"owner":"Ada","currency":"USD"}')
    assert types.decode("account.opened", 3, '{"owner":"Ada","currency":"USD"}') == Opened("Ada", "USD")
    assert types.decode("account.opened", 2, '{"owner":"Ada"}') == Opened("Ada", "EUR")
    assert types.decode("account.opened", 1, '{"name":"Ada"}') == Opened("Ada", "EUR")


def test_a_former_name() -> None:
    types = EventTypes()
    types.add("account.opened", Opened, version=2, upcasts={1: add_currency}, formerly=["AccountOpened"])
    assert types.decode("AccountOpened", 1, '{"owner":"Ada"}') == Opened("Ada", "EUR")
    assert types.encode(Opened("Ada", "EUR"))[0] == "account.opened"
    assert types.names(Opened) == ["account.opened", "AccountOpened"]


def test_structs_and_added_fields_with_a_default_need_no_upcast() -> None:
    class Grown(msgspec.Struct):
        n: int
        m: int = 7

    types = EventTypes()
    types.add("grown", Grown)
    assert types.decode("grown", 1, '{"n":1}') == Grown(1, 7)
    assert types.decode("grown", 1, '{"n":1,"later":2}') == Grown(1, 7)


def test_what_does_not_fit_says_what_to_do() -> None:
    types = EventTypes()
    types.add("account.opened", Opened)
    with pytest.raises(DecodeError, match=r"'account.opened' here, .*raise the version and add an upcast"):
        types.decode("account.opened", 1, '{"owner":"Ada"}', lambda: " here")
    with pytest.raises(UnknownEventType, match=r"types.add\('account.closed'"):
        types.decode("account.closed", 1, "{}")
    with pytest.raises(UnknownEventType, match="a newer program wrote it"):
        types.decode("account.opened", 2, "{}")
    with pytest.raises(UnknownEventType, match="Struct is not a registered event"):
        types.encode(Struct(1))


def test_an_upcast_that_fails_is_a_typed_error() -> None:
    types = EventTypes()
    types.add("account.opened", Opened, version=2, upcasts={1: rename_name})
    with pytest.raises(DecodeError, match="written with version 1"):
        types.decode("account.opened", 1, "{}")


@pytest.mark.parametrize(
    ("name", "event", "options", "text"),
    [
        ("a", Opened, {"version": 2}, "needs an upcast"),
        ("a", Opened, {"version": 3, "upcasts": {1: dict}}, "needs an upcast"),
        ("a", Opened, {"upcasts": {1: dict}}, "needs an upcast"),
        ("a", Opened, {"version": 0}, "version 0"),
        ("", Opened, {}, "1 to 255"),
        ("a", "Opened", {}, "needs a class"),
        ("there", Opened, {}, "already registered, for Struct"),
        ("a", Struct, {}, "already registered as 'there'"),
        ("a", Opened, {"formerly": ["there"]}, "already registered"),
    ],
)
def test_wrong_registrations(name: str, event: Any, options: dict[str, Any], text: str) -> None:
    types = EventTypes()
    types.add("there", Struct)
    with pytest.raises(ConfigurationError, match=text):
        types.add(name, event, **options)
