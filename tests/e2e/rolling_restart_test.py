"""Three servers that are restarted one after the other under load, and clients that spread their calls over them by
nothing but what gRPC itself does: round_robin over a list of addresses, and the service config of proto/.

Simulated models: each answer is a function of its prompt, so a stream that is lost, cut, doubled or somebody else's
shows.

    rolling_restart_test.py [--rounds N] [TEST...]    each test restarts all servers N times; once unless said otherwise
"""

import argparse
import json
import sys
import threading
import time
import unittest

import grpc

from harness import ROOT, Server, error_details, generation_grpc, request

sys.path.insert(0, str(ROOT / "clients" / "python" / "tests"))

import package  # noqa: E402, F401  makes cadre_client importable

from cadre_client import CadreError, Client, Delta, GenerateOptions  # noqa: E402

MODEL = "sim:step_ms=3"
CONFIG = json.loads((ROOT / "proto" / "service_config.json").read_text(encoding="utf-8"))
ROUND_ROBIN = {"loadBalancingConfig": CONFIG["loadBalancingConfig"]}
# Of different lengths, 20 ms to a second: some are always under way.
PROMPTS = [([7 * n + 1, n + 2, 3], 5 + 31 * n % 300) for n in range(24)]
NUM_CHANNELS, CALLS_PER_CHANNEL = 3, 3
rounds = 1


def prompt_request(prompt):
    ids, tokens = prompt
    message = request(ids=ids, max_tokens=tokens, temperature=0)
    message.stopping.ignore_eos = True
    return message


def whole(events):
    """The token ids of a stream, of (kind, token ids): one "started", deltas and one "finished", in that order; else a
    text of what came."""
    kinds, tokens = [], []
    for kind, ids in events:
        if not (kind == "delta" and kinds[-1:] == ["delta"]):
            kinds.append(kind)
        tokens.extend(ids)
    return tokens if kinds == ["started", "delta", "finished"] else " ".join(kinds)


def whole_stream(stream):
    return whole((event.WhichOneof("event"), event.delta.token_ids) for event in stream)


