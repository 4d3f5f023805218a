"""What can go wrong, for users of the service: the same exceptions in the server and the client.

    FormwrightError
    └── ServiceError
        ├── InvalidRequest       what was asked makes no sense; `field` says where
        │   └── OutOfRange           it asks for what lies behind the end
        ├── NotFound             no such search or architecture
        ├── AlreadyExists        the request id was used for something else
        ├── Stale                somebody else has changed it meanwhile
        ├── NotAllowed           the search is in a state that does not permit it
        ├── Unauthenticated      no token, or one that is not valid
        ├── Forbidden            the token is for less than that
        ├── TooMany              more calls than one client may make; later they pass
        ├── Failed               what was to be made cannot be made
        ├── Unavailable          the server cannot be reached
        │   ├── Stopping             it is about to stop
        │   └── TooLate              it has worked on a call for as long as it may
        ├── InternalError        the server failed; its log has the rest under the id shown
        │   └── DatabaseError        its database did: it may answer again
        ├── SetupError           the server cannot start: port, database, or its version
        └── SettingError         a setting of the environment or the file that cannot be

It must not know grpc: `status.py` holds the table that maps these to status codes.
"""

from __future__ import annotations

from ..errors import FormwrightError


class ServiceError(FormwrightError):
    """Whatever the service raises on purpose."""


class InvalidRequest(ServiceError, ValueError):
    """What was asked makes no sense. `field` is the path of what is wrong, if one is."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class OutOfRange(InvalidRequest):
    """It asks for what lies behind the end."""


class NotFound(ServiceError, LookupError):
    """No such search, trial, architecture or artefact."""


class AlreadyExists(ServiceError):
    """The request id was used before, for something else."""


class NotAllowed(ServiceError):
    """What it is about is in a state that does not permit it."""


class Stale(ServiceError):
    """It is not what it was when the caller looked: read it again."""


class Unauthenticated(ServiceError):
    """There is no token, or it is not valid, has expired or was revoked."""


class Forbidden(ServiceError):
    """The scope of the token does not include that."""


class TooMany(ServiceError):
    """One client has made more calls than it may. Nothing was done; later it will be."""


class Failed(ServiceError):
    """What was to be made cannot be made: the message says why."""


class Unavailable(ServiceError, ConnectionError):
    """The server cannot be reached."""


class Stopping(Unavailable):
    """The server is about to stop."""


class TooLate(Unavailable):
    """A call without a deadline has taken as long as a server works on one."""


class InternalError(ServiceError):
    """The server failed. Its log has the reason."""


class DatabaseError(InternalError):
    """The database failed; it may answer again."""


class SetupError(ServiceError):
    """The server cannot start here: the port, the database, or the version of the database."""


class SettingError(ServiceError, ValueError):
    """A setting, where it was found, and what it may be."""
