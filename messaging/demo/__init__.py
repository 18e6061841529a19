"""The order pipeline as a program: one producer, three groups, planned failures, a ledger that must balance.

Runs unchanged on every broker; `messaging demo` is its command line. Needs nothing but the core.
"""

from messaging.demo.orders import Order, sample_orders
from messaging.demo.pipeline import Pipeline, demo_topic
from messaging.demo.plan import GROUPS
from messaging.demo.report import Progress, Report
from messaging.demo.rows import InputError, read_orders

__all__ = [
    "GROUPS",
    "InputError",
    "Order",
    "Pipeline",
    "Progress",
    "Report",
    "demo_topic",
    "read_orders",
    "sample_orders",
]
