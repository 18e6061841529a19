from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import messaging
from messaging.config import build_options, load, parse_url, redact, resolve
from messaging.errors import ConfigurationError
from messaging.options import ConsumerOptions, ProducerOptions


@dataclass(frozen=True)
class Options:
    hosts: tuple[tuple[str, int | None], ...] = (("localhost", None),)
    username: str | None = None
    password: str | None = None
    path: str = ""
    retries: int = 3
    wait: float = 1.0
    tls: bool = False
    mode: Literal["a", "b"] = "a"
    limit: int | None = None


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MESSAGING_URL", "MESSAGING_PROFILE", "MESSAGING_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("x://", {}),
        ("x://h", {"hosts": (("h", None),)}),
        ("x://h:1/", {"hosts": (("h", 1),)}),
        ("x://a:1,b,[::1]:2,[fe80::1]", {"hosts": (("a", 1), ("b", None), ("::1", 2), ("fe80::1", None))}),
        ("x://u@h", {"username": "u", "hosts": (("h", None),)}),
        ("x://u:p@h/%2Fv%20w", {"username": "u", "password": "p", "hosts": (("h", None),), "path": "/v w"}),
        ("x://u%40d:p%3A%2F%3F%40@h", {"username": "u@d", "password": "p:/?@", "hosts": (("h", None),)}),
        ("x://u:p@w@h", {"username": "u", "password": "p@w", "hosts": (("h", None),)}),
        ("x:///path", {"path": "path"}),
        ("x://?a=1&b=&c=x%26y", {"a": "1", "b": "", "c": "x&y"}),
        ("x-y.z+1://h", {"hosts": (("h", None),)}),
    ],
)
def test_urls(url: str, options: dict[str, Any]) -> None:
    target = parse_url(url)
    assert target.scheme == url.partition("://")[0]
    assert target.options == options


@pytest.mark.parametrize(
    "url",
    [
        "rabbitmq:u:hunter2@h",
        "RabbitMQ://u:hunter2@h",
        "x y://u:hunter2@h",
        "x://u:hunter2@h:port",
        "x://u:hunter2@h:0",
        "x://u:hunter2@h:65536",
        "x://u:hunter2@h:123456",
        "x://u:hunter2@,",
        "x://u:hunter2@a,,b",
        "x://u:hunter2@:5672",
        "x://u:hunter2@::1",
        "x://u:hunter2@[::1",
        "x://u:hunter2@h h",
        "x://u:hunter2@h#frag",
        "x://u:ab/hunter2@h",
        "x://u:hunter2/cd@h",
        "x://u:ab?hunter2@h",
        "x://u:hunter2?cd@h",
        "x://u:hunter2@h?username=x",
        "x://u:hunter2@h?hosts=a",
        "x://u:hunter2@h?a=1&a=2",
        "x://h?password=hunter2",
        "x://u:hunter2%ff@h",
    ],
)
def test_malformed_urls_never_show_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_percent_encoded_credentials_arrive_exactly(username: str, password: str) -> None:
    from urllib.parse import quote

    options = parse_url(f"x://{quote(username, safe='')}:{quote(password, safe='')}@h").options
    assert options.get("username", "") == username
    assert options.get("password", "") == password


@given(st.text(st.characters(exclude_characters="@&", exclude_categories=["Cs"]), min_size=3))
def test_redact(secret: str) -> None:
    mark = f"<<{secret}>>"
    assert mark not in redact(f"x://user:{mark}@host:1/path")
    assert mark not in redact(f"user:{mark}@host")
    assert mark not in redact(f"x://host?sasl_password={mark}&b=1")
    assert mark not in redact(f"x://host?aws_session_token={mark}")
    assert mark not in redact(f"x://host?SECRET_KEY={mark}")


def test_redact_leaves_the_rest() -> None:
    assert redact("x://user:pw@host:1/path?a=b") == "x://user:***@host:1/path?a=b"
    assert redact("x://user@host:1/path") == "x://user@host:1/path"
    assert redact("x://host:1") == "x://host:1"


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"retries": "5"}, 5),
        ({"retries": 5.0}, 5),
        ({"wait": "0.5"}, 0.5),
        ({"wait": 2}, 2.0),
        ({"tls": "Yes"}, True),
        ({"tls": "0"}, False),
        ({"mode": "b"}, "b"),
        ({"limit": "7"}, 7),
        ({"limit": None}, None),
    ],
)
def test_text_becomes_the_type_of_the_option(given_: dict[str, Any], expected: object) -> None:
    (name,) = given_
    value = getattr(build_options(Options, given_, "x"), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "given_",
    [
        {"retries": "many"},
        {"retries": "1.5"},
        {"retries": 1.5},
        {"retries": True},
        {"retries": ""},
        {"retries": "inf"},
        {"retries": 10**400},
        {"retries": [1]},
        {"wait": "soon"},
        {"wait": False},
        {"wait": None},
        {"tls": "maybe"},
        {"tls": 1},
        {"mode": "c"},
        {"mode": ["a"]},
        {"limit": "none"},
        {"username": 5},
        {"password": 31337},
        {"hosts": "a:1"},
        {"hosts": ["a:1"]},
        {"path": 5},
    ],
)
def test_values_of_another_type(given_: dict[str, Any]) -> None:
    (name,) = given_
    with pytest.raises(ConfigurationError, match=name) as caught:
        build_options(Options, given_, "x")
    assert "31337" not in str(caught.value)


