"""One call, as its metrics, its log line and its span see it."""

from __future__ import annotations

from dataclasses import dataclass, field

OTHER = "other"
"""The route of what no route takes: paths are the callers' and without number, labels must not be."""


@dataclass
class CallRecord:
    """What the transport's side fills in until the call has ended."""

    request: str
    name: str
    """Of the span."""
    route: str = OTHER
    status: str = "none"
    """As the transport says it; it stays "none" where the caller left before an answer."""
    failed: bool = False
    """By the server's own fault."""
    attributes: dict[str, str | int] = field(default_factory=dict)
    """Of the span."""
