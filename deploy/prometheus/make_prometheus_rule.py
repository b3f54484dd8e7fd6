#!/usr/bin/env python3
"""Writes the alert rules as an object of the Prometheus operator: run it after a change of the rules.

    deploy/prometheus/make_prometheus_rule.py >deploy/kubernetes/overlays/monitoring/prometheus-rule.yaml
"""

import pathlib
import textwrap

RULES = pathlib.Path(__file__).resolve().parent / "cadre-experts.rules.yml"
HEAD = """\
# Made by deploy/prometheus/make_prometheus_rule.py from cadre-experts.rules.yml: change that file, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: cadre-experts
spec:
"""


def prometheus_rule():
    text = RULES.read_text(encoding="utf-8")
    groups = text[text.index("groups:\n"):]
    return HEAD + textwrap.indent(groups, "  ")


if __name__ == "__main__":
    print(prometheus_rule(), end="")
