from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import messaging
from messaging.cli import compose

Run = Callable[..., tuple[int, str]]

CONFIG = """\
default = "dev"

[profiles.dev]
url = "memory://"
retain = 5

[profiles.prod]
url = "rabbitmq://app:hunter2@rabbit.internal:5671/shop?tls=true"

[topology.queues.jobs]
ordered = true

[topology.topics.orders.subscriptions.inventory]
pattern = "order.*"
"""


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"messaging (anybroker) {messaging.__version__}\n")


def test_unknown_command(run: Run) -> None:
    assert run("dmo")[0] == 2


def test_adapters(run: Run) -> None:
    status, output = run("adapters")
    assert status == 0
    assert "memory://" in output


def test_config_without_any(run: Run) -> None:
    status, output = run("config")
    assert status == 0
    assert "nothing is configured: the embedded broker" in output


def test_config_of_a_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "messaging.toml").write_text(CONFIG, "utf-8")
    status, output = run("config")
    assert status == 0
    assert "default of the file (profile dev)" in output
    assert "queue jobs, ordered" in output
    assert "topic orders: inventory (order.*)" in output
    lines = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.strip()}
    assert lines["retain"] == ["5", "set"]
    assert lines["lease"] == ["30.0", "default"]
    monkeypatch.setenv("MESSAGING_PROFILE", "nope")
    assert run("config")[0] == 2


def test_config_hides_secrets(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pika")
    (tmp_path / "messaging.toml").write_text(CONFIG, "utf-8")
    status, output = run("config", "prod")
    assert status == 0
    assert "rabbit.internal:5671" in output
    assert "hunter2" not in output
    assert "***" in output


def test_the_compose_file_is_found_and_agrees_with_the_urls() -> None:
    text = compose.compose_file().read_text("utf-8")
    for service in compose.SERVICES:
        assert f"\n  {service.name}:\n" in text
        assert f"${{{service.port_variable}:-{service.port}}}" in text
        assert f"# {service.address}" in text


def test_a_port_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_PORT_KAFKA", "19092")
    assert next(s for s in compose.SERVICES if s.name == "kafka").address == "kafka://127.0.0.1:19092"


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_docker_missing(run: Run, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, output = run("brokers", command)
    assert status == 2
    assert "docker was not found" in output


def executable(path: Path, script: str) -> None:
    path.write_text(f"#!{sys.executable}\nimport sys\nargs = sys.argv[1:]\n{script}\n", "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def test_compose_missing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(tmp_path / "docker", "sys.exit(1)")
    monkeypatch.setenv("PATH", str(tmp_path))
    status, output = run("brokers", "up")
    assert status == 2
    assert "Docker Compose 2 or later is not" in output
    executable(tmp_path / "docker-compose", "print('1.29.2')")
    assert run("brokers", "up")[0] == 2
    executable(tmp_path / "docker-compose", "print('2.32.4') if 'version' in args else None")
    assert run("brokers", "up")[0] == 0


def test_up_and_down_call_compose(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    record = f"open({str(tmp_path / 'calls')!r}, 'a').write(' '.join(args) + '\\n')"
    executable(tmp_path / "docker", f"print('v2.32.4') if 'version' in args else {record}")
    monkeypatch.setenv("PATH", str(tmp_path))
    status, output = run("brokers", "up", "kafka")
    assert status == 0
    assert "messaging demo --broker 'kafka://127.0.0.1:9092'" in output
    assert "rabbitmq" not in output
    assert "messaging demo" not in run("brokers", "up", "elasticmq")[1]
    assert run("brokers", "down")[0] == 0
    project = f"compose -p anybroker -f {compose.compose_file()}"
    assert (tmp_path / "calls").read_text("utf-8").splitlines() == [
        f"{project} up --detach --wait kafka",
        f"{project} up --detach --wait elasticmq",
        f"{project} down --volumes",
    ]
    assert run("brokers", "up", "redis")[0] == 2


def test_compose_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(tmp_path / "docker", "print('2.32.4') if 'version' in args else sys.exit('no daemon')")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("brokers", "up")[0] == 1
    status, output = run("brokers", "status")
    assert status == 1
    assert "no daemon" in output


@pytest.mark.parametrize(
    "text",
    [
        '{"Service": "kafka", "State": "running", "Health": "healthy"}\n',
        '[{"Service": "kafka", "State": "running", "Health": "healthy"}]',
    ],
)
def test_both_forms_of_compose_ps(text: str) -> None:
    assert compose.parse_ps(text)[0]["Service"] == "kafka"


def test_without_the_extra_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rich.py").write_text("raise ImportError('no rich', name='rich')\n", "utf-8")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from messaging.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        'messaging: the command line needs rich, which is not installed: python -m pip install "anybroker[cli]"\n'
    )
