"""cadre chat against a server that this test makes up: through a pipe, and in a pseudo-terminal with Ctrl-C."""

import concurrent.futures
import json
import pathlib
import subprocess
import tempfile
import threading
import time
import unittest

import grpc

from harness import BIN, clean_environment, generation, generation_grpc
from terminal import Terminal

OK, FAILED, USAGE = 0, 1, 64


class Parrot(generation_grpc.GenerationServiceServicer):
    """Repeats the last message in upper case, word by word; says how many messages there were. "slow" never ends,
    "fail" is refused."""

    def __init__(self):
        self.requests = []
        self.cancelled = threading.Event()

    def Generate(self, request, context):
        self.requests.append(request)
        said = request.chat.messages[-1].content if request.HasField("chat") else request.text
        if said == "fail":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        yield generation.GenerateResponse(started={"request_id": "r"})
        for word in said.upper().split(" "):
            yield generation.GenerateResponse(delta={"text": word + " "})
        if said == "slow":
            context.add_callback(self.cancelled.set)
            while context.is_active():
                time.sleep(0.01)
            return
        yield generation.GenerateResponse(finished={"text": f"({len(request.chat.messages)})", "reason": 1})


class ChatTest(unittest.TestCase):
    def setUp(self):
        self.parrot = Parrot()
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        generation_grpc.add_GenerationServiceServicer_to_server(self.parrot, server)
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self.addCleanup(server.stop, 0)

    def chat(self, stdin, *flags):
        return subprocess.run([str(BIN / "cadre"), "-a", self.address, "chat", *flags], input=stdin, text=True,
                              capture_output=True, encoding="utf-8", env=clean_environment(), timeout=30, check=False)

    def test_each_line_of_a_pipe_is_a_message(self):
        result = self.chat("hello there\nGrüße\n\nline one\\\nline two")
        self.assertEqual((result.returncode, result.stderr), (OK, ""))
        self.assertEqual(result.stdout, "HELLO THERE (1)\nGRÜSSE (3)\nLINE ONE\nLINE TWO (5)\n")
        last = self.parrot.requests[-1].chat.messages
        self.assertEqual([message.role for message in last], ["user", "assistant", "user", "assistant", "user"])
        self.assertEqual(last[1].content, "HELLO THERE (1)")

    def test_commands_and_flags(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "saved.json"
            result = self.chat(f"one\n/undo\n/set temperature 0.25\ntwo\n/save {file}\n/nonsense\n/quit\nnever\n",
                               "--system", "Be a parrot.", "--seed", "7", "--max-tokens", "5")
            saved = json.loads(file.read_text())
        self.assertEqual(result.returncode, OK)
        self.assertEqual(result.stdout, "ONE (2)\nTWO (2)\n")
        self.assertIn("there is no command /nonsense", result.stderr)
        self.assertEqual([(m["role"], m["content"]) for m in saved],
                         [("system", "Be a parrot."), ("user", "two"), ("assistant", "TWO (2)")])
        first, second = self.parrot.requests
        self.assertEqual((first.sampling.seed, first.stopping.max_tokens), (7, 5))
        self.assertFalse(first.sampling.HasField("temperature"))
        self.assertEqual(second.sampling.temperature, 0.25)

    def test_a_system_message_may_end_with_a_backslash(self):
        result = self.chat("hello\n", "--system", "Escape with \\")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (OK, "HELLO (2)\n", ""))
        self.assertEqual(self.parrot.requests[0].chat.messages[0].content, "Escape with \\")

    def test_lines_may_end_as_windows_ends_them(self):
        result = self.chat('one\r\n/set seed 5\r\n"""\r\ntwo\r\n"""\r\nthree\\\r\nfour\r\n/quit\r\nnever\r\n')
        self.assertEqual((result.returncode, result.stderr), (OK, "seed = 5\n"))
        said = [request.chat.messages[-1].content for request in self.parrot.requests]
        self.assertEqual(said, ["one", "two", "three\nfour"])
        self.assertEqual(self.chat("a\rb\r\r\nend\r").returncode, OK)
        said = [request.chat.messages[-1].content for request in self.parrot.requests[len(said):]]
        self.assertEqual(said, ["a\rb\r", "end"], "one \\r belongs to the end of the line, others are text")

    def test_a_failure_takes_the_message_back_and_is_told(self):
        result = self.chat("fail\nok\n")
        self.assertEqual(result.returncode, FAILED)
        self.assertEqual(result.stdout, "OK (1)\n")
        self.assertRegex(result.stderr, "^cadre: RESOURCE_EXHAUSTED: the queue is full")

    def test_json_is_one_event_a_line(self):
        events = [json.loads(line) for line in self.chat("hi\n", "--json").stdout.splitlines()]
        self.assertEqual([next(iter(event)) for event in events], ["started", "delta", "finished"])

    def test_in_a_terminal_an_interrupt_ends_the_answer_and_not_the_program(self):
        terminal = Terminal("-a", self.address, "chat")
        terminal.read_until("> ")
        terminal.type("slow\n")
        terminal.read_until("SLOW ")
        terminal.type("\x03")  # Ctrl-C, by way of the terminal
        terminal.read_until(r"\[stopped\]")
        self.assertTrue(self.parrot.cancelled.wait(5))
        terminal.read_until("> ")
        terminal.type("again\n")
        terminal.read_until(r"AGAIN \(3\)")
        self.assertEqual(self.parrot.requests[-1].chat.messages[1].content, "SLOW ")
        terminal.read_until("> ")
        terminal.type("half a line\x03")
        terminal.read_until("> ")
        terminal.type("\x03")
        terminal.read_until("> ")
        terminal.type("whole\n")
        terminal.read_until(r"WHOLE \(5\)")
        terminal.read_until("> ")
        terminal.type("\x04")  # Ctrl-D
        self.assertEqual(terminal.close(), OK)

    def test_lines_can_be_edited_and_called_back(self):
        terminal = Terminal("-a", self.address, "chat")
        terminal.read_until("> ")
        terminal.type("wrng\x02\x02o\n")  # Ctrl-B: a character back
        terminal.read_until(r"WRONG \(1\)")
        terminal.read_until("> ")
        terminal.type("\x1b[A\n")  # arrow up
        terminal.read_until(r"WRONG \(3\)")
        terminal.read_until("> ")
        terminal.type("\x04")
        self.assertEqual(terminal.close(), OK)

    def test_every_flag_of_generate_reaches_its_field(self):
        with tempfile.TemporaryDirectory() as folder:
            schema = pathlib.Path(folder) / "schema.json"
            schema.write_text('{"type": "string"}')
            flags = {
                "--temperature=0.5": {"sampling": {"temperature": 0.5}}, "--top-k=4": {"sampling": {"top_k": 4}},
                "--top-p=0.5": {"sampling": {"top_p": 0.5}}, "--min-p=0.25": {"sampling": {"min_p": 0.25}},
                "--presence-penalty=-1": {"sampling": {"presence_penalty": -1}},
                "--frequency-penalty=1": {"sampling": {"frequency_penalty": 1}},
                "--repetition-penalty=2": {"sampling": {"repetition_penalty": 2}},
                "--seed=9": {"sampling": {"seed": 9}},
                "--n=3": {"sampling": {"n": 3}}, "--sequences=3": {"sampling": {"n": 3}},
                "--logit-bias=5=-2,6=1": {"sampling": {"logit_bias": {5: -2, 6: 1}}},
                "--allowed-token-ids=5,6": {"sampling": {"allowed_token_ids": [5, 6]}},
                "-n7": {"stopping": {"max_tokens": 7}}, "--min-tokens=2": {"stopping": {"min_tokens": 2}},
                "--stop=a,b": {"stopping": {"stop_strings": ["a,b"]}},
                "--stop-token-id=3": {"stopping": {"stop_token_ids": [3]}},
                "--ignore-eos": {"stopping": {"ignore_eos": True}},
                "--include-stop-string": {"stopping": {"include_stop_string": True}},
                "--logprobs": {"output": {"logprobs": True}},
                "--top-logprobs=2": {"output": {"logprobs": True, "top_logprobs": 2}},
                "--prompt-logprobs=0": {"output": {"prompt_logprobs": 0}}, "--echo": {"output": {"echo": True}},
                "--token-bytes": {"output": {"token_bytes": True}},
                "--keep-special-tokens": {"output": {"skip_special_tokens": False}},
                "--truncate-prompt-tokens=8": {"prompt": {"truncate_prompt_tokens": 8}},
                "--no-special-tokens": {"prompt": {"add_special_tokens": False}},
                "--parse-special": {"prompt": {"parse_special": True}},
                "--priority=-3": {"scheduling": {"priority": -3}}, "--tenant=t": {"scheduling": {"tenant": "t"}},
                "--cache-salt=s": {"scheduling": {"cache_salt": "s"}},
                "--time-limit=1500ms": {"scheduling": {"time_limit": {"seconds": 1, "nanos": 500000000}}},
                f"--json-schema={schema}": {"structured_output": {"json_schema": '{"type": "string"}'}},
                "--regex=a+": {"structured_output": {"regex": "a+"}},
                "--choice=a b": {"structured_output": {"choices": {"choices": ["a b"]}}},
                "--model=m": {"model": "m"}, "--request-id=r": {"request_id": "r"},
            }
            for flag, fields in flags.items():
                result = subprocess.run([str(BIN / "cadre"), "-a", self.address, "generate", "x", flag], text=True,
                                        capture_output=True, env=clean_environment(), timeout=30, check=False)
                self.assertEqual(result.returncode, OK, (flag, result.stderr))
                sent = self.parrot.requests[-1]
                for group in ("prompt", "sampling", "stopping", "output", "scheduling"):
                    if not getattr(sent, group).ListFields():
                        sent.ClearField(group)  # an empty group says the same as none
                self.assertEqual(sent, generation.GenerateRequest(text="x", **fields), flag)

    def test_wrong_flags(self):
        for flags, words in ((["--json-schema", "/nowhere/x"], "/nowhere/x"), (["--logit-bias", "x"], "123=-5"),
                             (["--time-limit", "soon"], "soon"), (["--regex", "a", "--choice", "b"], "--")):
            result = self.chat("", *flags)
            self.assertEqual(result.returncode, USAGE, flags)
            self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
