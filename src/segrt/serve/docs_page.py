"""The page /docs: the OpenAPI document as HTML, with a form to try each call.

The forms are our own: Swagger UI, Scalar and RapiDoc are 0.9 to 3.6 MB of script, which needs a
weaker Content-Security-Policy, for five calls. `page/docs.js` sends them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

_FILE = "file"


def render(document: dict[str, Any], root: str = "") -> str:
    """Render an OpenAPI document as HTML.

    Args:
        document: the OpenAPI document.
        root: the root of the server, relative to the page.
    """
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    operations = [
        (method, path, operation)
        for path, found in document["paths"].items()
        for method, operation in found.items()
    ]
    links = (
        f'<li><a href="#{_anchor(path)}"><code>{escape(path)}</code></a> {escape(one["summary"])}'
        for _, path, one in operations
    )
    has_token = "securitySchemes" in document.get("components", {})
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
            f'<meta name="viewport" content="width=device-width">\n<title>{title}: API</title>',
            f'<link rel="icon" href="{root}icon.svg" type="image/svg+xml">',
            f'<link rel="stylesheet" href="{root}style.css">',
            f'<link rel="stylesheet" href="{root}docs.css">',
            f'<script type="module" src="{root}docs.js"></script>',
            f'<header><h1><img src="{root}icon.svg" alt="" width="28" height="28">segrt API</h1>'
            f'<a href="{root or "./"}">Page</a></header>\n<main>',
            f'<section class="card"><h2>{title}</h2>',
            f"<p>{_text(document['info'].get('description', ''))} Send a form to try a call. As an "
            f'OpenAPI document: <a href="{root}openapi.json">openapi.json</a>.</p>',
            f"<ul>{''.join(links)}</ul>",
            _TOKEN if has_token else "",
            "</section>",
            *(
                part
                for method, path, operation in operations
                for part in _operation(document, root, method, path, operation)
            ),
            "</main></html>\n",
        ]
    )


_TOKEN = (
    '<p class="field"><label for="token">Token</label> '
    '<input id="token" type="password" autocomplete="off"></p>'
)


def _operation(
    document: dict[str, Any], root: str, method: str, path: str, operation: dict[str, Any]
) -> Iterator[str]:
    name = _anchor(path)
    yield f'<section class="card" id="{name}" aria-labelledby="{name}-title">'
    yield (
        f'<h2 id="{name}-title"><span class="method">{method.upper()}</span> '
        f"<code>{escape(path)}</code></h2>"
    )
    yield f"<p>{_text(operation['summary'])}.</p>"
    yield f'<form data-method="{method.upper()}" data-path="{root}{escape(path[1:])}">'
    yield from _body(document, name, operation)
    yield '<button class="primary">Send</button></form>'
    yield from _responses(document, operation["responses"])
    yield "</section>"


def _body(document: dict[str, Any], name: str, operation: dict[str, Any]) -> Iterator[str]:
    """The fields of each kind of body; a form has one kind at a time."""
    # A Content-Type can't be image/*, and application/octet-stream does for PDFs too.
    kinds = [
        (media, _resolved(document, content["schema"]))
        for media, content in operation.get("requestBody", {}).get("content", {}).items()
        if "*" not in media and media != "application/pdf"
    ]
    if len(kinds) > 1:
        options = "".join(f"<option>{escape(media)}</option>" for media, _ in kinds[::-1])
        yield (
            f'<p class="field"><label for="{name}-media">Content-Type</label> '
            f'<select id="{name}-media" name="media">{options}</select></p>'
        )
    for number, (media, schema) in enumerate(kinds[::-1]):
        hidden = "hidden disabled " if number else ""
        yield f'<fieldset {hidden}data-media="{escape(media)}">'
        yield f'<legend class="visually-hidden">{escape(media)}</legend>'
        prefix = f"{name}-{number}"
        if "properties" in schema:
            required = schema.get("required", [])
            for key, one in schema["properties"].items():
                is_file = key == "image" and schema.get("title") == "SegmentRequest"
                yield _field(document, prefix, key, one, key in required, is_file)
        else:
            yield _field(document, prefix, "body", {"description": "The image."}, True, True)
            for one in operation.get("parameters", []):
                yield _field(document, prefix, one["name"], one["schema"], False, False)
        yield "</fieldset>"


def _field(
    document: dict[str, Any],
    prefix: str,
    name: str,
    schema: dict[str, Any],
    required: bool,
    is_file: bool,
) -> str:
    """A label, a control and what it means."""
    kind = _FILE if is_file else _kind(document, schema)
    key = f"{prefix}-{name}"
    about = f'id="{key}" name="{escape(name)}" aria-describedby="{key}-about"'
    choices = schema.get("enum") or (["true", "false"] if kind.startswith("boolean") else [])
    text = schema.get("description", "")
    if kind == _FILE:
        control = f'<input type="file" {about} accept="image/*,.tif,.tiff,.pdf">'
        text += " Without one, an example is sent."
    elif choices:
        options = "".join(f"<option>{escape(one)}</option>" for one in choices)
        control = f'<select {about}><option value="">default</option>{options}</select>'
    elif kind.startswith("integer") and "string" not in kind:
        control = f'<input type="number" min="0" {about}>'
    else:
        control = f'<input type="text" {about} autocomplete="off" spellcheck="false">'
    star = ' <abbr title="required">*</abbr>' if required else ""
    return (
        f'<div class="field"><label for="{key}"><code>{escape(name)}</code>{star}</label>'
        f'{control}<p id="{key}-about">{_text(text)}{_default(schema)} '
        f"<small>{escape(kind)}</small></p></div>"
    )


def _responses(document: dict[str, Any], responses: dict[str, Any]) -> Iterator[str]:
    """The fields of successful responses, then the errors, which have the same fields."""
    yield "<details><summary>Responses</summary>"
    errors = {status: one for status, one in responses.items() if status >= "400"}
    for status, response in responses.items():
        if status in errors:
            continue
        for media, content in response.get("content", {}).items():
            rows = _rows(document, content.get("schema", {}))
            title = f"<code>{escape(media)}</code>"
            yield _table(f"{status}: {title}", ("member", "type", "meaning"), rows)
    if errors:
        statuses = [
            (f"<code>{status}</code>", _text(one["description"])) for status, one in errors.items()
        ]
        yield _table("Errors", ("status", "meaning"), statuses)
        schema = errors[max(errors)]["content"]["application/json"]["schema"]
        rows = _rows(document, schema)
        yield _table("Errors: <code>application/json</code>", ("member", "type", "meaning"), rows)
    yield "</details>"


def _rows(
    document: dict[str, Any], schema: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, ...]]:
    """The members of an object, and of the objects within it."""
    schema = _resolved(document, schema)
    if "properties" not in schema and not prefix:
        yield "(the body)", escape(_kind(document, schema)), ""
    for name, one in schema.get("properties", {}).items():
        about = _text(one.get("description", "")) + _default(one)
        yield (
            f"<code>{escape(prefix + name)}</code>",
            escape(_kind(document, one)),
            about,
        )
        inner = one.get("items", {}) if one.get("type") == "array" else one
        if "$ref" in inner:
            mark = "[]." if inner is not one else "."
            yield from _rows(document, inner, f"{prefix}{name}{mark}")


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _kind(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """The type of a value, in a few words."""
    if "$ref" in schema:
        found = _resolved(document, schema)
        return "object" if "properties" in found else _kind(document, found)
    if "anyOf" in schema:
        kinds = dict.fromkeys(_kind(document, one) for one in schema["anyOf"])
        return " or ".join(kinds)
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        inner = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {_kind(document, inner)}"
    if schema.get("format") == "binary":
        return _FILE
    return str(schema.get("type", "anything"))


def _table(caption: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    columns = "".join(f'<th scope="col">{name}' for name in head)
    lines = "\n".join(
        f'<tr><th scope="row">{first}' + "".join(f"<td>{cell}" for cell in rest)
        for first, *rest in rows
    )
    # Focusable, so that the keyboard can scroll it.
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>'
        f"<caption>{caption}</caption><tr>{columns}\n{lines}</table></div>"
    )


def _default(schema: dict[str, Any]) -> str:
    if "default" not in schema or schema["default"] is None:
        return ""
    return f" Default: <code>{escape(json.dumps(schema['default']))}</code>."


def _text(markdown: str) -> str:
    """The only Markdown in the document is `code`."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(markdown, quote=False))


def _anchor(path: str) -> str:
    return "call-" + path.strip("/").replace("/", "-")
