"""A gRPC service and its client: `server ADDRESS` says its port, `client ADDRESS AUTHORITY` says `ok` at the end.

Messages are bytes, so that no compiler for them is needed.
"""

import queue
import sys
import threading
from concurrent import futures

import grpc


class Service(grpc.GenericRpcHandler):
    def __init__(self):
        self.ended = threading.Event()

    def service(self, details):
        return {
            "/test.Echo/One": grpc.unary_unary_rpc_method_handler(self.one),
            "/test.Echo/Many": grpc.unary_stream_rpc_method_handler(self.many),
            "/test.Echo/Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "/test.Echo/Each": grpc.stream_stream_rpc_method_handler(self.each),
            "/test.Echo/Wait": grpc.unary_stream_rpc_method_handler(self.wait),
            "/test.Echo/Ended": grpc.unary_unary_rpc_method_handler(self.has_ended),
        }.get(details.method)

    def one(self, message, context):
        asked = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-begun", asked["x-asked"])])
        context.set_trailing_metadata([("x-done", "yes"), ("x-bytes-bin", b"\x00\xff")])
        if message == b"bad":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as told: ü")
        return message

    def many(self, message, context):
        for number in range(int(message)):
            yield b"%d" % number

    def sum(self, messages, context):
        return b"%d" % sum(len(message) for message in messages)

    def each(self, messages, context):
        yield from messages

    def wait(self, message, context):
        context.add_callback(self.ended.set)
        yield b"begun"
        self.ended.wait()

    def has_ended(self, message, context):
        return b"yes" if self.ended.wait(20) else b"no"


def serve(address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Service(),))
    port = server.add_insecure_port(address)
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def expect(is_true, what):
    if not is_true:
        sys.exit(f"not so: {what}")


def ask(address, authority):
    credentials = grpc.ssl_channel_credentials(open(authority, "rb").read())
    with grpc.secure_channel(address, credentials) as channel:
        ask_once(channel)
        ask_in_streams(channel)
        ask_each(channel)
        give_up(channel)
    print("ok", flush=True)


def ask_once(channel):
    one = channel.unary_unary("/test.Echo/One")
    answer, call = one.with_call(b"hi", metadata=[("x-asked", "1")], timeout=20)
    expect(answer == b"hi", "the answer comes back")
    expect(("x-begun", "1") in call.initial_metadata(), "metadata come first")
    trailing = dict(call.trailing_metadata())
    expect(trailing == {"x-done": "yes", "x-bytes-bin": b"\x00\xff"}, f"metadata come last: {trailing}")
    for path, message, code, details in [
        ("/test.Echo/One", b"bad", grpc.StatusCode.FAILED_PRECONDITION, "as told: ü"),
        ("/test.Echo/Other", b"", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
        ("/other.Echo/One", b"", grpc.StatusCode.PERMISSION_DENIED, None),
    ]:
        try:
            channel.unary_unary(path)(message, metadata=[("x-asked", "1")], timeout=20)
            expect(False, f"{path} is refused")
        except grpc.RpcError as error:
            expect(error.code() == code, f"{path}: {error}")
            expect(details is None or error.details() == details, f"{path}: {error}")


def ask_in_streams(channel):
    many = [int(message) for message in channel.unary_stream("/test.Echo/Many")(b"1000", timeout=20)]
    expect(many == list(range(1000)), "a stream comes whole and in order")
    sent = (b"x" * 10_000 for _ in range(20))
    expect(channel.stream_unary("/test.Echo/Sum")(sent, timeout=20) == b"200000", "a stream goes whole")


def ask_each(channel):
    """Each message is sent when the answer to the one before is there."""
    messages = queue.Queue()
    answers = channel.stream_stream("/test.Echo/Each")(iter(messages.get, None), timeout=20)
    for number in range(50):
        messages.put(b"%d" % number)
        expect(next(answers) == b"%d" % number, "answers come at once")
    messages.put(None)
    expect(list(answers) == [], "the end comes through")


def give_up(channel):
    call = channel.unary_stream("/test.Echo/Wait")(b"", timeout=20)
    expect(next(call) == b"begun", "it begins")
    call.cancel()
    expect(channel.unary_unary("/test.Echo/Ended")(b"", timeout=20) == b"yes", "the server hears of the end")


if sys.argv[1] == "server":
    serve(sys.argv[2])
else:
    ask(sys.argv[2], sys.argv[3])
