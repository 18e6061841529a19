"""A user whose rights are those that docs/kafka.md lists, on a Kafka of its own that checks them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

import messaging
from messaging import Delivery, Queue, Topic, Transaction, Worker
from messaging.errors import AuthenticationFailed
from messaging_contract.containers import ContainersUnavailable, catalogue
from messaging_contract.containers.kafka import KafkaContainer
from messaging_contract.containers.ports import HOST
from messaging_contract.harness import Harness

from .cluster import take

Allow = Callable[..., None]

WORKLOAD = [Queue("app-jobs"), Topic("app-orders", "audit")]
USE = {
    ResourceType.TOPIC: {"app-": ("READ", "WRITE", "DESCRIBE"), "__share_group_state": ("READ", "DESCRIBE")},
    ResourceType.GROUP: {"app-": ("READ", "DESCRIBE", "DESCRIBE_CONFIGS")},
}
"""What docs/kafka.md lists for a program that declares with create=False."""

MAKE = {
    ResourceType.TOPIC: USE[ResourceType.TOPIC]
    | {"app-": (*USE[ResourceType.TOPIC]["app-"], "CREATE", "DELETE", "DESCRIBE_CONFIGS")},
    ResourceType.GROUP: {"app-": (*USE[ResourceType.GROUP]["app-"], "ALTER_CONFIGS", "DELETE")},
}
"""What it lists for one that makes, deletes and redrives."""


class GuardedKafka(KafkaContainer):
    """Kafka that asks for a password and looks at ACLs; `admin` may do all."""

    @property
    def url(self) -> str:
        return self.url_of("admin")

    def url_of(self, user: str) -> str:
        return f"kafka://{user}:{user}@{HOST}:{self.port}"

    @property
    def admin(self) -> AdminClient:
        sasl = {"sasl.mechanism": "PLAIN", "sasl.username": "admin", "sasl.password": "admin"}
        address = {"bootstrap.servers": f"{HOST}:{self.port}", "security.protocol": "SASL_PLAINTEXT", "log_level": 0}
        return AdminClient({**address, **sasl})

    def environment(self) -> dict[str, str]:
        usual = super().environment()
        return {
            **usual,
            "KAFKA_LISTENERS": usual["KAFKA_LISTENERS"].replace("PLAINTEXT://", "GUARDED://", 1),
            "KAFKA_ADVERTISED_LISTENERS": usual["KAFKA_ADVERTISED_LISTENERS"].replace("PLAINTEXT://", "GUARDED://", 1),
            "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "GUARDED:SASL_PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN",
            "KAFKA_LISTENER_NAME_GUARDED_PLAIN_SASL_JAAS_CONFIG": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                'username="admin" password="admin" user_admin="admin" user_app="app";'
            ),
            "KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "KAFKA_SUPER_USERS": "User:ANONYMOUS;User:admin",
        }

    def answers(self) -> bool:
        try:
            return bool(self.admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return False


@pytest.fixture(scope="module")
def guarded(kafka: Harness) -> Iterator[GuardedKafka]:
    entry = catalogue.find(kafka.name)
    like = entry.container()
    container = GuardedKafka(entry.name, like.image, entry.variable)
    try:
        container.start()
    except ContainersUnavailable as error:
        pytest.skip(str(error))
    try:
        with messaging.connect(container.url, topology=WORKLOAD):
            pass
        yield container
    finally:
        container.stop()


@contextmanager
def allowed(container: GuardedKafka, rights: Mapping[ResourceType, Mapping[str, tuple[str, ...]]]) -> Iterator[str]:
    """While it lasts, the user `app` has these rights and no others; gives its URL."""
    admin = container.admin
    bindings = [
        AclBinding(
            kind,
            name,
            ResourcePatternType.PREFIXED if name.endswith("-") else ResourcePatternType.LITERAL,
            "User:app",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for kind, names in rights.items()
        for name, operations in names.items()
        for operation in operations
    ]
    for future in admin.create_acls(bindings).values():
        future.result(10)
    try:
        yield container.url_of("app")
    finally:
        every = AclBindingFilter(
            ResourceType.ANY, None, ResourcePatternType.ANY, "User:app", None, AclOperation.ANY, AclPermissionType.ANY
        )
        for deleted in admin.delete_acls([every]).values():
            deleted.result(10)


def without(kind: ResourceType, operation: str) -> dict[ResourceType, dict[str, tuple[str, ...]]]:
    """USE less one right."""
    return {
        each: {
            name: tuple(o for o in operations if (each, o) != (kind, operation)) for name, operations in names.items()
        }
        for each, names in USE.items()
    }


def test_what_is_listed_suffices(guarded: GuardedKafka) -> None:
    with allowed(guarded, USE) as url, messaging.connect(url, topology=WORKLOAD, create=False) as broker:
        for destination, group in (("app-jobs", None), ("app-orders", "audit")):
            broker.publish(destination, b"1")
            with broker.subscribe(destination, group) as consumer:
                take(consumer, 1)[0].nack(delay=1)
                take(consumer, 1)[0].reject("no")
                consumer.flush()
            assert broker.depth(destination, group) == 0
            assert broker.dead_letter_depth(destination, group) == 1
        # The settings of topics are not among the rights, so nothing is known of them, and nothing is wrong.
        assert {f.state for f in broker.inspect() if f.part.kind == "topic"} == {"unknown"}
        assert not any(finding.drifted for finding in broker.inspect())


def test_to_make_what_is_missing_and_to_redrive(guarded: GuardedKafka) -> None:
    topology = [Queue("app-made"), Topic("app-made-too", "audit")]
    with allowed(guarded, MAKE) as url, messaging.connect(url, topology=topology) as broker:
        for destination, group in (("app-made", None), ("app-made-too", "audit")):
            broker.publish(destination, b"1")
            with broker.subscribe(destination, group) as consumer:
                take(consumer, 1)[0].reject("no")
                consumer.flush()
            assert broker.dead_letter_queue(destination, group).redrive().moved == 1
            with broker.subscribe(destination, group) as consumer:
                take(consumer, 1)[0].ack()
        assert {f.state for f in broker.inspect() if f.part.kind == "topic"} == {"there"}
        broker.delete(topology)


def test_exactly_once(guarded: GuardedKafka) -> None:
    rights = USE | {ResourceType.TRANSACTIONAL_ID: {"app-": ("WRITE", "DESCRIBE")}}
    with allowed(guarded, rights) as url, messaging.connect(url, topology=WORKLOAD, create=False) as broker:
        done = threading.Event()
        worker = Worker(broker)

        @worker.on("app-orders", "audit", delivery="exactly-once")
        def handle(delivery: Delivery, transaction: Transaction) -> None:
            done.set()

        with worker:
            broker.publish("app-orders", b"1")
            assert done.wait(60)


def test_without_a_word_on_share_groups_they_are_used_all_the_same(guarded: GuardedKafka) -> None:
    rights = without(ResourceType.GROUP, "DESCRIBE_CONFIGS")
    with (
        allowed(guarded, rights) as url,
        messaging.connect(guarded.url) as admin,
        messaging.connect(url) as broker,
    ):
        assert broker.capabilities == admin.capabilities
        if broker.capabilities.queues == "native":
            with pytest.raises(
                AuthenticationFailed, match="grant this user DescribeConfigs on group 'app-jobs--share'"
            ):
                broker.declare(Queue("app-jobs"))


def test_what_is_missing_is_named(guarded: GuardedKafka) -> None:
    with allowed(guarded, USE) as url:
        with pytest.raises(AuthenticationFailed, match="grant this user Create on topic 'app-new'"):
            messaging.connect(url, topology=Queue("app-new"))
        declared = Topic("app-orders", "audit", native={"kafka": {"retention": 604_800}})
        with pytest.raises(AuthenticationFailed, match="grant this user DescribeConfigs on topic 'app-orders'"):
            messaging.connect(url, topology=declared, create=False)
