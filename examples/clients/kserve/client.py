"""Segment an image with Triton's client, on a server started with `segrt serve --kserve`.

    pip install 'tritonclient[http]' pillow
    python client.py photo.jpg labels.png [http://127.0.0.1:8080]

Environment: SEGRT_TOKEN, if the server requires a token.
"""

import os
import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image

MODEL = "PP-LiteSeg-T_camvid"


def main() -> None:
    """Send one image, and save its labels as a grey PNG."""
    source, target, *rest = sys.argv[1:]
    address = rest[0] if rest else "http://127.0.0.1:8080"
    token = os.environ.get("SEGRT_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    with open(source, "rb") as file:
        files = [file.read()]  # several images must have the same size
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, object))

    client = triton.InferenceServerClient(address.removeprefix("http://"), network_timeout=60)
    try:
        answer = client.infer(MODEL, [tensor], headers=headers)
    except triton.InferenceServerException as error:
        sys.exit(f"{error.status()}: {error.message()}")
    finally:
        client.close()
    labels = answer.as_numpy("labels")  # int32 (N, height, width)
    Image.fromarray(labels[0].astype(np.uint8)).save(target)


if __name__ == "__main__":
    main()
