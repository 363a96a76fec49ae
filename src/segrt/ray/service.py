"""The HTTP API of `segrt serve` as an application of Ray Serve."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from segrt.create import create_pipeline
from segrt.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

    from segrt.serve.settings import Settings


def app(
    *,
    min_replicas: int = 1,
    max_replicas: int = 4,
    target_requests: float | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    settings: Settings | None = None,
    autoscaling: dict[str, Any] | None = None,
    **options: Any,
) -> Application:
    """The HTTP API of `segrt serve`, on as many replicas as its requests need.

    Each replica loads the model once, and has the batches, the limits and the metrics of one
    server. Ray starts a replica while there are more than `target_requests` requests per replica,
    waiting or running, and stops one while there are fewer: that one gets no further requests, and
    completes those it has. What no replica can accept waits at Ray's proxies, at most
    `settings.max_queue` requests at each; further ones are answered with 503.

    Example:
        >>> from ray import serve
        >>> serve.run(segrt.ray.app(max_replicas=8, device="cpu"), route_prefix="/")

    Args:
        min_replicas: number of replicas without requests.
        max_replicas: maximum number of replicas.
        target_requests: requests per replica; defaults to two batches, one that runs and one that
            fills.
        num_cpus: cores that Ray reserves for a replica. On a CPU it uses all cores of its machine
            whatever this is: with more than half of them, each replica has a machine of its own.
        num_gpus: GPUs that Ray reserves for a replica.
        settings: of each replica, as the options of `segrt serve`; `max_connections` has no effect,
            as Ray's proxies hold the connections. Without a token, the environment variable
            SEGRT_TOKEN of the replicas is the token, if there is one.
        autoscaling: further fields of Ray's `AutoscalingConfig`, such as `upscale_delay_s`.
        options: of `create_pipeline`: model_name, model_dir, device, ... The default is the bundled
            model.

    Returns:
        ray.serve.Application: for `serve.run`, or for `import_path` in the configuration of Serve.

    Raises:
        ConfigError: an argument is invalid.
        MissingExtraError: Ray Serve or the server is not installed.
    """
    try:
        from ray import serve
        from ray.serve.config import AutoscalingConfig

        from segrt.serve.settings import Settings
    except ImportError as error:
        raise _missing(error) from None
    chosen = settings or Settings()
    if not options.keys() & {"pipeline", "config", "model_name", "model_dir"}:
        options["pipeline"] = "semantic_segmentation"
    target = 2 * chosen.max_batch if target_requests is None else target_requests
    if not 0 < target <= chosen.max_queue:
        raise ConfigError(
            f"target_requests {target:g} is not valid: it must be above 0, and at most max_queue, "
            f"{chosen.max_queue}"
        )
    try:
        scaling = AutoscalingConfig(
            **{
                "min_replicas": min_replicas,
                "max_replicas": max_replicas,
                "target_ongoing_requests": target,
                **(autoscaling or {}),
            }
        )
    except ValueError as error:
        raise ConfigError(f"the autoscaling is not valid: {_first(error)}") from None

    def build() -> FastAPI:
        return _build(chosen, options)

    deployment = serve.deployment(
        name="segrt",
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        autoscaling_config=scaling,
        max_ongoing_requests=chosen.max_queue,
        max_queued_requests=chosen.max_queue,
        # Ray ends a replica only when its requests are done, or after this long.
        graceful_shutdown_timeout_s=chosen.timeout + 5,
    )(serve.ingress(build)())
    return deployment.bind()


def from_config(args: dict[str, Any]) -> Application:
    """`app` for a configuration file of Ray Serve: `import_path: segrt.ray.service:from_config`.

    Example:
        >>> from_config({"max_replicas": 8, "device": "cpu", "settings": {"max_batch": 16}})

    Args:
        args: the arguments of `app`; `settings` is a mapping.

    Raises:
        ConfigError: an argument is invalid.
        MissingExtraError: Ray Serve or the server is not installed.
    """
    try:
        from segrt.serve.settings import Settings
    except ImportError as error:
        raise _missing(error) from None
    values = args.get("settings") or {}
    names = [field.name for field in fields(Settings)]
    for name in values:
        if name not in names:
            raise ConfigError(f"there is no setting {name!r}: use {', '.join(names)}")
    return app(**{**args, "settings": Settings(**values)})


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"serving on Ray needs {error.name}: run  pip install 'segrt[ray,serve]'"
    )


def _build(settings: Settings, options: dict[str, Any]) -> FastAPI:
    """The application of a replica, in its process. Its shutdown ends the threads and processes."""
    from segrt.serve.app import create_app
    from segrt.serve.server import warm_up

    if settings.token is None:  # on Kubernetes, from a secret
        settings = replace(settings, token=os.environ.get("SEGRT_TOKEN"))
    pipeline = create_pipeline(**options)
    warm_up(pipeline)
    application = create_app(pipeline, settings)
    application.state.service.decoders.start()
    return application


def _first(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[1:3])[:200] or "see Ray's documentation"
