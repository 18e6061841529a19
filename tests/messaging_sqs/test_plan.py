"""What a plan says is what declaring makes, and what a look at AWS tells."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from messaging import Broker, ConfigurationError, Finding, Queue, Subscription, Topic, Topology, UnsupportedCapability
from messaging.topology import Destination
from messaging_sqs import SQSDriver, SQSOptions
from messaging_sqs.identifiers import logical_id, terraform_label

Connect = Callable[..., Broker]

with_topics = pytest.mark.only("sqs:ministack", "sqs:moto-process")


def queues(name: str) -> list[Destination]:
    return [
        Queue(name, native={"sqs": {"visibility": 40, "retention": 3600, "max_receives": 7}}),
        Queue(f"{name}.o", ordered=True),
        Queue(f"{name}-n", dead_letter=False),
    ]


def everything(name: str) -> list[Destination]:
    return [
        *queues(name),
        Topic(f"{name}-t", Subscription("a", "x.#"), Subscription("b", dead_letter=False)),
        Topic(f"{name}-f", "a", ordered=True),
    ]


def states(findings: list[Finding]) -> set[str]:
    return {finding.state for finding in findings}


def topics_or_queues(broker: Broker, name: str) -> list[Destination]:
    return everything(name) if broker.capabilities.topics else queues(name)


def test_what_is_planned_is_what_is_made(connect: Connect, name: str) -> None:
    broker = connect()
    topology = topics_or_queues(broker, name)
    assert states(broker.inspect(topology)) == {"missing"}
    assert states(broker.inspect(topology)) == {"missing"}, "looking made something"
    broker.declare(topology)
    assert [finding for finding in broker.inspect(topology) if finding.state != "there"] == []
    urls = broker.native.list_queues(QueueNamePrefix=name)["QueueUrls"]
    planned = {part.name for part in broker.plan(topology) if part.kind == "SQS queue"}
    assert {url.rpartition("/")[2] for url in urls} == planned


def test_a_queue_that_was_changed(connect: Connect, name: str) -> None:
    queue = Queue(name, native={"sqs": {"visibility": 40}})
    broker = connect(queue)
    url = broker.native.get_queue_url(QueueName=name)["QueueUrl"]
    dead = broker.native.get_queue_url(QueueName=f"{name}--dlq")["QueueUrl"]
    arn = broker.native.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    broker.native.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "5", "RedrivePolicy": redrive})
    (finding,) = [finding for finding in broker.inspect(queue) if finding.state != "there"]
    told = {difference.setting: difference for difference in finding.differences}
    assert str(told["VisibilityTimeout"]) == "VisibilityTimeout is 5 and should be 40"
    assert told["RedrivePolicy"].found == {"deadLetterTarget": f"{name}--dlq", "maxReceiveCount": 3}
    assert """--attributes '{"VisibilityTimeout": "40"}'""" in finding.way_out
    (finding,) = broker.inspect(Queue(name, dead_letter=False, native={"sqs": {"visibility": 5}}))
    assert [difference.setting for difference in finding.differences] == ["RedrivePolicy"]
    assert "should be not set" in str(finding.differences[0])


def test_the_other_order(connect: Connect, name: str) -> None:
    broker = connect(Queue(name))
    found = {finding.part.name: finding for finding in broker.inspect(Queue(name, ordered=True))}
    assert [str(d) for d in found[f"{name}.fifo"].differences] == ["FifoQueue is false and should be true"]
    assert "cannot be changed" in found[f"{name}.fifo"].way_out


@with_topics
def test_a_subscription_that_was_changed(connect: Connect, name: str) -> None:
    broker = connect(Topic(name, Subscription("g", "a.b")))
    found = {f.part.kind: f for f in broker.inspect(Topic(name, Subscription("g", "c.d"))) if f.state != "there"}
    (difference,) = found["SNS subscription"].differences
    assert (difference.found, difference.wanted) == ('{"type":["a.b"]}', '{"type":["c.d"]}')
    url = broker.native.get_queue_url(QueueName=f"{name}--g")["QueueUrl"]
    broker.native.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    (finding,) = [f for f in broker.inspect(Topic(name, Subscription("g", "a.b"))) if f.state != "there"]
    assert [difference.setting for difference in finding.differences] == ["Policy"]
    broker.declare(Topic(name, Subscription("g", "a.b")))
    assert broker.inspect(Topic(name, Subscription("g", "a.b")))[1].part.kind == "SQS queue"


def offline(**options: Any) -> SQSDriver:
    driver = SQSDriver(SQSOptions(**options))
    assert driver.assume(None) == "SQS and SNS"
    return driver


def test_without_aws() -> None:
    driver = offline(queue_prefix="p-")
    assert driver.plan(Topology(Queue("q")))[0].name == "p-q--dlq"
    with pytest.raises(ConfigurationError, match="no versions"):
        driver.assume("2")
    with pytest.raises(UnsupportedCapability, match="43200"):
        driver.plan(Topology(Queue("q")), [43201.0])
    with pytest.raises(ConfigurationError, match="sqs: no export"):
        driver.export([], "rabbitmq")


def test_cloudformation_is_complete() -> None:
    driver = offline()
    topology = Topology(*everything("n"), Queue("k", native={"sqs": {"kms_key": "alias/k"}}))
    resources = json.loads(driver.export(driver.plan(topology), "cloudformation"))["Resources"]
    assert all(re.fullmatch(r"[A-Za-z0-9]{1,255}", name) for name in resources)
    named = {r["Properties"].get("QueueName") or r["Properties"].get("TopicName") for r in resources.values()}
    assert {"n--dlq", "n__o.fifo", "n-t--a", "n-f.fifo", "k"} <= named
    for reference in re.findall(r'"(?:Ref|DependsOn)": "(\w+)"|"Fn::GetAtt": \[\s*"(\w+)"', json.dumps(resources)):
        assert (reference[0] or reference[1]) in resources


@pytest.mark.only("sqs:ministack")  # moto makes neither queue policies nor subscriptions
def test_cloudformation_makes_what_is_planned(connect: Connect, url: str, name: str) -> None:
    broker, where = connect(), urlsplit(url)
    cloud: Any = boto3.client(
        "cloudformation",
        region_name="us-east-1",
        endpoint_url=f"http://{where.hostname}:{where.port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    topology = Topology(*everything(name))
    cloud.create_stack(StackName=name, TemplateBody=offline().export(broker.plan(topology), "cloudformation"))
    cloud.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})
    assert [finding for finding in broker.inspect(topology) if finding.state != "there"] == []
    connect(*topology)  # is content with it, and deletes it afterwards


_PROVIDER = """
provider "aws" {{
  region                      = "us-east-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints {{
    sqs = "{endpoint}"
    sns = "{endpoint}"
  }}
}}
"""


def test_terraform_is_complete() -> None:
    driver = offline()
    topology = Topology(
        *everything("n"),
        Queue("9.o"),
        Topic("p", Subscription("g", "x\n}")),
        Queue("k", native={"sqs": {"kms_key": 'a"${x}%{y}'}}),
    )
    text = driver.export(driver.plan(topology), "terraform")
    made = {f"{kind}.{label}" for kind, label in re.findall(r'^resource "(\w+)" "([\w-]+)"', text, re.MULTILINE)}
    used = set(re.findall(r"= \[?(aws_\w+\.[\w-]+?)(?:\.arn|\.id|\])", text))
    assert used <= made
    assert len(used) > 8
    assert r'kms_master_key_id = "a\"$${x}%%{y}"' in text
    assert "visibility_timeout_seconds = 40" in text
    assert "fifo_queue = true" in text
    bare = re.sub(r'"(?:\\.|[^"\\])*"|^#.*$', "", text, flags=re.MULTILINE)  # neither strings nor comments
    for opening, closing in ("{}", "[]", "()"):
        assert bare.count(opening) == bare.count(closing)


@with_topics
@pytest.mark.skipif("MESSAGING_TERRAFORM" not in os.environ, reason="MESSAGING_TERRAFORM=1 runs Terraform, for minutes")
def test_terraform_makes_what_is_planned(connect: Connect, url: str, name: str, tmp_path: Path) -> None:
    def terraform(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["terraform", *arguments, "-no-color"], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )

    broker, where = connect(), urlsplit(url)
    topology = Topology(*everything(name))
    endpoint = f"http://{where.hostname}:{where.port}"
    (tmp_path / "provider.tf").write_text(_PROVIDER.format(endpoint=endpoint))
    (tmp_path / "main.tf").write_text(offline().export(broker.plan(topology), "terraform"))
    begun = terraform("init")
    assert begun.returncode == 0, begun.stderr
    try:
        made = terraform("apply", "-auto-approve", "-input=false")
        assert made.returncode == 0, made.stderr
        assert [finding for finding in broker.inspect(topology) if finding.state != "there"] == []
        connect(*topology)  # is content with it
        unchanged = terraform("plan", "-detailed-exitcode", "-input=false")
        assert unchanged.returncode == 0, unchanged.stdout + unchanged.stderr  # 2: it would change something
    finally:
        gone = terraform("destroy", "-auto-approve", "-input=false")
    assert gone.returncode == 0, gone.stderr


def test_identifiers_never_collide() -> None:
    names = ["a", "a.b", "a_b", "a-b", "a__b", "9a", "_9a", "A", "ab", "a.fifo", "a_fifo"]
    for identifier, pattern in ((terraform_label, r"[A-Za-z_][\w-]*"), (logical_id, r"[A-Za-z0-9]+")):
        made = [identifier(name) for name in names]
        assert len(set(made)) == len(names)
        assert all(re.fullmatch(pattern, text) for text in made)
