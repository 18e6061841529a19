"""Values to bytes and back, by content type: JSON by default, bytes as they are, never pickle."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from messaging.errors import ConfigurationError, DecodeError, EncodeError

JSON = "application/json"
BYTES = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Codec:
    """encode: value to bytes. decode: bytes and the type asked for (or None) to a value. Both may raise anything."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes, Any], Any]


def _enc_hook(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # pydantic, without importing it
        return value.model_dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def _dec_hook(as_type: Any, value: Any) -> Any:
    if hasattr(as_type, "model_validate"):  # a pydantic model inside another type: list[Model]
        return as_type.model_validate(value)
    raise NotImplementedError(f"{as_type} cannot be made from JSON")


_json_encoder = msgspec.json.Encoder(enc_hook=_enc_hook)
_json_decoder = msgspec.json.Decoder()


def _encode_json(value: Any) -> bytes:
    body = _json_encoder.encode(value)
    # msgspec and pydantic write NaN and the infinities as null, which would arrive as None.
    if b"null" in body and _holds_non_finite(msgspec.to_builtins(value, enc_hook=_enc_python)):
        raise ValueError("JSON has no NaN and no infinity")
    return body


def _enc_python(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else _enc_hook(value)


def _holds_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_holds_non_finite, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(map(_holds_non_finite, value))
    return False


def _decode_json(body: bytes, as_type: Any) -> Any:
    if as_type is None:
        return _json_decoder.decode(body)
    if hasattr(as_type, "model_validate_json"):
        return as_type.model_validate_json(body)
    return msgspec.json.decode(body, type=as_type, dec_hook=_dec_hook)


def json_decoder(as_type: Any) -> Callable[[bytes | str], Any]:
    """What makes JSON an `as_type`, to be kept by who has many. It raises what the libraries raise."""
    if hasattr(as_type, "model_validate_json"):
        validate: Callable[[bytes | str], Any] = as_type.model_validate_json
        return validate
    return msgspec.json.Decoder(as_type, dec_hook=_dec_hook).decode


def _encode_bytes(value: Any) -> bytes:
    raise TypeError(f"{BYTES} takes bytes, not {type(value).__name__}")


def _encode_text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"{TEXT} takes str, not {type(value).__name__}")


def _as_is(plain: type, decode: Callable[[bytes], Any]) -> Callable[[bytes, Any], Any]:
    return lambda body, as_type: decode(body) if as_type in (None, plain) else _decode_json(body, as_type)


_codecs: dict[str, Codec] = {
    JSON: Codec(_encode_json, _decode_json),
    BYTES: Codec(_encode_bytes, _as_is(bytes, bytes)),
    "text/plain": Codec(_encode_text, _as_is(str, bytes.decode)),
}


def register_codec(content_type: str, codec: Codec) -> None:
    """Makes `content_type` known to every broker of this process. Raises ConfigurationError when it already is."""
    name = _base(content_type)
    if name in _codecs:
        raise ConfigurationError(f"content type {name!r} already has a codec")
    _codecs[name] = codec


def encode(value: Any, content_type: str | None = None) -> tuple[bytes, str]:
    """Returns body and content type. Without one, bytes are `application/octet-stream` and the rest is JSON.

    Raises EncodeError when there is no codec for the content type or it does not take the value.
    """
    if isinstance(value, bytes):  # already encoded by the caller, perhaps in a form only the receiver needs to know
        return value, BYTES if content_type is None else content_type
    if isinstance(value, bytearray | memoryview):  # copied, since the caller may go on to change it
        try:
            return bytes(value), BYTES if content_type is None else content_type
        except ValueError as error:
            raise EncodeError(f"the memoryview cannot be read: {error}") from None
    if content_type is None:
        content_type = JSON
    elif not isinstance(content_type, str):
        raise EncodeError(f"content_type must be str, not {type(content_type).__name__}")
    codec = _codecs.get(content_type) or _codecs.get(_base(content_type))
    if codec is None:
        raise EncodeError(f"no codec for {content_type!r}: pass bytes, or register_codec; known: {sorted(_codecs)}")
    try:
        if ";" in content_type:
            _check_charset(content_type)
        return codec.encode(value), content_type
    except Exception as error:
        raise EncodeError(f"a {type(value).__name__} cannot be encoded as {content_type}: {error}") from error


def decode(body: bytes, content_type: str | None, as_type: Any = None) -> Any:
    """Returns the value. Without a content type: JSON when `as_type` is given, else the bytes as they are.

    Raises DecodeError when there is no codec or the body is not what it expects.
    """
    if as_type is bytes:
        return body
    name = _base(content_type) if content_type else (BYTES if as_type is None else JSON)
    codec = _codecs.get(name)
    if codec is None:
        raise DecodeError(f"no codec for content type {content_type!r}: register_codec, or use delivery.body")
    try:
        if content_type and ";" in content_type:
            _check_charset(content_type)
        return codec.decode(body, as_type)
    except Exception as error:
        wanted = "" if as_type is None else f" and {getattr(as_type, '__name__', as_type)}"
        raise DecodeError(f"the body is not {name}{wanted}: {error}") from error


def _base(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _check_charset(content_type: str) -> None:
    """Text is UTF-8 here: another charset would be written wrongly, and read as something else."""
    if _base(content_type) not in (JSON, "text/plain"):
        return
    _, _, charset = content_type.partition(";")[2].lower().partition("charset=")
    if charset and charset.partition(";")[0].strip(' "') not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise ValueError(f"only UTF-8 is known for {content_type!r}: use bytes")
