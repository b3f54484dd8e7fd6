"""A container with little memory: the server refuses before the kernel ends it, and goes on when the load has passed.

Needs a memory cgroup that this process may make children of; skipped elsewhere.
"""

import concurrent.futures
import itertools
import os
import pathlib
import random
import resource
import signal
import time
import unittest

import grpc
from harness import Server, error_details, generation, generation_grpc

CGROUPS = pathlib.Path("/sys/fs/cgroup")
HEADROOM = 64 << 20
LOAD_SECONDS = float(os.environ.get("CADRE_MEMORY_TEST_SECONDS", "20"))
NUM_CLIENTS = 24


class Container:
    """A memory cgroup, of version 1 or 2. OSError when there can be none."""

    def __init__(self):
        is_v1 = (CGROUPS / "memory" / "memory.limit_in_bytes").exists()
        self.folder = (CGROUPS / "memory" if is_v1 else CGROUPS) / f"cadre-test-{os.getpid()}"
        self.names = (("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.oom_control") if is_v1 else
                      ("memory.max", "memory.current", "memory.events"))
        self.folder.mkdir()
        if not (self.folder / self.names[0]).exists():
            self.folder.rmdir()
            raise OSError("the memory controller is not delegated")

    def enter(self):
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def usage(self):
        return int((self.folder / self.names[1]).read_text())

    def set_limit(self, limit):
        (self.folder / self.names[0]).write_text(str(limit))

    def num_kills(self):
        for line in (self.folder / self.names[2]).read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def remove(self):
        self.folder.rmdir()


def make_schema_request(rng):
    names = [f"field_{rng.randrange(10**9)}" for _ in range(40)]
    properties = ",".join(f'"{name}": {{"type": "string", "maxLength": 200}}' for name in names)
    request = generation.GenerateRequest(text="a")
    request.structured_output.json_schema = f'{{"type": "object", "properties": {{{properties}}}}}'
    request.stopping.max_tokens = 50
    return request


def make_request(rng):
    """Something that takes memory: a large message, an answer with many details, a schema to compile."""
    request = generation.GenerateRequest()
    kind = rng.randrange(4)
    if kind == 0:
        request.text = "once upon a time " * rng.randrange(1000, 60000)
    elif kind == 1:
        request.token_ids.ids.extend(rng.randrange(1000) for _ in range(100))
        request.output.logprobs = 20
        request.stopping.max_tokens = 900
        request.stopping.ignore_eos = True
    elif kind == 2:
        return make_schema_request(rng)
    else:
        request.token_ids.ids.extend(rng.randrange(1000) for _ in range(900))
        request.stopping.max_tokens = 100
    return request


def load(server, seed, end, outcomes):
    rng = random.Random(seed)
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = generation_grpc.GenerationServiceStub(channel)
        while time.monotonic() < end:
            try:
                stub.GenerateText(make_request(rng), timeout=20)
                outcomes.append("OK")
            except grpc.RpcError as error:
                info = error_details(error).get("ErrorInfo")
                outcomes.append(info.reason if info else error.code().name)
                if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    time.sleep(0.01)


class MemoryTest(unittest.TestCase):
    def setUp(self):
        try:
            self.container = Container()
        except OSError as error:
            self.skipTest(f"no memory cgroup can be made: {error}")
        self.addCleanup(self.container.remove)

    def test_little_memory_costs_refusals_and_not_the_server(self):
        with Server("--deadline-admission", "off", before_exec=self.container.enter) as server:
            self.container.set_limit(self.container.usage() + HEADROOM)
            outcomes = []
            end = time.monotonic() + LOAD_SECONDS
            with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as clients:
                for future in [clients.submit(load, server, i, end, outcomes) for i in range(NUM_CLIENTS)]:
                    future.result()
            counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
            print(f"{LOAD_SECONDS:.0f} s: {counts}", flush=True)
            self.assertIsNone(server.process.poll(), server.log_text())
            self.assertEqual(self.container.num_kills(), 0)
            self.assertGreater(counts.get("OK", 0), 0)
            self.assertGreater(counts.get("MEMORY_PRESSURE", 0), 0)
            self.assertNotIn("UNAVAILABLE", counts)
            self.assertEqual(server.metric("cadre_requests_rejected_total", reason="memory_pressure"),
                             counts["MEMORY_PRESSURE"])

            # The calm that the levels wait for is ten seconds.
            end = time.monotonic() + 40
            while server.metric("cadre_memory_pressure", action="refuse") > 0 and time.monotonic() < end:
                time.sleep(0.5)
            small = generation.GenerateRequest(text="Once upon a time")
            small.stopping.max_tokens = 3
            answer = server.generation.GenerateText(small, timeout=20)
            self.assertEqual(answer.sequences[0].finished.usage.generated_tokens, 3)


class AddressSpaceTest(unittest.TestCase):
    """A limit that the server does not watch: it ends with a line and a code for its supervisor."""

    def code_without_memory(self):
        """The exit code of a server whose address space may not grow much, and its log; None if it does not end."""
        with Server() as server:
            # Room for the threads that gRPC starts as calls come: without a thread it goes on, and answers nobody.
            server.generation.GenerateText(make_schema_request(random.Random(-1)), timeout=20)
            pid = server.process.pid
            size = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (size + (256 << 20), resource.RLIM_INFINITY))
            # Each schema that is compiled takes some MiB, and stays. A call may get lost on the way to the end.
            deadline = time.monotonic() + 30
            for i in itertools.count():
                if server.process.poll() is not None:
                    return server.process.returncode, server.log_text()
                if time.monotonic() > deadline:
                    server.process.kill()
                    return None, server.log_text()
                try:
                    server.generation.GenerateText(make_schema_request(random.Random(i)), timeout=5)
                except grpc.RpcError:
                    time.sleep(0.1)

    def test_a_server_without_memory_ends_with_its_own_code(self):
        # Seldom it is gRPC that gets no memory for what it needs to go on, and then it waits for ever.
        for _ in range(3):
            code, log = self.code_without_memory()
            if code is not None:
                break
        # gRPC, where it is the one that gets no memory, may also abort by itself.
        self.assertIn(code, (75, -signal.SIGABRT), log)
        if code == 75:
            self.assertIn("no more memory for this process", log)


if __name__ == "__main__":
    unittest.main()
