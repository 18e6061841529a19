"""The pytest side: one test a clause and broker, and the matrix at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from messaging_contract import fixtures
from messaging_contract.brokers import Candidate, Settings, candidates
from messaging_contract.clause import Clause, clause_of
from messaging_contract.harness import Harness
from messaging_contract.report import Matrix, write
from messaging_contract.runner import Outcome, Result, run_clause
from messaging_contract.terminal import show

_RESULT = "messaging_contract"


class ContractSession:
    """A pytest plugin object, one a run. It parametrizes every clause over the brokers, and runs it.

    reports: files to write the matrix to. part: of so many `parts` of the clauses only this one, from 1.
    """

    def __init__(self, settings: Settings, reports: list[Path], part: int = 1, parts: int = 1) -> None:
        self._settings = settings
        self._reports = reports
        self._part, self._parts = part, parts
        self._candidates = candidates(settings)
        self._unavailable: dict[str, str] = {}
        self._results: list[Result] = []
        self._clauses: dict[str, Clause] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[fixtures.UNAVAILABLE] = self._unavailable
        config.stash[fixtures.REQUIRED] = self._settings.require
        config.pluginmanager.register(fixtures)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if clause_of(metafunc.function) is not None:
            names = [candidate.name for candidate in self._candidates]
            metafunc.parametrize("contract_broker", self._candidates, ids=names, indirect=True, scope="session")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen: list[pytest.Item] = []
        others: list[pytest.Item] = []
        numbers: dict[str, int] = {}
        for item in items:
            clause = clause_of(getattr(item, "function", None))
            if clause is None:
                chosen.append(item)
                continue
            item.extra_keyword_matches.add(clause.id)
            # Every N-th clause: the slow ones are neighbours, so they are spread.
            number = numbers.setdefault(clause.id, len(numbers))
            (chosen if number % self._parts == self._part - 1 else others).append(item)
        if others:
            items[:] = chosen
            config.hook.pytest_deselected(items=others)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        found = [clause_of(getattr(item, "function", None)) for item in session.items]
        self._clauses = {clause.id: clause for clause in found if clause is not None}

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        clause = clause_of(pyfuncitem.function)
        if clause is None:
            return None
        harness = pyfuncitem.funcargs["bench"]
        assert isinstance(harness, Harness)
        outcome, detail = run_clause(clause, harness)
        pyfuncitem.user_properties.append((_RESULT, (clause.id, harness.name, outcome.value, detail)))
        if outcome is Outcome.NOT_RUN:
            pytest.skip(f"not run: {detail}")
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
        report: pytest.TestReport = yield  # type: ignore[assignment]
        clause = clause_of(getattr(item, "function", None))
        if clause is not None and report.failed:
            candidate: Candidate = item.callspec.params["contract_broker"]  # type: ignore[attr-defined]
            detail = call.excinfo.exconly(tryshort=True) if call.excinfo else ""
            report.user_properties.append((_RESULT, (clause.id, candidate.name, Outcome.FAILED.value, detail)))
        return report  # type: ignore[return-value]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.failed:
            for name, value in report.user_properties:
                if name == _RESULT and isinstance(value, tuple):
                    clause, broker, outcome, detail = value
                    self._results.append(Result(clause, broker, Outcome(outcome), report.duration, detail))

    def pytest_sessionfinish(self) -> None:
        if self._clauses:
            for path in self._reports:
                write(self.matrix, path)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._clauses:
            return
        terminalreporter.section("contract")
        show(self.matrix, terminalreporter.write_line, sys.stdout.isatty(), terminalreporter._tw.fullwidth)
        for path in self._reports:
            terminalreporter.write_line(f"report: {path}")

    @property
    def matrix(self) -> Matrix:
        """What is known by now."""
        names = [candidate.name for candidate in self._candidates]
        return Matrix(list(self._clauses.values()), names, self._results, self._unavailable)
