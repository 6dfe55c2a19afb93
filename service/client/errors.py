"""From a status back to the error class that it was made of."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from s2spp.v1 import segmentation_pb2 as pb
from service.core.errors import InputTooLarge, S2sppError, Unavailable, error_from_reason, error_of_frame


def error_from_status(status: status_pb2.Status) -> S2sppError:
    """The class is named by the reason in the status's ErrorInfo."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return error_from_reason(info.reason, status.message, dict(info.metadata))
    return S2sppError(status.message)


def error_from_frame(answer: pb.FrameError) -> S2sppError:
    return error_of_frame(error_from_status(answer.status), answer.frame_index)


def error_from_call(error: grpc.RpcError, target: str) -> S2sppError:
    """A call's own failure. Without details it is gRPC's: nobody answered, or the message did not fit."""
    status = rpc_status.from_call(error)
    if status is not None:
        return error_from_status(status)
    code, said = error.code(), error.details()
    # CANCELLED comes from a server that is stopping: nobody waits for a call that the SDK has cancelled.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        advice = "start one with `s2spp serve`, or check the address, host:port"
        if "HTTP/2" in (said or ""):  # whoever speaks HTTP/1 there is most often our own other port
            advice = "give the port of its gRPC (50051), not that of REST"
        return Unavailable(f"cannot reach an s2spp server at {target} ({said}); {advice}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"no answer from {target} in time ({said}); try again, or allow a longer timeout_s")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return InputTooLarge(
            f"{target} takes no message this large ({said}); send smaller frames, or arrays with jpeg_quality=90"
        )
    return S2sppError(f"{target} answered {code.name}: {said}")
