"""The alert rules of deploy/prometheus: each is explained by docs/operations.md, and has unit tests in which it fires
and in which it does not. That the expressions find what they compare is seen in tests/e2e/dashboard_test.py."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
BASE = "https://cadre.example.com/docs/operations.md#"


def text_of(path):
    return path.read_text(encoding="utf-8")


def alerts(path):
    """{alert: what stands of it in a file of rules}"""
    _, *parts = re.split(r"- alert: ", text_of(path))
    return {part.split("\n")[0]: part for part in parts}


def anchors(page):
    """{anchor: what follows it until the next heading}, as GitHub and GitLab name them."""
    parts = re.split(r"^#+ (.*)$", text_of(page), flags=re.M)
    names = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in parts[1::2]]
    return dict(zip(names, parts[2::2]))


RULES = {path: alerts(path) for path in sorted(FOLDER.glob("*.rules.yml"))}


class AlertsTest(unittest.TestCase):
    def test_every_alert_has_a_runbook(self):
        runbooks = anchors(ROOT / "docs" / "operations.md")
        named = set()
        for alert, text in ((alert, text) for rules in RULES.values() for alert, text in rules.items()):
            urls = re.findall(r"^ +runbook_url: (\S+)$", text, re.M)
            self.assertEqual(urls, [BASE + alert.lower()], alert)
            anchor = urls[0].removeprefix(BASE)
            self.assertIn(anchor, runbooks)
            self.assertGreater(len(runbooks[anchor].split()), 20, f"{alert}: what to do is not said")
            named.add(anchor)
        self.assertGreater(len(named), 20)
        self.assertEqual({name for name in runbooks if re.match("cadre[a-z]+$", name)}, named, "runbooks without alert")

    def test_every_alert_has_a_severity_and_texts(self):
        for alert, text in ((alert, text) for rules in RULES.values() for alert, text in rules.items()):
            self.assertRegex(text, r"severity: (info|warning|critical)\n", alert)
            self.assertRegex(text, r"summary: \S", alert)
            self.assertRegex(text, r"description: >-\n +\S", alert)

    def test_every_alert_is_seen_to_fire_and_to_be_silent(self):
        for path, rules in RULES.items():
            tests = text_of(path.with_name(path.stem + "_test.yml"))
            checks = re.findall(r"alertname: (\w+)\n +exp_alerts:(.*)\n", tests)
            for alert in rules:
                self.assertEqual({silent.strip() for name, silent in checks if name == alert}, {"", "[]"}, alert)
            self.assertEqual({name for name, _ in checks}, set(rules))


if __name__ == "__main__":
    unittest.main()
