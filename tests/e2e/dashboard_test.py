"""The Grafana dashboards and the alert rules against what a server really exports: every expression is put to a real
Prometheus that scrapes it, and has to find something."""

import json
import re
import shutil
import tempfile
import threading
import unittest

from harness import DEMO_MODEL, ROOT, Completion, Server, request
from prometheus import Prometheus

EXPERTS, SERVICE = (ROOT / "deploy" / "grafana" / f"cadre-{name}.json" for name in ("experts", "service"))
RULES = sorted((ROOT / "deploy" / "prometheus").glob("*.rules.yml"))
# What Grafana would put in place of its variables.
VARIABLES = {"$__rate_interval": "10s", "$instance": ".*", "$experts_job": "cadre-experts", "$layer": ".*"}


SECRET = "a-secret-of-many-characters"
# Panels and alerts that have nothing to show where all experts are in memory.
CACHE_PANELS = "Expert cache: "
CACHE_ALERTS = "CadreExpertCache"
# Of a server with TLS alone: tls_test.py looks at it.
TLS_ALERT = "CadreCertificateExpires"


def with_values(text):
    """An expression with values for the dashboard's variables."""
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text


def panel_expressions(dashboard=EXPERTS):
    """[(panel, expression, labels that its legend names)] of a dashboard."""
    panels = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return [(panel["title"], with_values(target["expr"]), re.findall(r"{{(\w+)}}", target.get("legendFormat") or ""))
            for panel in panels for target in panel["targets"]]


def expressions(dashboard=EXPERTS):
    """[(panel, expression)]"""
    return [(panel, expression) for panel, expression, _ in panel_expressions(dashboard)]


def variable_queries(dashboard):
    """[(variable, metric with its selector, label whose values are offered)]"""
    variables = json.loads(dashboard.read_text(encoding="utf-8"))["templating"]["list"]
    return [(v["name"], *re.fullmatch(r"label_values\((.*), (\w+)\)", with_values(v["query"]["query"])).groups())
            for v in variables if v["type"] == "query"]


def annotation_labels():
    """{alert: labels that its texts name}"""
    text = "\n".join(path.read_text(encoding="utf-8") for path in RULES)
    return {name: set(re.findall(r"\$labels\.(\w+)", rule))
            for name, rule in re.findall(r"- alert: (\w+)\n(.*?)(?=- alert: |\Z)", text, re.S)}


def rule_expressions():
    """[(alert, expression)]"""
    text = "\n".join(path.read_text(encoding="utf-8") for path in RULES)
    rules = re.findall(r"- alert: (\w+)\n\s+expr:(?: \||) *\n?(.*?)\n\s+(?:for|labels):", text, re.S)
    return [(name, " ".join(expression.split())) for name, expression in rules]


class DashboardCase(unittest.TestCase):
    SERVER_FLAGS = ()
    MODEL = None
    IS_READY = None  # an expression, and its value

    @classmethod
    def setUpClass(cls):
        if cls.MODEL is None:
            raise unittest.SkipTest("what the cases share")
        # Without keys what is told of them is not there.
        keys = tempfile.NamedTemporaryFile("w", prefix="cadre-keys-")
        cls.addClassCleanup(keys.close)
        keys.write(f"board generation {SECRET}\n")
        keys.flush()
        cls.server = Server("--api-keys-file", keys.name, *cls.SERVER_FLAGS, model=cls.MODEL)
        cls.prometheus = Prometheus(cls.server.metrics_port)
        cls.prometheus.wait_for('up{job="cadre-experts"}', 1)
        # Rates need counters that move.
        cls.is_over = threading.Event()
        cls.load = threading.Thread(target=cls.generate)
        cls.load.start()
        cls.prometheus.wait_for(*cls.IS_READY)

    @classmethod
    def generate(cls):
        while not cls.is_over.is_set():
            Completion(cls.server.generation.Generate(request("x", max_tokens=100, temperature=0), timeout=20,
                                                      metadata=[("authorization", f"Bearer {SECRET}")]))

    @classmethod
    def tearDownClass(cls):
        cls.is_over.set()
        cls.load.join()
        cls.prometheus.stop()
        cls.server.stop()

    def check_labels(self, expression, named, result):
        """That the labels an expression picks or groups by are there, and those that a text says of its result. Each
        alternative by itself: a misspelt one among several finds less, and a misspelt group is one group."""
        for labels, _ in result:
            self.assertLessEqual(set(named), set(labels), expression)
        metrics = re.findall(r"\b(cadre_\w+|process_\w+|up\b)(?:{([^}]*)})?", expression)
        self.assertTrue(metrics, expression)
        groups = [each for found in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for each in found.split(", ")]
        for metric, matchers in metrics:
            picked = [(label, operator, one) for label, operator, values in
                      re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers) for one in values.split("|")]
            for label, operator, one in [*picked, *((group, "!=", "") for group in groups)]:
                selector = f'{metric}{{{label}{operator}"{one}"}}'
                self.assertTrue(self.prometheus.query(selector), selector)

    def check_panels(self, panels):
        for panel, expression, named in panels:
            with self.subTest(panel):
                self.assertNotIn("$", expression)
                result = self.prometheus.query(expression)
                self.assertTrue(result, expression)
                self.assertFalse([value for _, value in result if value != value], f"{expression} is NaN")
                self.check_labels(expression, named, result)

    def check_alerts(self, alerts):
        named = annotation_labels()
        for alert, expression in alerts:
            with self.subTest(alert):
                # What it compares is there, also while nothing is wrong.
                compared, thresholds = re.subn(r" (>|==|!=) [\d.]+$", "", expression)
                self.assertEqual(thresholds, 1, expression)
                result = self.prometheus.query(compared)
                self.assertTrue(result, compared)
                self.check_labels(compared, named[alert], result)
                self.assertEqual(self.prometheus.query(expression), [], expression)


