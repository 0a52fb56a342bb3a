"""docker-compose.yml: valid for two validators, hardened everywhere, and true to the programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import msgspec
import pytest
import yaml

from cloud_app.app import CloudSettings
from ddnn.cli.health import HealthSettings
from ddnn.cli.secrets import generate_secrets
from device_app.settings import DeviceSettings
from edge_app.app import EdgeSettings
from tests.deployment.composed import APPS, COMPOSE_FILE, ROOT, compose
from tests.parts import need

SERVICES = compose()["services"]
ONE_SHOT = {"train"}
SCHEMAS = {"device": DeviceSettings, "edge": EdgeSettings, "cloud": CloudSettings}
PROFILES = [[], ["demo"], ["observability"], ["demo", "observability"]]


@pytest.mark.parametrize("profiles", PROFILES, ids="+".join)
def test_docker_compose_accepts_it(profiles):
    need(shutil.which("docker-compose"), "docker-compose is not installed")
    flags = [word for profile in profiles for word in ("--profile", profile)]
    command = ["docker-compose", "-f", str(COMPOSE_FILE), *flags, "config"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DDNN_", "COMPOSE_"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean)
    assert done.returncode == 0, done.stderr
    resolved = yaml.safe_load(done.stdout)["services"]
    assert resolved.keys() == SERVICES.keys()
    for name, service in SERVICES.items():  # and these tests read it as it does
        for key in ("image", "user", "environment", "read_only", "cap_drop", "profiles", "tmpfs"):
            assert resolved[name].get(key) == service.get(key), (name, key)


def test_the_specification_accepts_it():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE_FILE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_do_no_more_than_it_must(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])  # a number: not root, whatever the image
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} <= service["logging"]["options"].keys()
    assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+(\.\d+)?(-\w+)?", service["image"])
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")
    assert ("healthcheck" in service) == (name not in ONE_SHOT)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_exists(name):
    service, whole = SERVICES[name], compose()
    assert {*service.get("secrets", [])} <= whole["secrets"].keys()
    assert {*service.get("networks", [])} <= whole["networks"].keys()
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert volume.endswith(":ro")
        else:
            assert source in whole["volumes"]
    for other, how in service.get("depends_on", {}).items():
        assert {*SERVICES[other].get("profiles", [])} <= {*service.get("profiles", [])}
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert how["condition"] == "service_completed_successfully"
            assert other in ONE_SHOT


def test_what_is_declared_is_used():
    whole = compose()
    for kind in ("secrets", "networks"):
        used = {name for service in SERVICES.values() for name in service.get(kind, [])}
        assert used == whole[kind].keys()
    volumes = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])}
    assert {v for v in volumes if not v.startswith(".")} == whole["volumes"].keys()


def test_secrets_are_the_files_that_ddnn_makes():
    declared = compose()["secrets"]
    assert declared.keys() == generate_secrets().keys()
    assert all(entry == {"file": f"./secrets/{name}"} for name, entry in declared.items())


def test_no_secret_is_given_to_a_service_that_does_not_read_it():
    script = (ROOT / "mosquitto" / "start.sh").read_text()
    prometheus = (ROOT / "cloud_app/observability/prometheus/prometheus.yml").read_text()
    for name, service in SERVICES.items():
        text = str(service.get("environment", "")) + str(service.get("command", ""))
        if name.startswith("mosquitto"):
            text += script.replace("${broker}", name.removeprefix("mosquitto-"))
        if name == "prometheus":
            text += prometheus
        for secret in service.get("secrets", []):
            assert f"/run/secrets/{secret}" in text, (name, secret)


def test_no_password_stands_in_the_environment():
    for service in SERVICES.values():
        for key, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|TOKEN|SECRET", key):
                assert value.startswith("/run/secrets/"), key
            assert not re.search(r"://[^/]*:[^/]*@", str(value)), key


def test_no_port_is_published_beyond_loopback_unasked():
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published == {
        "mosquitto-edge": ["127.0.0.1:1883:1883"],
        "mosquitto-cloud": ["127.0.0.1:1884:1883"],
        "dashboard": ["127.0.0.1:8080:8080"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    asked = compose({"DDNN_LAN": "192.168.1.10", "DDNN_CLOUD_LISTEN": "10.0.0.1"})["services"]
    assert asked["mosquitto-edge"]["ports"] == ["192.168.1.10:1883:1883"]
    assert asked["mosquitto-cloud"]["ports"] == ["10.0.0.1:1884:1883"]
    internal = {n for n, how in compose()["networks"].items() if how.get("internal")}
    for name in published:  # an internal network publishes nothing
        assert {*SERVICES[name]["networks"]} - internal, name


def test_who_meets_whom():
    """The site's LAN reaches the cloud by the bridge alone; the database knows its clients only."""
    on = {name: {*service.get("networks", [])} for name, service in SERVICES.items()}
    meet = {(a, b) for a in on for b in on if a < b and on[a] & on[b]}
    site = {"edge", "worker", *(name for name in on if name.startswith("cam"))}
    for a, b in meet:
        if a in site or b in site:
            assert {a, b} <= {*site, "mosquitto-edge"}
    assert {a if b == "database" else b for a, b in meet if "database" in (a, b)} == {
        "cloud",
        "dashboard",
    }
    assert ("mosquitto-cloud", "mosquitto-edge") in meet
    assert on["train"] == set()
    assert SERVICES["train"]["network_mode"] == "none"
    assert compose()["networks"]["database"] == {"internal": True}


@pytest.mark.parametrize(
    "name", [n for n, s in SERVICES.items() if s["image"].split("-")[-1].split(":")[0] in APPS]
)
def test_a_node_is_given_keys_that_its_program_knows(name):
    service = SERVICES[name]
    schema = SCHEMAS[service["build"]["target"]]
    keys = {field.name for field in msgspec.structs.fields(schema)}
    given = [k for k in service["environment"] if k.startswith("DDNN_")]
    assert {key.removeprefix("DDNN_").lower() for key in given} <= keys
    for flag in re.findall(r"--([a-z-]+)", str(service.get("command", ""))):
        assert flag.replace("-", "_") in keys
    health = {field.name for field in msgspec.structs.fields(HealthSettings)}
    assert {"node", "site", "broker_user", "broker_password_file", "stats_every_s"} <= health
    assert service["environment"]["DDNN_STATS_EVERY_S"] == "3"  # the health check waits 2.5 times


def test_images_are_built_from_targets_and_named_after_the_version():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    for service in SERVICES.values():
        if "build" in service:
            target = service["build"]["target"]
            assert service["image"] == f"ddnn-{target}:{version[1]}"


def test_six_cameras_of_one_mould():
    cameras = {n: s for n, s in SERVICES.items() if n.startswith("cam")}
    assert sorted(cameras) == [f"cam{i}" for i in range(1, 7)]
    moulds = []
    for name, camera in cameras.items():
        environment = dict(camera["environment"])
        assert environment.pop("DDNN_NODE") == name
        moulds.append({**camera, "environment": environment})
    assert all(mould == moulds[0] for mould in moulds)


def test_variables_are_those_that_the_head_of_the_file_explains():
    text = COMPOSE_FILE.read_text()
    head = text[: text.index("x-service")]
    for name in set(re.findall(r"\$\{(\w+)", text)):
        assert name in head, name
