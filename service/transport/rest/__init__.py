"""REST and WebSocket over the engine port, on the event loop that everything else runs on too."""

from service.transport.rest.app import create_app, create_operations_app
from service.transport.rest.server import RestServer, start_rest
from service.transport.rest.videos import VideoBounds

__all__ = ["RestServer", "VideoBounds", "create_app", "create_operations_app", "start_rest"]
