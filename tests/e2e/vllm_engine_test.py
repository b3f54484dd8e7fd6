"""vllm.grpc.engine.VllmEngine as a gateway sees it: plain grpcio and the protos alone, against a real server."""

import hashlib
import importlib
import io
import threading
import time
import unittest
import zipfile

import grpc

from harness import DEMO_MODEL, Completion, Server, error_details, generation, request

engine = importlib.import_module("vllm.grpc.engine.vllm_engine_pb2")
engine_grpc = importlib.import_module("vllm.grpc.engine.vllm_engine_pb2_grpc")
tokenizer = importlib.import_module("smg.grpc.common.tokenizer_pb2")

PROMPT = [70, 111, 117, 114, 32, 112, 108, 117, 115]


def generate_request(max_tokens=16, stream=False, ids=PROMPT, **params):
    message = engine.GenerateRequest(stream=stream)
    message.tokenized.input_ids.extend(ids)
    message.sampling_params.CopyFrom(engine.SamplingParams(**{"temperature": 0, "ignore_eos": True, **params}))
    message.sampling_params.max_tokens = max_tokens
    return message


def varint(value):
    """As Protocol Buffers writes it."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


class VllmEngineTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--enable-vllm-engine-api")
        cls.engine = engine_grpc.VllmEngineStub(cls.server.channel)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def tearDown(self):
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])

    def own_tokens(self, max_tokens):
        message = request(ids=PROMPT, max_tokens=max_tokens, temperature=0)
        message.stopping.ignore_eos = True
        return Completion(self.server.generation.Generate(message, timeout=30)).token_ids

    def test_tokens_are_those_of_the_own_api(self):
        expected = self.own_tokens(24)
        whole = list(self.engine.Generate(generate_request(24), timeout=30))
        self.assertEqual([m.WhichOneof("response") for m in whole], ["complete"])
        self.assertEqual(list(whole[0].complete.output_ids), expected)
        self.assertEqual(whole[0].complete.finish_reason, "length")
        self.assertEqual(whole[0].complete.prompt_tokens, len(PROMPT))

        *chunks, last = self.engine.Generate(generate_request(24, stream=True), timeout=30)
        self.assertEqual([t for m in chunks for t in m.chunk.token_ids], expected)
        self.assertEqual(sum(m.chunk.completion_tokens for m in chunks), 24)
        self.assertEqual((last.complete.completion_tokens, list(last.complete.output_ids)), (24, []))

    def test_stops_where_it_is_told(self):
        tokens = self.own_tokens(24)
        answer, = self.engine.Generate(generate_request(24, stop_token_ids=[tokens[3]]), timeout=30)
        self.assertEqual(list(answer.complete.output_ids), tokens[:tokens.index(tokens[3]) + 1])
        self.assertEqual((answer.complete.finish_reason, answer.complete.matched_token_id), ("stop", tokens[3]))

        message = request(ids=PROMPT, max_tokens=24, temperature=0)
        message.stopping.ignore_eos = True
        text = Completion(self.server.generation.Generate(message, timeout=30)).text
        stop = text[4:7]
        answer, = self.engine.Generate(generate_request(24, stop=[stop]), timeout=30)
        self.assertEqual((answer.complete.finish_reason, answer.complete.matched_stop_str), ("stop", stop))
        self.assertLess(answer.complete.completion_tokens, 24)

    def test_a_constraint_holds(self):
        message = generate_request(40, choice=engine.ChoiceConstraint(choices=["yes", "no"]), ignore_eos=False)
        answer, = self.engine.Generate(message, timeout=30)
        self.assertEqual(answer.complete.finish_reason, "stop")
        ids = generation.DetokenizeRequest(token_ids=answer.complete.output_ids)
        self.assertIn(self.server.generation.Detokenize(ids, timeout=5).text, ("yes", "no"))

    def test_refuses_what_it_does_not_know(self):
        for message, field in ((generate_request(grammar="root ::= x"), "sampling_params.grammar"),
                               (engine.GenerateRequest.FromString(generate_request().SerializeToString() +
                                                                  b"\xf8\x06\x01"), "111")):
            with self.assertRaises(grpc.RpcError) as refused:
                list(self.engine.Generate(message, timeout=5))
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
            details = error_details(refused.exception)
            self.assertEqual([v.field for v in details["BadRequest"].field_violations], [field])
        with self.assertRaises(grpc.RpcError) as refused:
            list(self.engine.Generate(generate_request(stop=["x"] * 99), timeout=5))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("sampling_params.stop: 99", refused.exception.details())

    def test_methods_that_are_not_there_say_so(self):
        for method in ("Embed", "FlushCache", "SubscribeKvEvents", "StartProfile"):
            call = self.server.channel.unary_unary(f"/vllm.grpc.engine.VllmEngine/{method}",
                                                   request_serializer=lambda b: b, response_deserializer=lambda b: b)
            with self.assertRaises(grpc.RpcError) as refused:
                call(b"", timeout=5)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNIMPLEMENTED, method)

    def test_abort_ends_a_request(self):
        cancelled = self.server.metric("cadre_requests_finished_total", outcome="cancelled")
        for attempt in range(10):  # the model may be faster than the abort
            message = generate_request(400, stream=True, n=8)
            message.request_id = f"abort-{attempt}"
            call = self.engine.Generate(message, timeout=30)
            next(call)
            self.engine.Abort(engine.AbortRequest(request_ids=[message.request_id, "gone"]), timeout=5)
            try:
                for _ in call:
                    pass
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.CANCELLED)
                break
        else:
            self.fail("no request was aborted")
        self.server.wait_until_idle()
        self.assertEqual(self.server.metric("cadre_requests_finished_total", outcome="cancelled"), cancelled + 1)

    def test_abort_is_bounded(self):
        for ids, part in ((["x"] * 1025, "1025 ids, the limit is 1024"), (["x" * 70_000], "the limit is 65536")):
            with self.assertRaises(grpc.RpcError) as refused:
                self.engine.Abort(engine.AbortRequest(request_ids=ids), timeout=5)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn("request_ids: ", refused.exception.details())
            self.assertIn(part, refused.exception.details())

    def test_a_message_of_unknown_fields_is_refused_by_a_few_of_them(self):
        unknown = b"".join(varint(number << 3) + b"\x01" for number in range(200_000, 220_000))
        message = engine.GenerateRequest.FromString(generate_request().SerializeToString() + unknown)
        with self.assertRaises(grpc.RpcError) as refused:
            list(self.engine.Generate(message, timeout=20))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertIn(", and more", refused.exception.details())
        self.assertEqual(len(error_details(refused.exception)["BadRequest"].field_violations), 16)

    def test_tokenizer_arrives_whole(self):
        pieces = list(self.engine.GetTokenizer(tokenizer.GetTokenizerRequest(), timeout=10))
        self.assertEqual([bool(p.sha256) for p in pieces], [False] * (len(pieces) - 1) + [True])
        self.assertLessEqual(max(len(p.data) for p in pieces), 64 << 10)
        data = b"".join(p.data for p in pieces)
        self.assertEqual(hashlib.sha256(data).hexdigest(), pieces[-1].sha256)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            self.assertIsNone(archive.testzip())
            self.assertEqual(sorted(archive.namelist()), sorted(p.name for p in DEMO_MODEL.glob("*.json")))
            for name in archive.namelist():
                self.assertEqual(archive.read(name), (DEMO_MODEL / name).read_bytes(), name)

    def test_tells_what_is_served(self):
        info = self.engine.GetModelInfo(engine.GetModelInfoRequest(), timeout=5)
        self.assertEqual((info.served_model_name, info.model_type), ("demo", self.server.architecture().family))
        self.assertEqual(info.vocab_size, self.server.architecture().vocab_size)
        self.assertTrue(info.architectures and info.eos_token_ids)
        self.assertTrue(self.engine.HealthCheck(engine.HealthCheckRequest(), timeout=5).healthy)
        server = self.engine.GetServerInfo(engine.GetServerInfoRequest(), timeout=5)
        self.assertEqual((server.data_parallel_size, server.constrained_decoding_start), (1, "first_token"))

    def test_loads_show_what_runs(self):
        done = threading.Event()

        def work():
            list(self.engine.Generate(generate_request(400, n=8), timeout=60))
            done.set()

        busiest = engine.SchedulerLoad()
        for _ in range(10):
            done.clear()
            thread = threading.Thread(target=work)
            thread.start()
            while not done.is_set():
                load = self.engine.GetLoads(engine.GetLoadsRequest(include=["core", "memory"]), timeout=5).loads[0]
                busiest = max(busiest, load, key=lambda one: one.num_running_reqs)
                time.sleep(0.002)
            thread.join()
            if busiest.num_running_reqs:
                break
        self.assertEqual(busiest.num_running_reqs, 1)
        self.assertGreater(busiest.num_used_tokens, 0)
        self.assertEqual(self.engine.GetLoads(engine.GetLoadsRequest(), timeout=5).loads[0].num_running_reqs, 0)


class OffByDefaultTest(unittest.TestCase):
    def test_is_not_served_unless_asked_for(self):
        with Server() as server:
            with self.assertRaises(grpc.RpcError) as refused:
                engine_grpc.VllmEngineStub(server.channel).HealthCheck(engine.HealthCheckRequest(), timeout=5)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNIMPLEMENTED)


if __name__ == "__main__":
    unittest.main()
