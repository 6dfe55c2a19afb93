"""REST and WebSocket over the engine port, on the event loop that everything else runs on too."""

from service.transport.rest.app import create_app, create_operations_app, open_to_pages
from service.transport.rest.server import RestServer, start_rest
from service.transport.rest.stopping import Stopping
from service.transport.rest.videos import VideoBounds

__all__ = [
    "RestServer",
    "Stopping",
    "VideoBounds",
    "create_app",
    "create_operations_app",
    "open_to_pages",
    "start_rest",
]
