"""Questions to the HTTP API of RabbitMQ's management plugin, where it answers. Nothing but `concerns` needs it."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, urlsplit

from messaging_rabbitmq.options import RabbitMQOptions

_TIMEOUT = 5.0
_REFUSED = (401, 403)


class NotAnswered(Exception):
    """Why the API told nothing: it is not there, or this user may not ask."""


class Management:
    """Each question is a request of its own, of at most a few seconds. Thread-safe."""

    def __init__(self, options: RabbitMQOptions) -> None:
        host, _ = options.addresses()[0]
        host = f"[{host}]" if ":" in host else host
        given = options.management or (f"https://{host}:15671" if options.tls else f"http://{host}:15672")
        self.url = given.rstrip("/")
        self.vhost = quote(options.vhost, safe="")
        user = f"{options.username or 'guest'}:{options.password or 'guest'}".encode()
        self._authorization = f"Basic {base64.b64encode(user).decode()}"
        self._user = options.username or "guest"

    def get(self, path: str) -> Any:
        """The answer to GET /api/`path`. Raises NotAnswered."""
        request = urllib.request.Request(f"{self.url}/api/{path}", headers={"Authorization": self._authorization})
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if urlsplit(self.url).scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in _REFUSED:
                raise NotAnswered(
                    f"user {self._user!r} may not ask the management API ({error.code}): give it the tag monitoring or "
                    f"policymaker"
                ) from error
            raise NotAnswered(f"the management API at {self.url} answers {error.code}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise NotAnswered(
                f"no management API answers at {self.url} ({reason}): enable it (rabbitmq-plugins enable "
                f"rabbitmq_management), or say where it is with the option management"
            ) from error