def test_unknown_options_name_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'retries'"):
        build_options(Options, {"retrys": 1}, "x")
    with pytest.raises(ConfigurationError, match=r"known: .*wait"):
        build_options(Options, {"zzz": 1}, "x")
    with pytest.raises(ConfigurationError, match="takes no username"):
        build_options(ProducerOptions, {"username": 1}, "x")
    with pytest.raises(ConfigurationError, match="did you mean 'connect_timeout'"):
        messaging.connect("memory://?conect_timeout=1")
    with pytest.raises(ConfigurationError, match="did you mean 'prefetch'"), messaging.connect("memory://") as broker:
        broker.subscribe("jobs", prefech=1)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (ProducerOptions, {"timeout": 0}),
        (ProducerOptions, {"timeout": "nan"}),
        (ProducerOptions, {"timeout": "inf"}),
        (ProducerOptions, {"max_in_flight": 0}),
        (ProducerOptions, {"on_full": "drop"}),
        (ConsumerOptions, {"prefetch": 0}),
        (ConsumerOptions, {"lease": -1}),
        (ConsumerOptions, {"lease": "nan"}),
        (ConsumerOptions, {"lease": "inf"}),
        (ConsumerOptions, {"delivery": "perhaps"}),
    ],
)
def test_options_out_of_range(cls: type, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        build_options(cls, wrong, "x")


def test_what_is_used_first_found_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"default": "dev", "profiles": {"dev": {"url": "dev://"}, "prod": {"url": "prod://", "a": 1}}}
    assert resolve(None, {}, {}).scheme == "memory"
    assert resolve(None, config, {}).scheme == "dev"
    monkeypatch.setenv("MESSAGING_PROFILE", "prod")
    assert resolve(None, config, {}).scheme == "prod"
    monkeypatch.setenv("MESSAGING_URL", "env://")
    assert resolve(None, config, {}).scheme == "env"
    assert resolve("prod", config, {}).options == {"a": 1}
    assert resolve("arg://?a=2", config, {"a": 3}).options == {"a": 3}


def test_an_empty_target_is_not_memory() -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        messaging.connect("")


def test_unknown_schemes_and_profiles() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'rabbitmq'"):
        messaging.connect("rabitmq://localhost")
    with pytest.raises(ConfigurationError, match="did you mean 'prod'"):
        resolve("prd", {"profiles": {"prod": {"url": "x://"}}}, {})
    with pytest.raises(ConfigurationError, match=r"messaging\.toml"):
        messaging.connect("prod")
    with pytest.raises(ConfigurationError, match="no url"):
        resolve("prod", {"profiles": {"prod": {}}}, {})
    with pytest.raises(ConfigurationError) as caught:
        messaging.connect("user:hunter2@host")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("password", ["plain", "p@ss/w?rd:#%20", "ü", "a@b://c"])
def test_credentials_from_the_environment_are_taken_literally(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", password)
    config = {"profiles": {"p": {"url": "x://app:${PW}@host:1/v", "extra": "<${PW}>"}}}
    assert resolve("p", config, {}).options == {
        "username": "app",
        "password": password,
        "hosts": (("host", 1),),
        "path": "v",
        "extra": f"<{password}>",
    }


def test_the_environment_reaches_into_nested_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "a/b")
    config = {"profiles": {"p": {"url": "x://h", "config": {"ssl.key.password": "${PW}", "all": ["${PW}", 1]}}}}
    assert resolve("p", config, {}).options["config"] == {"ssl.key.password": "a/b", "all": ["a/b", 1]}
    with pytest.raises(ConfigurationError, match="MISSING"):
        resolve("p", {"profiles": {"p": {"url": "x://h", "config": {"a": "${MISSING}"}}}}, {})


def test_whole_urls_and_hosts_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URL", "x://u:p%40@h:1")
    monkeypatch.setenv("HOSTS", "a:1,b:2")
    assert resolve("p", {"profiles": {"p": {"url": "${URL}"}}}, {}).options["password"] == "p@"
    hosts = resolve("p", {"profiles": {"p": {"url": "x://u@${HOSTS}/"}}}, {}).options["hosts"]
    assert hosts == (("a", 1), ("b", 2))
    with pytest.raises(ConfigurationError, match="MISSING"):
        resolve("p", {"profiles": {"p": {"url": "x://${MISSING}"}}}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("= 1", "cannot be read"),
        ("\xff", "cannot be read"),
        ("profile = 1", "did you mean 'profiles'"),
        ("profiles = 1", r"\[profiles\]"),
        ('[profiles]\nprod = "x://"', r"\[profiles.prod\]"),
        ("topology = []", r"\[topology\]"),
        ("default = 1", "default"),
        ('default = "prod"', "no profile 'prod'"),
    ],
)
def test_wrong_files(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "messaging.toml"
    file.write_text(text, "latin-1")
    with pytest.raises(ConfigurationError, match=says):
        messaging.connect()


def test_a_file_that_was_named_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load() == {}
    with pytest.raises(ConfigurationError, match="does not exist"):
        load("nowhere.toml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path)
    monkeypatch.setenv("MESSAGING_CONFIG", "elsewhere.toml")
    with pytest.raises(ConfigurationError, match="does not exist"):
        load()