class PlainCaller:
    """A channel with nothing but a service config."""

    def __init__(self, target, config):
        # Channels of one process would share their connections.
        options = [("grpc.service_config", json.dumps(config)), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(target, options)
        self.generate = generation_grpc.GenerationServiceStub(self.channel).Generate

    def answer(self, prompt):
        return whole_stream(self.generate(prompt_request(prompt), timeout=60))

    def close(self):
        self.channel.close()


class PackageCaller:
    """The Python package, which calls again by itself."""

    def __init__(self, target, config):
        options = [("grpc.service_config", json.dumps(config)), ("grpc.use_local_subchannel_pool", 1)]
        self.client = Client(target, timeout=60, options=options)

    def answer(self, prompt):
        ids, tokens = prompt
        with self.client.stream(ids, GenerateOptions(max_tokens=tokens, temperature=0, ignore_eos=True)) as stream:
            return whole((type(event).__name__.lower(), event.token_ids if isinstance(event, Delta) else ())
                         for event in stream)

    def close(self):
        self.client.close()


def cause(error):
    """(status, reason) of what either caller raises."""
    if isinstance(error, CadreError):
        return type(error).__name__, error.reason
    detail = error_details(error).get("ErrorInfo")
    return error.code().name, detail.reason if detail else error.details()


class Fleet:
    """Servers of one model, whose ports stay theirs."""

    def __init__(self, *flags, size=3):
        self.flags = flags
        self.servers = [Server(*flags, model=MODEL) for _ in range(size)]

    def target(self):
        return "ipv4:" + ",".join(server.address for server in self.servers)

    def answers(self):
        """What each prompt has for an answer, from one server that nothing happens to."""
        generate = self.servers[0].generation.Generate
        return [whole_stream(generate(prompt_request(prompt), timeout=60)) for prompt in PROMPTS]

    def end(self, index):
        """SIGTERM, as a supervisor would send it; the exit code."""
        server = self.servers[index]
        server.process.terminate()
        return server.process.wait(60)

    def start(self, index):
        old = self.servers[index]
        old.stop()
        self.servers[index] = Server(*self.flags, model=MODEL, ports=(old.port, old.metrics_port))

    def wait_for_requests(self, index, timeout=30):
        """Until a server that has just started is among those that the clients use."""
        end = time.monotonic() + timeout
        while self.servers[index].metric("cadre_requests_finished_total", outcome="ok") < NUM_CHANNELS:
            if time.monotonic() > end:
                raise AssertionError(f"no client came back to server {index} in {timeout} s")
            time.sleep(0.05)

    def stop(self):
        for server in self.servers:
            server.stop()


class Load:
    """Calls without a pause, from several callers; what became of them is in `failures`, `wrong` and `num_right`."""

    def __init__(self, callers, answers):
        self.callers, self.answers = callers, answers
        self.failures, self.wrong, self.num_right = [], [], 0
        self.lock, self.is_over = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number, caller))
                        for number, caller in enumerate(callers * CALLS_PER_CHANNEL)]
        for thread in self.threads:
            thread.start()

    def run(self, number, caller):
        while not self.is_over.is_set():
            number = (number + 5) % len(PROMPTS)
            try:
                got = caller.answer(PROMPTS[number])
            except (grpc.RpcError, CadreError) as error:
                with self.lock:
                    self.failures.append(cause(error))
                time.sleep(0.05)
                continue
            with self.lock:
                if got == self.answers[number]:
                    self.num_right += 1
                else:
                    self.wrong.append((PROMPTS[number], got))

    def stop(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        for caller in self.callers:
            caller.close()


class RollingRestartTest(unittest.TestCase):
    def roll(self, config, *flags, caller=PlainCaller):
        """Restarts each of three servers under load, one at a time, as often as is said; returns the load."""
        fleet = Fleet("--drain-timeout", "30s", *flags)
        self.addCleanup(fleet.stop)
        answers = fleet.answers()
        load = Load([caller(fleet.target(), config) for _ in range(NUM_CHANNELS)], answers)
        begin = time.monotonic()
        try:
            for index in range(len(fleet.servers)):
                fleet.wait_for_requests(index)
            for index in [*range(len(fleet.servers))] * rounds:
                self.assertEqual(fleet.end(index), 0, fleet.servers[index].log_text())
                self.assertIn("ended in order", fleet.servers[index].log_text())
                fleet.start(index)
                fleet.wait_for_requests(index)
        finally:
            load.stop()
        print(f"{rounds} x {len(fleet.servers)} restarts in {time.monotonic() - begin:.0f} s: {load.num_right} right "
              f"answers, {len(load.wrong)} wrong, {len(load.failures)} failed calls", file=sys.stderr, flush=True)
        for server in fleet.servers:
            server.wait_until_idle()
            self.assertEqual(server.audit(), [])
        self.assertGreater(load.num_right, 50 * rounds)
        return load

    def test_with_the_service_config_of_the_protos_nothing_fails(self):
        load = self.roll(CONFIG, "--drain-delay", "1s")
        self.assertEqual((load.failures, load.wrong), ([], []))

    def test_clients_that_watch_health_need_no_retry(self):
        """They are gone before a draining server refuses anybody."""
        config = {key: value for key, value in CONFIG.items() if key != "methodConfig"}
        load = self.roll(config, "--drain-delay", "2s")
        self.assertEqual((load.failures, load.wrong), ([], []))

    def test_clients_that_retry_need_neither_health_nor_a_delay(self):
        """A refusal is nothing but trailers, which gRPC's own clients repeat elsewhere."""
        config = {key: value for key, value in CONFIG.items() if key != "healthCheckConfig"}
        load = self.roll(config, "--drain-delay", "0s")
        self.assertEqual((load.failures, load.wrong), ([], []))

    def test_the_python_package_needs_neither_health_nor_a_delay(self):
        """It calls again after a refusal, when the server says."""
        load = self.roll(ROUND_ROBIN, "--drain-delay", "0s", caller=PackageCaller)
        self.assertEqual((load.failures, load.wrong), ([], []))

    def test_clients_that_do_neither_are_refused(self):
        """Why the service config says what it says, and whether the tests above could fail."""
        fleet = Fleet("--drain-timeout", "30s", "--drain-delay", "0s")
        self.addCleanup(fleet.stop)
        load = Load([PlainCaller(fleet.target(), ROUND_ROBIN) for _ in range(NUM_CHANNELS)], fleet.answers())
        try:
            for index in range(len(fleet.servers)):
                fleet.wait_for_requests(index)
            # It keeps the server from ending: until then calls come to it, and are refused.
            long = fleet.servers[0].generation.Generate(prompt_request(([5], 600)), timeout=60)
            next(long)
            fleet.servers[0].process.terminate()
            list(long)
            self.assertEqual(fleet.servers[0].process.wait(60), 0)
        finally:
            load.stop()
        self.assertIn(("UNAVAILABLE", "DRAINING"), load.failures)
        self.assertEqual({code for code, _ in load.failures}, {"UNAVAILABLE"})
        self.assertEqual(load.wrong, [])


class ServiceConfigTest(unittest.TestCase):
    def test_it_names_services_and_statuses_that_exist(self):
        methods = CONFIG["methodConfig"]
        named = {name["service"] for method in methods for name in method["name"]}
        self.assertEqual(named, {"cadre.v1.GenerationService", "cadre.v1.ModelService"})
        health = (ROOT / "server" / "health.cc").read_text(encoding="utf-8")
        self.assertIn(f'"{CONFIG["healthCheckConfig"]["serviceName"]}"', health)
        for method in methods:
            # A full server says RESOURCE_EXHAUSTED; only some of these pass by themselves, and gRPC cannot tell which.
            self.assertEqual(method["retryPolicy"]["retryableStatusCodes"], ["UNAVAILABLE"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rounds", type=int, default=rounds)
    options, others = parser.parse_known_args()
    rounds = options.rounds
    unittest.main(argv=[sys.argv[0], *others], verbosity=2)
