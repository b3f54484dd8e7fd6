"""A headless Chromium, spoken to by its DevTools protocol: JSON over a WebSocket, both in plain Python."""

import base64
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class WebSocket:
    """Text frames of a client, RFC 6455: enough for a server that sends no fragments, which Chromium does not."""

    def __init__(self, host, port, path):
        self.socket = socket.create_connection((host, port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
                             f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        self.stream = self.socket.makefile("rb")
        if b" 101 " not in self.stream.readline():
            raise RuntimeError("Chromium refused the WebSocket")
        while self.stream.readline().strip():
            pass

    def send(self, text):
        payload = text.encode()
        length = len(payload)
        head = (struct.pack("!BB", 0x81, 0x80 | length) if length < 126 else
                struct.pack("!BBH", 0x81, 0x80 | 126, length) if length < 65536 else
                struct.pack("!BBQ", 0x81, 0x80 | 127, length))
        self.socket.sendall(head + bytes(4) + payload)  # a mask of zeros

    def receive(self):
        while True:
            first, second = self.stream.read(2)
            length = second & 0x7f
            if length == 126:
                length = struct.unpack("!H", self.stream.read(2))[0]
            elif length == 127:
                length = struct.unpack("!Q", self.stream.read(8))[0]
            payload = self.stream.read(length)
            if first & 0x0f == 1:
                return payload.decode()

    def close(self):
        self.stream.close()
        self.socket.close()


class Browser:
    """One page. What it logs as an error, and every address that it asks for, is kept."""

    def __init__(self, width=1200, height=900):
        self.folder = tempfile.TemporaryDirectory(prefix="cadre-chromium-", ignore_cleanup_errors=True)
        self.log = open(pathlib.Path(self.folder.name) / "log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-extensions",
             "--remote-debugging-port=0", f"--user-data-dir={self.folder.name}", f"--window-size={width},{height}",
             "about:blank"], stdout=self.log, stderr=subprocess.STDOUT,
            env={**os.environ, "HOME": self.folder.name})
        self.errors, self.addresses, self.last_id = [], [], 0
        port = self._port()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self.socket = WebSocket("127.0.0.1", port, page["webSocketDebuggerUrl"].split(str(port), 1)[1])
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _port(self):
        file = pathlib.Path(self.folder.name) / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text(encoding="utf-8").count("\n")):
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                raise RuntimeError(f"Chromium did not start:\n{self.log.read()}")
            time.sleep(0.1)
        return int(file.read_text(encoding="utf-8").split()[0])

    def call(self, method, **parameters):
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.receive())
            if message.get("id") == self.last_id:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message):
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"].get("text", "") + str(
                parameters["exceptionDetails"].get("exception", {}).get("description", "")))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif message.get("method") == "Network.requestWillBeSent":
            self.addresses.append(parameters["request"]["url"])

    def open(self, address):
        self.call("Page.navigate", url=address)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_for(self, expression, timeout=30):
        """The value of the expression once it is true."""
        end = time.monotonic() + timeout
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise AssertionError(f"{expression} is {value!r} after {timeout} s; errors: {self.errors}")
            time.sleep(0.1)
        return value

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            text = key if len(key) == 1 and kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text)

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.folder.cleanup()
