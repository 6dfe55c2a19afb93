"""HTTP without an API: a server on the running event loop, problem documents, and what a worker is watched by."""

from service.transport.http.operations import create_operations_app
from service.transport.http.server import HttpServer, start_http
from service.transport.http.stopping import Stopping

__all__ = ["HttpServer", "Stopping", "create_operations_app", "start_http"]
