"""What a soak found, as text for people and as JSON for machines."""

from __future__ import annotations

from typing import Any

from messaging_contract.soak.run import Result


def lines(result: Result) -> list[str]:
    """The account, a line each."""
    rate = result.confirmed / max(result.published, 0.001)
    width = max(len(balance.source) for balance in result.balances)
    words = ("confirmed", "received", "lost", "unexpected", "duplicated", "reordered", "recovered", "dead")
    out = [" " * width + "".join(f"{word:>12}" for word in words)]
    for balance in result.balances:
        cells = [getattr(balance, word) for word in words]
        shown = ["-" if word == "reordered" and not balance.ordered else f"{cell:,}" for word, cell in
                 zip(words, cells, strict=True)]  # fmt: skip
        out.append(balance.source.ljust(width) + "".join(f"{cell:>12}" for cell in shown))
        out += [f"  {word}, for example: {numbers}" for word, numbers in balance.examples.items()
                if word != "reordered" or balance.ordered]  # fmt: skip
    out.append(
        f"{result.broker}: {result.confirmed:,} confirmed in {result.published:.0f} s ({rate:,.0f}/s), "
        f"{result.received:,} deliveries, drained in {result.drained:.0f} s, faults: {len(result.faults)}, "
        f"peak memory {result.peak_megabytes:.0f} MB"
    )
    out.append(
        f"longest stall: {result.confirm_stall:.1f} s without a confirmation, "
        f"{result.receive_stall:.1f} s without a delivery"
    )
    out += [f"raised {count} times, {name}: {result.examples[name]}" for name, count in sorted(result.errors.items())]
    out += [f"DEFECT: {defect}" for defect in result.defects]
    out.append("the guarantee was upheld" if result.upheld else "THE GUARANTEE WAS NOT UPHELD")
    return out


def as_json(result: Result) -> dict[str, Any]:
    """The same, and the faults and the samples."""
    return {
        "broker": result.broker,
        "seed": result.plan.seed,
        "kinds": list(result.plan.kinds),
        "upheld": result.upheld,
        "published_seconds": round(result.published, 1),
        "drained_seconds": round(result.drained, 1),
        "confirmed": result.confirmed,
        "deliveries": result.received,
        "confirm_stall_seconds": round(result.confirm_stall, 1),
        "receive_stall_seconds": round(result.receive_stall, 1),
        "peak_megabytes": round(result.peak_megabytes),
        "sources": [
            {
                "source": balance.source,
                "ordered": balance.ordered,
                **{
                    word: getattr(balance, word)
                    for word in (
                        "confirmed", "received", "lost", "unexpected", "duplicated", "reordered", "recovered", "dead",
                        "examples",
                    )
                },
            }
            for balance in result.balances
        ],
        "errors": result.errors,
        "error_examples": result.examples,
        "defects": result.defects,
        "faults": [
            {"start": round(each.start, 1), "end": None if each.end is None else round(each.end, 1),
             "kind": each.fault.kind, "text": str(each.fault)}
            for each in result.faults
        ],
        "samples": [[round(sample.at, 1), sample.confirmed, sample.received] for sample in result.samples],
    }  # fmt: skip
