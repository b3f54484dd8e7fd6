"""The command line client in a pseudo-terminal, as a person uses it."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

from harness import BIN, clean_environment


# Makes stdin the terminal whose Ctrl-C reaches the process, and becomes the program. Not preexec_fn, which forks with
# gRPC's threads in the middle of something.
TAKE_TERMINAL = """import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])"""


class Terminal:
    """The client in a pseudo-terminal of a given size."""

    def __init__(self, *arguments, rows=24, columns=80, env=None):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        command = [sys.executable, "-c", TAKE_TERMINAL, str(BIN / "cadre"), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        env={**clean_environment(), "TERM": "xterm", **(env or {})})
        os.close(slave)
        self.output, self.position = "", 0

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, pattern, timeout=10):
        """Reads until `pattern` is found behind the match before; returns the match."""
        end = time.monotonic() + timeout
        compiled = re.compile(pattern)
        while not (match := compiled.search(self.output, self.position)):
            left = end - time.monotonic()
            if left <= 0 or not self._read(min(left, 0.1)):
                raise AssertionError(f"{pattern!r} did not come:\n{self.output[self.position:]!r}")
        self.position = match.end()
        return match

    def _read(self, timeout):
        """False at the end of the output."""
        if not select.select([self.master], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:
            data = b""
        self.output += data.decode("utf-8", "replace")
        return bool(data)

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self, timeout=10):
        try:
            code = self.process.wait(timeout)
        finally:
            self.process.kill()
        while select.select([self.master], [], [], 0)[0] and self._read(0):
            pass
        os.close(self.master)
        return code
