"""The parts of the OpenAPI document that FastAPI can't derive from the endpoints."""

from __future__ import annotations

from typing import Any

from segrt.serve import schema

_DESCRIPTIONS = {
    400: "The image or its base64 text can't be decoded.",
    401: "The token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "The body, the image or the inference size is too large.",
    415: "The Content-Type is not one of those above and the body is not a JSON object, or its "
    "compression is not gzip.",
    422: "An option is invalid, or the model can't run on the image.",
    424: "The URL can't be fetched.",
    500: "Internal error; see the server's log.",
    503: "The server is full: try again after the seconds in Retry-After.",
    504: "The result was not ready in time.",
}


def failures(*statuses: int, token: bool = False) -> dict[int | str, dict[str, Any]]:
    """The error responses of an endpoint, for `responses`.

    Args:
        statuses: HTTP statuses; 500 is always included.
        token: whether the endpoint requires the token, which adds 401.
    """
    known = {*statuses, *([401] if token else []), 500}
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": schema.Failure, "description": _DESCRIPTIONS[status]}
        for status in sorted(known)
    }
    if 503 in found:
        found[503]["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}
        }
    return found


def segment_request() -> dict[str, Any]:
    """The body, in each media type, and the query string of a segmentation request."""
    options = schema.Options.model_json_schema()["properties"]
    texts = {name: _as_text(option) for name, option in options.items()}
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {"image": {**file, "description": "The image file."}, **texts},
        "required": ["image"],
        "additionalProperties": False,
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                schema.JSON: {"schema": schema.SegmentRequest.model_json_schema()},
                schema.FORM: {"schema": form},
                "image/*": {"schema": file},
                "application/pdf": {"schema": file},
                "application/octet-stream": {"schema": file},
            },
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": text,
                "description": "Not allowed with JSON.",
            }
            for name, text in texts.items()
        ],
    }


def _as_text(option: dict[str, Any]) -> dict[str, Any]:
    """The schema of an option in a form or query string."""
    about = {key: option[key] for key in ("description", "default") if option.get(key) is not None}
    kinds = [one.get("type") for one in option.get("anyOf", [option])]
    if "string" not in kinds and "boolean" in kinds:
        return {"type": "boolean", **about}
    if "string" not in kinds and "integer" in kinds:
        [number] = [one for one in option["anyOf"] if one.get("type") == "integer"]
        return {**number, **about}
    return {"type": "string", **({"enum": option["enum"]} if "enum" in option else {}), **about}
