"""The container files, checked without an engine: linters and schemas, then what no linter knows.

No image is built here. What is promised: one Ray, one Python and one version of ecgscale everywhere; nobody runs as
root; the dashboard is not open to the network; image, compose file and manifests name things that exist.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml

from ecgscale.cli import app

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
YAML_FILES = sorted(DOCKER.rglob("*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(line.split("==") for line in (ROOT / "constraints/python.txt").read_text().split())
VERSION = PROJECT["project"]["version"]
TARGETS = {"cpu", "cuda"}


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


COMPOSE = documents(DOCKER / "compose.yaml")[0]
SERVICES = COMPOSE["services"]
NODES = {name: service for name, service in SERVICES.items() if "build" in service}  # the others watch
CLUSTER = documents(DOCKER / "k8s/raycluster.yaml")[0]["spec"]
JOB = documents(DOCKER / "k8s/rayjob.yaml")[0]["spec"]
PODS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]


def run_tool(name: str, *arguments: str | Path) -> None:
    """Runs a tool of the same environment; its complaints are the failure's message."""
    tool = Path(sys.executable).parent / name
    found = subprocess.run([tool, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def image_stage(target: str) -> str:
    """The Dockerfile's lines of one image: those of its stage and of the stages it stands on."""
    stages = {
        m[2]: (m[1], m[3]) for m in re.finditer(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.M | re.S)
    }
    base, lines = stages[target]
    return (image_stage(base) if base in stages else "") + lines


# --- linters and schemas -------------------------------------------------------------------------------------------


def test_dockerfile_lints():
    run_tool("hadolint", "docker/Dockerfile")


def test_compose_file_follows_the_compose_specification():
    run_tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml")


def test_yaml_lints():
    # PyYAML lets the last of two equal keys win; yamllint does not
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
    run_tool("yamllint", "--strict", "-d", rules, *YAML_FILES)


# --- one version everywhere ----------------------------------------------------------------------------------------


def test_ray_of_the_manifests_is_the_pinned_one():
    assert CLUSTER["rayVersion"] == JOB["rayClusterSpec"]["rayVersion"] == PINS["ray"]


def test_image_installs_the_pinned_versions():
    assert re.search(r"UV_CONSTRAINT=/build/constraints/python\.txt", DOCKERFILE)
    assert re.search(r"^COPY constraints constraints$", DOCKERFILE, re.M)


def test_python_of_the_image_is_the_projects():
    major, minor, _ = re.search(r"^ARG PYTHON_VERSION=(\d+)\.(\d+)\.(\d+)$", DOCKERFILE, re.M).groups()
    assert f"py{major}{minor}" == PROJECT["tool"]["ruff"]["target-version"]
    assert f">={major}.{minor}" == PROJECT["project"]["requires-python"]


def test_images_are_tagged_with_the_version_of_the_project():
    built = {f"ecgscale:{VERSION}-{target}" for target in TARGETS}
    assert {service["image"] for service in NODES.values()} == built
    assert {c["image"] for pod in PODS for c in pod["template"]["spec"]["containers"]} == built
    assert f'org.opencontainers.image.version="{VERSION}"' in DOCKERFILE
    assert set(re.findall(r"-t (\S+)", DOCKERFILE)) == built


def test_no_base_image_floats():
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.M))
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)) - stages
    assert bases == {"python:${PYTHON_VERSION}-slim-bookworm"}
    images = {service["image"] for service in SERVICES.values()}
    assert all(re.search(r":v?\d+\.\d+\.\d+", image) for image in images), images
    assert not any(":latest" in path.read_text() for path in [DOCKER / "Dockerfile", *YAML_FILES])


# --- the image -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_image_runs_the_command_line_as_nobody_special(target):
    lines = image_stage(target)
    assert re.findall(r"^USER (\S+)$", lines, re.M) == ["1000:1000"]
    assert re.findall(r"^ENTRYPOINT (.+)$", lines, re.M) == ['["ecgscale"]']
    assert "RAY_USAGE_STATS_ENABLED=0" in lines and "WANDB_MODE=disabled" in lines
    assert "org.opencontainers.image.revision" in lines


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_torch_is_installed_before_the_project(target):
    lines = image_stage(f"build-{target}")
    torch = re.search(r"uv pip install --torch-backend \S+ torch", lines)
    project = re.search(r"uv pip install --no-deps \.$", lines, re.M)
    assert torch.start() < lines.index("-r pyproject.toml --extra train") < project.start()


def test_dockerignore_lets_through_what_the_image_copies():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {
        source
        for arguments in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
        for source in arguments.split()[:-1]
    }
    assert copied == set(allowed)


# --- the compose cluster -------------------------------------------------------------------------------------------


def test_compose_publishes_what_people_look_at_on_loopback_and_nothing_else():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"head": ["127.0.0.1:8265:8265"], "grafana": ["127.0.0.1:3000:3000"]}
    assert "--dashboard-port=8265" in SERVICES["head"]["command"]


def test_compose_workers_find_the_head():
    assert "--port=6379" in SERVICES["head"]["command"]
    assert SERVICES["head"]["healthcheck"]["test"][-1].startswith("http://127.0.0.1:8265/")
    for name in NODES.keys() - {"head"}:
        assert "--address=head:6379" in SERVICES[name]["command"]
        assert SERVICES[name]["depends_on"]["head"]["condition"] == "service_healthy"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_compose_services_have_no_privileges(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(NODES))
