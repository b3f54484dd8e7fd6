"""The package itself: requests field by field, the document about OpenAI's API, how it is built."""

import array
import dataclasses
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import package
from fake_server import FakeServer, finished

from cadre_client import (
    DROPLESS, CapacityPolicy, CapacityScope, Chat, Client, FinishReason, GenerateOptions, Message, OverflowPolicy,
    ReplayRouting, ReplayWeights, RoutedExperts, ToolCall, _protos)
from cadre_client._convert import (
    detokenize_request, event_from, expert_stats_request, generate_request, tokenize_request)


class RequestTest(unittest.TestCase):
    def test_every_option_reaches_its_field(self):
        """Each field of the dataclass is set alone: exactly one field of the message must follow."""
        values = {"Optional[bool]": True, "Optional[int]": 3, "Optional[float]": 0.5, "Mapping[int, float]": {7: 1.5},
                  "Sequence[int]": [4, 5], "Sequence[str]": ["x", "y"], "Optional[str]": "text", "str": "name",
                  "Optional[JsonObject]": {"type": "string"}, "Optional[CapacityPolicy]": DROPLESS,
                  "Optional[ReplayRouting]": ReplayRouting(RoutedExperts(0, 1, 2, (3, 4)))}
        empty = generate_request("p", GenerateOptions(), unary=False)
        for field in dataclasses.fields(GenerateOptions):
            value = values[field.type]
            request = generate_request("p", GenerateOptions(**{field.name: value}), unary=False)
            self.assertNotEqual(request, empty, field.name)
            paths = list(self.paths(request))
            self.assertEqual([path.rpartition(".")[2] for path in paths if path != "text"] or ["text"],
                             ["choices" if field.name == "choices" else field.name], paths)
        for field in ("temperature", "min_tokens", "top_logprobs", "ignore_eos", "priority"):
            zero = generate_request("p", GenerateOptions(**{field: 0}), unary=False)
            self.assertEqual(len(list(self.paths(zero))), 2, f"{field}: zero is not the same as unset")

    def paths(self, message, prefix=""):
        for descriptor, value in message.ListFields():
            path = prefix + descriptor.name
            if descriptor.message_type and not descriptor.message_type.GetOptions().map_entry \
                    and descriptor.message_type.name not in ("Duration", "CapacityPolicy", "ReplayRouting"):
                yield from self.paths(value, path + ".")
            else:
                yield path

    def test_prompts_are_text_ids_or_conversations(self):
        self.assertEqual(generate_request([1, 2], GenerateOptions(), unary=True).token_ids.ids, [1, 2])
        chat = Chat([Message("system", "be brief"), Message("assistant", tool_calls=[ToolCall("f", '{"a": 1}', "7")]),
                     Message("tool", "", tool_call_id="7")], tools=['{"type": "function"}'],
                    add_generation_prompt=False)
        wire = generate_request(chat, GenerateOptions(), unary=False).chat
        self.assertEqual([message.role for message in wire.messages], ["system", "assistant", "tool"])
        self.assertFalse(wire.messages[1].HasField("content"))
        self.assertTrue(wire.messages[2].HasField("content"))
        self.assertEqual(wire.messages[1].tool_calls[0].arguments, '{"a": 1}')
        self.assertTrue(wire.HasField("add_generation_prompt"))
        self.assertEqual(list(wire.tools), ['{"type": "function"}'])
        with self.assertRaises(ValueError):
            generate_request("p", GenerateOptions(regex="a", choices=["b"]), unary=False)

    def test_what_is_no_sequence_is_refused_by_name(self):
        """A text is a sequence of characters, and bytes are one of numbers: neither is what somebody wants to send."""
        sequences = [field.name for field in dataclasses.fields(GenerateOptions) if field.type.startswith("Sequence")]
        self.assertEqual(len(sequences), 4)
        for wrong in ("END", "", b"END", bytearray(b"END"), memoryview(b"END"), {1: 2}, iter([5]), 5):
            for name in sequences:
                with self.assertRaisesRegex(TypeError, f"^{name}: .*{type(wrong).__name__}"):
                    generate_request("p", GenerateOptions(**{name: wrong}), unary=False)
            for name in ("messages", "tools", "documents"):
                with self.assertRaisesRegex(TypeError, f"^{name}: .*{type(wrong).__name__}"):
                    generate_request(Chat(**{"messages": [], name: wrong}), GenerateOptions(), unary=False)
            with self.assertRaisesRegex(TypeError, r"^messages\[0\].tool_calls: "):
                generate_request(Chat([Message("user", tool_calls=wrong)]), GenerateOptions(), unary=False)
            with self.assertRaisesRegex(TypeError, "^token_ids: "):
                detokenize_request(wrong, skip_special_tokens=None, model="")
            with self.assertRaisesRegex(TypeError, "^layers: "):
                expert_stats_request(_protos.GET_EXPERT_STATS.request_class, "", wrong, True, True, True)
        for wrong in (b"text", bytearray(b"text"), memoryview(b"text"), {1: 2}, 5, None, ["text"], [Message("user")]):
            with self.assertRaisesRegex(TypeError, "^prompt: "):
                generate_request(wrong, GenerateOptions(), unary=True)
        for wrong in (b"text", [1, 2], None):
            with self.assertRaisesRegex(TypeError, "^prompt: "):
                tokenize_request(wrong, add_special_tokens=None, parse_special=None, token_bytes=False, model="")

    def test_elements_and_maps_of_another_type_are_refused_by_name(self):
        for kind, name, options in ((TypeError, "stop_strings", {"stop_strings": [5]}),
                                    (TypeError, "choices", {"choices": [None]}),
                                    (TypeError, "allowed_token_ids", {"allowed_token_ids": ["5"]}),
                                    (ValueError, "stop_token_ids", {"stop_token_ids": [1 << 40]}),
                                    (TypeError, "logit_bias", {"logit_bias": [(5, 1.0)]}),
                                    (TypeError, "logit_bias", {"logit_bias": {"5": 1.0}})):
            with self.assertRaisesRegex(kind, f"^{name}: "):
                generate_request("p", GenerateOptions(**options), unary=False)
        with self.assertRaisesRegex(ValueError, "^prompt: "):
            generate_request([1 << 40], GenerateOptions(), unary=False)
        with self.assertRaisesRegex(TypeError, r"^messages\[1\]: .*dict"):
            generate_request(Chat([Message("user"), {"role": "user"}]), GenerateOptions(), unary=False)
        with self.assertRaisesRegex(TypeError, r"^messages\[0\].tool_calls\[0\]: .*dict"):
            generate_request(Chat([Message("user", tool_calls=[{"name": "f"}])]), GenerateOptions(), unary=False)

    def test_texts_of_another_type_are_refused_by_name(self):
        parts = [{"type": "text", "text": "as OpenAI's API has them"}]
        for message in (Message("user", parts), Message("user", 5), Message(5), Message("user", "\ud800"),
                        Message("user", tool_calls=[ToolCall("f", ["a"])])):
            with self.assertRaisesRegex((TypeError, ValueError), r"^messages\[1\]: "):
                generate_request(Chat([Message("user"), message]), GenerateOptions(), unary=False)
        with self.assertRaisesRegex(ValueError, "^prompt: "):
            generate_request("\ud800", GenerateOptions(), unary=False)
        for name in ("json_schema", "tenant", "model", "temperature"):
            with self.assertRaisesRegex(TypeError, f"^{name}: "):
                generate_request("p", GenerateOptions(**{name: [{"type": "string"}]}), unary=False)
        with self.assertRaisesRegex(TypeError, "^tenant: "):
            generate_request("p", GenerateOptions(tenant={"type": "string"}), unary=False)

    def test_json_objects_are_text_or_dicts(self):
        schema = {"type": "object", "properties": {"ü": {"const": 9007199254740993}}}
        text = '{"type": "object", "properties": {"ü": {"const": 9007199254740993}}}'
        for value in (schema, text):
            request = generate_request("p", GenerateOptions(json_schema=value), unary=False)
            self.assertEqual(request.structured_output.json_schema, text)
            call = ToolCall("f", value)
            chat = Chat([Message("assistant", tool_calls=[call])], tools=[value], documents=[value],
                        template_arguments=value)
            sent = generate_request(chat, GenerateOptions(), unary=False).chat
            self.assertEqual((list(sent.tools), list(sent.documents), sent.template_arguments),
                             ([text], [text], text))
            self.assertEqual(sent.messages[0].tool_calls[0].arguments, text)
        nothing = Chat([Message("user", "a")], tools=None, documents=None, template_arguments=None)
        self.assertEqual(generate_request(nothing, GenerateOptions(), unary=False),
                         generate_request(Chat([Message("user", "a")]), GenerateOptions(), unary=False))
        for wrong in ({"const": math.nan}, {"const": {1}}, {"const": b"x"}, 5):
            with self.assertRaisesRegex((TypeError, ValueError), "^json_schema: (?!json_schema)"):
                generate_request("p", GenerateOptions(json_schema=wrong), unary=False)
        for name in ("tools", "documents"):
            for wrong, error in (([{}, 5], rf"^{name}\[1\]: a JSON object is wanted, as a dict or as text, not int"),
                                 ({"type": "function"}, f"^{name}: a sequence is wanted")):
                with self.assertRaisesRegex(TypeError, error):
                    generate_request(Chat([Message("user")], **{name: wrong}), GenerateOptions(), unary=False)

    def test_sequences_are_whatever_can_be_read(self):
        for ids in ([4, 5], (4, 5), range(4, 6), array.array("i", [4, 5]), {4: 0, 5: 0}.keys()):
            request = generate_request(ids, GenerateOptions(stop_token_ids=ids), unary=False)
            self.assertEqual((list(request.token_ids.ids), list(request.stopping.stop_token_ids)), ([4, 5], [4, 5]))
        nothing = generate_request("p", GenerateOptions(stop_strings=[], choices=(), logit_bias={}), unary=False)
        self.assertEqual(nothing, generate_request("p", GenerateOptions(), unary=False))

    def test_times_are_finite(self):
        for seconds, wire in ((1.5, (1, 500_000_000)), (0, (0, 0)), (-0.25, (0, -250_000_000)), (1e-9, (0, 1))):
            limit = generate_request("p", GenerateOptions(time_limit=seconds), unary=False).scheduling.time_limit
            self.assertEqual((limit.seconds, limit.nanos), wire)
        self.assertTrue(generate_request("p", GenerateOptions(time_limit=0), unary=False).scheduling.HasField(
            "time_limit"), "zero is not the same as unset")
        for wrong in (math.nan, math.inf, -math.inf, 1e300):
            with self.assertRaisesRegex(ValueError, "^time_limit: "):
                generate_request("p", GenerateOptions(time_limit=wrong), unary=False)
        with Client() as client, self.assertRaisesRegex(ValueError, "^interval: "):
            next(client.watch_expert_stats(math.nan))

    def test_an_event_or_reason_of_a_newer_server_is_no_error(self):
        self.assertIsNone(event_from(_protos.GENERATE.response_class()))
        self.assertIs(event_from(finished(reason=99)).reason, FinishReason.UNSPECIFIED)

    def test_limits_of_experts_leave_to_the_server_what_they_do_not_say(self):
        policy = CapacityPolicy(CapacityScope.REQUEST, OverflowPolicy.REROUTE, capacity_factor=0.5, min_capacity=0)
        wire = generate_request("p", GenerateOptions(capacity=policy), unary=False).scheduling.capacity
        self.assertEqual((wire.scope, wire.overflow, wire.capacity_factor), (2, 3, 0.5))
        self.assertTrue(wire.HasField("min_capacity"), "zero is not the same as unset")
        self.assertFalse(wire.HasField("group_tokens"))
        with self.assertRaisesRegex(TypeError, "^capacity: a CapacityPolicy is wanted"):
            generate_request("p", GenerateOptions(capacity="off"), unary=False)

    def test_what_an_event_told_is_replayed(self):
        told = finished()
        told.finished.routed_experts.MergeFrom(type(told.finished.routed_experts)(
            first_position=2, num_layers=1, top_k=2, expert_ids=[3, 4, 5, -1], weights=[0.5, 0.25, 1, 0]))
        record = event_from(told).routed_experts
        self.assertEqual(record, RoutedExperts(2, 1, 2, (3, 4, 5, -1), (0.5, 0.25, 1.0, 0.0)))
        for weights in ReplayWeights:
            wire = generate_request("p", GenerateOptions(replay_routing=ReplayRouting(record, weights)),
                                    unary=False).replay_routing
            self.assertEqual((wire.record.SerializeToString(), wire.weights),
                             (told.finished.routed_experts.SerializeToString(), weights))
        for wrong, what in ((record, "replay_routing: a ReplayRouting"),
                            (ReplayRouting([1]), "replay_routing.record: a RoutedExperts"),
                            (ReplayRouting(RoutedExperts(0, 1, 2, "3")), "replay_routing.record: expert_ids")):
            with self.assertRaisesRegex(TypeError, f"^{what}"):
                generate_request("p", GenerateOptions(replay_routing=wrong), unary=False)

    def test_enums_have_the_names_of_the_api(self):
        policy = _protos.SET_CAPACITY_POLICY.response_class.DESCRIPTOR.fields_by_name["previous_policy"].message_type
        for field, prefix, cls in (("scope", "CAPACITY_SCOPE_", CapacityScope),
                                   ("overflow", "OVERFLOW_POLICY_", OverflowPolicy)):
            values = policy.fields_by_name[field].enum_type.values
            self.assertEqual({value.name.replace(prefix, ""): value.number for value in values},
                             {member.name: member.value for member in cls})
        replay = _protos.GENERATE.request_class.DESCRIPTOR.fields_by_name["replay_routing"].message_type
        values = replay.fields_by_name["weights"].enum_type.values
        self.assertEqual({value.name.replace("REPLAY_WEIGHTS_", ""): value.number for value in values},
                         {member.name: member.value for member in ReplayWeights})
        reason = _protos.GENERATE.response_class.DESCRIPTOR.fields_by_name["finished"].message_type.fields_by_name[
            "reason"].enum_type
        self.assertEqual({value.name.replace("FINISH_REASON_", ""): value.number for value in reason.values},
                         {member.name: member.value for member in FinishReason})


