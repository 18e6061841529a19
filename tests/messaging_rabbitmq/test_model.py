"""A few examples of the model test; `python -m messaging_contract model` runs as many as one likes."""

from messaging_contract.harness import Harness
from messaging_contract.model.command import drive
from messaging_contract.model.world import World


def test_it_does_what_the_model_says(rabbitmq: Harness) -> None:
    assert drive(World(rabbitmq), examples=3, steps=25, shrink=False) is None
