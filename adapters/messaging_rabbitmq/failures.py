"""pika's errors as this library's, each with what to do about it."""

from __future__ import annotations

import re

from pika import exceptions

from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    ConfigurationError,
    DestinationNotFound,
    MessagingError,
    TopologyError,
)

NOT_FOUND, REFUSED, LOCKED, PRECONDITION = 404, 403, 405, 406

_ARGUMENT = re.compile(r"inequivalent arg '([^']*)' for (\w+) '([^']*)' in vhost '[^']*': (.*)", re.DOTALL)


def connect_failure(error: BaseException, address: str, username: str, vhost: str) -> MessagingError:
    """Why a connection could not be opened."""
    text = _text(error)
    if "ACCESS_REFUSED" in text or isinstance(error, exceptions.ProbableAuthenticationError):
        hint = "check username and password"
        if username == "guest":
            hint += "; by default RabbitMQ lets the user 'guest' in from localhost only"
        return _because(AuthenticationFailed(f"RabbitMQ at {address} refused user {username!r}: {hint}"), error)
    if "NOT_ALLOWED" in text or isinstance(error, exceptions.ProbableAccessDeniedError):
        if "refused" in text:
            failure: MessagingError = AuthenticationFailed(
                f"RabbitMQ at {address} refuses user {username!r} the virtual host {vhost!r}: grant it permissions"
            )
        else:
            failure = ConfigurationError(
                f"RabbitMQ at {address} has no virtual host {vhost!r}: create it, or correct the URL's path"
            )
        return _because(failure, error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "name the file of its authority in SSL_CERT_FILE, or connect to the host that the certificate is for"
        return _because(
            ConfigurationError(f"RabbitMQ at {address} shows a certificate that cannot be verified: {hint}"), error
        )
    if "WRONG_VERSION_NUMBER" in text:
        return _because(
            ConfigurationError(f"{address} does not speak TLS: use RabbitMQ's TLS port, or leave out 'tls'"), error
        )
    return _because(
        BrokerUnavailable(f"RabbitMQ at {address} cannot be reached ({text[:200]}): is it running there?"), error
    )


def channel_failure(error: BaseException, what: str) -> MessagingError:
    """Why the broker closed a channel while `what` was done."""
    if not isinstance(error, exceptions.ChannelClosedByBroker):
        return _because(BrokerUnavailable(f"{what}: the connection to RabbitMQ was lost ({_text(error)[:200]})"), error)
    code, text = error.reply_code, error.reply_text
    if code == NOT_FOUND:
        return _because(DestinationNotFound(f"{what}: {text}; declare it first, or let it be created"), error)
    if code == REFUSED:
        return _because(AuthenticationFailed(f"{what}: {text}; grant the user permission for it"), error)
    difference = _ARGUMENT.search(text)
    if code == PRECONDITION and difference:
        argument, kind, name, values = difference.groups()
        return _because(
            TopologyError(
                f"{what}: {kind} {name!r} exists with a different {argument!r}: {values}. Declare it as it is, "
                f"choose another name, or drain and delete the old one"
            ),
            error,
        )
    return _because(TopologyError(f"{what}: {code} {text}"), error)


def _because(failure: MessagingError, cause: BaseException) -> MessagingError:
    failure.__cause__ = cause
    return failure


def _text(error: BaseException) -> str:
    return str(error) or repr(error)
