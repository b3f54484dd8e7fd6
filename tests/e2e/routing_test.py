"""Routing schemes, against a real server process: what chooses them, what is told of them, what is refused, and that an
answer is the same alone and in a crowd."""

import importlib
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

import grpc

from harness import (BIN, DEMO_MODEL, Completion, Server, clean_environment, error_details, experts, generation, models,
                     request)

experts_bias = importlib.import_module("cadre.v1.router_bias_pb2")

PROMPT = "Once upon a time, in a small village by the sea, there lived a girl who wanted to know everything."

# Text of --routing-override, and what GetModel says of the router.
SCHEMES = {
    "family": "family: softmax over 16 experts, top 2, weights over their sum",
    "softmax-top-k,top_k=4,normalize=before": "softmax-top-k: softmax over 16 experts, top 4, weights as they are",
    '{"scheme": "sigmoid-bias", "selection_bias": [0.2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -0.1]}':
        "sigmoid-bias: sigmoid over 16 experts + selection bias, top 2, weights over their sum",
    "group-limited,num_groups=4,kept_groups=2": "group-limited: softmax over 16 experts, best 2 of 4 groups by their "
                                                "best, top 2, weights as they are",
    "switch": "switch: softmax over 16 experts, top 1, weights as they are",
    "gshard": "gshard: softmax over 16 experts, top 2, weights over their sum, overflow to the next best 1",
    "noisy-top-k,noise=0.5": "noisy-top-k: logits over 16 experts, noise of deviation 0.5, top 2, softmax of the "
                             "chosen",
    "hash,top_k=2": "hash: hash of the token over 16 experts, top 2, equal weights",
    "top-p,p=0.7,k_max=6": "top-p: softmax over 16 experts, as many as make 0.7, at least 1, top 6, weights as they "
                           "are",
    "threshold,tau=0.08,k_max=6": "threshold: softmax over 16 experts, all of at least 0.08, at least 1, top 6, "
                                  "weights as they are",
    "expert-choice,group=16": "expert-choice: softmax over 16 experts, experts choose from 16 tokens of a prompt, 2 "
                              "times their share, at most 16 of a token, then top 2, weights over their sum",
    "dense": "dense: softmax over 16 experts, top 16, weights as they are",
}


