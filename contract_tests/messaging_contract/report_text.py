"""Text of others inside a report: an error may hold anything."""

from __future__ import annotations

import re

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped, and HTML should not."""


def displayable(text: str) -> str:
    """`text` with the replacement character for control characters and halves of characters."""
    return _FORBIDDEN.sub("\ufffd", text)
