"""One broker in one container, with every disturbance the suite needs."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, ClassVar, Self

import docker.errors  # type: ignore[import-untyped, unused-ignore]
from testcontainers.core.container import DockerContainer

from messaging_contract.containers import engine
from messaging_contract.containers.errors import BrokerNotReady, ContainersUnavailable
from messaging_contract.containers.ports import HOST, free_port

READY_WITHIN = 90.0
"""Seconds a broker has to answer; a cold start of the slowest takes about ten on two cores."""

_FROZEN_WITHIN = 20.0
_GRACE = 10
_POLL = 0.1
_PORT_ATTEMPTS = 5


class BrokerContainer(ABC):
    """A broker that runs in a container, published on one fixed port of 127.0.0.1.

    The port is chosen before the start and kept for the container's life, also through `restart`. The engine has to
    run on this machine. Not thread-safe.
    """

    port_inside: ClassVar[int]
    """Where the broker listens inside the container."""
    keeps_data: ClassVar[bool] = True
    """Whether what the broker confirmed is still there after `restart`."""
    stop_signal: ClassVar[str | None] = None
    """The signal that stops the broker, where the image's own does not."""

    def __init__(self, name: str, image: str, image_variable: str = "the image override") -> None:
        self.name = name
        """The spec it was started from, such as `rabbitmq:4`."""
        self.image = image
        self.port = 0
        """The published port, 0 before `start`."""
        self.further_ports: dict[int, int] = {}
        """More to publish, the port inside to one of 127.0.0.1, besides the broker's own."""
        self._image_variable = image_variable
        self._testcontainer: DockerContainer | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """What `messaging.connect` takes. Stays the same for the container's life."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the broker answers in its own protocol now. Returns within about 5 seconds; does not raise."""

    def environment(self) -> dict[str, str]:
        """The container's environment variables. `port` is known."""
        return {}

    def files(self) -> dict[str, bytes]:
        """Files to place in the container before it starts, by path."""
        return {}

    def start(self, timeout: float = READY_WITHIN) -> Self:
        """Creates and starts the container, and returns once the broker answers.

        Raises `ContainersUnavailable` without an engine or an image, `BrokerNotReady` after `timeout` seconds.
        """
        if self._testcontainer is not None:
            raise RuntimeError(f"{self.name} was started before")
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.port = free_port()
            try:
                self._create_and_start()
                break
            except docker.errors.APIError as error:
                self.stop()
                if attempt == _PORT_ATTEMPTS or not engine.port_was_taken(error):
                    hint = engine.hint(error)
                    raise ContainersUnavailable(f"The engine refused to start {self.name}: {error}{hint}") from error
        try:
            self.wait_until_ready(timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Removes the container and its data. Does nothing when there is none."""
        testcontainer, self._testcontainer = self._testcontainer, None
        if testcontainer is not None:
            try:
                testcontainer.stop()
            except docker.errors.NotFound:
                pass

    def pause(self) -> None:
        """Freezes every process: connections stay open and nothing answers."""
        deadline = time.monotonic() + _FROZEN_WITHIN
        while True:
            try:
                self._container.pause()
                return
            except docker.errors.APIError as error:
                # The kernel gives up on processes that are too busy to stop, and lets all of them go on.
                if "unable to freeze" not in str(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)

    def unpause(self, timeout: float = READY_WITHIN) -> None:
        """Lets the frozen processes go on, and returns once the broker answers."""
        self._container.unpause()
        self.wait_until_ready(timeout)

    def restart(self, timeout: float = READY_WITHIN) -> None:
        """Stops the broker in order, starts it on the same port and disk, and returns once it answers."""
        self._container.restart(timeout=_GRACE)
        self.wait_until_ready(timeout)

    def kill(self, timeout: float = READY_WITHIN) -> None:
        """Kills the broker where it stands (SIGKILL), starts it on the same port and disk, returns once it answers."""
        self._container.kill()
        self._container.wait()
        self._container.start()
        self.wait_until_ready(timeout)

    def execute(self, *command: str) -> str:
        """Runs a command inside the container and returns its output. Raises RuntimeError when it fails."""
        status, output = self._container.exec_run(list(command))
        text: str = output.decode(errors="replace")
        if status:
            raise RuntimeError(f"{' '.join(command)} in {self.name} ended with {status}: {text}")
        return text

    def logs(self, lines: int | None = None) -> str:
        """Returns the broker's output, or its last `lines` lines."""
        output: bytes = self._container.logs(tail="all" if lines is None else lines)
        return output.decode(errors="replace")

    def wait_until_ready(self, timeout: float = READY_WITHIN) -> None:
        """Returns once the broker answers. Raises `BrokerNotReady` when it has ended, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.answers():
            self._container.reload()
            if self._container.status in ("exited", "dead"):
                raise BrokerNotReady(f"{self.name} ended while it was starting. Its log:\n{self.logs(30)}")
            if time.monotonic() > deadline:
                raise BrokerNotReady(f"{self.name} did not answer within {timeout:g} s. Its log:\n{self.logs(30)}")
            time.sleep(_POLL)

    def __enter__(self) -> Self:
        return self if self._testcontainer is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} ({self.image}) on port {self.port}>"

    @property
    def _container(self) -> Any:
        """The engine's own object, which has no types."""
        if self._testcontainer is None:
            raise RuntimeError(f"{self.name} is not started")
        return self._testcontainer.get_wrapped_container()

    def _create_and_start(self) -> None:
        with engine.reachable():
            testcontainer = DockerContainer(self.image)
        engine.ensure_image(testcontainer, self._image_variable)
        for key, value in self.environment().items():
            testcontainer.with_env(key, value)
        for path, content in self.files().items():
            testcontainer.with_copy_into_container(content, path)
        # The engine's client takes an address with the port; testcontainers' own types know of a port only.
        for inside, outside in {self.port_inside: self.port, **self.further_ports}.items():
            testcontainer.ports[f"{inside}/tcp"] = (HOST, outside)  # type: ignore[assignment]
        options: dict[str, Any] = {"labels": _labels()}
        if self.stop_signal is not None:
            options["stop_signal"] = self.stop_signal
        testcontainer.with_kwargs(**options)
        self._testcontainer = testcontainer
        with engine.reachable():
            testcontainer.start()


def _labels() -> dict[str, str]:
    """Lets CI find, by label, what a run that was cut short left behind."""
    run = os.environ.get("MESSAGING_RUN_ID")
    return {"anybroker.run": run} if run else {}
