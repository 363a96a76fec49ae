"""Turn the parity reports of `make zoo-test` into a table.

SEGRT_ZOO_OUT=build/zoo make zoo-test
python benchmarks/export.py build/zoo > benchmarks/results/export.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """# Export of the 18 models

Made by `make zoo-test` and `benchmarks/export.py`. The models are untrained: the published
architectures with seeded random weights. Agreement is the share of pixels that get the same label
from the exported model (ONNX Runtime's CPU provider and segrt's own upsampling) and from
{reference}, on the package's sample image. Seconds are those of the conversion, including passes
and checks but not building the model and comparing it with Paddle. The largest logit difference is
over all cases, on the network's own logits, which have a standard deviation of about 8. If there is
a second graph, for FP32 on the CPU, each figure is the worse of the two.

| model | nodes, converter | nodes, exported | seconds | 512x1024 | 333x517 | batch of 3 | """
HEAD += "largest logit diff. |\n|---|---|---|---|---|---|---|---|"


def row(report: dict[str, Any]) -> str:
    """One line of the table."""
    cases = [
        case
        for key in ("parity", "parity_float32")
        for case in report.get(key, {}).get("cases", ())
    ]

    def share(ending: str) -> str:
        return f"{min(case['agreement'] for case in cases if case['case'].endswith(ending)):.4%}"

    worst = max(case.get("max_logit_diff", float("nan")) for case in cases)
    nodes = report["nodes"]
    shares = " | ".join(share(ending) for ending in ("512x1024", "333x517", "a batch of 3"))
    seconds = f"{report['export_seconds']:.1f}"
    return (
        f"| {report['model']} | {nodes['converter']} | {nodes['exported']} | {seconds} | {shares} |"
        f" {worst:.1e} |"
    )


def main() -> None:
    """Print the table of the reports in the given folder."""
    files = sorted(Path(sys.argv[1]).glob("*.parity.json"))
    reports = [json.loads(file.read_text("utf-8")) for file in files]
    print(HEAD.format(reference=reports[0]["parity"]["reference"]))
    for report in reports:
        print(row(report))
    tools = ", ".join(f"{name} {version}" for name, version in reports[0]["tools"].items())
    print(f"\nVersions: {tools}, {reports[0]['parity']['runtime']}.")


if __name__ == "__main__":
    main()
