"""Whether a secret of a token is somewhere it must not be."""

from pathlib import Path


def secrets_in(where, sent):
    """Of these headers or tokens, the beginnings of those whose secret is in a text, or in any file
    of a folder."""
    if isinstance(where, Path):
        where = b"".join(p.read_bytes() for p in sorted(where.rglob("*")) if p.is_file())
    else:
        where = where.encode()
    # without their first letters: whatever has half of a secret has it
    secrets = {text[-43:] for text in sent if text and len(text) > 50}
    return [secret[:4] for secret in sorted(secrets) if secret[8:].encode() in where]
