#!/usr/bin/env python3
"""Compares what a stream of JetStream has with what clients heard was stored.

    stream_check.py PORT STREAM ACKNOWLEDGED

ACKNOWLEDGED has a line "session number" for each acknowledged message, in the order of each session. A payload is
"session number". Everything acknowledged must be in the stream, once, and each session in its order.
"""

import json
import socket
import sys


class Nats:
    """As much of the protocol as it takes to read a stream."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")
        assert self.file.readline().startswith(b"INFO ")
        self.send(b'CONNECT {"verbose":false,"headers":true}\r\nSUB answers 1\r\nSUB messages 2\r\n')

    def send(self, data):
        self.socket.sendall(data)

    def message(self):
        while True:
            words = self.file.readline().split()
            if not words:
                raise EOFError("NATS closed the connection")
            if words[0] == b"PING":
                self.send(b"PONG\r\n")
            elif words[0] == b"MSG":
                return words[2], self.body(int(words[-1]))
            elif words[0] == b"HMSG":
                head, length = int(words[-2]), int(words[-1])
                return words[2], self.body(length)[head:]

    def body(self, length):
        return self.file.read(length + 2)[:-2]

    def ask(self, subject, question):
        question = json.dumps(question).encode()
        self.send(b"PUB %s answers %d\r\n%s\r\n" % (subject.encode(), len(question), question))
        while True:
            place, answer = self.message()
            if place == b"1":
                answer = json.loads(answer)
                assert "error" not in answer, answer
                return answer


def payloads(port, stream):
    nats = Nats(port)
    state = nats.ask(f"$JS.API.STREAM.INFO.{stream}", {})["state"]
    consumer = {"deliver_subject": "messages", "deliver_policy": "all", "ack_policy": "none"}
    question = {"stream_name": stream, "config": consumer}
    question = json.dumps(question).encode()
    subject = f"$JS.API.CONSUMER.CREATE.{stream}".encode()
    nats.send(b"PUB %s answers %d\r\n%s\r\n" % (subject, len(question), question))
    found = []
    while len(found) < state["messages"]:
        place, data = nats.message()
        if place == b"2":
            found.append(data.decode())
        else:
            assert b'"error"' not in data, data
    return found


def main():
    port, stream, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    found = payloads(port, stream)
    place = {payload: index for index, payload in enumerate(found)}
    with open(path, encoding="ascii") as file:
        acknowledged = file.read().splitlines()
    missing = [line for line in acknowledged if line not in place]
    doubled = len(found) - len(place)
    disordered, last = 0, {}
    for payload in found:
        session, number = payload.rsplit(" ", 1)
        disordered += int(number) < last.get(session, -1)
        last[session] = int(number)
    print(json.dumps({"stored": len(found), "acknowledged": len(acknowledged), "missing": len(missing),
                      "doubled": doubled, "disordered": disordered, "example": missing[:3]}))


if __name__ == "__main__":
    main()
