"""Docker Compose over the `compose.yaml` that is shipped with the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messaging.errors import BrokerUnavailable, ConfigurationError

PROJECT = "anybroker"


@dataclass(frozen=True)
class Service:
    """A broker of the compose file. `port_variable` publishes it elsewhere, as the file does."""

    name: str
    url: str
    port: int
    port_variable: str
    about: str
    topics: bool = True

    @property
    def address(self) -> str:
        """The URL to connect to."""
        return self.url.format(port=os.environ.get(self.port_variable) or self.port)


_AWS = "region=us-east-1&access_key=test&secret_key=test"

SERVICES = (
    Service("rabbitmq", "rabbitmq://guest:guest@127.0.0.1:{port}/", 5672, "MESSAGING_PORT_RABBITMQ", "RabbitMQ"),
    Service("kafka", "kafka://127.0.0.1:{port}", 9092, "MESSAGING_PORT_KAFKA", "Kafka"),
    Service(
        "elasticmq", "sqs://127.0.0.1:{port}?" + _AWS, 9324, "MESSAGING_PORT_ELASTICMQ", "SQS, no topics", topics=False
    ),
    Service("ministack", "sqs://127.0.0.1:{port}?" + _AWS, 4566, "MESSAGING_PORT_MINISTACK", "SQS and SNS"),
)


def compose_file() -> Path:
    """The one in the wheel, else the repository's, for an editable install. Raises ConfigurationError."""
    here = Path(__file__).resolve()
    for path in (here.with_name("compose.yaml"), here.parents[2] / "compose.yaml"):
        if path.is_file():
            return path
    raise ConfigurationError("compose.yaml is missing from this installation: install anybroker again")


def compose_command() -> list[str]:
    """`docker compose`, or the standalone `docker-compose`. Raises ConfigurationError that says what to install."""
    docker = shutil.which("docker")
    candidates = [[docker, "compose"]] if docker is not None else []
    if standalone := shutil.which("docker-compose"):
        candidates.append([standalone])
    for command in candidates:
        # Version 1 is another program: it cannot wait until a container is healthy.
        if (_version(command) or "1").removeprefix("v").partition(".")[0] != "1":
            return command
    if docker is None:
        raise ConfigurationError(
            "docker was not found, and the brokers run in containers: install it "
            "(https://docs.docker.com/get-docker/), or use brokers of your own by URL"
        )
    raise ConfigurationError(
        "docker is there, but Docker Compose 2 or later is not: install the compose plugin "
        "(https://docs.docker.com/compose/install/)"
    )


def run_compose(*arguments: str) -> None:
    """Runs it in the foreground: its own progress is what the user wants to see. Raises BrokerUnavailable."""
    status = subprocess.call([*compose_command(), "-p", PROJECT, "-f", str(compose_file()), *arguments])
    if status:
        hint = ""
        if arguments[0] == "up":
            hint = "; MESSAGING_PORT_KAFKA=19092 takes another port, MESSAGING_IMAGE_KAFKA_4_2=... another image"
        raise BrokerUnavailable(
            f"docker compose {arguments[0]} failed with status {status}; its own words are above{hint}"
        )


def compose_state() -> dict[str, str]:
    """The state of each service that has a container: "running (healthy)". Raises BrokerUnavailable."""
    done = subprocess.run(
        [*compose_command(), "-p", PROJECT, "-f", str(compose_file()), "ps", "--all", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BrokerUnavailable(f"docker compose ps: {done.stderr.strip() or f'status {done.returncode}'}")
    return {
        row["Service"]: f"{row['State']} ({row['Health']})" if row.get("Health") else row["State"]
        for row in parse_ps(done.stdout)
    }


def parse_ps(text: str) -> Sequence[dict[str, Any]]:
    """Compose 2.21 and later prints an object a line, earlier ones one array."""
    if text.lstrip().startswith("["):
        rows: list[dict[str, Any]] = json.loads(text)
        return rows
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _version(command: list[str]) -> str | None:
    try:
        done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
