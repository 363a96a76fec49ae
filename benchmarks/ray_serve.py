"""Ray Serve compared with `segrt serve`, on one machine with one replica.

    unshare -n bash -c 'ip link set lo up; exec python benchmarks/ray_serve.py PHOTOS [--count 200]'

In alternation, 16 clients send the same photos to `segrt serve` and to `segrt.ray.app`, and check
the labels of each answer. Then the same requests go to an application on Ray that only reads the
body: what the proxy and the replica cost without segmentation. Ray listens on all interfaces, hence
the network namespace.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from pathlib import Path

from serve_load import PATH, Load, Photos, labels, load, serving

import segrt
import segrt.ray
from segrt.bench.pairs import Ratio

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def nothing() -> object:
    """An ASGI application that reads the body, and answers with as many bytes as labels take."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def read(request: Request) -> Response:
        await request.body()
        return Response(bytes(8192))

    return Starlette(routes=[Route(PATH, read, methods=["POST"])])


def measure(address: str, photos: Photos, count: int) -> Load:
    """Send photos from 16 clients; every answer must be 200."""
    done = asyncio.run(load(address, photos, clients=16, count=count))
    assert set(done.latencies) == {200}, done.latencies.keys()
    return done


def main() -> None:
    """Measure, and print a table."""
    import ray
    from ray import serve

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=200, help="requests per round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files = sorted(file for file in options.photos.iterdir() if file.suffix in (".png", ".jpg"))
    pipeline = segrt.create_pipeline("semantic_segmentation", device="cpu")
    for _ in range(2):  # a frequent size gets a session of its own, which may round otherwise
        expected = [labels(result) for result in pipeline.predict(files)]
    photos = Photos(files, [file.read_bytes() for file in files], expected)

    ray.init(include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    serve.start(http_options={"host": "127.0.0.1", "port": 8000})
    serve.run(segrt.ray.app(max_replicas=1, device="cpu"), route_prefix="/")
    empty = serve.deployment(name="empty", max_ongoing_requests=64)(serve.ingress(nothing)())
    serve.run(empty.bind(), name="empty", route_prefix="/empty")
    on_ray, without = "http://127.0.0.1:8000", "http://127.0.0.1:8000/empty"
    plain, scaled, bare = list[Load](), list[Load](), list[float]()
    with serving() as server:
        for address in (server.address, on_ray):
            measure(address, photos, 32 + len(files))
        for _ in range(options.rounds):
            plain.append(measure(server.address, photos, options.count))
            scaled.append(measure(on_ray, photos, options.count))
            done = asyncio.run(
                load(without, photos, clients=16, count=options.count, query={"empty": "1"})
            )
            bare.append(1000 * done.seconds / options.count)
    serve.shutdown()
    ray.shutdown()
    wrong = sum(done.wrong for done in plain + scaled)
    ratio = Ratio(tuple(a.seconds / b.seconds for a, b in zip(plain, scaled, strict=True)))
    print("| | images/s | ms per request |\n|---|---|---|")
    for name, runs in (("segrt serve", plain), ("Ray Serve", scaled)):
        seconds = statistics.median(done.seconds for done in runs)
        print(f"| {name} | {options.count / seconds:.1f} | {1000 * seconds / options.count:.1f} |")
    print(f"| Ray without segmentation | | {statistics.median(bare):.1f} |")
    print(f"\nThroughput of Ray Serve relative to segrt serve: {ratio}; {wrong} wrong labels.")


if __name__ == "__main__":
    main()
