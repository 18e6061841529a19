from __future__ import annotations

from messaging.demo.ledger import GroupLedger
from messaging.demo.orders import order_id
from messaging.demo.plan import GROUPS, POLICY, CardDeclined, expected, planned_failure
from messaging.demo.report import GroupReport, group_report

ORDERS = frozenset(order_id(number) for number in range(1, 11))
DECLINED = order_id(7)


def book() -> GroupLedger:
    """The ledger of a payment group that did everything right."""
    ledger = GroupLedger("payment", ORDERS)
    for order in sorted(ORDERS):
        assert ledger.received(order) == 1
        if order == DECLINED:
            ledger.failed(order, given_up=True)
        else:
            ledger.handled(order)
    return ledger


def balance(ledger: GroupLedger, dead: dict[str, str], copies: int = 1) -> GroupReport:
    return group_report(ledger, set(ORDERS), dead, copies, expected("payment", 10), 0.0)


def test_a_good_run_balances() -> None:
    report = balance(book(), {DECLINED: "declined"})
    assert (report.received, report.handled, report.dead_lettered, report.problems) == (10, 9, 1, [])


def test_duplicates_are_counted_and_not_handled_again() -> None:
    ledger = book()
    assert ledger.received(order_id(1)) == 0
    report = balance(ledger, {DECLINED: "declined"}, copies=2)
    assert (report.duplicates, report.problems) == (2, [])


def test_a_lost_dead_letter_is_a_problem() -> None:
    problems = balance(book(), {}, 0).problems
    assert f"1 neither handled nor in the dead-letter queue: {DECLINED}" in problems
    assert f"1 given up, but not in the dead-letter queue: {DECLINED}" in problems


def test_an_order_both_handled_and_dead_lettered_is_a_problem() -> None:
    problems = balance(book(), {DECLINED: "declined", order_id(1): "?"}, 2).problems
    assert f"1 handled and in the dead-letter queue: {order_id(1)}" in problems


def test_an_order_nobody_published_is_a_problem() -> None:
    ledger = book()
    assert ledger.received("stranger") == 0
    assert balance(ledger, {DECLINED: "declined"}).problems == ["1 received, but never published: stranger"]


def test_problems_name_a_few_ids_only() -> None:
    report = group_report(GroupLedger("payment", ORDERS), set(ORDERS), {}, 0, expected("payment", 0), 0.0)
    assert report.problems[0].startswith("10 neither handled nor")
    assert report.problems[0].endswith(", ...")


def test_the_plan_has_every_kind_of_failure() -> None:
    plans = {group: expected(group, 1000) for group in GROUPS}
    assert {group: plan.retries for group, plan in plans.items()} == {
        "inventory": 20,
        "payment": 110,
        "notification": 40,
    }
    assert {group: len(plan.dead_letters) for group, plan in plans.items()} == {
        "inventory": 0,
        "payment": 15,
        "notification": 0,
    }
    declined = planned_failure("payment", 7, 1)
    assert isinstance(declined, CardDeclined)
    assert POLICY.delay_after(1, declined) is None
