"""Every setting in one table, what a server is told when it starts, and where clients look for one.

The options of the commands, `formwright config` and the table in docs/service.md are made from
`SETTINGS`. It must not know where a value comes from. Next: `configured.py`, which does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PORT = 50551
WEB_PORT = 50580
LEASE_S = 15.0  # a search whose scheduler was silent for this long is taken over

Scalar = str | int | float


@dataclass(frozen=True)
class Setting:
    """One row. `key` is its place in the file, `table.name`; empty where only the environment says
    it, and whoever reads it is not here. `default` has its type; of a text with `choices` it is one
    of these, and a number lies from `lowest` to `highest`."""

    name: str
    key: str
    default: Scalar
    variable: str
    meaning: str
    choices: tuple[str, ...] = ()
    lowest: float = float("-inf")
    highest: float = float("inf")
    secret: bool = False  # never shown, and no option: options are seen in the list of processes

    @property
    def kind(self) -> type[Scalar]:
        return type(self.default)

    def wanted(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind is str:
            return "a text"
        number = "a whole number" if self.kind is int else "a number"
        low = f" from {self.lowest:g}" if self.lowest > float("-inf") else ""
        return number + low + (f" to {self.highest:.0f}" if self.highest < float("inf") else "")

    def may_be(self, value: object) -> bool:
        """Whether it has the type, and lies among the choices or within the bounds."""
        if self.kind is str:
            return isinstance(value, str) and (not self.choices or value in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        whole = isinstance(value, int)
        return (whole or self.kind is float) and self.lowest <= value <= self.highest

    def read(self, text: str) -> Scalar:
        """A text as its value. Raises ValueError if it cannot be one."""
        convert: Callable[[str], Scalar] = self.kind
        value = convert(text)
        if not self.may_be(value):
            raise ValueError(text)
        return value


FORMATS = ("table", "json", "yaml", "csv")
LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

# fmt: off
_ROWS = (
    # name, key in the file, default, environment variable, meaning
    Setting("server", "client.server", f"127.0.0.1:{PORT}", "FORMWRIGHT_SERVER",
            "where clients look for a server, `HOST:PORT`"),
    Setting("deadline", "client.deadline_s", 30.0, "FORMWRIGHT_DEADLINE",
            "seconds that a call may take, with all its repetitions", lowest=0.001, highest=86400),
    Setting("token", "", "", "FORMWRIGHT_TOKEN",
            "a client's token", secret=True),
    Setting("token_file", "client.token_file", "", "FORMWRIGHT_TOKEN_FILE",
            "file with a client's token"),
    Setting("ca", "client.ca", "", "FORMWRIGHT_CA",
            "file of who signed the server's certificate; empty: whom this machine trusts"),
    Setting("client_certificate", "client.certificate", "", "FORMWRIGHT_CLIENT_CERTIFICATE",
            "file with a client's certificate, for servers that ask for one"),
    Setting("client_key", "client.key", "", "FORMWRIGHT_CLIENT_KEY",
            "file with the key of a client's certificate"),
    Setting("output", "client.output", "table", "FORMWRIGHT_OUTPUT",
            "how commands print what they list", choices=FORMATS),
    Setting("database", "serve.database", "formwright.db", "FORMWRIGHT_DATABASE",
            "SQLite file or URL of the searches"),
    Setting("host", "serve.host", "127.0.0.1", "FORMWRIGHT_HOST",
            "address that a server listens on"),
    Setting("port", "serve.port", PORT, "FORMWRIGHT_PORT",
            "port that a server listens on; 0 takes a free one", lowest=0, highest=65535),
    Setting("certificate", "serve.certificate", "", "FORMWRIGHT_CERTIFICATE",
            "file with a server's certificate; empty: without TLS, for this machine only"),
    Setting("key", "serve.key", "", "FORMWRIGHT_KEY",
            "file with the key of a server's certificate"),
    Setting("client_ca", "serve.client_ca", "", "FORMWRIGHT_CLIENT_CA",
            "file of who signs certificates of clients; empty: they need none"),
    Setting("tokens", "serve.tokens", "auto", "FORMWRIGHT_TOKENS",
            "who has to show a token; auto: whoever is not on this machine",
            choices=("auto", "always")),
    Setting("rate", "serve.rate", 500.0, "FORMWRIGHT_RATE",
            "calls a second of one token, twice as many at once; 0: any number", lowest=0),
    Setting("at_once", "serve.at_once", 200, "FORMWRIGHT_AT_ONCE",
            "calls and watches of one token at the same time; 0: any number", lowest=0),
    Setting("web", "serve.web", "", "FORMWRIGHT_WEB",
            "where a page shows searches in a browser, `PORT` or `HOST:PORT`; empty: nowhere"),
    Setting("workers", "serve.workers", 2, "FORMWRIGHT_WORKERS",
            "worker processes of Ray; 0: without Ray", lowest=0),
    Setting("ray", "serve.ray", "", "FORMWRIGHT_RAY",
            "address of a Ray cluster; empty: one is started"),
    Setting("log_format", "serve.log_format", "text", "FORMWRIGHT_LOG_FORMAT",
            "how servers and schedulers log on standard error", choices=LOG_FORMATS),
    Setting("log_level", "serve.log_level", "warning", "FORMWRIGHT_LOG_LEVEL",
            "from which level on they log; info has a line for each call", choices=LOG_LEVELS),
    Setting("retention_days", "serve.retention_days", 0.0, "FORMWRIGHT_RETENTION_DAYS",
            "days after which a search that has ended is removed; 0: never", lowest=0,
            highest=36500),
    # read elsewhere; here for whoever looks for them
    Setting("config", "", "", "FORMWRIGHT_CONFIG",
            "the file with settings, instead of those that are looked for"),
    Setting("cache", "", "", "FORMWRIGHT_CACHE_DIR",
            "folder of trainings that go on and of latencies; empty: in the user's cache"),
    Setting("quiet", "", "", "FORMWRIGHT_QUIET_DIR",
            "folder of the locks that keep a machine quiet; empty: among temporary files"),
    Setting("dump", "", "", "FORMWRIGHT_DUMP",
            "folder where the compiler writes each graph; empty: nowhere"),
)
# fmt: on

SETTINGS = {row.name: row for row in _ROWS}


@dataclass(frozen=True)
class Settings:
    """`database` is the path of an SQLite file or an SQLAlchemy URL; `port` 0 takes a free one;
    `workers` are Ray processes, and with 0 the scheduler evaluates in its own process; `ray` is
    the address of a cluster (none: one is started here). `with_parent` ends the server when its
    standard input closes, so that it does not outlive whoever started it. The rest as in the table
    above."""

    database: str = "formwright.db"
    host: str = "127.0.0.1"
    port: int = PORT
    workers: int = 2
    ray: str | None = None
    with_parent: bool = False
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    tokens: str = "auto"
    rate: float = 0.0
    at_once: int = 0
    web: str = ""
    retention_days: float = 0.0


def with_port(server: str) -> str:
    """`host:port`, with our own port where none is given; gRPC would take 443.

    >>> with_port("localhost"), with_port("10.0.0.1:8000"), with_port("[::1]"), with_port("::1")
    ('localhost:50551', '10.0.0.1:8000', '[::1]:50551', '[::1]:50551')
    """
    if server.count(":") > 1 and "[" not in server and "/" not in server:
        server = f"[{server}]"  # an address of IPv6
    has_port = server.rpartition("]")[2].count(":") == 1
    return server if has_port or "/" in server else f"{server}:{PORT}"


def server_address() -> str:
    """Where clients look for a server: by the environment, the file, or on this machine. Raises
    SettingError."""
    from .configured import resolve  # it reads the table above

    return with_port(str(resolve(SETTINGS["server"]).value))
