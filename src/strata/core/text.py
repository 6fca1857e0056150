"""Text made fit to be shown: what comes from outside, and lists that may be long."""

from __future__ import annotations

from collections.abc import Iterable


def shown(text: str) -> str:
    """A line that can be printed: bytes that are not UTF-8 and control characters are escaped, so
    that no name of an image speaks to a terminal."""
    safe = text.encode("utf-8", "surrogateescape" if _carried(text) else "backslashreplace")
    decoded = safe.decode("utf-8", "backslashreplace")
    if decoded.isprintable():
        return decoded
    return "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in decoded)


def shortened(words: Iterable[str], most: int = 5) -> str:
    """The first words of a list, and how many more there are."""
    words = list(words)
    more = f", and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _carried(text: str) -> bool:
    """Whether all surrogates in a text stand for bytes, as file names have them."""
    return all(not 0xD800 <= ord(one) <= 0xDFFF or 0xDC80 <= ord(one) <= 0xDCFF for one in text)
