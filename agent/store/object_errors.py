"""What obstore's exceptions mean, in the store's own terms.

Their text carries whole responses and URLs. Only the status, the server's own code and message and
the kind of connection fault go on from here: nothing that could hold a signature or a token.
"""

from __future__ import annotations

import re

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from agent.errors import StoreFailed

# FileNotFoundError and a closing writer's errors are OSErrors; a bad option is a ValueError.
OBSTORE_ERRORS = (BaseError, OSError, ValueError)

_STATUS = re.compile(r"non-2xx status code: (\d{3}[ A-Za-z-]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})")
_FAULTS = (
    ("169.254.169.254", "no credentials in the environment or the profile, nor from this machine"),
    ("dns error", "the endpoint's name cannot be resolved"),
    ("onnectionRefused", "the endpoint refuses connections"),
    ("kind: Timeout", "the endpoint does not answer"),
    ("kind: Connect", "the endpoint cannot be connected to"),
    ("kind: Request", "the connection broke"),
    ("kind: Interrupted", "the connection broke"),
)


def store_failed(operation: str, url: str, error: Exception) -> StoreFailed:
    """The StoreFailed to raise in place of an obstore exception."""
    return StoreFailed(operation, url, _reason(error))


def is_code(error: Exception, code: str) -> bool:
    """Whether the server answered with this S3 error code."""
    found = _CODE.search(str(error))
    return found is not None and found[1] == code


def is_missing(error: Exception) -> bool:
    """Whether the object is what is missing, rather than its bucket."""
    return isinstance(error, FileNotFoundError) and not is_code(error, "NoSuchBucket")


def is_past_end(error: Exception) -> bool:
    """Whether a range was asked for that starts at or beyond the object's end."""
    return "status code: 416" in str(error)


def _reason(error: Exception) -> str:
    text = str(error)
    status, code, message = (found.search(text) for found in (_STATUS, _CODE, _MESSAGE))
    if status and code:
        return f"{code[1]}: {message[1]}" if message else code[1]
    for mark, reason in _FAULTS:
        if mark in text:
            return reason
    if status:
        return f"the server answered {status[1].strip()}"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return "access denied"
    return f"unexpected answer from the store ({type(error).__name__})"
