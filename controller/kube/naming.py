"""The rules for Kubernetes names, and names and label values derived from longer ones.

Guarantees: a suffix and a label's value are pure functions of their input.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

# apimachinery's util/validation
DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
LONGEST_LABEL: Final = 63
"""Characters of a DNS label, and of a label's value."""
DNS_SUBDOMAIN: Final = re.compile(rf"{DNS_LABEL.pattern}(\.{DNS_LABEL.pattern})*", re.ASCII)
LONGEST_SUBDOMAIN: Final = 253
_WORD: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
"""The name in a label's key, and a label's value."""

SUFFIX_LENGTH: Final = 5
"""Characters that the API server appends to a generateName."""
_LONG_SUFFIX: Final = 10
"""Characters of the hash of a truncated name: 27¹⁰ values, so that no two names collide."""

# apimachinery's util/rand alphabet: no vowels and no look-alikes, so no suffix spells a word.
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def is_label_key(text: str) -> bool:
    """Whether the API server accepts the text as the key of a label: an optional DNS prefix, and a name."""
    prefix, slash, word = text.rpartition("/")
    right_prefix = not slash or (len(prefix) <= LONGEST_SUBDOMAIN and DNS_SUBDOMAIN.fullmatch(prefix) is not None)
    return right_prefix and len(word) <= LONGEST_LABEL and _WORD.fullmatch(word) is not None


def is_subdomain(text: str) -> bool:
    """Whether the API server accepts the text as the name of most objects, such as nodes."""
    return len(text) <= LONGEST_SUBDOMAIN and DNS_SUBDOMAIN.fullmatch(text) is not None


def is_annotation_key(text: str) -> bool:
    """Whether the API server accepts the text as the key of an annotation: a label's, in upper or lower case."""
    return is_label_key(text.lower())


def is_label_value(text: str) -> bool:
    """Whether the API server accepts the text as the value of a label; it may be empty."""
    return not text or (len(text) <= LONGEST_LABEL and _WORD.fullmatch(text) is not None)


def label_value(name: str) -> str:
    """Return a label value that is unique to an object's name: the name, or its start and a hash if it is too long.

    A name has up to 253 characters, a label value up to 63.
    """
    if len(name) <= LONGEST_LABEL:
        return name
    digest = suffix(name, _LONG_SUFFIX)
    return f"{name[: LONGEST_LABEL - 1 - _LONG_SUFFIX].rstrip('-._')}-{digest}"


def suffix(seed: str, length: int = SUFFIX_LENGTH) -> str:
    """Return a hash of the seed in the alphabet of generateName's suffixes."""
    digest = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    letters = []
    for _ in range(length):
        digest, index = divmod(digest, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)
