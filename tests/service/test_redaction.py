"""What a log never shows: in a message, its arguments, a traceback, or what a record carries."""

import logging
import warnings

import pytest

from formwright.service import logs
from formwright.service.labels import labels
from formwright.service.redact import redacted

from .logged import ID, SECRET, TOKEN, URL, logged

log = logging.getLogger("formwright.test")


def raise_chained(text):
    try:
        raise ValueError(f"the cause {text}")
    except ValueError as error:
        raise RuntimeError(f"the end {text}") from error


def in_exception(text):
    try:
        raise_chained(text)
    except RuntimeError:
        log.exception("it failed")


SAYS = {
    "message": lambda text: log.warning(f"got {text}"),
    "argument": lambda text: log.warning("got %s", text),
    "mapping": lambda text: log.warning("got %(what)s", {"what": text}),
    "object": lambda text: log.warning("got %r", {"headers": [("authorization", text)]}),
    "exception": in_exception,
    "stack": lambda text: log.warning("here", stack_info=True, extra={"more": text}),
    "extra": lambda text: log.warning("here", extra={"more": [text]}),
    "arguments that do not fit": lambda text: log.warning("got %d %d", text),
    "warning": lambda text: warnings.warn(f"mind {text}", stacklevel=1),
}
SECRETS = {
    "token": TOKEN,
    "cut token": TOKEN[:-20],
    "header": f"Bearer {TOKEN}",
    "other header": f"bearer {SECRET}",
    "url": URL,
    "cookie": f"Set-Cookie: session={SECRET}; HttpOnly",
    "query": f"postgresql://host/name?password={SECRET}&sslmode=require",
}


@pytest.mark.parametrize("format", logs.FORMATS)
@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("secret", SECRETS)
def test_nobody_reads_a_secret_in_the_log(format, says, secret, capfd):
    with logged(format) as stream:
        SAYS[says](SECRETS[secret])

    left_out = {"arguments that do not fit"} | ({"stack", "extra"} if format == "text" else set())
    assert ("***" in stream.getvalue()) is (says not in left_out)
    for text in (stream.getvalue(), *capfd.readouterr()):
        assert SECRET[:20] not in text
    if secret == "token" and says == "argument":
        assert f"got fw_{ID}_***" in stream.getvalue()  # by which it is revoked


def test_what_is_not_secret_stays():
    said = "see https://example.org:80/a?b=c, basic blocks, fw_1, me@host, the bearer of news"
    assert redacted(said) == said.replace("bearer of", "bearer ***")


@pytest.mark.parametrize("part", ["://a:", "bearer ", "fw_", "password=", "cookie: ", "a://:@"])
def test_hiding_takes_no_longer_than_reading(part):
    """Not by a clock: a form that looks at the rest again from every place would not end."""
    redacted(part * 50_000)


def test_a_label_hides_secrets_too():
    with logged("text") as stream, labels(search=TOKEN):
        log.warning("said")

    assert stream.getvalue() == f"formwright.test: said [search=fw_{ID}_***]\n"
