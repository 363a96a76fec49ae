"""The page /docs: the OpenAPI document as plain HTML, without scripts or external resources."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from typing import Any


def render(document: dict[str, Any]) -> str:
    """Render an OpenAPI document as HTML."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
            f'<meta name="viewport" content="width=device-width">\n<title>{title}: API</title>',
            '<link rel="stylesheet" href="docs.css">',
            f"<h1>{title}</h1>\n<p>{escape(document['info'].get('description', ''))}",
            'As an OpenAPI document: <a href="openapi.json">openapi.json</a>.</p>',
            *(
                part
                for path, operations in document["paths"].items()
                for method, operation in operations.items()
                for part in _operation(document, method, path, operation)
            ),
            "</html>\n",
        ]
    )


def _operation(
    document: dict[str, Any], method: str, path: str, operation: dict[str, Any]
) -> Iterator[str]:
    yield f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation['summary'])}.</p>"
    if parameters := operation.get("parameters"):
        yield "<h3>Query string</h3>" + _table(
            (
                p["name"],
                _kind(document, p["schema"]),
                p["schema"].get("description", "") + f" {p['description']}",
            )
            for p in parameters
        )
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<h3>Body: <code>{escape(media)}</code></h3>" + _schema(
            document, content.get("schema", {})
        )
    for status, response in operation["responses"].items():
        yield f"<h3>{status}: {escape(response['description'])}</h3>"
        for media, content in response.get("content", {}).items():
            yield f"<p><code>{escape(media)}</code></p>" + _schema(
                document, content.get("schema", {})
            )
    yield "</section>"


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _schema(document: dict[str, Any], schema: dict[str, Any]) -> str:
    schema = _resolved(document, schema)
    if "properties" not in schema:
        return f"<p>{escape(_kind(document, schema))}</p>"
    required = schema.get("required", [])
    return _table(
        (
            name + (" *" if name in required else ""),
            _kind(document, one),
            one.get("description", "")
            + (f" Default: {json.dumps(one['default'])}." if "default" in one else ""),
        )
        for name, one in schema["properties"].items()
    )


def _kind(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type of a value, in a few words."""
    if "$ref" in schema:
        found = _resolved(document, schema)
        return (
            "{" + ", ".join(found["properties"]) + "}"
            if "properties" in found
            else _kind(document, found)
        )
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(document, one) for one in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_kind(document, inner)}"
    if schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", "anything"))


def _table(rows: Any) -> str:
    lines = (
        f"<tr><th scope=row><code>{escape(name)}</code><td>{escape(kind)}"
        f"<td>{escape(about.strip())}"
        for name, kind, about in rows
    )
    return (
        "<table><tr><th scope=col>name<th scope=col>type<th scope=col>meaning\n"
        + "\n".join(lines)
        + "</table>"
    )
