"""moto's server as a process of its own: SQS and SNS without a container. In this process it would starve the GIL."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time

from messaging_contract.faults.proxy import HOST

_READY_WITHIN = 30.0


class MotoProcess:
    """Not thread-safe. `start` waits until it answers, `stop` ends and reaps it."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"sqs://{HOST}:{self.port}?region=us-east-1&access_key=test&secret_key=test&receivers=1"

    def start(self) -> None:
        """Raises OSError when it ends at once or does not answer within 30 seconds."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _READY_WITHIN
        while not self._answers():
            if self._process.poll() is not None:
                raise OSError(f"the process ended with {self._process.returncode}")
            if time.monotonic() > deadline:
                self.stop()
                raise OSError(f"no answer within {_READY_WITHIN:g} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/moto-api/")
            return connection.getresponse().status < 500
        except OSError:
            return False
        finally:
            connection.close()
