"""The files of `deploy/`, checked by what is at hand: schemas, linters, our own command line, and each other."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flowstone.cli import app
from flowstone.config import Settings, variable_of
from flowstone.testing.postgres import TemporaryServer
from flowstone.web.access import UsersFile, hash_password
from flowstone.web.registry import Role

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization")
SLACK_SECONDS = 20
"""How long a worker may take beyond its grace, as docs/durable.md promises."""


def documents(path: Path) -> list[Any]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every call of our command line in the files, with the file that has it."""
    for service in documents(DEPLOY / "compose.yaml")[0]["services"].values():
        if "command" in service and service.get("image", "").startswith("${IMAGE"):
            yield "compose.yaml", service["command"]
    for path in MANIFESTS:
        for one in documents(path):
            for container in pods(one):
                yield path.name, container["args"]
    for path in UNITS:
        line = re.search(r"^ExecStart=\S+/flowstone (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert line is not None
        yield path.name, line[1].split()


def pods(document: Any) -> list[Any]:
    spec = document.get("spec", {}).get("template", {}).get("spec", {})
    found: list[Any] = spec.get("containers", [])
    return found


def variables() -> Iterator[tuple[str, str]]:
    for path in [DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", *UNITS, *MANIFESTS]:
        for name in re.findall(r"FLOWSTONE_[A-Z_]+", path.read_text(encoding="utf-8")):
            yield path.name, name


def test_commands_and_options_are_those_of_the_command_line() -> None:
    reference = json.loads((ROOT / "src/flowstone/cli/reference.json").read_text(encoding="utf-8"))
    found = list(commands())
    assert {file for file, _ in found} > {"compose.yaml", "worker.yaml", "flowstone-worker@.service"}
    for file, words in found:
        node, known = reference, {*reference.get("options", {})}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{file}: {' '.join(words)}"
            elif word in node.get("commands", {}):
                node = node["commands"][word]
                known |= {*node.get("options", {})}
                # the command that a group means by itself
                known |= {*node.get("commands", {}).get("serve", {}).get("options", {})}


def test_variables_are_settings() -> None:
    known = {variable_of(name) for name in Settings.__dataclass_fields__} | {"FLOWSTONE_ENV_FILE"}
    assert [one for one in variables() if one[1].removesuffix("_FILE") not in known | {"FLOWSTONE_ENV"}] == []


def test_whoever_stops_a_worker_waits_long_enough() -> None:
    needed = Settings().grace_seconds + SLACK_SECONDS
    compose = documents(DEPLOY / "compose.yaml")[0]["services"]["worker"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > needed
    unit = (DEPLOY / "systemd" / "flowstone-worker@.service").read_text(encoding="utf-8")
    assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) > needed
    worker = documents(DEPLOY / "kubernetes" / "worker.yaml")[0]
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > needed


def test_the_image_gets_signals_and_is_not_root() -> None:
    """A shell as process 1 would keep SIGTERM to itself, and every stop would end in SIGKILL."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r'^ENTRYPOINT \["flowstone"\]$', last, re.MULTILINE)
    assert re.search(r"^USER \d+:\d+$", last, re.MULTILINE)
    assert not re.search(r"g\+\+|apt-get", last)
    assert not re.search(r"(?i)^(?:ENV|ARG) .*(?:password|secret|token|database_url)\b", text, re.MULTILINE)


def test_the_image_passes_hadolint() -> None:
    run(tool("hadolint"), DEPLOY / "Dockerfile")


def test_the_compose_file_fits_its_schema_and_holds_no_secret() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    for name, service in documents(DEPLOY / "compose.yaml")[0]["services"].items():
        for variable, value in service.get("environment", {}).items():
            assert variable.endswith("_FILE") or not re.search(r"PASSWORD|URL|TOKEN", variable), (name, value)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    run(tool("kubernetes-validate"), "--strict", path)
    for document in documents(path):
        for container in pods(document):
            spec = document["spec"]["template"]["spec"]
            assert spec["enableServiceLinks"] is spec["automountServiceAccountToken"] is False
            assert spec["securityContext"]["runAsNonRoot"]
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert {"requests", "limits"} <= set(container["resources"])
            if document["kind"] == "Deployment":
                assert {"livenessProbe", "readinessProbe", "startupProbe"} <= set(container)
                ports = {one["name"] for one in container["ports"]}
                for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
                    (call,) = [
                        container[probe][kind] for kind in ("httpGet", "tcpSocket") if kind in container[probe]
                    ]
                    assert call["port"] in ports


def test_the_kustomization_builds_and_what_it_builds_fits_the_schemas(tmp_path: Path) -> None:
    """Its names, namespace and images reach everything: what is applied is not the files but this."""
    yaml = pytest.importorskip("yaml")
    built = tmp_path / "built.yaml"
    built.write_text(run(tool("kubectl"), "kustomize", DEPLOY / "kubernetes"), encoding="utf-8")
    run(tool("kubernetes-validate"), "--strict", built)
    found = list(yaml.safe_load_all(built.read_text(encoding="utf-8")))
    assert len(found) == sum(len(documents(path)) for path in MANIFESTS)
    assert {one["metadata"]["namespace"] for one in found} == {"flowstone"}
    images = {container["image"] for one in found for container in pods(one)}
    assert images == {"registry.example/flowstone-project:1"}


def test_the_overlay_of_the_page_builds(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    path, overlay = re.findall(r"```yaml\n# (overlays/\S+)\n(.*?)```", page, re.DOTALL)[0]
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "deploy" / "kubernetes")
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(overlay, encoding="utf-8")
    built = run(tool("kubectl"), "kustomize", (tmp_path / path).parent)
    assert built.count("image: registry.example/shop:2026-11-30") == 3
    assert "replicas: 6" in built
    assert "FLOWSTONE_QUEUES: assets=20,backfill=40" in built
    assert "FLOWSTONE_GRACE_SECONDS" in built, "merged, not replaced"


@contextmanager
def running(name: str, place: Path, url: str) -> Iterator[tuple[Any, int]]:
    """Run the container of a manifest here, with its arguments and settings; gives it, and its port."""
    (deployment, *_) = documents(DEPLOY / "kubernetes" / f"{name}.yaml")
    (container,) = pods(deployment)
    (place / "database-url").write_text(url)
    (place / "shop.py").write_text("from flowstone import FlowStone\nflow = FlowStone([])\n")
    UsersFile(place / "users.json").set_user("ann", Role.ADMIN, hash_password("correct horse"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = int(listening.getsockname()[1])
    (declared,) = container["ports"]
    here = {str(declared["containerPort"]): str(port), "/run/flowstone/users.json": str(place / "users.json")}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLOWSTONE_")}
    environment |= documents(DEPLOY / "kubernetes" / "settings.yaml")[0]["data"]
    environment |= {one["name"]: str(place / Path(one["value"]).name) for one in container["env"]}
    environment |= {"FLOWSTONE_APP": "shop:flow", "FLOWSTONE_STORAGE": str(place / "storage")}
    command = [sys.executable, "-m", "flowstone", *(here.get(word, word) for word in container["args"])]
    with (place / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
    try:
        yield container, port
        assert process.poll() is None, (place / "log").read_text()
    finally:
        process.terminate()
        process.wait(60)


def answers(probe: Any, port: int) -> bool:
    """Whether a probe would succeed."""
    if "tcpSocket" in probe:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0
    call = probe["httpGet"]
    headers = {one["name"]: one["value"] for one in call.get("httpHeaders", [])}
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("GET", call["path"], headers=headers)
        return 200 <= client.getresponse().status < 400
    except OSError:
        return False
    finally:
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["worker", "web"])
def test_probes_are_answered(name: str, server: TemporaryServer, tmp_path: Path) -> None:
    with server.database() as url, running(name, tmp_path, url) as (container, port):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert not answers({"httpGet": {"path": "/nothing"}}, port)
            wait_until(partial(answers, container[probe], port), describe=(tmp_path / "log").read_text)


def wait_until(holds: Callable[[], bool], *, describe: Callable[[], str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.1)


def test_selectors_find_what_they_are_for() -> None:
    everything = [one for path in MANIFESTS for one in documents(path)]
    labels = [
        one["spec"]["template"]["metadata"]["labels"] for one in everything if one["kind"] in ("Deployment", "Job")
    ]
    for one in everything:
        selector = one.get("spec", {}).get("selector")
        if selector:
            selected = selector.get("matchLabels", selector)
            assert [found for found in labels if selected.items() <= found.items()], one["metadata"]["name"]
    listed = documents(DEPLOY / "kubernetes" / "kustomization.yaml")[0]["resources"]
    assert sorted(listed) == [path.name for path in MANIFESTS]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_are_verified(path: Path, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    text = path.read_text(encoding="utf-8")
    unit = tmp_path / path.name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, ""), done.stderr


def test_the_tables_are_made_with_the_url_in_a_mounted_file(
    server: TemporaryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith("FLOWSTONE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    with server.empty_database() as url:
        (tmp_path / "database_url").write_text(f"{url.replace('postgresql://', 'postgresql+psycopg://')}\n")
        monkeypatch.setenv("FLOWSTONE_DATABASE_URL_FILE", str(tmp_path / "database_url"))
        monkeypatch.setenv("FLOWSTONE_STORAGE", str(tmp_path / "storage"))
        for command in (["db", "upgrade"], ["db", "status"], ["workers"]):
            done = CliRunner().invoke(app, command)
            assert done.exit_code == 0, done.output
