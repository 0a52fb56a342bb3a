"""Text that a person has written, with whatever editor; and text that a person may see."""

from __future__ import annotations

import re
import unicodedata

# Credentials stand before the host, in the query or in the path.
_USER = re.compile(r"(?<=//)([^:@]*)(:?)(.*)(?=@)")
_QUERY = re.compile(r"(?<=\?).+")
_NAMED_SECRET = re.compile(r"((?:pass(?:word|wd)?|pwd|token|key)=)[^&/?]+", re.IGNORECASE)


def decode_text(data: bytes) -> str:
    """Decode UTF-8, with or without the mark (BOM) that editors of Windows write before it.

    Raises UnicodeDecodeError where it is no UTF-8.
    """
    return data.decode("utf-8-sig")


def mask_passwords(uri: str) -> str:
    """A URI without its passwords; ambiguous parts are hidden too."""
    uri = _USER.sub(lambda found: f"{found[1]}:***" if found[2] else "***", uri)
    if "//" in uri:
        uri = _QUERY.sub("***", uri)
    return _NAMED_SECRET.sub(r"\1***", uri)


def fold_name(name: str) -> str:
    """The name without what people do not see: case, spaces, Unicode normalization and characters
    without width."""
    seen = "".join(char for char in name if unicodedata.category(char) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen).casefold().split())
