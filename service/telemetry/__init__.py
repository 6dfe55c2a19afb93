"""Logs, metrics and traces. Rooms log through the standard library and tell an EngineObserver what happens; what
becomes of that is decided here. OpenTelemetry is known to `tracing` alone, which is imported where it is wanted."""

from service.telemetry.calls import CallRecorder
from service.telemetry.http import RecordedApp
from service.telemetry.logs import configure_logging
from service.telemetry.measured import MeasuredRuntime, MeasuredStore
from service.telemetry.metrics import Telemetry
from service.telemetry.rpc import RecordingInterceptor

__all__ = [
    "CallRecorder",
    "MeasuredRuntime",
    "MeasuredStore",
    "RecordedApp",
    "RecordingInterceptor",
    "Telemetry",
    "configure_logging",
]
