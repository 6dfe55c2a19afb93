"""gRPC over the Engine port: s2spp.v1.Segmentation, health checking and server reflection."""

from service.transport.grpc.server import GrpcServer, start_grpc

__all__ = ["GrpcServer", "start_grpc"]
