"""The command line client, as a person and as a script use it, against a real server process."""

import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

from harness import BIN, Server, free_port

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 64, 69


def cadre(*arguments, address=None, stdin=None, timeout=30):
    """Runs the client; stdin, stdout and stderr are text."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CADRE_")}
    if address:
        environment["CADRE_ADDRESS"] = address
    return subprocess.run([str(BIN / "cadre"), *map(str, arguments)], input=stdin, capture_output=True, text=True,
                          encoding="utf-8", env=environment, timeout=timeout, check=False)


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(model="sim:step_ms=1,layers=3,experts=70")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def cadre(self, *arguments, **options):
        return cadre(*arguments, address=self.server.address, **options)

    def events(self, *arguments, **options):
        result = self.cadre("--json", "generate", *arguments, **options)
        self.assertEqual(result.returncode, OK, result.stderr)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_generate_prints_text_and_a_summary(self):
        result = self.cadre("generate", "hello there", "-n", 12, "--seed", 5, "--ignore-eos")
        self.assertEqual(result.returncode, OK, result.stderr)
        self.assertTrue(result.stdout.endswith("\n"))
        self.assertRegex(result.stderr, r"^\[12 tokens after a prompt of \d+, [\d.]+ tokens/s, first token after "
                                        r"[\d.]+ ms, end: length\]\n$")
        events = self.events("hello there", "-n", 12, "--seed", 5, "--ignore-eos")
        text = "".join(event["delta"]["text"] for event in events if "delta" in event)
        self.assertEqual(text + events[-1]["finished"]["text"] + "\n", result.stdout)
        quiet = self.cadre("generate", "hello there", "-n", 12, "--seed", 5, "--ignore-eos", "--quiet")
        self.assertEqual((quiet.stdout, quiet.stderr), (result.stdout, ""))

    def test_generate_as_json_is_one_event_a_line(self):
        events = self.events("--token-ids", "5,6,7", "-n", 4, "--ignore-eos", "--request-id", "mine", "--seed", 9)
        self.assertEqual(events[0]["started"]["request_id"], "mine")
        self.assertEqual(events[0]["started"]["seed"], "9")
        self.assertEqual(events[0]["started"]["prompt_tokens"], "3")
        self.assertEqual(sum(len(event["delta"]["token_ids"]) for event in events if "delta" in event), 4)
        self.assertEqual(events[-1]["finished"]["usage"]["generated_tokens"], "4")
        self.assertEqual(events[-1]["finished"]["reason"], "FINISH_REASON_LENGTH")

    def test_options_reach_the_server(self):
        tokens = [token for event in self.events("x", "-n", 10, "--ignore-eos") if "delta" in event
                  for token in event["delta"]["token_ids"]]
        ended = self.events("x", "-n", 10, "--ignore-eos", "--stop-token-id", tokens[4], "--stop-token-id", tokens[6])
        self.assertEqual(ended[-1]["finished"]["reason"], "FINISH_REASON_STOP_TOKEN")
        self.assertEqual(ended[-1]["finished"]["matched_token_id"], tokens[4])
        for flag, field in (("--temperature", "sampling.temperature"), ("--top-k", "sampling.top_k"),
                            ("--top-p", "sampling.top_p"), ("--min-p", "sampling.min_p"),
                            ("--max-tokens", "stopping.max_tokens"), ("--stop-token-id", "stopping.stop_token_ids")):
            result = self.cadre("generate", "x", f"{flag}=-7")
            self.assertEqual(result.returncode, FAILED, result.stderr)
            self.assertRegex(result.stderr, rf"^cadre: INVALID_ARGUMENT: .*{field}")
            self.assertEqual(result.stdout, "")
        result = self.cadre("generate", "x", "--stop", "")
        self.assertIn("stopping.stop_strings", result.stderr)

    def test_a_dash_reads_stdin(self):
        piped = self.cadre("tokenize", "-", stdin="two\nlines\n")
        self.assertEqual(piped.stdout, self.cadre("tokenize", "two\nlines").stdout)
        of_windows = self.cadre("tokenize", "-", stdin="two\r\nlines\r\n")
        self.assertEqual(of_windows.stdout, self.cadre("tokenize", "two\r\nlines").stdout)
        self.assertEqual(self.events("-", "-n", 3, "--seed", 1, stdin="abc")[-1]["finished"]["usage"],
                         self.events("abc", "-n", 3, "--seed", 1)[-1]["finished"]["usage"])

    def test_tokenize_there_and_back(self):
        ids = self.cadre("tokenize", "Grüße, 世界").stdout.split()
        self.assertTrue(ids)
        self.assertEqual(self.cadre("tokenize", "--decode", *ids).stdout, "Grüße, 世界\n")
        self.assertEqual(self.cadre("tokenize", "--decode", ",".join(ids)).stdout, "Grüße, 世界\n")
        for text in ("[1, 2]", "[]", "[[a]]"):  # no lists, as which the library would read them
            self.assertEqual(self.cadre("tokenize", text).stdout, self.cadre("tokenize", "-", stdin=text).stdout)
        answer = json.loads(self.cadre("tokenize", "Grüße, 世界", "--json").stdout)
        self.assertEqual([str(token) for token in answer["token_ids"]], ids)
        self.assertEqual(self.cadre("tokenize", "--decode", str(answer["token_ids"])).stdout, "Grüße, 世界\n")
        for wrong in ("12,x", "12 x", "12 99999999999", "-", "12 -", "1.5"):
            result = self.cadre("tokenize", "--decode", wrong, stdin=wrong)
            self.assertEqual((result.returncode, result.stdout), (USAGE, ""), wrong)
            self.assertIn("takes token ids", result.stderr)
        self.assertEqual(self.cadre("tokenize", "--decode", "99999999").returncode, FAILED)

    def test_experts_shows_every_layer_and_expert(self):
        self.events("count me", "-n", 30, "--ignore-eos")
        table = self.cadre("experts", "--total").stdout.splitlines()
        self.assertIn("70 experts a layer, 2 per token", table[0])
        cells = "".join(line[51:] for line in table[2:])
        self.assertEqual(len(cells), 3 * 70, "\n".join(table))
        self.assertLessEqual(set(cells), set("·▁▂▃▄▅▆▇█"))

        layer = self.cadre("experts", "--total", "--layer", 1).stdout.splitlines()
        rows = [line.split() for line in layer[3:]]
        self.assertEqual([int(row[0]) for row in rows], list(range(70)))
        stats = json.loads(self.cadre("experts", "--total", "--layer", 1, "--json").stdout)["stats"]
        self.assertEqual([int(row[1]) for row in rows], [int(n) for n in stats["total"][0]["processed"]])
        self.assertEqual(sum(int(row[1]) for row in rows), int(stats["total"][0]["tokens"]) * stats["top_k"])
        missing = self.cadre("experts", "--layer", 9)
        self.assertEqual(missing.returncode, FAILED)
        self.assertRegex(missing.stderr, r"^cadre: INVALID_ARGUMENT: layers\[0\]: 9 ")

    def test_experts_can_be_watched(self):
        result = self.cadre("experts", "--watch", "--interval", "100ms", "--count", 3, "--json")
        self.assertEqual(result.returncode, OK, result.stderr)
        self.assertEqual(len(result.stdout.splitlines()), 3)
        self.assertEqual(self.cadre("experts", "--count", 3).returncode, USAGE)

    def test_a_profile_goes_to_a_file_and_back(self):
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/experts.profile"
            exported = self.cadre("profile", "export", file, "--json")
            self.assertEqual((exported.returncode, exported.stderr), (OK, ""))
            shown = self.cadre("profile", "show", file, "--json")
            self.assertEqual(json.loads(shown.stdout), json.loads(exported.stdout))
            self.assertIn("3 MoE layers of 70 experts", self.cadre("profile", "show", file).stdout)
            self.assertEqual(self.cadre("profile", "import", file).returncode, OK)
            self.assertEqual(self.server.metric("cadre_router_has_baseline"), 1)
            with open(file, "r+b") as damaged:
                damaged.seek(40)
                damaged.write(b"\xff")
            result = self.cadre("profile", "import", file)
            self.assertEqual(result.returncode, FAILED)
            self.assertEqual(result.stderr, f"cadre: {file} is damaged: its checksum is another\n")

    def test_model_tells_what_is_served(self):
        text = self.cadre("model").stdout
        self.assertIn("3 MoE layers x 70 experts, 2 per token", text)
        self.assertIn("ready", text)
        self.assertIn("capacity    off; this device does not limit experts", text)
        model = json.loads(self.cadre("model", "--json").stdout)["model"]
        self.assertEqual(model["architecture"]["num_experts"], 70)
        missing = self.cadre("model", "somebody-elses")
        self.assertEqual(missing.returncode, FAILED)
        self.assertRegex(missing.stderr, "^cadre: NOT_FOUND: .*somebody-elses")

    def test_health_is_told_by_the_exit_code(self):
        for service in ("readiness", "liveness", ""):
            result = self.cadre("health", "--service", service)
            self.assertEqual((result.returncode, result.stdout), (OK, "SERVING\n"), service)
        self.assertEqual(json.loads(self.cadre("health", "--json").stdout), {"status": "SERVING"})
        self.assertEqual(self.cadre("health", "--service", "nonsense").returncode, FAILED)

        unreachable = cadre("health", "--address", f"127.0.0.1:{free_port()}")
        self.assertEqual(unreachable.returncode, UNREACHABLE)
        self.assertRegex(unreachable.stderr, "^cadre: cannot reach 127.0.0.1:.*refused\n$")

        with Server("--drain-delay", "30s", model="sim:step_ms=1") as draining:
            draining.process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 5
            while cadre("health", address=draining.address).returncode == OK and time.monotonic() < end:
                time.sleep(0.05)
            result = cadre("health", address=draining.address)
            self.assertEqual((result.returncode, result.stdout), (FAILED, "NOT_SERVING\n"))
            draining.process.send_signal(signal.SIGTERM)

    def test_a_frozen_server_counts_as_unreachable(self):
        with Server(model="sim:step_ms=1") as frozen:
            frozen.process.send_signal(signal.SIGSTOP)
            try:
                start = time.monotonic()
                result = cadre("health", "--timeout", "500ms", address=frozen.address)
                self.assertEqual(result.returncode, UNREACHABLE, result.stderr)
                self.assertLess(time.monotonic() - start, 5)
            finally:
                frozen.process.send_signal(signal.SIGCONT)

    def test_a_timeout_ends_the_call(self):
        result = self.cadre("generate", "x", "-n", 3000, "--ignore-eos", "--timeout", "0.3")
        self.assertEqual(result.returncode, FAILED)
        self.assertRegex(result.stderr, "cadre: DEADLINE_EXCEEDED: ")
        self.server.wait_until_idle()

    def test_an_interrupt_frees_the_server(self):
        process = subprocess.Popen([str(BIN / "cadre"), "-a", self.server.address, "generate", "x", "-n", "3500",
                                    "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=5)
        self.assertNotEqual(process.returncode, 0)
        self.assertLess(self.server.wait_until_idle(), 2)

    def test_wrong_usage_is_told_in_one_line(self):
        for arguments, words in (
                ([], "commands are: generate, chat, experts, bench, top, model, tokenize, profile, pin, health"),
                (["genrate", "x"], 'no command "genrate"'),
                (["generate"], "prompt or --token-ids"),
                (["generate", "x", "--temprature", "1"], "unknown option --temprature"),
                (["generate", "x", "--temperature", "hot"], "hot"),
                (["generate", "x", "--timeout", "soon"], "soon"),
                (["generate", "x", "--token-ids", "1"], "--token-ids"),
                (["tokenize", "a", "b"], "quote it")):
            result = self.cadre(*arguments)
            self.assertEqual(result.returncode, USAGE, arguments)
            self.assertIn(words, result.stderr)
            self.assertRegex(result.stderr, r"\Acadre: [^\n]*\n\Z")
        for arguments in (["generate", "\udcff"], ["generate", "x", "--tenant", "\udcff"], ["tokenize", "\udcff"]):
            result = self.cadre(*arguments)  # the byte 0xff
            self.assertEqual(result.returncode, FAILED, arguments)
            self.assertRegex(result.stderr, r"\Acadre: INVALID_ARGUMENT: [\w.]+: is not valid UTF-8\n\Z")
        self.assertEqual(self.cadre("--help").returncode, OK)
        self.assertRegex(self.cadre("--version").stdout, r"^cadre \d+\.\d+\.\d+\n$")

    def test_help_names_flags_as_they_are_typed(self):
        """The library would write the value of a negated flag behind its name: --no-reflection{false}."""
        texts = [subprocess.run([str(BIN / "cadre-server"), "--help"], capture_output=True, text=True, timeout=30,
                                check=True).stdout]
        commands = re.findall(r"^  (\w+)  ", self.cadre("--help").stdout.partition("Subcommands:")[2], re.MULTILINE)
        self.assertEqual(len(commands), 10)
        texts += [self.cadre(*command, "--help").stdout for command in ([], *([name] for name in commands))]
        for text in texts:
            self.assertRegex(text, r"-h,--help +Print")
            self.assertEqual(re.findall(r"-[\w-]+\{.*", text), [])
            self.assertNotIn("false}", text)
        for flag in ("--no-reflection", "--no-special-tokens", "--keep-special-tokens"):
            self.assertRegex("".join(texts), rf"{flag}\s")


class RoutingFileTest(unittest.TestCase):
    """The demo model: what experts were chosen goes into a file and comes back from it."""

    def test_recorded_experts_are_replayed(self):
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            def run(*arguments):
                return cadre("generate", "Once upon a time", "-n", 12, "--seed", 5, "--quiet", *arguments,
                             address=server.address)
            path, again, broken = (os.path.join(folder, name) for name in ("record", "again", "broken"))
            recorded = run("--routed-experts", path)
            self.assertEqual(recorded.returncode, OK, recorded.stderr)
            for weights in ((), ("--replay-weights", "router"), ("--replay-weights", "recorded")):
                replayed = run("--replay-routing", path, "--routed-experts", again, *weights)
                self.assertEqual((replayed.returncode, replayed.stdout), (OK, recorded.stdout), replayed.stderr)
                with open(path, encoding="utf-8") as want, open(again, encoding="utf-8") as got:
                    self.assertEqual(json.load(got), json.load(want))
            with open(path, encoding="utf-8") as file:
                record = json.load(file)
            record["expert_ids"][3] = 16
            for text, code, error in ((json.dumps(record), FAILED, r"replay_routing.record.expert_ids\[3\]: 16 is not"),
                                      ("{", USAGE, "broken: is no record of routed experts"),
                                      ("root:x:0\nbin:x:1\n", USAGE, r"experts: [^\n]*\n\Z"),
                                      ('{"experts": 3}', USAGE, "broken: is no record of routed experts")):
                with open(broken, "w", encoding="utf-8") as file:
                    file.write(text)
                refused = run("--replay-routing", broken)
                self.assertEqual(refused.returncode, code, refused.stderr)
                self.assertRegex(refused.stderr, error)
            self.assertEqual(run("--replay-routing", path + ".missing").returncode, USAGE)
            self.assertEqual(run("--routed-experts", path, "--n", 2).returncode, USAGE)
            self.assertEqual(run("--replay-weights", "router").returncode, USAGE)

    def test_a_simulated_model_has_no_routers(self):
        with Server(model="sim") as server, tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "record")
            with open(path, "w", encoding="utf-8") as file:
                file.write("{}")
            refused = cadre("generate", "x", "-n", 2, "--replay-routing", path, address=server.address)
            self.assertEqual(refused.returncode, FAILED)
            self.assertRegex(refused.stderr, "FAILED_PRECONDITION: replay_routing: a simulated model has no routers")


if __name__ == "__main__":
    unittest.main(verbosity=2)
