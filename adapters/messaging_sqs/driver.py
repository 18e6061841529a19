"""The SQS driver: what connects everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from messaging.capabilities import Capabilities, emulated, native, unsupported
from messaging.concerns import Concern
from messaging.driver import Driver, Receiver, Sender
from messaging.errors import BrokerUnavailable, Closed, ConfigurationError, MessagingError, UnsupportedCapability
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.plan import Finding, Part
from messaging.topology import Destination, Source, Topic, Topology
from messaging_sqs.batch import Outcomes, call_batch
from messaging_sqs.clients import Clients
from messaging_sqs.cloudformation import cloudformation
from messaging_sqs.concerns import concerns
from messaging_sqs.directory import Directory
from messaging_sqs.errors import DENIED, code_of, lease_lost, translate
from messaging_sqs.inspection import inspect
from messaging_sqs.naming import queue_name
from messaging_sqs.options import MAX_DELAY, MAX_VISIBILITY, SQS_MESSAGE_BYTES, SQSOptions
from messaging_sqs.parts import check_native, parts_of
from messaging_sqs.receiver import SQSReceiver
from messaging_sqs.sender import SQSSender, encode_for, size_limit
from messaging_sqs.terraform import terraform
from messaging_sqs.topology import TopologyBuilder

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

CAPABILITIES = Capabilities(
    queues=native("SQS queue"),
    topics=native("SNS topic, an SQS queue a subscription, raw delivery"),
    patterns=emulated("SNS filter policy; what it cannot express is dropped by the consumer"),
    ordering=native("FIFO queue and topic, key as message group"),
    nack_delay=native("visibility timeout, up to 12 hours"),
    dead_letter=emulated("sent to the dead-letter queue, then deleted; redrive policy as backstop"),
    delayed_queue=native("DelaySeconds, up to 15 minutes; not for ordered queues"),
    delayed_topic=unsupported("SNS has no delay"),
    ttl=emulated("expiry travels with the message; dropped at delivery"),
    mandatory=unsupported("SNS does not tell whether a subscription takes a message"),
    lease=native("visibility timeout, extended by a heartbeat"),
    replay=unsupported("SQS keeps no history"),
    lag=native("approximate counts of the queue"),
    transactions=unsupported("SQS has none"),
    max_message_bytes=SQS_MESSAGE_BYTES,
    max_delay=MAX_DELAY,
)
_Part = TypeVar("_Part", Sender, Receiver)
_NO_SNS = "this endpoint has SQS only"


def _without_sns(capabilities: Capabilities, why: str) -> Capabilities:
    return replace(capabilities, topics=unsupported(why), patterns=unsupported(why))


class SQSDriver(Driver):
    """Thread-safe throughout. `_lock` guards `_open`, the senders and receivers that `close` has to close."""

    name: ClassVar[str] = "sqs"
    Options: ClassVar[type[Any]] = SQSOptions
    export_formats: ClassVar[Sequence[str]] = ("terraform", "cloudformation")
    options: SQSOptions
    clients: Clients
    directory: Directory

    def __init__(self, options: SQSOptions) -> None:
        super().__init__(options)
        self.capabilities = replace(CAPABILITIES, max_message_bytes=options.max_message_bytes)
        self._lock = Lock()
        self._open: list[Sender | Receiver] = []
        self._opened = False
        self._closed = False
        self._server = ""

    @classmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        return [("SQS + SNS", CAPABILITIES), ("SQS without SNS", _without_sns(CAPABILITIES, _NO_SNS))]

    def open(self) -> None:
        endpoints = self.options.endpoints
        for number, endpoint in enumerate(endpoints, 1):
            self.clients = Clients(self.options, endpoint)
            try:
                self._opened = True
                self.ping()
                break
            except BrokerUnavailable:
                self.clients.close()
                self._opened = False
                if number == len(endpoints):
                    raise
        self.directory = Directory(self.clients)
        self._builder = TopologyBuilder(self.clients, self.directory, self.options.queue_prefix)
        sure = self.clients.endpoint is None or self.options.sns_endpoint_url is not None
        why = self.directory.has_sns(sure)
        if why is not None:
            text = f"{_NO_SNS}: {why}; use queues, or give sns_endpoint_url"
            self.capabilities = _without_sns(self.capabilities, text)

    @property
    def version(self) -> str:
        """SQS has none. An emulator's HTTP server names itself."""
        return f"SQS ({self._server})" if self._server else "SQS"

    def declare(self, topology: Topology, create: bool) -> None:
        self._check_open("declare")
        for destination in topology:
            if isinstance(destination, Topic):
                self.capabilities.require("topics", self.name)
        check_native(topology)
        self._builder.declare(topology, create)

    def assume(self, version: str | None) -> str:
        if version is not None:
            raise ConfigurationError(f"SQS has no versions, so it cannot be {version!r}: leave that out")
        return "SQS and SNS"

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        for delay in delays:
            if delay > MAX_VISIBILITY:
                raise UnsupportedCapability(f"a retry after {delay:g} s: SQS can wait {MAX_VISIBILITY} s at most")
        return parts_of(topology, self.aws_name)

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        self._check_open("inspect")
        return inspect(self.clients, self.directory, parts)

    def concerns(self, topology: Topology, delays: Sequence[float] = ()) -> list[Concern]:
        self._check_open("concerns")
        possible = [delay for delay in delays if delay <= MAX_VISIBILITY]
        parts = self.plan(topology, possible)
        no_sns = None if self.capabilities.topics else self.capabilities.topics.how
        return concerns(self.directory, parts, delays, self.options.max_message_bytes, no_sns)

    def export(self, parts: Sequence[Part], format: str) -> str:
        if format not in self.export_formats:
            raise ConfigurationError(f"sqs: no export as {format!r}; there is {', '.join(self.export_formats)}")
        return terraform(parts) if format == "terraform" else cloudformation(parts)

    def check(self, message: Message, destination: Destination) -> None:
        # Attributes count too. Far from the limit there is no need to encode for it: JSON and base64 at most
        # double a header-free message.
        size = len(message.body) + sum(len(k) + len(v) for k, v in message.headers.items())
        if size * 6 + 16384 > size_limit(destination, self.options.max_message_bytes):
            encode_for(message, destination, self.options.max_message_bytes)

    def sender(self, options: ProducerOptions) -> Sender:
        self._check_open("producer")
        return self._remember(SQSSender(self, options))

    def receiver(self, source: Source, options: ConsumerOptions) -> Receiver:
        self._check_open("subscribe")
        if source.subscription is not None:
            self.capabilities.require("topics", self.name)
        if options.lease is not None and options.lease > 43200:
            raise UnsupportedCapability(f"{source}: SQS keeps a lease for 12 hours at most, not {options.lease:g} s")
        # The URL may be remembered from before the queue was deleted: a receiver starts from what is there.
        self.directory.forget(self.aws_name(source.name, source.ordered))
        return self._remember(SQSReceiver(self, source, options))

    def depth(self, source: Source) -> int:
        self._check_open("depth")
        return self.count(self._url(source), in_flight=False, doing=f"depth of {source}")

    def count(self, url: str, in_flight: bool, doing: str) -> int:
        """Messages in a queue, as approximate as SQS counts; `in_flight`: also those delivered and not deleted."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
        if in_flight:
            names.append("ApproximateNumberOfMessagesNotVisible")
        control: Any = self.clients.control
        try:
            attributes = control.get_queue_attributes(QueueUrl=url, AttributeNames=names).get("Attributes", {})
        except Exception as error:
            raise translate(error, doing) from error
        return sum(int(attributes.get(name, 0)) for name in names)

    def purge(self, source: Source) -> None:
        self._check_open("purge")
        try:
            self.clients.control.purge_queue(QueueUrl=self._url(source))
        except Exception as error:
            raise translate(error, f"purge {source}") from error

    def delete(self, topology: Topology) -> None:
        self._check_open("delete")
        self._builder.delete(topology)

    def ping(self) -> None:
        self._check_open("ping")
        try:
            answer = self.clients.control.list_queues(MaxResults=1)
            self._server = answer["ResponseMetadata"]["HTTPHeaders"].get("server", "")
        except Exception as error:
            # Whoever is told that listing is denied has reached AWS with good credentials.
            if code_of(error) not in DENIED:
                raise translate(error, f"connect to SQS at {self.clients.endpoint or 'AWS'}") from error

    @property
    def native(self) -> SQSClient:
        """The boto3 SQS client."""
        return self.clients.sqs

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            left = list(self._open)
        for part in left:
            if isinstance(part, Sender):
                part.close(1.0)
            else:
                part.close()
        if self._opened:
            self.clients.close()

    def aws_name(self, name: str, ordered: bool) -> str:
        """The name of a queue or topic on AWS."""
        return queue_name(name, ordered, self.options.queue_prefix)

    def change_visibility(self, url: str, entries: list[dict[str, Any]], doing: str) -> Outcomes:
        """ChangeMessageVisibilityBatch."""
        sqs: Any = self.clients.sqs
        return call_batch(
            lambda es: sqs.change_message_visibility_batch(QueueUrl=url, Entries=es), entries, doing, lease_lost
        )

    def forget(self, part: Sender | Receiver) -> None:
        """`part` has closed by itself."""
        with self._lock:
            if part in self._open:
                self._open.remove(part)

    def _remember(self, part: _Part) -> _Part:
        with self._lock:
            self._open.append(part)
        return part

    def _url(self, source: Source) -> str:
        return self.directory.queue_url(self.aws_name(source.name, source.ordered))

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise Closed(f"{what}: the connection is closed")
        if not self._opened:
            raise MessagingError(f"{what}: not connected; call open first")
