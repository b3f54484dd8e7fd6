"""Structured output over the wire: what the demo model says under a constraint, read by Python's own json and re."""

import json
import re
import threading
import unittest

import grpc

from harness import Completion, Server, error_details, generation, request

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
CONSTRAINT_END = generation.FINISH_REASON_CONSTRAINT_END
END_OF_SEQUENCE = generation.FINISH_REASON_END_OF_SEQUENCE


def constrained(seed=1, max_tokens=200, **constraint):
    message = request("Tell me about somebody.", max_tokens=max_tokens, temperature=1.0, seed=seed)
    message.structured_output.CopyFrom(generation.StructuredOutput(**constraint))
    return message


def json_constrained(schema, **options):
    return constrained(json_schema=json.dumps(schema), **options)


class StructuredTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--max-num-seqs", 16)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def generate(self, message):
        return Completion(self.server.generation.Generate(message, timeout=60))

    def refused(self, message):
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate(message)
        violations = error_details(caught.exception)["BadRequest"].field_violations
        return caught.exception, [violation.field for violation in violations]

    def assert_is_person(self, text):
        value = json.loads(text)
        self.assertEqual(list(value), ["name", "age", "tags"])
        self.assertTrue(isinstance(value["name"], str) and 1 <= len(value["name"]) <= 12, text)
        self.assertTrue(isinstance(value["age"], int) and 0 <= value["age"] <= 150, text)
        self.assertTrue(len(value["tags"]) <= 3 and set(value["tags"]) <= {"a", "b", "c"}, text)

    def test_json_conforms_to_its_schema_with_any_seed(self):
        for seed in range(20):
            answer = self.generate(json_constrained(PERSON, seed=seed))
            self.assertEqual(answer.finished.reason, CONSTRAINT_END, answer.text)
            self.assert_is_person(answer.text)

    def test_a_seed_says_the_same_alone_and_among_others(self):
        alone = [self.generate(json_constrained(PERSON, seed=seed)).token_ids for seed in range(6)]
        together = [None] * 6

        def run(seed):
            together[seed] = self.generate(json_constrained(PERSON, seed=seed)).token_ids

        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(together, alone)

    def test_recursive_schema(self):
        node = {"type": "object", "required": ["v", "next"],
                "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
        for seed in range(5):
            answer = self.generate(json_constrained(node, seed=seed, max_tokens=400))
            if answer.finished.reason == CONSTRAINT_END:
                value = json.loads(answer.text)
                while value is not None:
                    self.assertEqual(list(value), ["v", "next"])
                    value = value["next"]

    def test_output_matches_the_whole_expression(self):
        pattern = r"[A-Z][a-z]{2,8} (is|was) \d{1,3} years old\.( Ünï?)?"
        for seed in range(10):
            answer = self.generate(constrained(regex=pattern, seed=seed))
            self.assertIn(answer.finished.reason, (CONSTRAINT_END, END_OF_SEQUENCE))
            self.assertIsNotNone(re.fullmatch(pattern, answer.text), answer.text)

    def test_output_is_one_of_the_choices(self):
        choices = ["yes", "no", "perhaps", "perhaps not", "日本"]
        seen = set()
        for seed in range(20):
            answer = self.generate(constrained(choices=generation.Choices(choices=choices), seed=seed))
            self.assertIn(answer.text, choices)
            seen.add(answer.text)
        self.assertGreater(len(seen), 1)

    def test_unary_and_without_text(self):
        message = json_constrained(PERSON)
        unary = self.server.generation.GenerateText(
            generation.GenerateTextRequest.FromString(message.SerializeToString()), timeout=60)
        self.assert_is_person(unary.sequences[0].text)
        message.output.text = False
        silent = self.generate(message)
        self.assertEqual(silent.text, "")
        self.assertEqual(silent.token_ids, list(unary.sequences[0].token_ids))

    def test_max_tokens_cuts_what_would_go_on(self):
        answer = self.generate(json_constrained(PERSON, max_tokens=2))
        self.assertEqual(answer.finished.reason, generation.FINISH_REASON_LENGTH)

    def test_unsupported_keyword_is_named_with_its_place(self):
        error, fields = self.refused(json_constrained({"properties": {"a": {"not": {}}}}))
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertEqual(error.details(),
                         'structured_output.json_schema: #/properties/a: the keyword "not" is not supported')
        self.assertEqual(fields, ["structured_output.json_schema"])

    def test_unsupported_construct_of_an_expression_is_named(self):
        error, fields = self.refused(constrained(regex="(a)\\1"))
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)
        self.assertEqual(error.details(),
                         "structured_output.regex: back-references are not supported at byte 5 of the expression")
        self.assertEqual(fields, ["structured_output.regex"])

    def test_what_is_malformed_or_too_large_is_invalid(self):
        for constraint, field in [({"json_schema": "{"}, "structured_output.json_schema"),
                                  ({"json_schema": '{"type":"integer","minimum":2,"maximum":1}'},
                                   "structured_output.json_schema"),
                                  ({"regex": "(a{1,1000}){1,1000}"}, "structured_output.regex"),
                                  ({"regex": "(a"}, "structured_output.regex"),
                                  ({"regex": ""}, "structured_output.regex"),
                                  ({"choices": generation.Choices(choices=["a", ""])},
                                   "structured_output.choices.choices"),
                                  ({"choices": generation.Choices()}, "structured_output.choices.choices"),
                                  ({}, "structured_output")]:
            error, fields = self.refused(constrained(**constraint))
            self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT, error.details())
            self.assertEqual(fields, [field])

    def test_what_contradicts_a_constraint_is_refused(self):
        message = json_constrained(PERSON)
        message.stopping.ignore_eos = True
        error, fields = self.refused(message)
        self.assertEqual((error.code(), fields), (grpc.StatusCode.INVALID_ARGUMENT, ["stopping.ignore_eos"]))


if __name__ == "__main__":
    unittest.main()
