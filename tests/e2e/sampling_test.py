"""The fields of Generate that concern tokens and their probabilities, against a real server process."""

import collections
import math
import threading
import time
import unittest

import grpc

from harness import Server, generation, models, request

PROMPT = "Once upon a time"


class Answer:
    """A whole stream of several sequences, taken apart."""

    def __init__(self, stream):
        self.started = None
        self.text = collections.defaultdict(str)
        self.token_ids = collections.defaultdict(list)
        self.details = collections.defaultdict(list)
        self.finished = {}
        for event in stream:
            kind = event.WhichOneof("event")
            if kind == "started":
                assert self.started is None
                self.started = event.started
            elif kind == "delta":
                assert self.started is not None and event.delta.index not in self.finished
                self.text[event.delta.index] += event.delta.text
                self.token_ids[event.delta.index].extend(event.delta.token_ids)
                self.details[event.delta.index].extend(event.delta.details)
            else:
                assert event.finished.index not in self.finished
                self.text[event.finished.index] += event.finished.text
                self.finished[event.finished.index] = event.finished


class SamplingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", 8)
        cls.model = cls.server.models.GetModel(models.GetModelRequest(), timeout=5).model

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def generate(self, message, timeout=60):
        return Answer(self.server.generation.Generate(message, timeout=timeout))

    def assert_clean(self):
        self.server.wait_until_idle()
        self.assertEqual(self.server.audit(), [])

    def assert_refused(self, message, field):
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate(message)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn(field, caught.exception.details())

    def test_n_sequences_in_a_stream_and_in_one_message(self):
        before = self.server.metric("cadre_requests_admitted_total")
        message = request(PROMPT, max_tokens=12, seed=5, temperature=1.5, n=12)  # more than run at once
        stream = self.generate(message)
        self.assertEqual(sorted(stream.finished), list(range(12)))
        self.assertGreater(len({tuple(ids) for ids in stream.token_ids.values()}), 6)
        unary = self.server.generation.GenerateText(
            generation.GenerateTextRequest.FromString(message.SerializeToString()), timeout=60)
        self.assertEqual([list(s.token_ids) for s in unary.sequences], [stream.token_ids[i] for i in range(12)])
        self.assertEqual([s.text for s in unary.sequences], [stream.text[i] for i in range(12)])
        self.assertEqual([s.finished.index for s in unary.sequences], list(range(12)))
        alone = self.generate(request(PROMPT, max_tokens=12, seed=5, temperature=1.5))
        self.assertEqual(alone.token_ids[0], stream.token_ids[0])
        self.assertEqual(self.server.metric("cadre_requests_admitted_total") - before, 3)
        self.assert_clean()

    def test_a_seed_gives_the_same_text_in_any_company(self):
        def message():
            m = request(PROMPT, max_tokens=16, seed=77, temperature=1.2, n=3, presence_penalty=0.6,
                        frequency_penalty=0.4, repetition_penalty=1.2, top_p=0.95)
            m.sampling.logit_bias[300] = 3.0
            m.stopping.min_tokens = 10
            m.output.logprobs = True
            m.output.top_logprobs = 3
            return m

        alone = self.generate(message())
        noise = [threading.Thread(target=lambda i=i: self.generate(request(f"Noise {i}", max_tokens=30, n=2)))
                 for i in range(5)]
        for thread in noise:
            thread.start()
        together = [self.generate(message()) for _ in range(2)]
        for thread in noise:
            thread.join()
        for answer in together:
            self.assertEqual(dict(answer.token_ids), dict(alone.token_ids))
            self.assertEqual([d.logprob for d in answer.details[1]], [d.logprob for d in alone.details[1]])
        self.assert_clean()

    def test_logprobs_of_greedy_output(self):
        message = request(PROMPT, max_tokens=10, temperature=0)
        message.output.logprobs = True
        message.output.top_logprobs = 4
        message.output.token_bytes = True
        answer = self.generate(message)
        self.assertEqual([d.token_id for d in answer.details[0]], answer.token_ids[0])
        for detail in answer.details[0]:
            self.assertEqual(detail.rank, 1)
            self.assertLessEqual(detail.logprob, 0)
            self.assertEqual(len(detail.alternatives), 4)
            self.assertEqual(detail.alternatives[0].token_id, detail.token_id)
            self.assertEqual(detail.alternatives[0].logprob, detail.logprob)
            told = [a.logprob for a in detail.alternatives]
            self.assertEqual(told, sorted(told, reverse=True))
            self.assertLessEqual(sum(map(math.exp, told)), 1 + 1e-5)
        self.assertEqual(b"".join(d.token_bytes for d in answer.details[0]).decode(errors="replace"), answer.text[0])

    def test_prompt_logprobs_are_those_of_the_tokens_as_output(self):
        # The prompt of the second request is what the first one generated: the same places in the same text.
        first = request(PROMPT, max_tokens=8, temperature=0)
        first.output.logprobs = True
        first.output.top_logprobs = 2
        output = self.generate(first)
        prompt = list(self.server.generation.Tokenize(generation.TokenizeRequest(text=PROMPT), timeout=5).token_ids)
        second = request(ids=prompt + output.token_ids[0], max_tokens=1, temperature=0, n=2)
        second.output.prompt_logprobs = 2
        details = self.generate(second).started.prompt_details
        self.assertEqual([d.token_id for d in details], prompt + output.token_ids[0])
        self.assertEqual(details[0].rank, 0)
        told = details[len(prompt):]
        self.assertEqual([d.logprob for d in told], [d.logprob for d in output.details[0]])
        self.assertEqual([[a.token_id for a in d.alternatives] for d in told],
                         [[a.token_id for a in d.alternatives] for d in output.details[0]])
        self.assert_clean()

    def test_long_prompts_have_logprobs_in_any_chunks(self):
        ids = [5 + i * 7 % 900 for i in range(200)]  # more than the rows of logits of a step
        message = request(ids=ids, max_tokens=2, temperature=0)
        message.output.prompt_logprobs = 1
        answers = []

        def ask():
            answers.append(self.generate(message))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(answers[0].started.prompt_details), 200)
        for answer in answers:
            self.assertEqual([d.logprob for d in answer.started.prompt_details],
                             [d.logprob for d in answers[0].started.prompt_details])

    def test_masks_and_bias(self):
        message = request(PROMPT, max_tokens=20, temperature=1.0)
        message.sampling.allowed_token_ids.extend([40, 50, 60])
        self.assertLessEqual(set(self.generate(message).token_ids[0]), {40, 50, 60})
        message = request(PROMPT, max_tokens=5, temperature=0)
        message.sampling.logit_bias[77] = 100.0
        self.assertEqual(self.generate(message).token_ids[0], [77] * 5)
        # The end of the sequence, wanted by its bias, has to wait for min_tokens.
        message = request(PROMPT, max_tokens=9, temperature=0)
        end = self.model.eos_token_ids[0]
        message.sampling.logit_bias[end] = 100.0
        message.stopping.min_tokens = 4
        answer = self.generate(message)
        self.assertEqual(len(answer.token_ids[0]), 5)
        self.assertEqual(answer.token_ids[0][-1], end)
        self.assertEqual(answer.finished[0].reason, generation.FINISH_REASON_END_OF_SEQUENCE)

    def test_penalties_keep_greedy_output_from_repeating(self):
        def distinct(**penalties):
            message = request("the the the the", max_tokens=60, temperature=0, **penalties)
            message.stopping.ignore_eos = True
            return len(set(self.generate(message).token_ids[0]))

        plain = distinct()
        self.assertGreater(distinct(presence_penalty=2, frequency_penalty=2), plain)
        self.assertGreater(distinct(repetition_penalty=3), plain)

    def test_echo_puts_the_prompt_in_front(self):
        plain = self.generate(request(PROMPT, max_tokens=6, seed=3, n=2))
        message = request(PROMPT, max_tokens=6, seed=3, n=2)
        message.output.echo = True
        echoed = self.generate(message)
        prompt = list(self.server.generation.Tokenize(generation.TokenizeRequest(text=PROMPT), timeout=5).token_ids)
        for i in range(2):
            self.assertEqual(echoed.token_ids[i], prompt + plain.token_ids[i])
            self.assertEqual(echoed.text[i], PROMPT + plain.text[i])
            self.assertEqual(echoed.finished[i].usage.generated_tokens, len(plain.token_ids[i]))

    def test_the_time_limit_ends_well_with_what_there_is(self):
        message = request(PROMPT, max_tokens=900, temperature=1.0, n=4)
        message.stopping.ignore_eos = True
        message.scheduling.time_limit.FromMilliseconds(150)
        begin = time.monotonic()
        answer = self.generate(message)
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(sorted(answer.finished), [0, 1, 2, 3])
        for finished in answer.finished.values():
            self.assertIn(finished.reason, (generation.FINISH_REASON_TIME_LIMIT, generation.FINISH_REASON_LENGTH))
        self.assert_clean()

    def test_a_cancel_ends_all_sequences(self):
        before = self.server.metric("cadre_requests_finished_total", outcome="cancelled")
        message = request(PROMPT, max_tokens=900, n=16)
        message.stopping.ignore_eos = True
        call = self.server.generation.Generate(message, timeout=60)
        next(call)
        call.cancel()
        self.assert_clean()
        self.assertEqual(self.server.metric("cadre_requests_finished_total", outcome="cancelled") - before, 1)

    def test_contradictions_are_refused_by_name(self):
        message = request(PROMPT, max_tokens=4)
        message.output.top_logprobs = 2
        self.assert_refused(message, "output.top_logprobs")
        self.assert_refused(request(PROMPT, max_tokens=4, n=129), "sampling.n")
        self.assert_refused(request(PROMPT, max_tokens=4, frequency_penalty=float("nan")), "frequency_penalty")
        message = request(PROMPT, max_tokens=4)
        message.stopping.min_tokens = 5
        self.assert_refused(message, "stopping.min_tokens")

    def test_tokenize_tells_bytes(self):
        answer = self.server.generation.Tokenize(
            generation.TokenizeRequest(text="naïve 日本", token_bytes=True), timeout=5)
        self.assertEqual(len(answer.token_bytes), len(answer.token_ids))
        self.assertEqual(b"".join(answer.token_bytes).decode(), "naïve 日本")


if __name__ == "__main__":
    unittest.main()
