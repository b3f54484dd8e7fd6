"""The page /experts: what the server answers, and what a browser makes of it."""

import json
import math
import time
import unittest
import urllib.request

from browser import CHROMIUM, Browser
from harness import Completion, Server, request

LAYERS, EXPERTS, TOP_K = 4, 16, 2
FILES = ("/experts", "/experts.css", "/experts.js", "/experts/window.json", "/experts/total.json",
         "/experts/kinds.json")


def start_server():
    return Server("--max-num-seqs", 4, "--routing-sample-steps", 1,
                  model=f"sim:step_ms=1,layers={LAYERS},experts={EXPERTS},top_k={TOP_K}")


def generate(server, tokens):
    message = request("x", max_tokens=tokens, temperature=0)
    message.stopping.ignore_eos = True
    return Completion(server.generation.Generate(message, timeout=30))


def get(server, path):
    return urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}{path}", timeout=5)


class EndpointTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = start_server()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def test_the_files_forbid_everything_that_is_not_theirs(self):
        for path in FILES:
            with get(self.server, path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                self.assertTrue(policy.startswith("default-src 'none'; "), policy)
                for unsafe in ("unsafe", "*", "http:", "https:", "data:"):
                    self.assertNotIn(unsafe, policy)
                self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
                text = answer.read().decode()
                # Nothing from elsewhere is named, either.
                self.assertNotIn("://", text, path)

    def test_the_data_adds_up(self):
        generate(self.server, 50)
        self.server.wait_until_idle()
        time.sleep(0.3)  # older data may be told for so long
        for path in ("/experts/window.json", "/experts/total.json"):
            with get(self.server, path) as answer:
                data = json.load(answer)
            self.assertEqual((data["num_experts"], data["top_k"], data["omitted_layers"]), (EXPERTS, TOP_K, 0))
            self.assertEqual([layer["layer"] for layer in data["layers"]], list(range(LAYERS)))
            for layer in data["layers"]:
                self.assertEqual(sum(layer["processed"]), layer["tokens"] * TOP_K)
                self.assertNotIn("dropped", layer)  # nothing but zeros
        self.assertEqual(sum(sum(layer["processed"]) for layer in data["layers"]),
                         self.server.metric("cadre_routing_assignments_total"))


@unittest.skipUnless(CHROMIUM, "no Chromium is installed (Debian: apt-get install chromium)")
class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = start_server()
        cls.browser = Browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.server.stop()

    def setUp(self):
        generate(self.server, 60)
        self.browser.errors.clear()
        self.browser.open(f"http://127.0.0.1:{self.server.metrics_port}/experts")
        self.wait("document.readyState === 'complete' && status.textContent === 'live'")

    def tearDown(self):
        self.assertEqual(self.browser.errors, [])

    def wait(self, condition):
        return self.browser.wait_for(f"(() => {{ const status = document.getElementById('status');"
                                     f" return status && {condition}; }})()")

    def text(self, element):
        return self.browser.evaluate(f"document.getElementById('{element}').textContent")

    def tokens(self):
        return int(self.text("tokens").replace(",", ""))

    def choose(self, element, value):
        self.browser.evaluate(f"(() => {{ const e = document.getElementById('{element}'); e.value = '{value}';"
                              " e.dispatchEvent(new Event('change')); })()")

    def test_it_asks_nobody_else(self):
        own = f"http://127.0.0.1:{self.server.metrics_port}/"
        asked = [address for address in self.browser.addresses if not address.startswith(own)]
        self.assertEqual(asked, [])
        self.assertTrue(any(address.endswith("/experts/window.json") for address in self.browser.addresses))

    def test_the_map_shows_every_cell_by_its_load(self):
        size = self.browser.evaluate("[document.getElementById('map').width, document.getElementById('map').height]")
        self.assertEqual((size[0] % EXPERTS, size[1] % LAYERS), (0, 0))
        self.browser.press("p")  # so that numbers and colors are of one moment
        self.wait("status.textContent === 'paused'")
        # Colors grow with loads: from the canvas itself, against the numbers that were drawn.
        pairs = self.browser.evaluate(
            "(() => { const map = document.getElementById('map'); const c = map.getContext('2d');"
            f" const w = map.width / {EXPERTS}, h = map.height / {LAYERS};"
            " return shown.layers.flatMap((l, r) => l.load.map((n, e) =>"
            " [n / l.mean, [...c.getImageData(e * w + w / 2, r * h + h / 2, 1, 1).data].join()])); })()")
        self.assertEqual(len(pairs), LAYERS * EXPERTS)
        colors = {}
        for load, color in pairs:
            colors.setdefault(round(load, 9), set()).add(color)
        self.assertGreater(len(colors), 2)
        self.assertTrue(all(len(of_load) == 1 for of_load in colors.values()), colors)
        self.assertGreater(len(set.union(*colors.values())), len(colors) // 2)
        self.browser.press("p")
        self.wait("status.textContent === 'live'")

    def test_its_numbers_are_the_servers(self):
        self.server.wait_until_idle()
        self.wait(f"tokens.textContent.replace(',', '') === '{int(self.server.metric('cadre_router_window_tokens'))}'"
                  .replace("tokens", "document.getElementById('tokens')"))
        rows = self.browser.evaluate("[...document.getElementById('layers').rows].map(r =>"
                                     " [...r.cells].map(c => c.textContent))")
        self.assertEqual(len(rows), LAYERS)
        for layer, row in enumerate(rows):
            self.assertEqual(row[0], str(layer))
            entropy = self.server.metric("cadre_layer_load_entropy_ratio", layer=str(layer))
            imbalance = self.server.metric("cadre_layer_load_imbalance_ratio", layer=str(layer))
            self.assertEqual(row[1:3], [f"{entropy:.3f}", f"{imbalance:.2f}"])
            self.assertEqual(int(row[4]), self.server.metric("cadre_layer_dead_experts", layer=str(layer)))
            self.assertEqual(int(row[5]), self.server.metric("cadre_layer_hot_experts", layer=str(layer)))
        share = self.server.metric("cadre_router_concentration_ratio", busiest="0.5")
        told = float(self.text("curve-text").split("half of them ")[1].split(" %")[0])
        self.assertTrue(math.isclose(told, 100 * share, abs_tol=0.051), (told, share))

    def test_it_is_live_until_it_is_paused(self):
        before = self.tokens()
        generate(self.server, 40)
        self.wait(f"Number(document.getElementById('tokens').textContent.replace(',', '')) > {before}")
        self.browser.evaluate("document.getElementById('pause').click()")
        self.wait("status.textContent === 'paused'")
        paused = self.tokens()
        generate(self.server, 40)
        time.sleep(1.5)
        self.assertEqual(self.tokens(), paused)
        self.assertEqual(self.browser.evaluate("document.getElementById('pause').getAttribute('aria-pressed')"), "true")
        self.browser.evaluate("document.getElementById('pause').click()")
        self.wait(f"Number(document.getElementById('tokens').textContent.replace(',', '')) > {paused}")

    def test_the_last_seconds_forget(self):
        self.server.wait_until_idle()
        self.choose("span", "10")
        self.wait("document.getElementById('tokens').textContent === '0'")
        generate(self.server, 40)
        self.wait("document.getElementById('tokens').textContent === '40'")

    def take(self, model, tokens, layers=1, experts=4, **more):
        """Hands the page an answer, a second after the last one; every expert of layer i has (i + 1) x tokens."""
        self.time = getattr(self, "time", 0) + 1
        answer = {"model": model, "time": self.time, "num_experts": experts, "top_k": 2, "omitted_layers": 0,
                  "layers": [{"layer": i, "tokens": tokens, "collapsed": False,
                              **({"processed": [(i + 1) * tokens] * experts} if tokens else {})}
                             for i in range(layers)], **more}
        self.browser.evaluate(f"take({json.dumps(answer)})")

    def test_the_last_seconds_begin_with_each_model_and_server(self):
        self.browser.press("p")
        self.wait("status.textContent === 'paused'")
        self.browser.evaluate("document.getElementById('span').value = '10'; samples = []")
        steps = [(None, 0, {"layers": 0}, 0),  # the model loads
                 ("a", 100, {}, 0), ("a", 130, {}, 30),
                 ("a", 5, {}, 0), ("a", 9, {}, 4),  # another process
                 ("a", 9, {"layers": 3}, 0), ("a", 19, {"layers": 3}, 10),
                 ("a", 29, {"layers": 3, "experts": 8}, 0),
                 ("b", 39, {"layers": 3, "experts": 8}, 0), ("b", 40, {"layers": 3, "experts": 8}, 1),
                 (None, 0, {"layers": 0}, 0), ("b", 90, {"layers": 3, "experts": 8}, 0)]
        for model, tokens, shape, expected in steps:
            with self.subTest(model=model, tokens=tokens, **shape):
                self.take(model, tokens, **shape)
                self.assertEqual(self.tokens(), expected)
                self.assertEqual(self.browser.evaluate("Math.min(0, ...shown.layers.flatMap(l => l.load))"), 0)
        self.choose("span", "window")
        self.browser.press("p")
        self.wait("status.textContent === 'live'")

    def test_the_cache_is_told_of_where_there_is_one(self):
        self.assertTrue(self.browser.evaluate("document.getElementById('cache').hidden"))
        self.browser.press("p")
        self.wait("status.textContent === 'paused'")
        self.take("a", 100, cache={"slots": 12, "hits": 3, "misses": 1, "loaded_bytes": 3 * 2**29, "wait_seconds": 2.25,
                                   "evictions": 1234, "prefetches_used": 4, "prefetches_late": 5,
                                   "prefetches_wasted": 6, "quarantined": 7})
        self.assertFalse(self.browser.evaluate("document.getElementById('cache').hidden"))
        for words in ("12 experts", "75.0 % hits", "1.5 GiB read", "1,234 gave way", "4 in time, 5 late, 6 in vain",
                      "7 cannot be read"):
            self.assertIn(words, self.text("cache"))
        self.take("a", 100)
        self.assertTrue(self.browser.evaluate("document.getElementById('cache').hidden"))
        self.browser.press("p")
        self.wait("status.textContent === 'live'")

    def test_numbers_come_without_the_kinds_of_tokens(self):
        for answer, told in (("Promise.resolve(new Response('', {status: 503}))", "HTTP 503"),
                             ("Promise.reject(new Error('gone'))", "gone")):
            with self.subTest(told):
                self.browser.evaluate("(() => { const real = window.realFetch || window.fetch; window.realFetch = real;"
                                      " window.fetch = (path, options) => path.endsWith('kinds.json') ?"
                                      f" {answer} : real(path, options); kindsDue = 0; choose(0, 0); }})()")
                before = self.tokens()
                generate(self.server, 20)
                self.wait(f"Number(document.getElementById('tokens').textContent.replace(',', '')) > {before}")
                self.wait(f"document.getElementById('details').textContent.includes('no answer ({told})')")
                self.assertEqual(self.text("status"), "live")

    def test_keys_walk_over_the_cells(self):
        self.browser.evaluate("document.getElementById('map').focus()")
        self.assertEqual(self.text("details"), "No cell is chosen.")
        self.browser.press("ArrowRight")
        self.assertTrue(self.text("details").startswith("Layer 0, expert 0: "))
        self.browser.press("ArrowDown")
        self.browser.press("End")
        self.assertTrue(self.text("details").startswith(f"Layer 1, expert {EXPERTS - 1}: "))
        self.browser.press("ArrowRight")  # stays on the map
        self.assertTrue(self.text("details").startswith(f"Layer 1, expert {EXPERTS - 1}: "))
        self.assertIn("Layer 1 (dashed)", self.text("curve-text"))
        self.browser.press("Escape")
        self.assertEqual(self.text("details"), "No cell is chosen.")

    def test_a_cell_tells_its_kinds_of_tokens(self):
        self.wait("kinds !== null && kinds.layers.length > 0")
        row, column = self.browser.evaluate(
            "(() => { const row = kinds.layers.findIndex(l => l.kinds.some(k => k.length));"
            " return [row, kinds.layers[row].kinds.findIndex(k => k.length)]; })()")
        self.browser.evaluate(f"choose({row}, {column})")
        with get(self.server, "/experts/kinds.json") as answer:
            names = json.load(answer)["classes"]
        self.assertRegex(self.text("details"), rf" Tokens: ({'|'.join(names)}) \d+ %")

    def test_the_mouse_does_the_same(self):
        x, y = self.browser.evaluate(
            "(() => { const b = document.getElementById('map').getBoundingClientRect();"
            f" return [b.left + 2.5 * b.width / {EXPERTS}, b.top + 3.5 * b.height / {LAYERS}]; }})()")
        self.browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.assertTrue(self.text("details").startswith("Layer 3, expert 2: "), self.text("details"))

    def test_light_and_dark_differ_and_can_be_read(self):
        def contrast():
            return self.browser.evaluate("""(() => {
                const luminance = (c) => c.match(/\\d+/g).slice(0, 3).map(Number).map((v) => v / 255)
                    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                    .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
                const paper = luminance(getComputedStyle(document.body).backgroundColor);
                const ratio = (e) => { const ink = luminance(getComputedStyle(e).color);
                    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05); };
                return [paper, ratio(document.body), ratio(document.querySelector('.hint'))];
            })()""")

        papers = {}
        for scheme in ("light", "dark"):
            self.browser.call("Emulation.setEmulatedMedia",
                              features=[{"name": "prefers-color-scheme", "value": scheme}])
            papers[scheme], *ratios = contrast()
            self.assertGreaterEqual(min(ratios), 4.5, scheme)  # WCAG 2, level AA
        self.assertGreater(papers["light"], 0.8)
        self.assertLess(papers["dark"], 0.1)
        self.browser.call("Emulation.setEmulatedMedia", features=[])

    def test_it_says_when_nobody_answers(self):
        server = start_server()
        generate(server, 5)
        self.browser.open(f"http://127.0.0.1:{server.metrics_port}/experts")
        self.wait("status.textContent === 'live'")
        server.stop()
        self.wait("status.textContent.startsWith('no answer')")
        self.browser.errors.clear()


if __name__ == "__main__":
    unittest.main(verbosity=2)
