"""The public API as a stranger sees it: a client written from the protos alone, against a real server process."""

import random
import threading
import time
import unittest

import grpc

from harness import Completion, Server, error_details, experts, generation, models, request


class GenerateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", 32)
        cls.vocab_size = cls.server.models.GetModel(models.GetModelRequest(), timeout=5).model.architecture.vocab_size

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def generate(self, message, timeout=30):
        return Completion(self.server.generation.Generate(message, timeout=timeout))

    def assert_clean(self):
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])

    def test_stream_begins_continues_and_finishes(self):
        answer = self.generate(request("Once upon a time", max_tokens=24, temperature=0))
        self.assertGreater(answer.started.prompt_tokens, 0)
        self.assertTrue(answer.started.request_id)
        self.assertTrue(answer.text.strip())
        self.assertEqual(answer.finished.usage.generated_tokens, len(answer.token_ids))
        self.assertEqual(answer.finished.usage.prompt_tokens, answer.started.prompt_tokens)
        self.assertGreater(answer.finished.timings.total.ToMicroseconds(), 0)

    def test_routing_report_accounts_for_every_assignment(self):
        answer = self.generate(request("Once upon a time", max_tokens=10, temperature=0))
        architecture = self.server.models.GetModel(models.GetModelRequest(), timeout=5).model.architecture
        # The last token is sampled but never run through the model.
        rows = answer.finished.usage.prompt_tokens + answer.finished.usage.generated_tokens - 1
        routing = answer.finished.routing
        self.assertEqual(routing.processed + routing.rerouted + routing.reweighted + routing.dropped,
                         rows * len(architecture.moe_layers) * architecture.top_k)

    def test_unary_says_the_same_as_the_stream(self):
        stream = self.generate(request("12 + 30 =", max_tokens=8, temperature=0))
        unary = self.server.generation.GenerateText(
            generation.GenerateTextRequest(text="12 + 30 =", sampling=generation.SamplingParams(temperature=0),
                                           stopping=generation.StopConditions(max_tokens=8)), timeout=30)
        self.assertEqual(unary.sequences[0].text, stream.text)
        self.assertEqual(list(unary.sequences[0].token_ids), stream.token_ids)

    def test_every_answer_begins_with_the_id_of_its_request(self):
        # Some of these are answered before the call has been told that they wait.
        for number in range(300):
            call = self.server.generation.Generate(request("a", max_tokens=1), timeout=30,
                                                   metadata=[("x-request-id", f"begins-{number}")])
            list(call)
            self.assertEqual(dict(call.initial_metadata()).get("x-request-id"), f"begins-{number}")
            self.assertNotIn("x-request-id", dict(call.trailing_metadata()))
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.server.generation.Generate(request("a", max_tokens=-1), timeout=30,
                                                 metadata=[("x-request-id", "refused")]))
        self.assertEqual(dict(caught.exception.trailing_metadata()).get("x-request-id"), "refused")

    def test_token_ids_in_are_the_same_as_text_in(self):
        ids = self.server.generation.Tokenize(generation.TokenizeRequest(text="def add("), timeout=5).token_ids
        from_text = self.generate(request("def add(", max_tokens=12, temperature=0))
        from_ids = self.generate(request(ids=ids, max_tokens=12, temperature=0))
        self.assertEqual(from_text.token_ids, from_ids.token_ids)
        back = self.server.generation.Detokenize(generation.DetokenizeRequest(token_ids=ids), timeout=5)
        self.assertEqual(back.text, "def add(")

    def test_a_seed_gives_the_same_text_alone_and_among_others(self):
        message = request("Once upon a time", max_tokens=40, temperature=1.2, top_k=50, top_p=0.95, min_p=0.01, seed=11)
        alone = self.generate(message)
        noise = [threading.Thread(target=lambda i=i: self.generate(
            request("The " + "old " * i, max_tokens=60, temperature=1, seed=i))) for i in range(12)]
        for thread in noise:
            thread.start()
        together = [self.generate(message) for _ in range(3)]
        for thread in noise:
            thread.join()
        for answer in together:
            self.assertEqual(answer.token_ids, alone.token_ids)
            self.assertEqual(answer.text, alone.text)
        self.assertEqual(alone.started.seed, 11)

    def test_an_unset_seed_is_told_and_repeats_the_answer(self):
        first = self.generate(request("Once upon a time", max_tokens=16, temperature=1))
        second = self.generate(request("Once upon a time", max_tokens=16, temperature=1, seed=first.started.seed))
        self.assertEqual(first.token_ids, second.token_ids)

    def test_stop_strings_cut_the_text_across_token_borders(self):
        whole = self.generate(request("Once upon a time", max_tokens=48, temperature=0)).text
        middle = len(whole) // 2
        stop = whole[middle:middle + 7]
        message = request("Once upon a time", max_tokens=48, temperature=0)
        message.stopping.stop_strings.append(stop)
        answer = self.generate(message)
        self.assertEqual(answer.text, whole[:whole.index(stop)])
        self.assertEqual(answer.finished.reason, generation.FINISH_REASON_STOP_STRING)
        self.assertEqual(answer.finished.matched_stop_string, stop)

        message.stopping.include_stop_string = True
        self.assertEqual(self.generate(message).text, whole[:whole.index(stop) + len(stop)])

    def test_stop_tokens_end_the_sequence(self):
        whole = self.generate(request("Once upon a time", max_tokens=24, temperature=0)).token_ids
        stop = whole[10]
        message = request("Once upon a time", max_tokens=24, temperature=0)
        message.stopping.stop_token_ids.append(stop)
        answer = self.generate(message)
        self.assertEqual(answer.token_ids, whole[:whole.index(stop) + 1])
        self.assertEqual(answer.finished.reason, generation.FINISH_REASON_STOP_TOKEN)
        self.assertEqual(answer.finished.matched_token_id, stop)

    def test_length_ends_the_sequence_and_ignore_eos_is_honored(self):
        message = request("Once upon a time", max_tokens=200, temperature=0)
        message.stopping.ignore_eos = True
        answer = self.generate(message)
        self.assertEqual(answer.finished.reason, generation.FINISH_REASON_LENGTH)
        self.assertEqual(len(answer.token_ids), 200)

    def test_cancel_frees_the_blocks(self):
        for _ in range(5):
            message = request("Once upon a time", max_tokens=800, temperature=0)
            message.stopping.ignore_eos = True
            stream = self.server.generation.Generate(message, timeout=60)
            for event in stream:
                if event.WhichOneof("event") == "delta":
                    break
            stream.cancel()
            # Far less than the rest of the answer would take; the engine's own tests say "within one step".
            self.server.wait_until_idle(timeout=10)
        self.assertGreaterEqual(self.server.metric("cadre_requests_finished_total", outcome="cancelled"), 5)
        self.assert_clean()

    def test_two_thousand_random_cancellations_leave_nothing_behind(self):
        rng = random.Random(5)
        work = threading.Semaphore(24)
        lock = threading.Lock()
        failures = []

        def one(seed, after, delay):
            try:
                message = request("The quick brown fox " * (1 + seed % 7), max_tokens=120, temperature=1, seed=seed)
                message.stopping.ignore_eos = True
                stream = self.server.generation.Generate(message, timeout=60)
                if delay:
                    threading.Timer(delay, stream.cancel).start()
                for count, _ in enumerate(stream):
                    if count == after:
                        stream.cancel()
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED):
                    with lock:
                        failures.append(f"{error.code()}: {error.details()}")
            finally:
                work.release()

        threads = []
        for seed in range(2000):
            work.acquire()
            delay = rng.choice([0, 0, 0.001, 0.005, 0.02])
            threads.append(threading.Thread(target=one, args=(seed, rng.randrange(0, 12), delay)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures[:5], [])
        self.assert_clean()
        # A survivor among them still gets the answer it would get alone.
        first = self.generate(request("Once upon a time", max_tokens=16, temperature=0))
        self.assertEqual(len(first.token_ids), first.finished.usage.generated_tokens)

    def test_invalid_fields_are_refused_by_name(self):
        nan = float("nan")
        cases = [
            (dict(temperature=-0.5), "sampling.temperature"), (dict(temperature=nan), "sampling.temperature"),
            (dict(temperature=1e9), "sampling.temperature"), (dict(top_p=0.0), "sampling.top_p"),
            (dict(top_p=1.5), "sampling.top_p"), (dict(top_p=nan), "sampling.top_p"),
            (dict(top_k=-7), "sampling.top_k"), (dict(min_p=-0.1), "sampling.min_p"),
            (dict(min_p=2.0), "sampling.min_p"),
        ]
        for sampling, field in cases:
            self.expect_invalid(request("hello", max_tokens=4, **sampling), field)
        for count in (0, -1, -(2**31)):
            self.expect_invalid(request("hello", max_tokens=count), "stopping.max_tokens")
        self.expect_invalid(request("hello", max_tokens=2**31 - 1), "stopping.max_tokens")
        self.expect_invalid(request("", max_tokens=4), "text")
        self.expect_invalid(request(ids=[], max_tokens=4), None)
        self.expect_invalid(request(max_tokens=4), "input")
        for token in (-1, self.vocab_size, 2**31 - 1):
            self.expect_invalid(request(ids=[1, token], max_tokens=4), "token_ids.ids")
        for stop in ("", "x" * 5000):
            message = request("hello", max_tokens=4)
            message.stopping.stop_strings.append(stop)
            self.expect_invalid(message, "stopping.stop_strings")
        message = request("hello", max_tokens=4)
        message.stopping.stop_strings.extend(str(i) for i in range(1000))
        self.expect_invalid(message, "stopping.stop_strings")
        message = request("hello", max_tokens=4)
        message.stopping.stop_token_ids.append(self.vocab_size)
        self.expect_invalid(message, "stopping.stop_token_ids")
        self.expect_invalid(request(ids=[5] * 100000, max_tokens=4), "token_ids")
        self.assert_clean()

    def expect_invalid(self, message, field):
        with self.assertRaises(grpc.RpcError, msg=str(message)[:200]) as caught:
            self.generate(message)
        error = caught.exception
        self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT, error.details())
        details = error_details(error)
        self.assertIn("ErrorInfo", details, error.details())
        if field:
            fields = [v.field for v in details["BadRequest"].field_violations]
            self.assertTrue(any(field in f for f in fields), f"{field} not in {fields}")

    def test_the_experts_of_each_token_are_told(self):
        architecture = self.server.models.GetModel(models.GetModelRequest(), timeout=5).model.architecture
        layers, top_k = len(architecture.moe_layers), architecture.top_k
        message = request("Once upon a time", max_tokens=9, temperature=0)
        plain = self.generate(message)
        self.assertFalse(plain.finished.HasField("routed_experts"))
        message.output.routed_experts = True
        told = self.generate(message)
        self.assertEqual(told.token_ids, plain.token_ids)
        routed, usage = told.finished.routed_experts, told.finished.usage
        self.assertEqual((routed.first_position, routed.num_layers, routed.top_k), (0, layers, top_k))
        self.assertEqual(usage.cached_prompt_tokens, 0)
        self.assertEqual(len(routed.expert_ids), (usage.prompt_tokens + usage.generated_tokens - 1) * layers * top_k)
        self.assertEqual(len(routed.weights), len(routed.expert_ids))
        self.assertTrue(all(0 <= expert < architecture.num_experts for expert in routed.expert_ids))
        for begin in range(0, len(routed.expert_ids), top_k):
            self.assertEqual(len(set(routed.expert_ids[begin:begin + top_k])), top_k)
        self.assertAlmostEqual(sum(routed.weights), told.finished.routing.gate_weight, 3)
        message.sampling.n = 128
        message.stopping.max_tokens = 1000
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate(message)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertRegex(caught.exception.details(), r"^output.routed_experts: .*, the limit is 524288")

    def test_recorded_experts_are_replayed(self):
        message = request("Once upon a time", max_tokens=12, temperature=0.8)
        message.sampling.seed = 11
        message.output.logprobs = True
        message.output.routed_experts = True
        recorded = self.generate(message)
        record = recorded.finished.routed_experts

        def logprobs(answer):
            return [detail.logprob for delta in answer.deltas for detail in delta.details]

        for weights in (generation.REPLAY_WEIGHTS_UNSPECIFIED, generation.REPLAY_WEIGHTS_RECORDED):
            message.replay_routing.record.CopyFrom(record)
            message.replay_routing.weights = weights
            replayed = self.generate(message)
            self.assertEqual(replayed.token_ids, recorded.token_ids)
            self.assertEqual(logprobs(replayed), logprobs(recorded))
            self.assertEqual(replayed.finished.routed_experts, record)
        # Other experts: the answer and its record are others, the replayed choices are told as they are.
        of_token = record.num_layers * record.top_k
        others = [(expert + 1) % 16 for expert in record.expert_ids[:4 * of_token]]
        del message.replay_routing.record.expert_ids[:], message.replay_routing.record.weights[:]
        message.replay_routing.record.expert_ids.extend(others)
        message.replay_routing.weights = generation.REPLAY_WEIGHTS_ROUTER
        routed = self.generate(message)
        told = routed.finished.routed_experts
        self.assertEqual(list(told.expert_ids[:4 * of_token]), others)
        self.assertNotEqual(logprobs(routed), logprobs(recorded))
        self.assertEqual(routed.finished.usage.cached_prompt_tokens, 0)
        message.replay_routing.record.expert_ids[9] = 16
        self.expect_invalid(message, "replay_routing.record.expert_ids[9]")

    def test_unknown_models_are_not_found(self):
        message = request("hello", max_tokens=2)
        message.model = "somebody-elses"
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate(message)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertIn("ResourceInfo", error_details(caught.exception))

    def test_expert_stats_add_up(self):
        self.generate(request("Once upon a time", max_tokens=10, temperature=0))
        self.server.wait_until_idle()
        stats = self.server.experts.GetExpertStats(experts.GetExpertStatsRequest(), timeout=5).stats
        self.assertTrue(stats.total)
        for layer in stats.total:
            self.assertEqual(sum(layer.processed), layer.tokens * stats.top_k)
            self.assertGreater(layer.health.load_entropy, 0)
            self.assertLessEqual(layer.health.load_entropy, 1 + 1e-9)

    def test_expert_stats_can_be_watched(self):
        message = experts.WatchExpertStatsRequest()
        message.interval.FromMilliseconds(100)
        stream = self.server.experts.WatchExpertStats(message, timeout=10)
        seen = [next(stream).stats.time.ToMilliseconds() for _ in range(3)]
        stream.cancel()
        self.assertLess(seen[0], seen[2])

    def test_a_ping_every_ten_seconds_without_calls_is_tolerated(self):
        options = [("grpc.keepalive_time_ms", 10000), ("grpc.keepalive_timeout_ms", 5000),
                   ("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)]
        states = []
        with grpc.insecure_channel(self.server.address, options=options) as channel:
            grpc.channel_ready_future(channel).result(5)
            channel.subscribe(states.append)
            time.sleep(45)
        bad = [s for s in states if s not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.SHUTDOWN)]
        self.assertEqual(bad, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
