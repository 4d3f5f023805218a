"""`Client` and `AsyncClient`: the service in nouns; whoever uses them sees no message of the wire.

    calls.py      what is asked, and how the answer is read: the same for both
    sync.py       `Client`, over a server or over a database file
    aio.py        `AsyncClient`; its wires stand in `aio_wires.py`
    remote.py     messages to a server and back, sent again where that is safe
    local.py      the same of a database, without a server
    trust.py      TLS and tokens; mismatch.py says where they do not fit the server
    downloads.py  files that come in pieces

It must not load torch, ray or SQLAlchemy, but for `Client.local`. Next: `calls.py`.
"""

from .aio import AsyncClient
from .sync import Client
from .trust import Trust

__all__ = ["AsyncClient", "Client", "Trust"]
