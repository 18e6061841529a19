"""Where queues and topics are: URLs and ARNs, asked once and remembered."""

from __future__ import annotations

from threading import Lock

from messaging.errors import DestinationNotFound, MessagingError
from messaging_sqs.clients import Clients
from messaging_sqs.errors import MISSING, code_of, translate


class Directory:
    """Finds queue URLs and topic ARNs by their names on AWS. Thread-safe: `_lock` guards the two maps.

    Blocks on the broker for a name it does not know yet. Every method raises DestinationNotFound for what is not
    there, and what `translate` makes of other errors.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._lock = Lock()
        self._urls: dict[str, str] = {}
        self._topics: dict[str, str] = {}

    def queue_url(self, name: str) -> str:
        with self._lock:
            url = self._urls.get(name)
        if url is None:
            try:
                url = self._clients.control.get_queue_url(QueueName=name)["QueueUrl"]
            except Exception as error:
                raise translate(error, f"look up SQS queue {name!r}") from error
            with self._lock:
                self._urls[name] = url
        return url

    def find_queue(self, name: str) -> str | None:
        """The queue's URL, asked of the broker itself, or None."""
        self.forget(name)
        try:
            return self.queue_url(name)
        except DestinationNotFound:
            return None

    def topic_arn(self, name: str) -> str:
        with self._lock:
            arn = self._topics.get(name)
        if arn is None:
            arn = self.find_topic(name)
            if arn is None:
                raise DestinationNotFound(
                    f"look up SNS topic {name!r}: there is none; declare it, or check queue_prefix"
                )
        return arn

    def find_topic(self, name: str) -> str | None:
        """The topic's ARN, asked of the broker itself, or None.

        SNS finds topics by ARN only, which holds the account id: that comes from STS, which needs no permission.
        """
        self.forget(name)
        sns = self._clients.sns
        try:
            account = self._clients.sts.get_caller_identity()
            partition = account["Arn"].split(":")[1]
            arn = f"arn:{partition}:sns:{sns.meta.region_name}:{account['Account']}:{name}"
            sns.get_topic_attributes(TopicArn=arn)
        except Exception as error:
            if code_of(error) in MISSING:
                return None
            raise translate(error, f"look up SNS topic {name!r}") from error
        self.learn_topic(name, arn)
        return arn

    def learn_queue(self, name: str, url: str) -> None:
        with self._lock:
            self._urls[name] = url

    def learn_topic(self, name: str, arn: str) -> None:
        with self._lock:
            self._topics[name] = arn

    def forget(self, name: str) -> None:
        """The broker said that it is not there any more."""
        with self._lock:
            self._urls.pop(name, None)
            self._topics.pop(name, None)

    def queue_attributes(self, url: str) -> dict[str, str]:
        """Every attribute of a queue."""
        try:
            answer = self._clients.control.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        except Exception as error:
            raise translate(error, f"look at SQS queue {url!r}") from error
        return {str(name): value for name, value in answer.get("Attributes", {}).items()}

    def has_sns(self, sure: bool) -> str | None:
        """None when the endpoint has SNS, else why not. `sure`: it is AWS, or was named as SNS by the user."""
        try:
            self._clients.sns.list_topics()
        except Exception as error:
            translated: MessagingError = translate(error, "look for SNS")
            if sure or code_of(error) in ("AuthorizationError", "AccessDenied"):
                return None
            return str(translated)
        return None
