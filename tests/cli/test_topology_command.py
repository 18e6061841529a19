from __future__ import annotations

import json
import xml.etree.ElementTree as xml
from collections.abc import Callable
from pathlib import Path

import pytest

import messaging
from messaging.topology import Topic
from messaging.topology_file import read_topology

Run = Callable[..., tuple[int, str]]

TOML = """\
[topology.queues.jobs]
native.rabbitmq.max_length = 100

[topology.topics.orders.subscriptions.billing]
pattern = "order.*"

[topology.topics.orders.subscriptions.audit]
dead_letter = false
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "messaging.toml"
    path.write_text(TOML, "utf-8")
    return path


def fails(run: Run, *arguments: str, status: int = 2) -> str:
    """One line on stderr, and that exit status."""
    found, output = run(*arguments)
    assert found == status, output
    assert output.startswith("messaging: "), output
    assert output.count("\n") == 1, output
    return output


def test_plan_of_memory(run: Run, file: Path) -> None:
    status, output = run("topology", "plan")
    assert status == 0
    assert "messaging.toml on memory" in output
    assert "subscription orders--billing" in output
    assert "pattern=order.*" in output
    content = json.loads(run("topology", "plan", "--json")[1])
    assert content["broker"] == "memory"
    assert [part["name"] for part in content["parts"]][:2] == ["jobs", "jobs--dlq"]
    assert all(part["why"] for part in content["parts"])


def test_plan_without_a_broker(run: Run, file: Path) -> None:
    pytest.importorskip("pika")
    where = ("--broker", "rabbitmq://nowhere.invalid")
    status, output = run("topology", "plan", "--offline", "--delay", "0.25", *where)
    assert status == 0
    assert "on RabbitMQ 4" in output
    assert "jobs--retry--250" in output
    assert "made by the first retry that needs it" in output
    assert "x-max-length=100" in output
    _, older = run("topology", "plan", "--broker-version", "3.12", *where)
    assert "on RabbitMQ 3.12" in older
    assert ("x-delivery-limit" in output, "x-delivery-limit" in older) == (True, False)


def test_no_line_of_a_plan_is_cut_off(run: Run, file: Path) -> None:
    pytest.importorskip("pika")
    _, output = run("topology", "plan", "--offline", "--broker", "rabbitmq://nowhere.invalid")
    assert "no delivery limit drops what a crashing consumer held" in " ".join(output.replace("│", " ").split())


def test_apply_check_and_diff_of_memory(run: Run, file: Path) -> None:
    status, output = run("topology", "apply")
    assert status == 0
    assert "created   queue jobs--dlq" in output
    status, output = run("topology", "check")  # each command has a memory of its own
    assert status == 1
    assert "missing   topic orders" in output
    assert "messaging topology apply" in output
    status, output = run("topology", "diff")
    assert status == 1
    assert "@@ subscription orders--billing @@\n+subscription orders--billing\n+  pattern: order.*\n" in output
    content = json.loads(run("topology", "check", "--json")[1])
    assert content["drifted"]
    assert {finding["state"] for finding in content["findings"]} == {"missing"}


def test_python(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from messaging import Queue, Topology\n\nclass Values:\n    queue = Queue('q')\n\n"
        "topology = Topology(Queue('a'))\nseveral = [Queue('b'), Queue('c')]\nempty = Topology()\nnumber = 3\n",
        "utf-8",
    )
    assert "queue a" in run("topology", "draw", "shop:topology")[1]
    assert "queue c" in run("topology", "draw", "shop.py:several")[1]
    assert "queue q" in run("topology", "draw", str(tmp_path / "shop.py") + ":Values.queue")[1]
    assert "empty topology" in fails(run, "topology", "draw", "shop:empty")
    assert "not a topology" in fails(run, "topology", "draw", "shop.py:number")
    assert "has no 'missing'" in fails(run, "topology", "draw", "shop.py:missing")
    assert "shop.py:topology" in fails(run, "topology", "draw", "shop.py")
    assert "no_such cannot be imported" in fails(run, "topology", "draw", "no_such:topology")
    assert "does not exist" in fails(run, "topology", "draw", "no_such.py:topology")
    (tmp_path / "broken.py").write_text("1 / 0\n", "utf-8")
    assert "ZeroDivisionError" in fails(run, "topology", "draw", "broken.py:topology")
    (tmp_path / "leaves.py").write_text("raise SystemExit(7)\n", "utf-8")
    assert "leaves.py cannot be imported" in fails(run, "topology", "draw", "leaves.py:topology")


def test_no_topology(run: Run, tmp_path: Path) -> None:
    assert "messaging new retry-topology" in fails(run, "topology", "plan")
    (tmp_path / "messaging.toml").write_text('default = "dev"\n', "utf-8")
    assert "declares no queue and no topic" in fails(run, "topology", "plan")
    assert "does not exist" in fails(run, "topology", "plan", "other.toml")
    (tmp_path / "messaging.toml").write_text("[topology", "utf-8")
    assert "cannot be read" in fails(run, "topology", "plan")


def test_bad_input(run: Run, file: Path) -> None:
    assert "no adapter for 'rabitmq://'" in fails(run, "topology", "plan", "--broker", "rabitmq://x")
    assert "no profile 'prod'" in fails(run, "topology", "plan", "--broker", "prod")
    assert "empty text" in fails(run, "topology", "plan", "--broker", "")
    for delay in ("0", "-1", "nan", "inf"):
        assert "positive number of seconds" in fails(run, "topology", "plan", f"--delay={delay}")
    assert "has no versions" in fails(run, "topology", "plan", "--broker-version", "3")
    assert "no export as 'xml'; known: " in fails(run, "topology", "export", "--format", "xml")
    assert "known: tree, mermaid, dot, svg" in fails(run, "topology", "draw", "--format", "png")
    file.write_text("[topology.queues.jobs]\nnative.memory.size = 3\n", "utf-8")
    assert "memory adapter has no native options" in fails(run, "topology", "plan")
    file.write_text("[topology.queues.jobs]\nnative.rabitmq.max_length = 3\n", "utf-8")
    assert "native options for 'rabitmq'" in fails(run, "topology", "plan")


def test_bad_input_for_rabbitmq(run: Run, file: Path) -> None:
    pytest.importorskip("pika")
    down = "rabbitmq://127.0.0.1:1?connect_timeout=2"
    for command in ("plan", "apply", "check", "diff", "delete"):
        assert "cannot be reached" in fails(run, "topology", command, "--broker", down, status=1)
    assert "'partitions'" in fails(run, "topology", "plan", "--broker", "rabbitmq://127.0.0.1:1?partitions=3")
    assert "supported" in fails(run, "topology", "plan", "--broker", down, "--broker-version", "2.8")
    assert "at most" in fails(run, "topology", "plan", "--broker", down, "--offline", "--delay", "1e8", status=1)
    wrong = fails(run, "topology", "export", "--format", "terraform", "--broker", "rabbitmq://app:secret@host")
    assert "the rabbitmq adapter exports rabbitmq" in wrong
    assert "secret" not in wrong
    memory = fails(run, "topology", "export", "--format", "rabbitmq", "--broker", "memory://")
    assert "the memory adapter exports nothing" in memory


def test_delete_asks_first(run: Run, file: Path) -> None:
    status, output = run("topology", "delete")
    assert status == 1
    assert "queue 'jobs': not there" in output
    assert "nothing was deleted: --yes" in output
    assert run("topology", "delete", "--yes")[0] == 0


def test_export_uses_the_options_of_a_profile(run: Run, file: Path) -> None:
    pytest.importorskip("pika")
    file.write_text(TOML + '\n[profiles.prod]\nurl = "rabbitmq://app:secret@nowhere.invalid/shop"\n', "utf-8")
    status, output = run("topology", "export", "--format", "rabbitmq", "--broker", "prod", "--broker-version", "3.10")
    assert status == 0
    assert '"vhost": "shop"' in output
    assert "as for RabbitMQ 3.10" in output
    assert "secret" not in output
    assert '"vhost": "/"' in run("topology", "export", "--format", "rabbitmq")[1]


@pytest.mark.parametrize(
    ("format", "client", "expected"),
    [
        ("terraform", "boto3", 'resource "aws_sns_topic_subscription" "orders--billing"'),
        ("cloudformation", "boto3", '"Type": "AWS::SNS::Subscription"'),
        ("kafka", "confluent_kafka", "kafka-topics.sh"),
    ],
)
def test_exports(run: Run, file: Path, format: str, client: str, expected: str) -> None:
    pytest.importorskip(client)
    status, output = run("topology", "export", "--format", format)
    assert status == 0
    assert expected in output


AWKWARD = """\
from messaging import Queue, Subscription, Topic, Topology

