"""The pytest side: one test a clause and broker, and the matrix at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from messaging_contract import fixtures
from messaging_contract.brokers import Candidate, Settings, candidates
from messaging_contract.clause import Clause, clause_of
from messaging_contract.clauses import all_clauses
from messaging_contract.deadline import watchdog
from messaging_contract.declarations import unproven
from messaging_contract.facts import Facts
from messaging_contract.harness import Harness
from messaging_contract.journal import Journal
from messaging_contract.matrix import Matrix
from messaging_contract.report import write
from messaging_contract.runner import CONNECT, Outcome, Result, is_gone, longest, no_database, run_clause
from messaging_contract.safe import Safety
from messaging_contract.sql.database import Database
from messaging_contract.terminal import show

_RESULT = "messaging_contract"


class ContractSession:
    """A pytest plugin object, one a run. It parametrizes every clause over the brokers, and runs it.

    reports: files to write the matrix to. part: of so many `parts` of the clauses only this one, from 1. deadline: no
    clause may take longer, seconds. journal: what was done before, and is not done again. safety: of a run that is safe
    on a cluster which others use.
    """

    def __init__(
        self,
        settings: Settings,
        reports: list[Path],
        part: int = 1,
        parts: int = 1,
        deadline: float | None = None,
        journal: Journal | None = None,
        safety: Safety | None = None,
    ) -> None:
        self._settings = settings
        self._reports = reports
        self._part, self._parts = part, parts
        self._candidates = [replace(each, open=self._with_database(each.open)) for each in candidates(settings)]
        self._safe = safety is not None
        if safety is not None:
            self._candidates = [replace(each, open=safety.opening(each.open)) for each in self._candidates]
        self._facts: dict[str, Facts] = {}
        self._unavailable: dict[str, str] = {}
        self._deadline, self._journal = deadline, journal
        self._gone: dict[str, str] = {}
        """Brokers that stopped answering, and since when, by name."""
        self._results: list[Result] = [] if journal is None else list(journal.results)
        self._clauses: dict[str, Clause] = {}

    def _with_database(self, opened: Callable[[], Harness]) -> Callable[[], Harness]:
        """A broker is opened with the database that was asked for, of which nothing is left once it is closed."""
        given = None if self._settings.database is None else Database(self._settings.database)

        def opening() -> Harness:
            harness = opened()
            harness.database = given or harness.database
            if harness.database is not None:
                harness.closing.append(harness.database.close)
            return harness

        return opening

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[fixtures.UNAVAILABLE] = self._unavailable
        config.stash[fixtures.FACTS] = self._facts
        config.stash[fixtures.REQUIRED] = self._settings.require
        config.stash[fixtures.CLOSE] = min(CONNECT, self._deadline or CONNECT)
        config.pluginmanager.register(fixtures)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if clause_of(metafunc.function) is not None:
            names = [candidate.name for candidate in self._candidates]
            metafunc.parametrize("contract_broker", self._candidates, ids=names, indirect=True, scope="session")

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen: list[pytest.Item] = []
        others: list[pytest.Item] = []
        numbers: dict[str, int] = {}
        done = set() if self._journal is None else self._journal.begun
        for item in items:
            clause = clause_of(getattr(item, "function", None))
            if clause is None:
                chosen.append(item)
                continue
            item.extra_keyword_matches.add(clause.id)
            # Every N-th clause: the slow ones are neighbours, so they are spread.
            number = numbers.setdefault(clause.id, len(numbers))
            mine = number % self._parts == self._part - 1
            if mine:
                self._clauses[clause.id] = clause
            (chosen if mine and clause.id not in done else others).append(item)
        if others:
            items[:] = chosen
            config.hook.pytest_deselected(items=others)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        found = [clause_of(getattr(item, "function", None)) for item in session.items]
        run = {clause.id for clause in found if clause is not None} | {result.clause for result in self._results}
        self._clauses = {id: clause for id, clause in self._clauses.items() if id in run}  # without those of -k

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        clause = clause_of(pyfuncitem.function)
        if clause is None:
            return None
        harness = pyfuncitem.funcargs["bench"]
        assert isinstance(harness, Harness)
        if self._deadline is not None:
            clause = replace(clause, deadline=min(clause.deadline, self._deadline))
        outcome, detail = self._run(clause, harness)
        pyfuncitem.user_properties.append((_RESULT, (clause.id, harness.name, outcome.value, detail)))
        if outcome is Outcome.NOT_RUN and self._settings.require and (why := no_database(clause, harness)) == detail:
            pytest.fail(f"the database is required and not there: {why}", pytrace=False)
        if outcome is Outcome.NOT_RUN:
            pytest.skip(f"not run: {detail}")
        return True

    def _run(self, clause: Clause, harness: Harness) -> tuple[Outcome, str]:
        if since := self._gone.get(harness.name):
            return Outcome.NOT_RUN, since
        if self._journal is not None:
            self._journal.begin(clause.id, harness.name)
        try:
            with watchdog(longest(clause), None if self._journal is None else self._journal.stacks):
                return run_clause(clause, harness)
        except BaseException:
            if why := is_gone(harness):  # else each of the others would wait for it until its own deadline
                self._gone[harness.name] = f"the broker is gone since {clause.id}: {why}"
            raise

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
                    result = Result(clause, broker, Outcome(outcome), report.duration, detail, report.start)
                    self._results.append(result)
                    if self._journal is not None:
                        self._journal.end(result)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._clauses:
            return
        for path in self._reports:
            write(self.matrix, path)
        if any(result.outcome is Outcome.FAILED for result in self._results):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED  # perhaps in the process before this one
        elif all(result.outcome is Outcome.NOT_RUN for result in self._results):
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
        elif session.exitstatus == pytest.ExitCode.OK and unproven(self.matrix):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._clauses:
            return
        terminalreporter.section("contract")
        show(self.matrix, terminalreporter.write_line, sys.stdout.isatty(), terminalreporter._tw.fullwidth)
        for since in self._gone.values():
            terminalreporter.write_line(since)
        if all(result.outcome is Outcome.NOT_RUN for result in self._results):
            terminalreporter.write_line("nothing was run: see above why; the exit status is 5")
        for path in self._reports:
            terminalreporter.write_line(f"report: {path}")

    @property
    def matrix(self) -> Matrix:
        """What is known by now."""
        names = [candidate.name for candidate in self._candidates]
        whole = not self._safe and len(self._clauses) == len(all_clauses())
        return Matrix(list(self._clauses.values()), names, self._results, self._unavailable, self._facts, whole)
