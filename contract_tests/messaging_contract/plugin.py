"""The pytest plugin: `pytest --pyargs messaging_contract --broker URL`. Does nothing in any other run of pytest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    # Only where the suite was named: other projects may have a --broker of their own in their conftest.
    if not any("messaging_contract" in argument for argument in sys.argv):
        return
    group = parser.getgroup("messaging contract")
    group.addoption("--broker", action="append", default=[], help="URL of a running broker (repeatable)")
    group.addoption("--containers", default=None, help="brokers to start in containers, such as rabbitmq,kafka,sqs")
    group.addoption("--database", default=None, help="SQLAlchemy URL for the patterns on SQL")
    group.addoption("--require", action="store_true", help="a broker that is not there is a failure")
    group.addoption(
        "--contract-report", action="append", default=[], help="FILE.md, .json, .html, or .xml for JUnit (repeatable)"
    )


def pytest_configure(config: pytest.Config) -> None:
    brokers = config.getoption("--broker", None)
    if not isinstance(brokers, list):
        return
    from messaging.errors import ConfigurationError
    from messaging_contract.brokers import Settings, check_target
    from messaging_contract.report import check_path
    from messaging_contract.session import ContractSession

    if any(isinstance(plugin, ContractSession) for plugin in config.pluginmanager.get_plugins()):
        return  # `python -m messaging_contract` has made its own
    reports = [Path(name) for name in config.getoption("--contract-report")]
    try:
        for path in reports:
            check_path(path)
        for target in brokers:
            check_target(target)
        settings = Settings.of(
            brokers,
            config.getoption("--containers"),
            config.getoption("--require"),
            os.environ,
            config.getoption("--database"),
        )
        session = ContractSession(settings, reports)
    except (ValueError, ConfigurationError) as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(session)