topology = Topology(
    Queue("only", dead_letter=False),
    Queue("only--dlq", dead_letter=False),
    Topic("alone"),
    Topic("t", Subscription("a", 'x.<&>"'), Subscription("b", "#"), ordered=True),
    Topic("u", Subscription("a", "x\\n}\\x1b\\x00")),
)
"""


def test_draw(run: Run, file: Path, tmp_path: Path) -> None:
    status, output = run("topology", "draw")
    assert status == 0
    assert "group billing: order.*" in output
    assert "rejected: discarded" in output
    _, mermaid = run("topology", "draw", "--format", "mermaid")
    assert mermaid.startswith("flowchart LR\n")
    assert '-->|"order.#42;"|' in mermaid
    _, dot = run("topology", "draw", "--format", "dot")
    assert '"orders" -> "orders--billing" [label="order.*"];' in dot


def test_draw_escapes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "awkward.py").write_text(AWKWARD, "utf-8")
    _, picture = run("topology", "draw", "awkward.py:topology", "--format", "svg")
    root = xml.fromstring(picture)
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert 'x.<&>"' in texts
    assert "t (ordered)" in texts
    boxes = [element for element in root.iter() if element.tag.endswith("rect")][1:]
    places = {(box.get("x"), box.get("y")) for box in boxes}
    assert len(places) == len(boxes) == 11, "boxes lie on each other"
    assert all(float(box.get("y") or 0) + 34 <= float(root.get("height") or 0) for box in boxes)
    _, mermaid = run("topology", "draw", "awkward.py:topology", "--format", "mermaid")
    assert "x.#60;#38;#62;#34;" in mermaid
    _, dot = run("topology", "draw", "awkward.py:topology", "--format", "dot")
    assert r'label="x.<&>\""' in dot
    for command in ("draw", "plan"):
        assert not {"\x1b", "\x00"} & set(run("topology", command, "awkward.py:topology")[1])
    assert 'pattern: "x\\n}\\u001b\\u0000"' in run("topology", "diff", "awkward.py:topology")[1]


def test_new(run: Run, tmp_path: Path) -> None:
    assert run("new", "retry-topology") == (0, "wrote messaging.toml; next: messaging topology plan\n")
    assert "--force writes over it" in fails(run, "new", "retry-topology")
    (tmp_path / "messaging.toml").write_text("mine", "utf-8")
    assert "--force" in fails(run, "new", "retry-topology", ".")
    assert (tmp_path / "messaging.toml").read_text("utf-8") == "mine"
    assert run("new", "retry-topology", "--force")[0] == 0
    assert "cannot be written" in fails(run, "new", "retry-topology", "no/such/folder.toml")
    settings = messaging.config.load(tmp_path / "messaging.toml")
    (topic,) = [d for d in read_topology(settings["topology"]) if isinstance(d, Topic)]
    assert len(topic.subscriptions) == 3
    assert run("topology", "plan")[0] == 0
    assert run("topology", "apply")[0] == 0


@pytest.mark.parametrize("profile", ["dev", "rabbitmq", "kafka", "sqs"])
def test_every_profile_of_a_new_file_plans(run: Run, profile: str) -> None:
    assert run("new", "retry-topology")[0] == 0
    status, output = run("topology", "plan", "--offline", "--broker", profile)
    assert status == 0, output


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The beginning of names that nobody else has."""
    return f"x{abs(hash(tmp_path)):x}"[:12]


