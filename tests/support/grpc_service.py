"""A gRPC service of the Mainflux family: knows clients and channels by their names, and says what it heard.

It has no message definitions but reads fields by their numbers, so that it shares nothing with the gateway.
`bad` in a question is a denial, `slow` waits until somebody asks about `go`, and an error has its status's name.
"""

import json
import sys
import threading
from concurrent import futures

import grpc


def fields(message):
    """Fields of a message by number: strings and integers."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 2:
            length = varint()
            found[str(key >> 3)] = message[at : at + length].decode()
            at += length
        else:
            found[str(key >> 3)] = varint()
    return found


class Service(grpc.GenericRpcHandler):
    def __init__(self):
        self.go = threading.Semaphore(0)
        self.say = threading.Lock()

    def service(self, details):
        path = details.method
        return grpc.unary_unary_rpc_method_handler(lambda message, context: self.answer(path, message, context))

    def answer(self, path, message, context):
        asked = fields(message)
        text = " ".join(str(value) for value in asked.values())
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        heard = {"path": path, "fields": asked, "metadata": metadata, "remaining": context.time_remaining()}
        with self.say:
            print(json.dumps(heard), flush=True)
        if "/go" in text:
            self.go.release()
        if "slow" in text:
            self.go.acquire()
        for code in grpc.StatusCode:
            if code is not grpc.StatusCode.OK and code.name in text:
                context.abort(code, "as told")
        if "bad" in text:
            if path == "/mainflux.ThingsService/CanAccessByID":
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not connected")
            return b""
        return b"" if path == "/mainflux.ThingsService/CanAccessByID" else b"\x08\x01"


def main():
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((service,))
    address = sys.argv[1]
    if len(sys.argv) > 2:
        certificate, key, authority = (open(name, "rb").read() for name in sys.argv[2:5])
        credentials = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    print(json.dumps({"port": port}), flush=True)
    server.wait_for_termination()


main()
