"""Plans and findings as text, as a diff and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from messaging.plan import Finding, Part

_COLOURS = {"there": "green", "missing": "red", "different": "red", "unknown": "yellow"}


def plan_tree(title: str, parts: Sequence[Part]) -> Tree:
    """What would be made, each part with what it is for and its settings."""
    tree = Tree(escape(title))
    later = [part for part in parts if part.on_demand]
    for part in parts:
        if not part.on_demand:
            _add(tree, part)
    if later:
        branch = tree.add("made by the first retry that needs it")
        for part in later:
            _add(branch, part)
    return tree


def _add(tree: Tree, part: Part) -> None:
    node = tree.add(f"[bold]{escape(part.kind)}[/] {escape(part.name)}")
    if part.why:
        node.add(escape(part.why))
    if part.settings:
        node.add(f"[dim]{escape(settings_text(part.settings))}[/]")


def settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value_text(value)}" for name, value in settings.items())


def value_text(value: Any) -> str:
    """As the brokers write it."""
    if value is None:
        return "not set"
    plain = isinstance(value, str) and value != "" and value.isprintable()
    return value if plain else json.dumps(value)


def findings_text(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each part that is not there as planned, with its differences and the way out; rich markup."""
    for finding in findings:
        if finding.state == "there":
            continue
        later = " (made when needed)" if _later(finding) else ""
        colour = "dim" if later else _COLOURS[finding.state]
        yield f"[{colour}]{finding.state:<9}[/] {escape(finding.part.kind)} {escape(finding.part.name)}{later}"
        for difference in finding.differences:
            yield f"          {escape(str(difference))}"
        if finding.state == "different":
            yield f"          {escape(finding.way_out)}"
    # What is the same for many parts is said once.
    for state in ("missing", "unknown"):
        for way_out in dict.fromkeys(f.way_out for f in findings if f.state == state and not _later(f)):
            yield escape(f"{state}: {way_out}")


def leftovers_text(left: Sequence[Part]) -> Iterator[str]:
    """A line for each part that earlier retries have made and none uses any more; rich markup."""
    for part in left:
        yield f"[yellow]left over[/] {escape(part.kind)} {escape(part.name)}, {part.settings['messages']} waiting"
        yield f"          {escape(part.why)}"


def summary(findings: Sequence[Finding]) -> str:
    """How many are there, and how many are not."""
    counts = {
        "there as declared": sum(finding.state == "there" for finding in findings),
        "missing or different": sum(finding.drifted for finding in findings),
        "not told by the broker": sum(finding.state == "unknown" for finding in findings),
        "made when needed": sum(map(_later, findings)),
    }
    return f"{len(findings)} parts, " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _later(finding: Finding) -> bool:
    return finding.state == "missing" and finding.part.on_demand


def diff_lines(found: str, wanted: str, findings: Sequence[Finding], left: Sequence[Part] = ()) -> Iterator[str]:
    """The differences from what the broker holds to what is declared, as a unified diff without line numbers.

    What the broker does not tell is a comment: it may or may not differ. So is what is left of earlier retries.
    """
    told = [finding for finding in findings if finding.drifted]
    if told:
        yield f"--- {found}"
        yield f"+++ {wanted}"
    for finding in told:
        part = finding.part
        yield f"@@ {part.kind} {part.name} @@"
        if finding.state == "missing":
            yield f"+{part.kind} {part.name}"
            yield from (f"+  {name}: {value_text(value)}" for name, value in part.settings.items())
        for difference in finding.differences:
            for sign, value in (("-", difference.found), ("+", difference.wanted)):
                if value is not None:
                    yield f"{sign}  {difference.setting}: {value_text(value)}"
    for finding in findings:
        if finding.state == "unknown":
            yield f"# {finding.part.kind} {finding.part.name}: not known: {finding.way_out}"
    for part in left:
        yield f"# {part.kind} {part.name}: left over, {part.settings['messages']} waiting"


def plan_json(broker: str, parts: Sequence[Part]) -> str:
    return _json({"broker": broker, "parts": [_part(part) for part in parts]})


def findings_json(broker: str, findings: Sequence[Finding], left: Sequence[Part]) -> str:
    entries = [
        {
            "part": _part(finding.part),
            "state": finding.state,
            "drifted": finding.drifted,
            "differences": [asdict(difference) for difference in finding.differences],
            "way_out": finding.way_out,
        }
        for finding in findings
    ]
    return _json(
        {
            "broker": broker,
            "drifted": any(finding.drifted for finding in findings),
            "findings": entries,
            "leftovers": [_part(part) for part in left],
        }
    )


def _part(part: Part) -> dict[str, Any]:
    return {
        "kind": part.kind,
        "name": part.name,
        "settings": dict(part.settings),
        "why": part.why,
        "on_demand": part.on_demand,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
