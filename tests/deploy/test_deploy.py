"""The files in deploy/ parse, and the commands and options in them exist."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from cyclopts import CycloptsError

from segrt.cli import app

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