def test_a_new_file_on_every_broker(
    run: Run, tmp_path: Path, own: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("new", "retry-topology")[0] == 0
    path = tmp_path / "messaging.toml"
    path.write_text(path.read_text("utf-8").replace("orders", f"{own}-o").replace("emails", f"{own}-e"), "utf-8")
    monkeypatch.setenv("MESSAGING_URL", broker_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    status, output = run("topology", "apply")
    assert status == 0, output
    assert "created" in output
    if broker_url == "memory://":
        return
    try:
        status, output = run("topology", "apply")
        assert status == 0
        assert "created" not in output
        status, output = run("topology", "check")
        assert status == 0, output
        with messaging.connect(broker_url, config_file=path, create=False) as broker:
            broker.publish(f"{own}-e", {"to": "somebody"})
        assert run("topology", "diff")[0] == 0
        assert run("topology", "check", "--delay", "5")[0] == 0
        status, output = run("topology", "delete")
        assert f"queue '{own}-e': 1 message" in output
        assert status == 1
        assert run("topology", "check")[0] == 0
    finally:
        assert run("topology", "delete", "--yes")[0] == 0
    assert run("topology", "check")[0] == 1


def test_a_refused_destination_does_not_hide_what_was_made_before_it(
    run: Run, tmp_path: Path, own: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broker_url == "memory://":
        pytest.skip("each command has a memory broker of its own")
    path = tmp_path / "messaging.toml"
    monkeypatch.setenv("MESSAGING_URL", broker_url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    there = f"[topology.queues.{own}-z]\n"
    path.write_text(there, "utf-8")
    assert run("topology", "apply")[0] == 0
    path.write_text(f"[topology.queues.{own}-a]\n{there}ordered = true\n", "utf-8")
    try:
        status, output = run("topology", "apply")
        assert status == 1
        assert f"{own}-z" in output
        made = [line for line in output.splitlines() if line.startswith("created")]
        _, listed = run("topology", "delete")
        if f"queue '{own}-a': 0 messages" in listed:
            assert any(f"{own}-a" in line for line in made), output
        else:  # this broker is asked for all before anything is made
            assert made == []
    finally:
        assert run("topology", "delete", "--yes")[0] == 0
        path.write_text(there, "utf-8")
        assert run("topology", "delete", "--yes")[0] == 0


def test_what_waits_for_a_retry_is_counted(
    run: Run, tmp_path: Path, own: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not broker_url.startswith("rabbitmq"):
        pytest.skip("no other broker has wait queues")
    path = tmp_path / "messaging.toml"
    path.write_text(f"[topology.queues.{own}]\n", "utf-8")
    monkeypatch.setenv("MESSAGING_URL", broker_url)
    try:
        with messaging.connect(broker_url, config_file=path) as broker:
            broker.publish(own, 1)
            with broker.subscribe(own) as consumer:
                consumer.receive(1, 20)[0].nack(delay=600)
                consumer.flush()
        assert f"queue '{own}--retry--600000': 1 message" in run("topology", "delete")[1]
        assert f"# queue {own}--retry--600000: left over, 1 waiting" in run("topology", "diff", "--delay", "5")[1]
        assert "left over" not in run("topology", "diff", "--delay", "600")[1]
    finally:
        assert run("topology", "delete", "--yes")[0] == 0
