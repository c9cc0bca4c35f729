"""The deploy files, and what docs/metrics.md and docs/deploy.md say: read back against the code that they are about."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from stem_iso import Stem
from stem_iso.brokers.operations import TaskCounts
from stem_iso.brokers.records import WorkerInfo
from stem_iso.cli.dashboard import dashboard
from stem_iso.cli.worker import worker as worker_command
from stem_iso.config import SETTINGS
from stem_iso.dashboard.metrics import text
from stem_iso.worker.launcher import DRAIN_GRACE
from stem_iso.worker.reporting.counters import Counters
from stem_iso.worker.reporting.metrics import WorkerMetrics
from stem_iso.worker.vitals import HUNG, Figures, Vitals
from tests.command.conftest import Command
from tests.docs.snippets import ROOT

DEPLOY = ROOT / "docs" / "deploy"
VARIABLES = {setting.variable for setting in SETTINGS} | {"STEM_ISO_DASHBOARD_TOKEN"}
OF_PROMETHEUS = {"job", "instance", "le"}


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def options(command: click.Command, words: list[str]) -> dict[str, Any]:
    """What these words say to this command. Raises where it does not know them."""
    with command.make_context("test", [*words], resilient_parsing=False) as context:
        return context.params


# -- what is printed -----------------------------------------------------------------------------------------------------------------------

Printed = dict[str, set[str]]  # names of samples, with the labels that they have


def printed(lines: bytes) -> Printed:
    found: Printed = {}
    for family in text_string_to_metric_families(lines.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def of_worker() -> Printed:
    counters, vitals = Counters(), Vitals()
    counters.settled("q", "t", 60.0, "succeeded", 1.0)
    counters.killed("hard")
    vitals.opened(Figures(counters.totals, lambda: {"busy": 1}))
    return printed(WorkerMetrics(vitals).text())


def of_dashboard() -> Printed:
    app = Stem("memory://")
    app.enqueue("t", {}, queue="q")
    minute = int(time.time() // 60)
    with app.broker_pool.borrow() as broker:
        broker.add_counts([TaskCounts(queue="q", name="t", minute=minute, counts={"failed": 1}, wait={1: 1}, run={1: 1})])
        broker.beat(WorkerInfo(id="w", boot="b", hostname="h", pid=1, queues=["q"], seats=1, spares=0, seen_at=time.time()))
    return printed(text(app))


def everything() -> Printed:
    found = of_dashboard()
    for name, labels in of_worker().items():
        found.setdefault(name, set()).update(labels)
    return found


def expressions() -> Iterator[str]:
    for group in documents("prometheus/alerts.yml")[0]["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    yield from (target["expr"] for panel in board["panels"] for target in panel["targets"])
    yield from (each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query")
    yield from (trigger["metadata"]["query"] for trigger in documents("kubernetes/keda.yaml")[0]["spec"]["triggers"])


def wrong(expression: str, known: Printed) -> list[str]:
    """Names and labels in it that nobody prints."""
    found = []
    for name, matchers in re.findall(r"\b(stem_iso_\w+)(?:\{([^}]*)\})?", expression):
        labels = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", re.sub(r'"[^"]*"', '""', matchers))
        if name not in known:
            found.append(name)
        found += [f"{name}: {label}" for label in labels if label not in known[name] | OF_PROMETHEUS] if name in known else []
    grouped = [each for by in re.findall(r"\bby \(([^)]*)\)", expression) for each in re.split(r",\s*", by.strip(", "))]
    found += [f"by {label}" for label in grouped if not any(label in labels | OF_PROMETHEUS for labels in known.values())]
    return found


def test_alerts_graphs_and_autoscaling_ask_for_what_is_printed() -> None:
    known, asked = everything(), list(expressions())
    assert len(asked) > 25
    assert {each: wrong(each, known) for each in asked if wrong(each, known)} == {}
    missing = {name.removesuffix("_bucket") for name in known if not name.endswith(("_sum", "_count"))}
    assert {name for name in missing if not any(name in each for each in asked)} == set(), "each is shown somewhere"


def test_a_name_that_nobody_prints_is_found() -> None:
    known = everything()
    assert wrong('sum by (queue) (stem_iso_tasks_total{outcome="failed", job="x"})', known) == []
    assert wrong('stem_iso_task_total{outcome="failed"}', known) == ["stem_iso_task_total"]
    assert wrong('sum by (worker) (stem_iso_tasks_total{result="failed"})', known) == ["stem_iso_tasks_total: result", "by worker"]


def test_the_page_of_metrics_lists_what_each_prints() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(stem_iso_\w+)` \|(.*?)\| (yes|no) \| (yes|no) \|", page, re.MULTILINE)
    for at, known in ((2, of_worker()), (3, of_dashboard())):
        families = {re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in known.items()}
        assert {row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in rows if row[at] == "yes"} == families


def test_the_page_says_what_to_do_about_each_alert() -> None:
    alerts = {rule["alert"] for group in documents("prometheus/alerts.yml")[0]["groups"] for rule in group["rules"]}
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(StemIso\w+)` \|", page, re.MULTILINE)) == alerts


def test_the_jobs_that_are_asked_for_are_those_that_are_scraped() -> None:
    jobs = {job["job_name"] for job in documents("prometheus/prometheus.yml")[0]["scrape_configs"]}
    monitors = [end["relabelings"][0]["replacement"] for each in documents("kubernetes/podmonitor.yaml") for end in _endpoints(each)]
    asked = {job for each in expressions() for job in re.findall(r'job="([^"]+)"', each)}
    assert asked == jobs == set(monitors)


def _endpoints(monitor: Any) -> list[Any]:
    return list(monitor["spec"]["podMetricsEndpoints"])


# -- systemd -------------------------------------------------------------------------------------------------------------------------------


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / "systemd" / name).read_text(encoding="utf-8"))
    return parser


def test_the_unit_gives_the_worker_the_time_that_it_gives_its_tasks() -> None:
    service = unit("stem-iso-worker@.service")["Service"]
    _, *words = shlex.split(service["ExecStart"])
    assert words[:2] == ["-m", "stem_iso.worker"]
    given = options(worker_command, words[2:])
    assert int(service["TimeoutStopSec"]) > float(given["shutdown_timeout"]) + DRAIN_GRACE
    assert int(service["WatchdogSec"]) > HUNG
    assert (service["Type"], service["NotifyAccess"], service["KillMode"]) == ("notify", "main", "mixed")
    assert service["OOMPolicy"] == "continue" and service["RestartPreventExitStatus"] == "2"
    assert {word.partition("=")[0] for word in shlex.split(service["Environment"])} <= VARIABLES


def test_the_unit_of_the_dashboard_starts_it() -> None:
    _, name, *words = shlex.split(unit("stem-iso-dashboard.service")["Service"]["ExecStart"])
    assert name == "dashboard"
    assert options(dashboard, words)["port"] == 8080


# -- Compose -------------------------------------------------------------------------------------------------------------------------------


def test_compose_starts_what_there_is_and_waits_for_tasks() -> None:
    services = documents("compose/compose.yaml")[0]["services"]
    given = options(worker_command, services["worker"]["command"])
    assert float(services["worker"]["stop_grace_period"].removesuffix("s")) > float(given["shutdown_timeout"]) + DRAIN_GRACE
    assert f":{given['metrics_port']}/readyz" in services["worker"]["healthcheck"]["test"][-1]
    assert services["dashboard"]["entrypoint"] == ["stem-iso", "dashboard"]
    assert options(dashboard, services["dashboard"]["command"])["host"] == "0.0.0.0"
    for name in ("worker", "dashboard"):
        assert set(services[name]["environment"]) <= VARIABLES
        assert set(services[name]["depends_on"]) <= set(services)
        compile(services[name]["healthcheck"]["test"][-1], name, "exec")
    for name in re.findall(r"- (\.\./[^:]+):", (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")):
        assert (DEPLOY / "compose" / name).is_file()
    assert {"redis", "prometheus"} == set(documents("compose/compose.yaml")[0]["volumes"])
    assert f"worker:{given['metrics_port']}" == "worker:9100" and "port: 9100" in (DEPLOY / "prometheus/prometheus.yml").read_text()


# -- Kubernetes ----------------------------------------------------------------------------------------------------------------------------


def of_kind(kind: str, name: str) -> Any:
    return next(each for file in ("worker", "dashboard", "keda") for each in documents(f"kubernetes/{file}.yaml") if _is(each, kind, name))


def _is(document: Any, kind: str, name: str) -> bool:
    return bool(document["kind"] == kind and document["metadata"]["name"] == name)


@pytest.mark.parametrize("name", ["stem-iso-worker", "stem-iso-dashboard"])
def test_a_deployment_asks_for_what_is_served_and_selects_its_own_pods(name: str) -> None:
    spec = of_kind("Deployment", name)["spec"]
    template = spec["template"]
    assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (container,) = template["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe") if probe in container]
    assert {probe["path"] for probe in probes} <= {"/healthz", "/readyz"} and {probe["port"] for probe in probes} == set(ports)
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "a broker that is away kills nobody"
    assert {each["name"] for each in container["env"]} <= VARIABLES
    assert template["metadata"]["annotations"]["prometheus.io/port"] in {str(port) for port in ports.values()}


def test_kubernetes_gives_the_worker_the_time_that_it_gives_its_tasks() -> None:
    pod = of_kind("Deployment", "stem-iso-worker")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = {each["name"]: each.get("value") for each in container["env"]}
    (rest,) = re.findall(r"^sleep (\d+)$", container["lifecycle"]["preStop"]["exec"]["command"][-1], re.MULTILINE)
    assert pod["terminationGracePeriodSeconds"] > float(given["STEM_ISO_SHUTDOWN_TIMEOUT"]) + int(rest) + DRAIN_GRACE
    assert given["STEM_ISO_METRICS_PORT"] == str(container["ports"][0]["containerPort"])
    for setting in SETTINGS:
        if given.get(setting.variable):
            setting.read(given[setting.variable])


def test_what_belongs_to_the_deployments_names_them() -> None:
    pods = [of_kind("Deployment", f"stem-iso-{name}")["spec"]["template"] for name in ("worker", "dashboard")]
    worker, board = (pod["metadata"]["labels"] for pod in pods)
    assert of_kind("PodDisruptionBudget", "stem-iso-worker")["spec"]["selector"]["matchLabels"] == worker
    assert of_kind("Service", "stem-iso-dashboard")["spec"]["selector"] == board
    assert of_kind("ScaledObject", "stem-iso-worker")["spec"]["scaleTargetRef"] == {"name": "stem-iso-worker"}
    (container,) = pods[1]["spec"]["containers"]
    assert container["command"] == ["stem-iso", "dashboard"]
    assert options(dashboard, container["args"])["port"] == container["ports"][0]["containerPort"]


@pytest.mark.slow
def test_the_hook_before_the_stop_lets_the_worker_of_this_host_drain(tmp_path: Path) -> None:
    """As the kubelet runs it, in a shell, but for its rest."""
    (container,) = of_kind("Deployment", "stem-iso-worker")["spec"]["template"]["spec"]["containers"]
    shell, flag, script = container["lifecycle"]["preStop"]["exec"]["command"]
    ours = f"{shlex.quote(sys.executable)} -m stem_iso"
    script = script.replace("stem-iso ", f"{ours} ").replace("python -c", f"{shlex.quote(sys.executable)} -c").replace("sleep 20", "true")
    running = Command(tmp_path).ready()
    try:
        environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "STEM_ISO_BROKER": running.broker}
        done = subprocess.run([shell, flag, script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0 and f"obeyed: {socket.gethostname()}" in done.stdout, done
    finally:
        running.close()
