#!/usr/bin/env python3
"""Writes the alert rules as an object of the Prometheus operator: run it after a change of the rules.

    deploy/prometheus/make_prometheus_rule.py >deploy/kubernetes/overlays/monitoring/prometheus-rule.yaml
"""

import pathlib
import textwrap

RULES = sorted(pathlib.Path(__file__).resolve().parent.glob("*.rules.yml"))
HEAD = """\
# Made by deploy/prometheus/make_prometheus_rule.py from the rules there: change those, and run it.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: cadre
spec:
  groups:
"""


def prometheus_rule():
    groups = [path.read_text(encoding="utf-8").partition("groups:\n")[2] for path in RULES]
    return HEAD + textwrap.indent("".join(groups), "  ")


if __name__ == "__main__":
    print(prometheus_rule(), end="")
