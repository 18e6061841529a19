"""Names of queues and topics as the identifiers of other languages, which take fewer characters.

What had to be changed ends in a hash of the name, so that two names never become one.
"""

from __future__ import annotations

import hashlib
import re


def terraform_label(name: str) -> str:
    """Letters, digits, `_` and `-`, and no digit first."""
    text = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if not re.match(r"[A-Za-z_]", text):
        text = f"_{text}"
    return text if text == name else f"{text}_{_digest(name)}"


def logical_id(name: str) -> str:
    """Letters and digits only, as CloudFormation has them."""
    text = "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", name))
    return text if text == name else f"{text}{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]
