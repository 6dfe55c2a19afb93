"""The one table error class -> gRPC status, and the google.rpc.Status that tells it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service.core.errors import (
    FrameAcknowledged,
    FrameDropped,
    FrameGap,
    IdempotencyKeyInUse,
    InvalidInput,
    ModelMismatch,
    Overloaded,
    OwnershipLost,
    S2sppError,
    SessionExpired,
    SessionRolledBack,
    SessionUnknown,
    SnapshotDamaged,
    Unavailable,
)

log = logging.getLogger(__name__)

DOMAIN = "s2spp.dev"
"""The `domain` of every ErrorInfo."""

STATUS_CODES: Mapping[type[S2sppError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    IdempotencyKeyInUse: grpc.StatusCode.ABORTED,
    SessionUnknown: grpc.StatusCode.NOT_FOUND,
    SessionExpired: grpc.StatusCode.NOT_FOUND,
    FrameAcknowledged: grpc.StatusCode.ALREADY_EXISTS,
    FrameGap: grpc.StatusCode.OUT_OF_RANGE,
    FrameDropped: grpc.StatusCode.CANCELLED,
    OwnershipLost: grpc.StatusCode.ABORTED,
    SessionRolledBack: grpc.StatusCode.DATA_LOSS,
    SnapshotDamaged: grpc.StatusCode.DATA_LOSS,
    ModelMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    S2sppError: grpc.StatusCode.INTERNAL,
}
"""A class that has no row of its own has its nearest ancestor's."""


def status_code(error: S2sppError) -> grpc.StatusCode:
    return next(STATUS_CODES[ancestor] for ancestor in type(error).__mro__ if ancestor in STATUS_CODES)


def status_of(error: Exception) -> status_pb2.Status:
    """What the caller is told. An error that is none of ours is logged with its traceback and
    told as INTERNAL, no more: its text may name files, addresses or other callers."""
    if not isinstance(error, S2sppError):
        log.error("unexpected error while answering a call", exc_info=error)
        error = S2sppError("internal error; the server's log says more")
    status = status_pb2.Status(code=status_code(error).value[0], message=error.message)
    _add_detail(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(timedelta(seconds=error.retry_after_s))
        _add_detail(status, retry)
    return status


def _add_detail(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)
