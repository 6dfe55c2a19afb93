"""The composition root: the one place where settings become parts and parts are wired."""

from service.bootstrap.forms import gateway, serve, work
from service.bootstrap.parts import FRAMES_IN_A_RUN, CannotServe, build_engine, load_runtime
from service.bootstrap.process import run

__all__ = ["FRAMES_IN_A_RUN", "CannotServe", "build_engine", "gateway", "load_runtime", "run", "serve", "work"]
