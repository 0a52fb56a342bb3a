"""Text files that a person has written, with whatever editor."""

from __future__ import annotations


def decode_text(data: bytes) -> str:
    """Decode UTF-8, with or without the mark (BOM) that editors of Windows write before it.

    Raises UnicodeDecodeError where it is no UTF-8.
    """
    return data.decode("utf-8-sig")