class OpenAiDocumentTest(unittest.TestCase):
    """The example of docs/openai.md is run, and its tables name every value of the API."""

    TEXT = (package.CLIENT.parents[1] / "docs" / "openai.md").read_text(encoding="utf-8")

    def test_the_example_answers_a_chat_completion(self):
        namespace = {}
        exec(self.TEXT.split("```python\n")[1].split("```")[0], namespace)
        response = _protos.GENERATE_TEXT.response_class()
        response.started.request_id = "r"
        for index, reason in enumerate((1, 4, 5)):
            sequence = response.sequences.add(text=f"text {index}")
            sequence.finished.index, sequence.finished.reason = index, reason
            sequence.finished.usage.prompt_tokens, sequence.finished.usage.generated_tokens = 5, 2
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        body = {"messages": [{"role": "user", "content": parts},
                             {"role": "assistant", "content": None, "tool_calls": [
                                 {"id": "7", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}],
                "n": 3, "stop": "END", "max_tokens": 9, "logit_bias": {"12": -1}, "user": "u", "temperature": 0,
                "response_format": {"type": "json_object"}, "tools": [{"type": "function", "function": {"name": "f"}}]}
        server = FakeServer([[response]])
        with server.running() as address, Client(address) as client:
            answer = namespace["complete"](client, body)
        sent, = server.requests
        self.assertEqual(sent.chat.messages[0].content, "ab")
        self.assertEqual(sent.chat.messages[1].tool_calls[0].name, "f")
        self.assertEqual((sent.sampling.n, sent.sampling.logit_bias[12], sent.stopping.max_tokens), (3, -1, 9))
        self.assertTrue(sent.sampling.HasField("temperature"))
        self.assertEqual(list(sent.stopping.stop_strings), ["END"])
        self.assertEqual((sent.structured_output.json_schema, sent.scheduling.tenant), ('{"type": "object"}', "u"))
        self.assertEqual([choice["finish_reason"] for choice in answer["choices"]], ["stop", "length", "length"])
        self.assertEqual(answer["choices"][1]["message"]["content"], "text 1")
        self.assertEqual(answer["usage"]["total_tokens"], 5 + 6)

    def test_every_finish_reason_is_in_the_table(self):
        for member in FinishReason:
            if member is not FinishReason.UNSPECIFIED:
                self.assertRegex(self.TEXT, rf"\| `FINISH_REASON_{member.name}` \| `(stop|length)` \|")

    def test_fields_that_are_named_exist(self):
        groups = {field.name: field.message_type for field in _protos.GENERATE.request_class.DESCRIPTOR.fields}
        named = re.findall(r"`(sampling|stopping|output|scheduling|structured_output|prompt|chat)\.(\w+)", self.TEXT)
        self.assertGreater(len(named), 15)
        for group, field in named:
            self.assertIn(field, groups[group].fields_by_name, f"{group}.{field}")


class BuildTest(unittest.TestCase):
    """Outside of a checkout."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="cadre-client-")
        self.addCleanup(self.folder.cleanup)
        shutil.copy(package.CLIENT / "compile_protos.py", self.folder.name)

    def provide(self):
        code = "import compile_protos; compile_protos.provide_protos('protos.binpb')"
        return subprocess.run([sys.executable, "-c", code], cwd=self.folder.name, capture_output=True, text=True)

    def test_without_protos_there_is_no_package(self):
        built = self.provide()
        self.assertNotEqual(built.returncode, 0)
        self.assertIn("there is no folder proto/", built.stderr)

    def test_a_source_archive_carries_them(self):
        (pathlib.Path(self.folder.name) / "protos.binpb").write_bytes(b"compiled")
        self.assertEqual(self.provide().returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
