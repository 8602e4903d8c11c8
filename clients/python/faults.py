"""A gRPC proxy before a larder, which gives chosen keys a faulty server and counts every attempt.

It knows keys, not clients: a client of any language asks it as it would ask larder itself.
"""

import collections
import threading
from concurrent import futures

import grpc

from harness import CHANNEL_OPTIONS, PATIENCE_S, cache

SERVICE = cache.DESCRIPTOR.services_by_name["CacheService"].full_name

# What each key meets: a status, and how often before its calls go through.
ALWAYS = float("inf")
FAULTS = {
    b"unavailable-twice": (grpc.StatusCode.UNAVAILABLE, 2),
    b"not-found": (grpc.StatusCode.NOT_FOUND, ALWAYS),
    b"failed-precondition": (grpc.StatusCode.FAILED_PRECONDITION, ALWAYS),
}

# The methods that a client may call here, with the requests that name their key.
REQUESTS = {
    "Get": cache.GetRequest,
    "Set": cache.SetRequest,
    "Increment": cache.IncrementRequest,
}


class Faults(grpc.GenericRpcHandler):
    """The proxy. `attempts` holds, for each method and key, what its attempts said of themselves.

    That is the value of `grpc-previous-rpc-attempts` (gRFC A6), 0 for a first attempt.
    """

    def __init__(self, address: str):
        self.attempts: dict[tuple[str, bytes], list[int]] = collections.defaultdict(list)
        self._lock = threading.Lock()
        self._behind = grpc.insecure_channel(
            address, [*CHANNEL_OPTIONS, ("grpc.enable_retries", 0)]
        )
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Ends it at once."""
        self._server.stop(grace=None).wait(PATIENCE_S)
        self._behind.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Serves each method as bytes, but for the look at its key."""
        service, _, method = handler_call_details.method.removeprefix("/").partition("/")
        if service != SERVICE or method not in REQUESTS:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda message, context: self._answer(method, message, context)
        )

    def _answer(self, method: str, message: bytes, context: grpc.ServicerContext) -> bytes:
        key = REQUESTS[method].FromString(message).key
        metadata = dict(context.invocation_metadata())
        with self._lock:
            attempts = self.attempts[method, key]
            attempts.append(int(metadata.get("grpc-previous-rpc-attempts", 0)))
            code, times = FAULTS.get(key, (None, 0))
            is_faulty = len(attempts) <= times
        if is_faulty:
            context.abort(code, f"fault {len(attempts)} of {times}, as {key.decode()} asks for")
        try:
            return self._behind.unary_unary(f"/{SERVICE}/{method}")(message, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            context.set_trailing_metadata(error.trailing_metadata())
            context.abort(error.code(), error.details())
