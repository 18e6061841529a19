"""The report as JSON, which processes of one run also tell each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from messaging_contract.clause import Clause
from messaging_contract.declarations import unproven
from messaging_contract.facts import Facts
from messaging_contract.matrix import Matrix
from messaging_contract.runner import Outcome, Result


def as_json(matrix: Matrix, made: str) -> str:
    return json.dumps(
        {
            "made": made,
            "brokers": [
                {
                    "name": broker,
                    "unavailable": matrix.unavailable.get(broker),
                    "seconds": round(matrix.seconds(broker), 3),
                    "counts": {o.value: n for o, n in matrix.counts(broker).items()},
                    "facts": facts.as_json() if (facts := matrix.facts.get(broker)) is not None else None,
                }
                for broker in matrix.brokers
            ],
            "unproven": unproven(matrix),
            "clauses": [
                {
                    **describe(clause),
                    "results": {broker: _cell(matrix.outcome(clause.id, broker)) for broker in matrix.brokers},
                }
                for clause in matrix.clauses
            ],
        },
        indent=1,
    )


def describe(clause: Clause) -> dict[str, object]:
    """A clause without its function, as `--list --json` shows it."""
    return {
        "id": clause.id,
        "sentence": clause.sentence,
        "on": list(clause.on),
        "anchors": list(clause.anchors),
        "failures": list(clause.failures),
        "capabilities": list(clause.needs),
        "controls": list(clause.controls),
    }


def of_json(text: str, clauses: Sequence[Clause]) -> Matrix:
    """The matrix that `as_json` wrote. clauses: all there are."""
    data = json.loads(text)
    run = {row["id"] for row in data["clauses"]}
    return Matrix(
        [clause for clause in clauses if clause.id in run],
        [broker["name"] for broker in data["brokers"]],
        [
            Result(row["id"], broker, Outcome(cell["outcome"]), cell["seconds"], cell["detail"], cell["at"])
            for row in data["clauses"]
            for broker, cell in row["results"].items()
        ],
        {broker["name"]: broker["unavailable"] for broker in data["brokers"] if broker["unavailable"]},
        {broker["name"]: Facts.of_json(broker["facts"]) for broker in data["brokers"] if broker["facts"]},
    )


def _cell(result: Result) -> dict[str, Any]:
    return {
        "outcome": result.outcome.value,
        "seconds": round(result.seconds, 3),
        "at": round(result.at, 3),
        "detail": result.detail,
    }
