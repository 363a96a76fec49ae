"""Segment an image on a segrt server, with httpx.

Usage: python client.py http://localhost:8080 road.png result.jpg
"""

import base64
import sys
from collections import Counter
from pathlib import Path

import httpx

server, picture, output = sys.argv[1:]
request = {"image": base64.b64encode(Path(picture).read_bytes()).decode(), "visualize": True}
answer = httpx.post(f"{server}/semantic-segmentation", json=request, timeout=60).json()
if answer["errorCode"] != 0:
    sys.exit(answer["errorMsg"])

result = answer["result"]
names = {one["id"]: one["name"] for one in result["classes"]}
height, width = result["size"]
print(f"{width} x {height}")
for label, count in sorted(
    Counter(result["labelMap"]).items(), key=lambda item: (-item[1], item[0])
):
    print(f"{100 * count / (width * height):6.2f} %  {names[label]}")
Path(output).write_bytes(base64.b64decode(result["image"]))
