"""The files of deploy/: that they parse, and that what they run exists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from segrt.cli import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def instructions(name: str) -> dict[str, str]:
    """The last of each instruction of a Dockerfile."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    return dict(line.split(maxsplit=1) for line in text.splitlines() if re.match(r"[A-Z]+ ", line))


def accepts(command: list[str]) -> None:
    """`segrt serve` knows each option and value."""
    assert Path(command[0]).name == "segrt"
    assert command[1] == "serve"
    app.parse_args(command[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_dockerfile(name: str) -> None:
    found = instructions(name)
    accepts(json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"]))
    assert found["USER"] != "0"
    probe = json.loads(found["HEALTHCHECK"].partition("CMD ")[2])
    compile(probe[2], name, "exec")
    for extra in re.findall(r"\[(.*?)\]", found["RUN"]):
        assert set(extra.split(",")) <= {"cpu", "gpu", "serve"}


def test_unit() -> None:
    text = (DEPLOY / "segrt.service").read_text(encoding="utf-8")
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found
    accepts(shlex.split(found[1]))
    assert "DynamicUser=yes" in text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_unit_is_valid_to_systemd(tmp_path: Path) -> None:
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
