"""Clients that are gone: a thousand connections, each with a request, that end with a reset or an orderly close, and
clients that send half a request. HTTP/2 is spoken by hand: no library breaks off like that."""

import resource
import socket
import struct
import time
import unittest

import grpc
from harness import Server, generation

NUM_CONNECTIONS = 1000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header field without indexing, with a new name (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call(message, whole=True):
    """A call of Generate, up to its whole message or only half of it."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/cadre.v1.GenerationService/Generate"),
              (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")]
    headers = frame(HEADERS, END_HEADERS, 1, b"".join(literal(*field) for field in fields))
    body = b"\x00" + struct.pack(">I", len(message)) + message
    data = frame(DATA, END_STREAM, 1, body) if whole else frame(DATA, 0, 1, body[:len(body) // 2])
    return PREFACE + frame(SETTINGS, 0, 0, b"") + headers + data


def request():
    made = generation.GenerateRequest()
    made.token_ids.ids.extend([1, 2, 3, 4])
    made.stopping.max_tokens = 4000
    made.stopping.ignore_eos = True
    return made.SerializeToString()


def connect(server, bytes_to_send):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    connection.sendall(bytes_to_send)
    return connection


def read_until(connection, text):
    received = b""
    while text not in received:
        more = connection.recv(65536)
        if not more:
            raise AssertionError(f"the connection ended without {text}: {received}")
        received += more


class DisconnectTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # For this process and the servers that it starts.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 4096 else 4096, hard))

    def server(self, *flags):
        return Server(*flags, "--max-num-seqs", 32, "--max-queue-requests", 2 * NUM_CONNECTIONS,
                      "--deadline-admission", "off", model="sim:step_ms=20,max_len=8192,blocks=40000")

    def in_flight(self, server):
        return server.metric("cadre_requests_running") + server.metric("cadre_requests_waiting")

    def wait_for(self, condition, timeout=20):
        end = time.monotonic() + timeout
        while not condition():
            self.assertLess(time.monotonic(), end, "waited for too long")
            time.sleep(0.05)

    def leave(self, close):
        with self.server() as server:
            connections = [connect(server, call(request())) for _ in range(NUM_CONNECTIONS)]
            self.wait_for(lambda: self.in_flight(server) == NUM_CONNECTIONS)
            for connection in connections:
                close(connection)
            self.wait_for(lambda: self.in_flight(server) == 0)
            self.assertEqual(server.metric("cadre_kv_blocks", state="in_use"), 0)
            self.assertEqual(server.metric("cadre_requests_finished_total", outcome="cancelled"), NUM_CONNECTIONS)
            self.answers(server)

    def answers(self, server):
        short = generation.GenerateRequest()
        short.token_ids.ids.extend([5, 6])
        short.stopping.max_tokens = 3
        events = list(server.generation.Generate(short, timeout=10))
        self.assertTrue(events[-1].HasField("finished"))

    def test_a_thousand_resets(self):
        def reset(connection):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        self.leave(reset)

    def test_a_thousand_closes(self):
        self.leave(lambda connection: connection.close())

    def test_who_answers_no_ping_is_gone_and_who_is_idle_is_not(self):
        with self.server() as server:
            states = []
            server.channel.subscribe(states.append)
            silent = connect(server, call(request()))
            self.wait_for(lambda: self.in_flight(server) == 1)
            begin = time.monotonic()
            self.wait_for(lambda: self.in_flight(server) == 0, timeout=60)
            self.assertGreater(time.monotonic() - begin, 10, "not for the lack of an answer to a ping")
            self.assertEqual(server.metric("cadre_requests_finished_total", outcome="cancelled"), 1)
            self.assertNotIn(grpc.ChannelConnectivity.TRANSIENT_FAILURE, states)
            self.assertEqual(states[-1], grpc.ChannelConnectivity.READY)
            self.answers(server)
            silent.close()

    def test_half_a_request_has_an_end(self):
        with self.server("--request-timeout", "2s") as server:
            halves = [connect(server, call(request(), whole=False)) for _ in range(200)]
            time.sleep(0.5)
            self.assertEqual(self.in_flight(server), 0)
            self.assertEqual(server.metric("cadre_requests_received_total"), 0)
            self.answers(server)
            self.wait_for(lambda: server.metric("cadre_requests_rejected_total", reason="deadline") == len(halves))
            for half in halves:
                half.settimeout(5)
                read_until(half, b"not come whole")
                half.close()
            self.answers(server)
            # Nothing is left that draining would have to wait for.
            begin = time.monotonic()
            server.process.terminate()
            self.assertEqual(server.process.wait(timeout=20), 0)
            self.assertLess(time.monotonic() - begin, 10)

    def test_nobody_waits_for_half_a_request_to_end_the_server(self):
        with self.server() as server:
            half = connect(server, call(request(), whole=False))
            time.sleep(0.5)
            begin = time.monotonic()
            server.process.terminate()
            self.assertEqual(server.process.wait(timeout=40), 0)
            self.assertLess(time.monotonic() - begin, 10)
            half.close()


if __name__ == "__main__":
    unittest.main()
