"""REST and WebSocket over the engine port, on the event loop that everything else runs on too."""

from service.transport.rest.app import create_app
from service.transport.rest.server import running_rest

__all__ = ["create_app", "running_rest"]
