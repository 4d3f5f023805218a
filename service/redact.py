"""What must not be read in a log, though somebody was given it: tokens, passwords.

A table of forms. Rather too much is hidden than too little; the id of a token, by which it is
listed and revoked, stays. It must not know where the text comes from. Next: `logs.py`.
"""

from __future__ import annotations

import re

_REST = r"[^\s&'\",;)\]}]+"  # up to where a value ends
# what every text of the form has in small letters, the form, what is left of it
_FORMS = tuple(
    (sign, re.compile(form, re.ASCII | re.IGNORECASE), left)
    for sign, form, left in (
        ("fw_", r"(fw_[0-9a-f]{12}_)[a-z0-9_-]+", r"\1***"),  # also one that was cut
        ("bearer", r"\b(bearer\s+)(?!fw_[0-9a-f]{12}_\*)" + _REST, r"\1***"),
        ("basic", r"(authorization['\"]?\s*[:=,]\s*['\"]?basic\s+)" + _REST, r"\1***"),
        ("://", r"(://[^:/@\s]{0,200}:)[^/\s]{0,400}@", r"\1***@"),  # of a URL; bounds are for time
        ("cookie", r"(\bcookie['\"]?\s*[:=,]\s*['\"]?)[^'\"\n]+", r"\1***"),
        ("passw", r"(passw(?:or)?d['\"]?\s*[:=]\s*['\"]?)" + _REST, r"\1***"),
    )
)


def redacted(text: str) -> str:
    """The text with `***` for what nobody should read.

    >>> redacted("no database postgresql://me:secret@host/name")
    'no database postgresql://me:***@host/name'
    >>> redacted("postgresql://me:secret@host/db?sslpassword=too")
    'postgresql://me:***@host/db?sslpassword=***'
    >>> redacted("authorization: Bearer abc.def")
    'authorization: Bearer ***'
    """
    lower = text.lower()
    for sign, form, left in _FORMS:
        if sign in lower:
            text = form.sub(left, text)
    return text
