"""Looks for topics and groups on the cluster and compares them. Creates nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka.admin import ResourceType

from messaging.errors import BrokerUnavailable, MessagingError
from messaging.plan import Difference, Finding, Part, compare, different, missing

from .admin import Admin
from .groups import ORDERED, UNORDERED
from .parts import COPIES, PARTITION_COUNT, REPLICATION, SHARE_GROUP, TOPIC, config_of
from .retry_topics import RETRY
from .share_groups import RESET

_GROW = (
    "messaging topology apply adds partitions, except to an ordered topic, where they would move keys away from what "
    "waits: let it be emptied and run kafka-topics.sh --alter"
)


def inspect(admin: Admin, parts: Sequence[Part]) -> list[Finding]:
    """A finding for each part. Raises BrokerUnavailable, and AuthenticationFailed for a topic that is hidden."""
    there = admin.partitions([part.name for part in parts if part.kind == TOPIC])
    return [_look(admin, part, there) for part in parts]


def _look(admin: Admin, part: Part, there: Mapping[str, int | None]) -> Finding:
    try:
        if part.kind == TOPIC:
            count = there[part.name]
            return missing(part) if count is None else _topic(admin, part, count)
        return _share_group(admin, part) if part.kind == SHARE_GROUP else _group(admin, part)
    except BrokerUnavailable:
        raise
    except MessagingError as error:  # what this user may not see
        return Finding(part, "unknown", (), str(error))


def _topic(admin: Admin, part: Part, count: int) -> Finding:
    differences: list[Difference] = []
    ways: list[str] = []
    partitions, replication = part.settings[PARTITION_COUNT], part.settings.get(REPLICATION)
    if count < partitions:
        differences.append(Difference(PARTITION_COUNT, count, partitions))
        ways.append(_GROW)
    if replication is not None and (actual := admin.replication(part.name)) != replication:
        differences.append(Difference(REPLICATION, actual, replication))
        ways.append("declare the replication factor that is there, or change it with kafka-reassign-partitions.sh")
    wanted = config_of(part)
    if wanted:
        config = admin.config(ResourceType.TOPIC, part.name)
        unequal = [name for name, value in wanted.items() if not _suffices(part, config.get(name), value)]
        differences += [Difference(name, config.get(name), wanted[name]) for name in unequal]
        if unequal:
            values = {name: f"[{wanted[name]}]" if "," in wanted[name] else wanted[name] for name in unequal}
            changes = ",".join(f"{name}={value}" for name, value in values.items())
            ways.append(
                f"declare what is there, or: kafka-configs.sh --alter --entity-type topics --entity-name {part.name} "
                f"--add-config {changes}"
            )
    return different(part, differences, "; ".join(ways))


def _suffices(part: Part, found: str | None, wanted: str) -> bool:
    if normal(found) == normal(wanted):
        return True
    if found is None or not (part.name.endswith(COPIES) or RETRY in part.name):
        return False
    # A topic for copies may take more and keep longer.
    return found == "-1" or (found.isdigit() and wanted.isdigit() and int(found) >= int(wanted))


def normal(value: str | None) -> str:
    """A setting without what does not matter in it: the order of a list."""
    return ",".join(sorted(word.strip() for word in (value or "").split(",")))


def _group(admin: Admin, part: Part) -> Finding:
    marks = admin.commit_marks(part.name, part.settings["topic"])
    if not marks:
        return missing(part)
    known = marks & {ORDERED, UNORDERED}
    wanted = part.settings["order"]
    if known and wanted not in known:
        way_out = "declare it as it is; or let it be emptied, delete it and declare it again"
        return different(part, [Difference("order", known.pop(), wanted)], way_out)
    return Finding(part, "there")


def _share_group(admin: Admin, part: Part) -> Finding:
    config = admin.config(ResourceType.GROUP, part.name)
    if config.get(RESET) != part.settings[RESET]:
        # The broker tells the settings of every group, also of one that nobody has made.
        return missing(part)
    return compare(part, config, "messaging topology apply sets what is missing")