@unittest.skipUnless(shutil.which("prometheus"), "prometheus is not installed")
class CacheDashboardTest(DashboardCase):
    SERVER_FLAGS = ("--metrics-experts", "ranked", "--expert-cache-gb", "0.003", "--prefix-cache", "off")
    MODEL = DEMO_MODEL
    IS_READY = ('count(rate(cadre_expert_lookups_total[10s]) > 0)', 2)

    def test_every_panel_of_the_cache_shows_something(self):
        panels = [each for each in panel_expressions() if each[0].startswith(CACHE_PANELS)]
        self.assertGreater(len(panels), 6)
        self.check_panels(panels)

    def test_every_alert_of_the_cache_looks_at_something_and_none_fires(self):
        alerts = [each for each in rule_expressions() if each[0].startswith(CACHE_ALERTS)]
        self.assertEqual(len(alerts), 2)
        self.check_alerts(alerts)


@unittest.skipUnless(shutil.which("prometheus"), "prometheus is not installed")
class DashboardTest(DashboardCase):
    SERVER_FLAGS = ("--metrics-experts", "ranked")
    MODEL = "sim:step_ms=1,layers=3,experts=8,top_k=2"
    IS_READY = ('count(rate(cadre_layer_tokens_total[10s]) > 0)', 6)  # on both pages

    def test_every_panel_shows_something(self):
        panels = [each for each in panel_expressions() if not each[0].startswith(CACHE_PANELS)]
        self.assertGreater(len(panels), 15)
        self.check_panels(panels)

    def test_every_panel_of_the_service_shows_something(self):
        panels = panel_expressions(SERVICE)
        self.assertGreater(len(panels), 30)
        self.check_panels(panels)
        # Both jobs scrape the same server: nothing may be counted twice.
        stats = {panel: self.prometheus.query(expression)[0][1] for panel, expression, _ in panels[:6]}
        self.assertEqual((stats["Servers ready"], stats["Servers stalled"], stats["Requests failed"]), (1, 0, 0))
        self.assertLessEqual(stats["Requests running"] + stats["Requests waiting"], 1)

    def test_every_variable_has_values_to_choose_from(self):
        for dashboard in (EXPERTS, SERVICE):
            queries = variable_queries(dashboard)
            self.assertIn("instance", [name for name, _, _ in queries])
            for name, selector, label in queries:
                values = {labels.get(label) for labels, _ in self.prometheus.query(selector)}
                self.assertTrue(values - {None}, f"${name}: {selector} has no {label}")

    def test_the_labels_find_mistakes(self):
        """Whether the tests of panels and alerts can fail for a label."""
        for wrong in ('sum(cadre_requests_finished_total{outcome=~"ok|faild"})', 'sum(up{jop="cadre"})',
                      "sum by (reason) (cadre_requests_finished_total)"):
            with self.assertRaises(AssertionError, msg=wrong):
                self.check_labels(wrong, [], self.prometheus.query(wrong))
        good = "sum by (outcome) (cadre_requests_finished_total)"
        with self.assertRaises(AssertionError):
            self.check_labels(good, ["reason"], self.prometheus.query(good))
        self.check_labels(good, ["outcome"], self.prometheus.query(good))

    def test_every_alert_looks_at_something_and_none_fires(self):
        self.assertEqual(len(rule_expressions()), sum(p.read_text(encoding="utf-8").count("- alert:") for p in RULES))
        self.check_alerts([each for each in rule_expressions() if not each[0].startswith((CACHE_ALERTS, TLS_ALERT))])

    def test_the_matrix_has_a_share_for_each_expert(self):
        matrix = next(expression for panel, expression in expressions() if panel.startswith("Load share of each"))
        shares = self.prometheus.query(matrix)
        self.assertEqual(len(shares), 3 * 8)
        for layer in "012":
            self.assertAlmostEqual(sum(value for labels, value in shares if labels["layer"] == layer), 1.0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
