"""What the settings of a RabbitMQ do not uphold is told; and what cannot be looked at is told as that, and no error."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

import messaging
from messaging.concerns import Concern
from messaging.topology import Queue, Subscription, Topic, Topology
from messaging_contract.containers import ContainersUnavailable, catalogue
from messaging_contract.containers.ports import free_port

MANAGEMENT = 15672
WORKLOAD = Topology(Queue("mc-jobs"), Topic("mc-orders", Subscription("audit")))


@pytest.fixture(scope="module")
def managed() -> Iterator[str]:
    """A broker of its own, with the management plugin: what is set here would hurt other tests."""
    container = catalogue.find("rabbitmq:4").container()
    container.further_ports[MANAGEMENT] = free_port()
    try:
        container.start()
    except ContainersUnavailable as error:
        pytest.skip(str(error))
    try:
        yield f"{container.url}?management=http://127.0.0.1:{container.further_ports[MANAGEMENT]}"
    finally:
        container.stop()


@pytest.fixture(scope="module")
def operator(managed: str, inside: Callable[[str, str], str]) -> Callable[[str], str]:
    def run(script: str) -> str:
        return inside(managed, script)

    run("rabbitmq-plugins enable rabbitmq_management")
    return run


def look(url: str, delays: tuple[float, ...] = (5.0,)) -> list[Concern]:
    with messaging.connect(url, topology=WORKLOAD) as broker:
        try:
            return broker.concerns(delays=delays)
        finally:
            broker.delete(WORKLOAD)


def told(concerns: list[Concern], setting: str) -> Concern:
    found = [concern for concern in concerns if concern.setting == setting and concern.seen]
    assert len(found) == 1, [str(concern) for concern in concerns]
    assert found[0].why
    assert found[0].change
    return found[0]


def seen(concerns: list[Concern]) -> set[str]:
    return {concern.setting for concern in concerns if concern.seen}


def test_a_policy_that_matches_is_told_with_each_of_its_keys(managed: str, operator: Callable[[str], str]) -> None:
    keys = '"message-ttl":60000,"expires":600000,"max-length":10,"overflow":"drop-head","delivery-limit":3'
    operator(f"rabbitmqctl set_policy bad '^mc-' '{{{keys}}}' --apply-to queues")
    try:
        concerns = look(managed)
    finally:
        operator("rabbitmqctl clear_policy bad")
    assert {"message-ttl", "expires", "max-length", "overflow", "delivery-limit"} <= seen(concerns)
    ttl = told(concerns, "message-ttl")
    assert ttl.about == "policy 'bad'"
    assert "60000" in ttl.found
    assert "mc-jobs" in ttl.found
    assert "clear_policy -p / bad" in ttl.change
    assert seen(look(managed)) == {"members"}


def test_a_policy_for_the_queues_of_retries_is_found_before_there_are_any(
    managed: str, operator: Callable[[str], str]
) -> None:
    operator("""rabbitmqctl set_policy waits 'retry--[0-9]+$' '{"message-ttl":1000}' --apply-to quorum_queues""")
    try:
        assert "a retry or delay waits in it" in told(look(managed), "message-ttl").found
    finally:
        operator("rabbitmqctl clear_policy waits")


def test_an_operators_policy_and_an_exchanges(managed: str, operator: Callable[[str], str]) -> None:
    operator("""rabbitmqctl set_operator_policy cap '^mc-jobs' '{"max-length":5}' --apply-to queues""")
    operator(
        """rabbitmqctl set_policy other '^mc-orders$' '{"alternate-exchange":"amq.fanout"}' --apply-to exchanges"""
    )
    try:
        concerns = look(managed)
    finally:
        operator("rabbitmqctl clear_operator_policy cap; rabbitmqctl clear_policy other")
    assert told(concerns, "max-length").about == "operator policy 'cap'"
    assert "Unroutable" in told(concerns, "alternate-exchange").why


def test_of_several_policies_that_match_only_the_one_in_force_is_told(
    managed: str, operator: Callable[[str], str]
) -> None:
    operator("""rabbitmqctl set_policy weak '^mc-' '{"expires":600000}' --apply-to queues --priority 1""")
    operator("""rabbitmqctl set_policy strong '^mc-' '{"max-length":5}' --apply-to queues --priority 2""")
    try:
        assert seen(look(managed)) == {"max-length", "members"}
    finally:
        operator("rabbitmqctl clear_policy weak; rabbitmqctl clear_policy strong")


def test_policies_of_others_are_not_told(managed: str, operator: Callable[[str], str]) -> None:
    operator("""rabbitmqctl set_policy theirs '^billing' '{"message-ttl":1}' --apply-to all""")
    operator("""rabbitmqctl set_policy harmless '^mc-' '{"delivery-limit":-1,"queue-leader-locator":"balanced"}'""")
    try:
        assert seen(look(managed)) == {"members"}
    finally:
        operator("rabbitmqctl clear_policy theirs; rabbitmqctl clear_policy harmless")


def test_the_largest_message(managed: str, operator: Callable[[str], str]) -> None:
    operator("rabbitmqctl eval 'persistent_term:put(max_message_size, 65536).'")
    try:
        assert told(look(managed), "max_message_size").found == "65536 bytes"
    finally:
        operator("rabbitmqctl eval 'persistent_term:put(max_message_size, 16777216).'")


def test_an_alarm_is_told_by_the_management_api_and_by_the_connection(
    managed: str, operator: Callable[[str], str], eventually: Callable[..., None]
) -> None:
    def told_by_the_api(url: str) -> bool:
        return any(concern.setting == "mem_alarm" and concern.stops for concern in look(url))

    bare = managed.partition("?")[0]
    operator("rabbitmqctl set_vm_memory_high_watermark 0.00001")
    try:
        with messaging.connect(bare) as broker:
            blocked = told(broker.concerns(), "alarm")
        assert blocked.stops
        # The API tells it a few seconds later; until then its place is taken by the probe.
        eventually(lambda: told_by_the_api(managed), 30)
    finally:
        operator("rabbitmqctl set_vm_memory_high_watermark 0.6")


def test_what_a_user_may_not_ask_is_told_as_not_looked_at(managed: str, operator: Callable[[str], str]) -> None:
    name = f"app-{uuid.uuid4().hex[:8]}"
    operator(f"rabbitmqctl add_user {name} secret && rabbitmqctl set_permissions -p / {name} '.*' '.*' '.*'")
    concerns = look(managed.replace("guest:guest", f"{name}:secret"))
    unseen = {concern.setting: concern for concern in concerns if not concern.seen}
    assert set(unseen) == {"alarms", "policies", "operator policies", "consumer_timeout"}
    assert "policymaker" in unseen["policies"].found
    assert str(unseen["policies"]).startswith("not looked at: ")
    assert seen(concerns) == set()


def test_without_the_management_plugin_it_is_no_error(url: str) -> None:
    concerns = look(f"{url}?management=http://127.0.0.1:1")
    assert seen(concerns) == set()
    assert any("rabbitmq-plugins enable rabbitmq_management" in concern.found for concern in concerns)


def test_the_version_is_the_servers_own_word(managed: str, operator: Callable[[str], str]) -> None:
    version = operator("rabbitmqctl --quiet eval 'rabbit_misc:version().'").strip().strip('"')
    with messaging.connect(managed) as broker:
        assert broker.version == f"RabbitMQ {version}"


def test_the_url_of_the_management_plugin_is_checked() -> None:
    with pytest.raises(messaging.ConfigurationError, match="must be a URL such as http"):
        messaging.connect("rabbitmq://localhost?management=localhost")
