"""The container engine: is it there, does it have the image, and what its refusals mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import docker.errors  # type: ignore[import-untyped, unused-ignore]
from requests.exceptions import RequestException  # type: ignore[import-untyped, unused-ignore]
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from messaging_contract.containers.errors import ContainersUnavailable

_log = logging.getLogger(__name__)

# How the engines word it when a published port was taken between our choosing it and their binding it.
_PORT_TAKEN = ("port is already allocated", "address already in use")


@contextmanager
def reachable() -> Iterator[None]:
    """Turns a lost or missing engine into `ContainersUnavailable`; other refusals of the engine pass through."""
    try:
        yield
    except docker.errors.APIError:
        raise
    except (docker.errors.DockerException, RequestException, OSError) as error:
        raise ContainersUnavailable(
            f"No container engine can be reached ({error}). Start Docker, or set DOCKER_HOST to where it listens; "
            "or run the suite against a broker of yours with --broker URL."
        ) from error


def check() -> None:
    """Raises `ContainersUnavailable` when there is no container engine."""
    with reachable():
        client = DockerClient().client
        client.ping()
        client.close()


def ensure_image(container: DockerContainer, variable: str) -> None:
    """Pulls the image of `container` if the engine has none. `variable` names the environment variable that
    overrides the image. Raises `ContainersUnavailable`.
    """
    images = container.get_docker_client().client.images
    try:
        with reachable():
            images.get(container.image)
            return
    except docker.errors.ImageNotFound:
        _log.info("pulling %s", container.image)
    try:
        with reachable():
            images.pull(container.image)
    except docker.errors.APIError as error:
        raise ContainersUnavailable(
            f"The image {container.image} is not on this machine and cannot be pulled ({error.explanation}). "
            f"Set {variable} to an image that is."
        ) from error


def port_was_taken(error: docker.errors.APIError) -> bool:
    """Whether the engine refused to start a container because of its published port."""
    return any(words in str(error) for words in _PORT_TAKEN)


def hint(error: docker.errors.APIError) -> str:
    """What to do about a refusal whose text does not say it, or nothing."""
    if "ryuk" in str(error):
        return (
            ". Ryuk cleans up after testcontainers; where it cannot be pulled, set TESTCONTAINERS_RYUK_DISABLED=true."
        )
    return ""