def model_with(folder, block):
    """The demo model with another config.json."""
    for path in DEMO_MODEL.iterdir():
        if path.name != "config.json":
            os.symlink(path, pathlib.Path(folder) / path.name)
    config = json.loads((DEMO_MODEL / "config.json").read_text())
    config["cadre"] = block
    (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
    return folder


def store_bias(folder, biases):
    """Adds to the weights in `folder` a selection bias for each layer, as DeepSeek-V3 names it."""
    path = pathlib.Path(folder) / "model.safetensors"
    stored = path.read_bytes()
    size, = struct.unpack("<Q", stored[:8])
    header, data = json.loads(stored[8:8 + size]), stored[8 + size:]
    for layer, bias in enumerate(biases):
        values = struct.pack(f"<{len(bias)}f", *bias)
        header[f"model.layers.{layer}.mlp.gate.e_score_correction_bias"] = {
            "dtype": "F32", "shape": [len(bias)], "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.unlink()  # a link to the demo model's own
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def routing_of(server):
    return server.models.GetModel(models.GetModelRequest(), timeout=5).model.architecture.routing


def fails(*flags, model=DEMO_MODEL):
    """Exit code and output of a server that does not start."""
    done = subprocess.run([BIN / "cadre-server", "--model", str(model), "--port=0", "--metrics-port=0", *flags],
                          env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


class RoutingTest(unittest.TestCase):
    def test_each_scheme_answers_the_same_alone_and_in_a_crowd(self):
        answers = set()
        for scheme, description in SCHEMES.items():
            with self.subTest(scheme=scheme), Server("--routing-override", scheme) as server:
                routing = routing_of(server)
                self.assertEqual(routing.description, description)
                self.assertEqual(routing.name, description.split(":")[0])
                self.assertEqual(routing.origin, "" if scheme == "family" else "--routing-override")
                self.assertIn("routing: " + description, server.log_text())

                def ask(seed):
                    message = request(PROMPT, max_tokens=24, seed=seed, temperature=1)
                    message.output.logprobs = True
                    return server.generation.Generate(message, timeout=60)
                alone = Completion(ask(7))
                crowd = [ask(seed) for seed in (1, 2, 7, 3)]
                crowd = [Completion(stream) for stream in crowd]
                self.assertEqual(crowd[2].token_ids, alone.token_ids)
                answers.add(tuple(token.logprob for delta in alone.deltas for token in delta.details))
                server.wait_until_idle()
                self.assertEqual(server.audit(), [])
        # The family's own router is GShard's: top 2, over their sum.
        self.assertEqual(len(answers), len(SCHEMES) - 1, "each router computes something else")

    def test_the_block_of_the_checkpoint_and_the_option_above_it(self):
        with tempfile.TemporaryDirectory() as folder:
            model = model_with(folder, {"routing": {"scheme": "switch"}})
            with Server(model=model) as server:
                self.assertEqual(routing_of(server).name, "switch")
                self.assertEqual(routing_of(server).origin, "config.json: cadre.routing")
                self.assertEqual(server.top_k(), 1)
            with Server("--routing-override=family", model=model) as server:
                self.assertEqual(routing_of(server).name, "family")
                self.assertEqual(server.top_k(), 2)

    def test_a_stored_selection_bias_is_read_by_the_schemes_that_take_one(self):
        favorites = [[3.0 if expert in (5 + layer, 11) else 0.0 for expert in range(16)] for layer in range(4)]
        with tempfile.TemporaryDirectory() as folder:
            model = model_with(folder, {"routing": {"scheme": "sigmoid-bias"}})
            store_bias(model, favorites)

            def experts_with(*flags):
                with Server(*flags, model=model) as server:
                    message = request(PROMPT, max_tokens=4, temperature=0)
                    message.output.routed_experts = True
                    told = Completion(server.generation.Generate(message, timeout=60)).finished.routed_experts
                    layers = [set(told.expert_ids[i] for i in range(len(told.expert_ids))
                                  if i // told.top_k % told.num_layers == layer) for layer in range(told.num_layers)]
                    return routing_of(server).description, layers
            description, layers = experts_with()
            self.assertEqual(description,
                             "sigmoid-bias: sigmoid over 16 experts + selection bias, top 2, weights over their sum")
            self.assertEqual(layers, [{5 + layer, 11} for layer in range(4)])
            given = json.dumps({"scheme": "sigmoid-bias", "selection_bias": [3.0, 3.0] + [0.0] * 14})
            self.assertEqual(experts_with("--routing-override", given)[1], [{0, 1}] * 4)
            code, text = fails("--routing-override=family", model=model)
            self.assertEqual(code, 78)
            self.assertIn("only the routing schemes sigmoid-bias and group-limited take a selection bias, and this "
                          "model's is family", text)

    def test_noise_is_of_the_seed_and_found_again_only_under_it(self):
        with Server("--routing-override=noisy-top-k") as server:
            def ask(seed):
                message = request(PROMPT, max_tokens=8, seed=seed, temperature=0)
                message.output.logprobs = True
                answer = Completion(server.generation.Generate(message, timeout=60))
                return [token.logprob for delta in answer.deltas for token in delta.details], answer.started
            first, started = ask(1)
            self.assertEqual(started.cached_prompt_tokens, 0)
            other, started = ask(2)
            self.assertEqual(started.cached_prompt_tokens, 0)
            self.assertNotEqual(other, first)
            again, started = ask(1)
            self.assertGreater(started.cached_prompt_tokens, 0)
            self.assertEqual(again, first)

    def test_a_varying_number_of_experts_is_counted_exactly(self):
        with Server("--routing-override=top-p,p=0.5,k_max=8", "--capacity-factor", 0.5, "--capacity-group", 16,
                    "--capacity-overflow", "reroute") as server:
            answer = Completion(server.generation.Generate(request(PROMPT, max_tokens=20, temperature=0), timeout=60))
            routing = answer.finished.routing
            total = routing.processed + routing.rerouted + routing.reweighted + routing.dropped
            server.wait_until_idle()
            tokens = server.metric("cadre_routing_tokens_total")
            self.assertGreater(total, tokens)
            self.assertLess(total, tokens * 8)
            self.assertEqual(server.metric("cadre_routing_assignments_total"), total)
            self.assertEqual(server.architecture().routing.min_k, 1)
            self.assertEqual(server.audit(), [])

    def test_experts_that_were_not_chosen_are_told_as_minus_one(self):
        for scheme, min_k in (("top-p,p=0.5,k_max=8", 1), ("expert-choice,group=16", 0)):
            with self.subTest(scheme=scheme), Server("--routing-override", scheme) as server:
                message = request(PROMPT, max_tokens=8, temperature=0)
                message.output.routed_experts = True
                finished = Completion(server.generation.Generate(message, timeout=60)).finished
                told = finished.routed_experts
                self.assertEqual(server.architecture().routing.min_k, min_k)
                self.assertLessEqual(set(told.expert_ids), set(range(-1, 16)))
                missing = [weight for expert, weight in zip(told.expert_ids, told.weights) if expert == -1]
                self.assertGreater(len(missing), 0)
                self.assertEqual(set(missing), {0.0})
                self.assertEqual(len(told.expert_ids) - len(missing), finished.routing.processed)
                message.sampling.n = 128
                message.stopping.max_tokens = 1000
                with self.assertRaises(grpc.RpcError) as caught:
                    Completion(server.generation.Generate(message, timeout=60))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
                self.assertRegex(caught.exception.details(), "^output.routed_experts: .*, the limit is 262144")

    def test_groups_that_blocks_do_not_divide_are_warned_of(self):
        warning = "--kv-block-size, 16, does not divide: cached prompts are found in multiples of"
        for flags, text in ((("--capacity-factor=1", "--capacity-group=100"),
                             f"--capacity-group is 100, which {warning} 400"),
                            (("--routing-override=expert-choice,group=24",),
                             f"routing: group is 24, which {warning} 48"),
                            (("--capacity-factor=1", "--capacity-group=8"), None),
                            (("--capacity-factor=1", "--capacity-group=64"), None)):
            with self.subTest(flags=flags), Server(*flags) as server:
                if text:
                    self.assertIn(text, server.log_text())
                else:
                    self.assertNotIn(warning, server.log_text())

    def test_expert_choice_is_the_same_in_any_chunks_and_found_in_the_cache(self):
        ids = [5 + (i * i) % 900 for i in range(150)]

        def ask(server, ids, seed=1):
            message = request(ids=ids, max_tokens=12, seed=seed, temperature=0)
            message.output.logprobs = True
            return server.generation.Generate(message, timeout=60)

        def told(stream):
            answer = Completion(stream)
            return [token.logprob for delta in answer.deltas for token in delta.details], answer.started

        flags = "--routing-override=expert-choice,group=32", "--max-num-seqs=8"
        with Server(*flags) as server:
            expected, _ = told(ask(server, ids))
            longer, started = told(ask(server, ids + [7] * 40))
            self.assertEqual(started.cached_prompt_tokens, 128)
            with self.assertRaises(grpc.RpcError) as caught:
                message = request(ids=ids, max_tokens=1)
                message.output.prompt_logprobs = 1
                server.generation.GenerateText(
                    generation.GenerateTextRequest.FromString(message.SerializeToString()), timeout=60)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertEqual(error_details(caught.exception)["ErrorInfo"].reason, "ROUTING_SCHEME_REFUSED")
            server.wait_until_idle()
            self.assertEqual(server.audit(), [])
        with Server(*flags, "--max-num-batched-tokens=72", "--max-prefill-chunk=33", "--prefix-cache=off") as server:
            crowd = [ask(server, [9] * n + ids[:n], seed=n) for n in (10, 33, 70)]
            again = [ask(server, ids), ask(server, ids + [7] * 40)]
            answers = [told(stream)[0] for stream in again]
            self.assertEqual(answers, [expected, longer])
            for stream in crowd:
                Completion(stream)
            server.wait_until_idle()
            self.assertEqual(server.audit(), [])

    def test_a_router_can_be_nudged_and_put_back(self):
        def stats(server):
            return server.experts.GetExpertStats(experts.GetExpertStatsRequest(), timeout=5).stats

        with Server() as server:
            self.assertFalse(stats(server).HasField("router_bias"))
            self.assertEqual(server.metric("cadre_router_bias_updates_total"), 0)
            with self.assertRaises(grpc.RpcError) as caught:
                server.experts.ResetRouterBias(experts_bias.ResetRouterBiasRequest(), timeout=5)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.FAILED_PRECONDITION)
            self.assertEqual(error_details(caught.exception)["ErrorInfo"].reason, "ROUTING_SCHEME_REFUSED")
            before = Completion(server.generation.Generate(request(PROMPT, max_tokens=30, temperature=0), timeout=60))
        with Server("--router-bias-rate=0.02", "--router-bias-window=32", "--router-bias-limit=0.05",
                    "--prefix-cache=off") as server:
            for _ in range(6):
                Completion(server.generation.Generate(request(PROMPT, max_tokens=30, temperature=0), timeout=60))
            bias = stats(server).router_bias
            self.assertGreater(bias.updates, 3)
            self.assertAlmostEqual(bias.largest_nudge, 0.05, 5)
            values = [value for layer in bias.layers for value in layer.bias]
            self.assertEqual(len(values), 4 * 16)
            self.assertAlmostEqual(max(map(abs, values)), 0.05, 5)
            self.assertEqual(server.metric("cadre_router_bias_updates_total"), bias.updates)
            self.assertAlmostEqual(server.metric("cadre_router_bias_largest_nudge"), 0.05, 5)
            last = server.experts.ResetRouterBias(experts_bias.ResetRouterBiasRequest(), timeout=5).last_bias
            self.assertEqual(last.updates, bias.updates)
            bias = stats(server).router_bias
            self.assertEqual((bias.updates, bias.largest_nudge), (0, 0))
            self.assertEqual({value for layer in bias.layers for value in layer.bias}, {0})
            server.wait_for_log("router bias reset by")
            self.assertEqual(server.audit(), [])
        # Window and rate that change nothing before the end of the first window.
        with Server("--router-bias-rate=0.5", "--router-bias-window=100000") as server:
            after = Completion(server.generation.Generate(request(PROMPT, max_tokens=30, temperature=0), timeout=60))
            self.assertEqual(after.token_ids, before.token_ids)

    def test_what_cannot_be_is_refused_at_the_start(self):
        for flag, message in (("switch,top_k=2", '"top_k" is no setting of the scheme switch'),
                              ("softmax-top-k,top_k=17", "top_k is 17, must be a whole number from 1 to 16"),
                              ("group-limited,num_groups=3,kept_groups=1", "num_groups is 3, must divide"),
                              ("magic", "must be one of family, softmax-top-k")):
            code, output = fails("--routing-override", flag)
            self.assertEqual(code, 64, output)
            self.assertIn("--routing-override", output)
            self.assertIn(message, output)
        for flags, message in ((["--routing-override=expert-choice,group=512", "--max-num-batched-tokens=256"],
                                "group is 512, must be at most --max-num-batched-tokens less --max-num-seqs"),
                               (["--routing-override=expert-choice,group=64", "--max-prefill-chunk=32"],
                                "group is 64, must be at most --max-prefill-chunk, 32"),
                               (["--routing-override=expert-choice", "--capacity-factor=1"],
                                "does not limit the capacity of experts"),
                               (["--routing-override=hash", "--router-bias-rate=0.1"],
                                "does not choose experts by a bias"),
                               (["--router-bias-rate=nan"], "--router-bias-rate"),
                               (["--router-bias-window=0"], "--router-bias-window")):
            code, output = fails(*flags)
            self.assertEqual(code, 64, output)
            self.assertIn(message, output)
            if "--capacity-factor=1" in flags:
                self.assertNotIn("memory plan", output, "said before anything is loaded")
        code, output = fails("--routing-override=switch", model="sim")
        self.assertEqual(code, 64, output)
        self.assertIn("a simulated model has no router", output)
        for block, message in (({"routing": {"scheme": "switch", "k": 1}}, '"k" is no setting of the scheme switch'),
                               ({"rooting": {}}, 'unknown key "rooting"')):
            with tempfile.TemporaryDirectory() as folder:
                code, output = fails(model=model_with(folder, block))
                self.assertEqual(code, 78, output)
                self.assertIn("config.json: cadre", output)
                self.assertIn(message, output.replace('\\"', '"'))


if __name__ == "__main__":
    unittest.main()
