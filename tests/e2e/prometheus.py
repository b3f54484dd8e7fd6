"""A real Prometheus beside a server: what it scraped, and what queries say of that."""

import json
import pathlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from harness import free_port

CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 900ms
scrape_configs:
  - job_name: cadre
    sample_limit: 400
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
  - job_name: cadre-experts
    metrics_path: /metrics/experts
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Prometheus:
    """A Prometheus process that scrapes one server every second."""

    def __init__(self, metrics_port):
        self.folder = tempfile.TemporaryDirectory(prefix="cadre-prometheus-")
        folder = pathlib.Path(self.folder.name)
        config = folder / "prometheus.yml"
        config.write_text(CONFIG.format(port=metrics_port), encoding="utf-8")
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn",
             f"--web.listen-address={self.url.removeprefix('http://')}"],
            stdout=self.log, stderr=subprocess.STDOUT, cwd=folder)

    def query(self, expression):
        """[(labels, value)] of an instant query; empty while Prometheus is still starting."""
        try:
            with urllib.request.urlopen(
                    f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": expression}), timeout=5) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        except OSError:
            return []
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    def value(self, expression):
        result = self.query(expression)
        return result[0][1] if len(result) == 1 else None

    def wait_for(self, expression, value, timeout=30):
        end = time.monotonic() + timeout
        while (seen := self.value(expression)) != value:
            if time.monotonic() > end:
                self.log.seek(0)
                raise AssertionError(f"{expression} is {seen}, not {value}, after {timeout} s\n{self.log.read()}")
            time.sleep(0.2)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()
        self.folder.cleanup()