def test_compose_nodes_share_token_and_folders_and_build_their_image(name):
    service = SERVICES[name]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/run/secrets/ray_token"}
    assert service["environment"].items() >= token.items()
    assert service["secrets"] == list(COMPOSE["secrets"])
    assert "results:/results" in service["volumes"]
    assert int(service["shm_size"].removesuffix("gb")) >= 8
    build = service["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).resolve() == DOCKER / "Dockerfile"
    assert service["image"].endswith(f"-{build['target']}") and build["target"] in TARGETS


# --- monitoring ----------------------------------------------------------------------------------------------------


def mounted(service: str, target: str) -> dict:
    """The file of ours that a service finds at `target`."""
    (source,) = (v.split(":")[0] for v in SERVICES[service]["volumes"] if v.endswith(f":{target}:ro"))
    (document,) = documents(DOCKER / source)
    return document


def test_nobody_watches_unless_asked_to():
    assert {name for name in SERVICES if SERVICES[name].get("profiles") == ["monitoring"]} == {"prometheus", "grafana"}
    for name in ("prometheus", "grafana"):
        assert SERVICES[name]["depends_on"]["head"]["condition"] == "service_healthy"


def test_prometheus_asks_the_head_for_its_nodes_with_the_token():
    (job,) = mounted("prometheus", "/etc/prometheus/prometheus.yml")["scrape_configs"]
    (discovery,) = job["http_sd_configs"]
    assert discovery["url"] == "http://head:8265/api/prometheus/sd"
    # the type is a default that not every version sends
    token = SERVICES["head"]["environment"]["RAY_AUTH_TOKEN_PATH"]
    assert discovery["authorization"] == {"type": "Bearer", "credentials_file": token}
    assert SERVICES["prometheus"]["secrets"] == list(COMPOSE["secrets"])


def test_grafana_draws_the_heads_dashboards_from_prometheus_and_lets_nobody_in():
    head, grafana = SERVICES["head"]["environment"], SERVICES["grafana"]["environment"]
    (source,) = mounted("grafana", "/etc/grafana/provisioning/datasources/ray.yaml")["datasources"]
    (provider,) = mounted("grafana", "/etc/grafana/provisioning/dashboards/ray.yaml")["providers"]
    assert source["url"] == head["RAY_PROMETHEUS_HOST"] == "http://prometheus:9090"
    assert source["name"] == "Prometheus"  # RAY_PROMETHEUS_NAME is not set
    assert provider["options"]["path"] == head["RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"] == "/dashboards"
    assert "dashboards:/dashboards" in SERVICES["head"]["volumes"]
    assert "dashboards:/dashboards:ro" in SERVICES["grafana"]["volumes"]
    assert re.search(r"install .*--owner=ecgscale.* /dashboards", DOCKERFILE)  # the head may write to the volume
    assert head["RAY_GRAFANA_HOST"] == "http://grafana:3000"
    assert head["RAY_GRAFANA_IFRAME_HOST"] == f"http://{SERVICES['grafana']['ports'][0].rpartition(':')[0]}"
    assert (grafana["GF_AUTH_ANONYMOUS_ENABLED"], grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


# --- the manifests -------------------------------------------------------------------------------------------------


def test_job_and_standing_cluster_are_the_same_cluster():
    assert JOB["rayClusterSpec"] == CLUSTER


def test_cluster_is_closed_and_its_head_trains_nothing():
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert CLUSTER["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in CLUSTER["headGroupSpec"]
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_gpus_cost_nothing_until_the_sweep_asks_for_them():
    (workers,) = CLUSTER["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"]) == (0, 0) and workers["maxReplicas"] > 0
    assert CLUSTER["enableInTreeAutoscaling"]
    assert "--wait-for-gpus" in JOB["entrypoint"].split()


KUBERAY_FIELDS = {
    "job": "entrypoint rayClusterSpec shutdownAfterJobFinishes ttlSecondsAfterFinished activeDeadlineSeconds "
    "backoffLimit submissionMode submitterPodTemplate submitterConfig suspend",
    "cluster": "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs",
    "autoscalerOptions": "idleTimeoutSeconds upscalingMode resources env",
    "headGroupSpec": "serviceType headService enableIngress rayStartParams template",
    "workerGroupSpec": "groupName replicas minReplicas maxReplicas numOfHosts rayStartParams template scaleStrategy",
}
"""Some of KubeRay's API `ray.io/v1`, from its Go types: another name is more likely a slip than one of the rest."""


def test_manifests_set_fields_that_kuberay_has():
    found = [("job", JOB), ("cluster", CLUSTER), ("headGroupSpec", CLUSTER["headGroupSpec"])]
    found += [("workerGroupSpec", group) for group in CLUSTER["workerGroupSpecs"]]
    found += [("autoscalerOptions", CLUSTER["autoscalerOptions"])]
    for kind, fields in found:
        assert fields.keys() <= set(KUBERAY_FIELDS[kind].split()), kind
    for group in PODS:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


@pytest.mark.parametrize("pod", PODS, ids=["head", "worker"])
def test_pods_are_not_root_and_mount_the_claims(pod):
    spec = pod["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
    claims = {claim["metadata"]["name"] for claim in documents(DOCKER / "k8s/claims.yaml")}
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in spec["volumes"]} == claims
    (container,) = spec["containers"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/results"}
    assert not container["securityContext"]["allowPrivilegeEscalation"]


def test_job_runs_a_shipped_sweep_with_options_that_exist():
    command = JOB["entrypoint"].split()
    assert command[:2] == ["ecgscale", "sweep"]
    assert (ROOT / command[2].lstrip("/")).is_file()
    known = {option for parameter in typer.main.get_command(app).commands["sweep"].params for option in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= known
    assert JOB["shutdownAfterJobFinishes"]
