"""REST and WebSocket over the engine port, on the event loop that everything else runs on too."""

from service.transport.rest.app import create_app, open_to_pages
from service.transport.rest.videos import VideoBounds

__all__ = ["VideoBounds", "create_app", "open_to_pages"]
