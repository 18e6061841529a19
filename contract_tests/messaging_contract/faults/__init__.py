"""Faults for tests: networks that fail one way, brokers that stop, freeze or run short of memory, killed processes.

with TcpProxy(("localhost", 5672)) as proxy:
    broker = messaging.connect(f"rabbitmq://localhost:{proxy.port}")
    proxy.blackhole("down")
"""

from messaging_contract.faults.links import ProxiedBroker, ProxyLink
from messaging_contract.faults.process import ChildProcess
from messaging_contract.faults.proxy import HOST, Direction, TcpProxy

__all__ = ["HOST", "ChildProcess", "Direction", "ProxiedBroker", "ProxyLink", "TcpProxy"]
