"""What is no error of the caller's: logged in full for the operator, told in one sentence."""

from __future__ import annotations

import logging

from service.core.errors import S2sppError

_log = logging.getLogger(__name__)


def told(error: Exception, doing: str) -> S2sppError:
    """`error` itself when a caller may see it, else an INTERNAL one; `doing` says what went wrong."""
    if isinstance(error, S2sppError):
        return error
    _log.error("unexpected error while %s", doing, exc_info=error)
    return S2sppError(f"internal error while {doing}; nothing was changed, and the server's log says more")
