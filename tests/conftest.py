"""What several test packages share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from messaging_contract.harness import Harness

from .brokers import BROKERS, CONTAINERS, Brokers
from .databases import POSTGRESQL, PostgreSQL
from .inside import run_inside
from .soaking import soak_for

# How long an example takes is not what these tests are about, and depends on what else the machine does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "only(*names): the containers that a test of an adapter runs on, of all it could"
    )
    config.addinivalue_line("markers", "xdist_group(name): tests of one name run in one process")
    config.stash[BROKERS] = Brokers(os.environ)
    config.stash[POSTGRESQL] = PostgreSQL(os.environ)


def pytest_itemcollected(item: pytest.Item) -> None:
    """With pytest-xdist and `--dist loadgroup`: the tests of an adapter in one process, so each broker starts once."""
    folder = item.path.parent.name
    alone = folder.removeprefix("messaging_") in (*CONTAINERS, "sql")
    item.add_marker(pytest.mark.xdist_group(folder if alone else "rest"))


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[BROKERS].close()
    config.stash[POSTGRESQL].close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that names an adapter as a fixture runs on each of its brokers."""
    only = metafunc.definition.get_closest_marker("only")
    for adapter in CONTAINERS:
        if adapter in metafunc.fixturenames:
            found = metafunc.config.stash[BROKERS].choose(adapter, only.args if only else ())
            names = [candidate.name for candidate in found]
            metafunc.parametrize(adapter, found, ids=names, indirect=True, scope="session")
    if "broker_url" in metafunc.fixturenames:
        brokers = metafunc.config.stash[BROKERS]
        found = [c for adapter in CONTAINERS for c in brokers.choose(adapter) if c.name != "sqs:elasticmq"]
        names = ["memory", *(candidate.name for candidate in found)]
        metafunc.parametrize("broker_url", [None, *found], ids=names, indirect=True, scope="session")


def _open(request: pytest.FixtureRequest) -> Harness:
    return request.config.stash[BROKERS].open(request.param)


rabbitmq = pytest.fixture(_open, scope="session", name="rabbitmq")
kafka = pytest.fixture(_open, scope="session", name="kafka")
sqs = pytest.fixture(_open, scope="session", name="sqs")


_NEWEST = {"rabbitmq": "rabbitmq:4", "kafka": "kafka:4.2", "sqs": "sqs:ministack"}


@pytest.fixture(scope="session", params=_NEWEST)
def newest(request: pytest.FixtureRequest) -> Harness:
    """The newest of each real broker."""
    brokers = request.config.stash[BROKERS]
    return brokers.open(brokers.choose(request.param, (_NEWEST[request.param],))[0])


@pytest.fixture(scope="session")
def postgresql_url(pytestconfig: pytest.Config) -> str:
    """A real PostgreSQL, for SQLAlchemy."""
    return pytestconfig.stash[POSTGRESQL].url()


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest) -> str:
    """Every broker that has topics: memory, and the real ones."""
    return "memory://" if request.param is None else _open(request).url or ""


def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Waits until `condition()` holds. Fails at the deadline, never earlier."""
    deadline = time.monotonic() + timeout
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        tick.wait(0.001)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., None]:
    return eventually


@pytest.fixture(scope="session")
def inside() -> Callable[[str, str], str]:
    """See `run_inside`."""
    return run_inside


@pytest.fixture
def short_soak() -> Callable[[Harness, float], None]:
    """A soak of so many seconds; the test fails when the guarantee was not upheld."""
    return soak_for


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    """Every thread that the test made has ended when it ends."""
    before = set(threading.enumerate())
    yield
    eventually(lambda: set(threading.enumerate()) <= before)
