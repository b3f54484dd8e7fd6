"""TLS and client certificates on the gRPC port, against a real server process: who gets a connection, and that
certificates change under load without a failed request."""

import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

from dashboard_test import TLS_ALERT, rule_expressions
from harness import BIN, Completion, Server, clean_environment, generation_grpc, models, models_grpc, request
from prometheus import Prometheus


def run_openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder, name):
        self.folder, self.name, self.count = folder, name, 0
        self.cert, self.key = folder / f"{name}.crt", folder / f"{name}.key"
        run_openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.cert)

    def issue(self, subject):
        """Paths of a new certificate for the loopback interface, and of its key."""
        self.count += 1
        stem = self.folder / f"{self.name}-{subject}-{self.count}"
        cert, key, asked, names = (stem.with_suffix(end) for end in (".crt", ".key", ".csr", ".ext"))
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        run_openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={subject}",
                    "-keyout", key, "-out", asked)
        run_openssl("x509", "-req", "-in", asked, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", "2",
                    "-extfile", names, "-out", cert)
        return cert, key


class TlsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cadre-tls-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.authority = Authority(self.folder, "one")
        self.cert, self.key = self.folder / "server.crt", self.folder / "server.key"
        self.install(self.authority.issue("server"))

    def install(self, pair):
        """Puts a certificate and its key where the server looks for them, one after the other."""
        for source, target in zip(pair, (self.cert, self.key)):
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.chmod(0o600)
            new.rename(target)

    def start(self, *flags, model="sim"):
        server = Server("--tls-cert", self.cert, "--tls-key", self.key, *flags, model=model, wait=False)
        self.addCleanup(server.stop)
        end = time.monotonic() + 60
        while "ready: " not in server.log_text() or server.metric("cadre_ready") != 1:
            self.assertLess(time.monotonic(), end, server.log_text())
            self.assertIsNone(server.process.poll(), server.log_text())
            time.sleep(0.05)
        return server

    def channel(self, server, authority=None, pair=None):
        cert, key = pair or (None, None)
        credentials = grpc.ssl_channel_credentials(
            (authority or self.authority).cert.read_bytes(), key and key.read_bytes(), cert and cert.read_bytes())
        # A connection of its own: channels of the same credentials would share theirs.
        channel = grpc.secure_channel(server.address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        return channel

    def code(self, channel):
        try:
            models_grpc.ModelServiceStub(channel).GetModel(models.GetModelRequest(), timeout=5)
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    def wait_for_reloads(self, server, result, count):
        end = time.monotonic() + 15
        while server.metric("cadre_file_reloads_total", file="tls", result=result) < count:
            self.assertLess(time.monotonic(), end, server.log_text())
            time.sleep(0.05)

    def test_only_who_trusts_the_authority_connects(self):
        server = self.start()
        self.assertGreater(server.metric("cadre_tls_certificate_expiry_timestamp_seconds"), time.time())
        self.assertEqual(self.code(self.channel(server)), "OK")
        self.assertEqual(self.code(self.channel(server, authority=Authority(self.folder, "other"))), "UNAVAILABLE")
        plain = grpc.insecure_channel(server.address)
        self.addCleanup(plain.close)
        self.assertEqual(self.code(plain), "UNAVAILABLE")

    @unittest.skipUnless(shutil.which("prometheus"), "prometheus is not installed")
    def test_the_alert_sees_a_certificate_of_two_days(self):
        server = self.start(model="sim:layers=1")  # as many lines as a scrape may have
        prometheus = Prometheus(server.metrics_port)
        self.addCleanup(prometheus.stop)
        prometheus.wait_for('up{job="cadre"}', 1)
        found = prometheus.query(dict(rule_expressions())[TLS_ALERT])
        self.assertEqual(len(found), 1)
        self.assertAlmostEqual(found[0][1], 2 * 86400, delta=600)

    def test_versions_before_1_2_are_refused(self):
        server = self.start()

        def handshake(version):
            context = ssl.create_default_context(cafile=str(self.authority.cert))
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.set_alpn_protocols(["h2"])
            context.minimum_version = context.maximum_version = version
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
                with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                    return wrapped.version()

        self.assertEqual(handshake(ssl.TLSVersion.TLSv1_2), "TLSv1.2")
        self.assertEqual(handshake(ssl.TLSVersion.TLSv1_3), "TLSv1.3")
        with self.assertRaises(ssl.SSLError) as caught:
            handshake(ssl.TLSVersion.TLSv1_1)
        # By the server, which closes the connection; not by this side, as "no protocols available" would be.
        self.assertRegex(str(caught.exception), "EOF|PROTOCOL_VERSION")

    def test_clients_show_a_certificate_of_the_right_authority(self):
        clients = Authority(self.folder, "clients")
        server = self.start("--tls-client-ca", clients.cert)
        self.assertEqual(self.code(self.channel(server)), "UNAVAILABLE")
        self.assertEqual(self.code(self.channel(server, pair=clients.issue("app"))), "OK")
        self.assertEqual(self.code(self.channel(server, pair=self.authority.issue("app"))), "UNAVAILABLE")

    def test_keys_are_asked_for_under_tls_too(self):
        keys = self.folder / "keys"
        keys.write_text("alice generation alice-0123456789abcdef\n")
        keys.chmod(0o600)
        server = self.start("--api-keys-file", keys)
        self.assertEqual(self.code(self.channel(server)), "UNAUTHENTICATED")
        answer = models_grpc.ModelServiceStub(self.channel(server)).GetModel(
            models.GetModelRequest(), metadata=[("authorization", "Bearer alice-0123456789abcdef")], timeout=5)
        self.assertEqual(answer.model.name, "sim")

    def test_the_command_line_client_speaks_tls_and_shows_its_key(self):
        clients = Authority(self.folder, "clients")
        cert, key = clients.issue("app")
        keys, mine, wrong = (self.folder / name for name in ("keys", "mine", "wrong"))
        keys.write_text("alice generation alice-0123456789abcdef\n")
        keys.chmod(0o600)
        mine.write_text("alice-0123456789abcdef\n")
        wrong.write_text("alice-0123456789abcdeF\n")
        server = self.start("--tls-client-ca", clients.cert, "--api-keys-file", keys)
        tls = ["--tls-ca", self.authority.cert, "--tls-cert", cert, "--tls-key", key]

        def cadre(*arguments, **environment):
            settings = {name: str(value) for name, value in environment.items()}
            done = subprocess.run([str(BIN / "cadre"), "--address", server.address, *map(str, arguments)], text=True,
                                  capture_output=True, timeout=30, check=False,
                                  env={**clean_environment(), **settings})
            return done.returncode, done.stdout + done.stderr

        self.assertEqual(cadre(*tls, "health"), (0, "SERVING\n"))
        self.assertEqual(cadre("health", CADRE_TLS_CA=self.authority.cert, CADRE_TLS_CERT=cert, CADRE_TLS_KEY=key),
                         (0, "SERVING\n"))
        self.assertEqual(cadre("--tls-ca", self.authority.cert, "health")[0], 69)
        self.assertEqual(cadre("health")[0], 69)
        self.assertEqual(cadre(*tls, "--tls-server-name", "localhost", "health")[0], 0)
        self.assertEqual(cadre(*tls, "--tls-server-name", "example.org", "health")[0], 69)
        self.assertEqual(cadre(*tls, "--api-key-file", mine, "model")[0], 0)
        self.assertEqual(cadre(*tls, "model", CADRE_API_KEY="alice-0123456789abcdef")[0], 0)
        generate = ["--api-key-file", mine, "generate", "abc", "--max-tokens", 3]
        self.assertEqual(cadre(*tls, *generate)[0], 0)
        code, text = cadre(*tls, "--api-key-file", wrong, "model")
        self.assertEqual(code, 1)
        self.assertIn("UNAUTHENTICATED: the API key is not known", text)
        code, text = cadre(*tls, "--api-key-file", mine, "experts")
        self.assertEqual(code, 1)
        self.assertIn("needs the role experts-read", text)
        for flags, problem in ((["--tls-ca", "/nowhere"], "--tls-ca: /nowhere"), (["--tls-key", key], "--tls-cert"),
                               (["--api-key-file", "/nowhere"], "--api-key-file: /nowhere")):
            code, text = cadre(*flags, "health")
            self.assertEqual(code, 64, text)
            self.assertIn(problem, text)

    def test_certificates_change_under_load(self):
        server = self.start(model="sim:step_ms=5")
        failures, completed, done = [], [], threading.Event()

        def load():
            while not done.is_set():
                stub = generation_grpc.GenerationServiceStub(self.channel(server))  # a new handshake each time
                try:
                    stream = stub.Generate(request("abc", max_tokens=50), timeout=30)
                    completed.append(len(Completion(stream).token_ids))
                except grpc.RpcError as error:
                    failures.append(error)

        long_stream = generation_grpc.GenerationServiceStub(self.channel(server)).Generate(
            request("abcd", max_tokens=2000), timeout=60)
        next(long_stream)
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for count in range(1, 4):
            self.install(self.authority.issue("server"))
            self.wait_for_reloads(server, "ok", count)
            before = len(completed)
            while len(completed) < before + 4 and not failures:
                time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(set(completed), {50})
        self.assertGreater(sum(len(event.delta.token_ids) for event in long_stream), 1900)

    def test_another_authority_holds_without_a_restart(self):
        first, second = Authority(self.folder, "first"), Authority(self.folder, "second")
        trusted = self.folder / "trusted.crt"
        trusted.write_bytes(first.cert.read_bytes())
        server = self.start("--tls-client-ca", trusted)
        old, new = first.issue("app"), second.issue("app")
        self.assertEqual(self.code(self.channel(server, pair=new)), "UNAVAILABLE")
        trusted.write_bytes(second.cert.read_bytes())
        self.wait_for_reloads(server, "ok", 1)
        self.assertEqual(self.code(self.channel(server, pair=new)), "OK")
        self.assertEqual(self.code(self.channel(server, pair=old)), "UNAVAILABLE")
        # Half way through being written, which may not mean that nobody is asked any more.
        trusted.write_bytes(b"")
        self.wait_for_reloads(server, "failed", 1)
        self.assertIn(f"--tls-client-ca: {trusted}: there is no certificate", server.log_text())
        self.assertEqual(self.code(self.channel(server, pair=new)), "OK")
        self.assertEqual(self.code(self.channel(server)), "UNAVAILABLE")

    def test_a_wrong_pair_changes_nothing(self):
        server = self.start()
        self.key.write_bytes(self.authority.issue("server")[1].read_bytes())
        self.wait_for_reloads(server, "failed", 1)
        self.assertIn("the key is not the one of the certificate", server.log_text())
        self.assertEqual(self.code(self.channel(server)), "OK")
        self.key.write_bytes(b"-----BEGIN PRIVATE")
        self.wait_for_reloads(server, "failed", 2)
        self.assertEqual(self.code(self.channel(server)), "OK")

    def test_a_wrong_pair_ends_the_start(self):
        other_key = self.authority.issue("server")[1]
        empty = self.folder / "empty.crt"
        empty.touch()
        for flags, reason in (
                ((f"--tls-cert={self.cert}", f"--tls-key={other_key}"), f"--tls-key: {other_key}: the key is not"),
                ((f"--tls-cert={self.key}", f"--tls-key={self.key}"),
                 f"--tls-cert: {self.key}: there is no certificate"),
                ((f"--tls-cert={self.cert}", "--tls-key=/nowhere"), "--tls-key: /nowhere: No such file"),
                ((f"--tls-cert={self.cert}",), "--tls-cert: needs --tls-key"),
                ((f"--tls-cert={self.cert}", f"--tls-key={self.key}", f"--tls-client-ca={empty}"),
                 f"--tls-client-ca: {empty}: there is no certificate"),
                ((f"--tls-client-ca={self.cert}",), "--tls-client-ca: needs --tls-cert")):
            done = subprocess.run([BIN / "cadre-server", "--model=sim", "--port=0", "--metrics-port=0", *flags],
                                  capture_output=True, text=True, timeout=30, env=clean_environment(), check=False)
            self.assertEqual(done.returncode, 64, done.stderr)
            self.assertIn(reason, done.stderr)


if __name__ == "__main__":
    unittest.main()
