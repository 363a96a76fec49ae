"""The files in deploy/ parse, and the commands and options in them exist."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from cyclopts import CycloptsError

import segrt
import segrt.ray.service
from segrt.cli import app
from segrt.ray.service import from_config

DEPLOY = Path(__file__).parents[2] / "deploy"


def instructions(name: str) -> dict[str, str]:
    """The last occurrence of each instruction in a Dockerfile."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    return dict(line.split(maxsplit=1) for line in text.splitlines() if re.match(r"[A-Z]+ ", line))


def check_command(command: list[str]) -> None:
    """Check that `segrt serve` accepts every option and value."""
    assert Path(command[0]).name == "segrt"
    assert command[1] == "serve"
    app.parse_args(command[1:], exit_on_error=False, print_error=False)


def test_an_unknown_option_or_value_is_found() -> None:
    for wrong in (["--log-jsn"], ["--port", "http"]):
        with pytest.raises(CycloptsError):
            check_command(["segrt", "serve", *wrong])


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_dockerfile(name: str) -> None:
    found = instructions(name)
    check_command(json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"]))
    assert found["USER"] != "0"
    probe = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
    compile(probe[2], name, "exec")
    runtime = found.get("ARG", "").partition("RUNTIME=")[2]
    for extra in re.findall(r"\[(.*?)\]", found["RUN"].replace("$RUNTIME", runtime)):
        assert set(extra.split(",")) <= {"openvino", "gpu", "serve"}


def test_unit() -> None:
    text = (DEPLOY / "segrt.service").read_text(encoding="utf-8")
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found
    check_command(shlex.split(found[1]))
    assert "DynamicUser=yes" in text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    program = shutil.which("true")
    unit = tmp_path / "segrt.service"
    text = (DEPLOY / "segrt.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/segrt/bin/segrt", str(program)), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_compose() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        assert (DEPLOY.parent / service["build"]["dockerfile"]).is_file()
        assert service["read_only"]
        assert service["ports"][0].startswith("127.0.0.1:")


def test_kubernetes() -> None:
    deployment, service = yaml.safe_load_all(
        (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    )
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")} == {
        "/ready"
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]


def _kuberay(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The specification of a RayService or RayJob, and that of its cluster."""
    document = yaml.safe_load((DEPLOY / f"kuberay-{kind}.yaml").read_text(encoding="utf-8"))
    assert document["apiVersion"] == "ray.io/v1"
    assert document["kind"] == f"Ray{kind.title()}"
    spec = document["spec"]
    return spec, spec["rayClusterConfig" if kind == "service" else "rayClusterSpec"]


@pytest.mark.parametrize("kind", ["service", "job"])
def test_kuberay_pods(kind: str) -> None:
    spec, cluster = _kuberay(kind)
    version = re.search(r"ray:([\d.]+)-", instructions("Dockerfile.ray")["FROM"])
    assert version
    assert cluster["rayVersion"] == version[1]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        # Ray takes the cores of a node from the limits.
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    if kind == "job":
        assert spec["entrypoint"].startswith("segrt predict /data/")


def test_kuberay_service_starts_the_application() -> None:
    spec, cluster = _kuberay("service")
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    assert application["import_path"] == f"{from_config.__module__}:{from_config.__name__}"
    arguments, known = application["args"], inspect.signature(segrt.ray.service.app).parameters
    own = {name for name, one in known.items() if one.kind is one.KEYWORD_ONLY}
    assert arguments.keys() - own <= inspect.signature(segrt.create_pipeline).parameters.keys()
    (group,) = cluster["workerGroupSpecs"]
    cores = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert cores / 2 < arguments["num_cpus"] <= cores
    assert group["maxReplicas"] == arguments["max_replicas"]


@pytest.mark.parametrize("kind", ["service", "job"])
def test_kuberay_matches_its_schema(kind: str) -> None:
    """No package ships the CRDs: SEGRT_KUBERAY_CRDS is `crds` of KubeRay's Helm chart."""
    folder = os.environ.get("SEGRT_KUBERAY_CRDS")
    if not folder:
        pytest.skip("needs KubeRay's CRDs: set SEGRT_KUBERAY_CRDS to a folder with them")
    file = Path(folder) / f"ray.io_ray{kind}s.yaml"
    crd = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)
    (schema,) = (
        version["schema"]["openAPIV3Schema"]
        for version in crd["spec"]["versions"]
        if version["name"] == "v1"
    )
    document = yaml.safe_load((DEPLOY / f"kuberay-{kind}.yaml").read_text(encoding="utf-8"))
    jsonschema_rs.validate(_strict(schema), document)
    document["spec"]["rayclusterSpec"] = {}
    with pytest.raises(jsonschema_rs.ValidationError, match="rayclusterSpec"):
        jsonschema_rs.validate(_strict(schema), document)


def _strict(schema: Any) -> Any:
    """A schema of Kubernetes as JSON schema that refuses unknown keys, as the API server does."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if schema.get("x-kubernetes-int-or-string"):
        kept = {"type": ["integer", "string"]}
    if isinstance(kept.get("properties"), dict):
        kept["properties"] = {key: _strict(one) for key, one in kept["properties"].items()}
        if kept["properties"].keys() != {"apiVersion", "kind", "metadata", "spec", "status"}:
            kept.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if key in kept:
            kept[key] = _strict(kept[key])
    return kept
