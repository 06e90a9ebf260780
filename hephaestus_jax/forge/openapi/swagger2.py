"""An operation of Swagger 2 in the words of OpenAPI 3; schemas and references need no change."""

from __future__ import annotations

from typing import Any

from hephaestus_jax.forge.openapi.references import References
from hephaestus_jax.formats.records import Json

_FORM, _MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"
_OWN_KEYS = ("name", "in", "required", "description", "allowEmptyValue", "collectionFormat")


def as_version_3(operation: dict[str, Any], item: dict[str, Any], references: References) -> dict[str, Any]:
    """The operation with the parameters of its path, its body and form as `requestBody`, schemas where 3 has them."""
    document = references.document
    made = {key: value for key, value in operation.items() if key not in ("parameters", "responses", "requestBody")}
    stated: dict[tuple[Json, Json], dict[str, Any]] = {}
    for raw in [*_list(operation.get("parameters")), *_list(item.get("parameters"))]:
        parameter = references.resolved(raw)
        if isinstance(parameter.get("name"), str) and isinstance(parameter.get("in"), str):
            stated.setdefault((parameter["in"], parameter["name"]), parameter)
    bodies = [one for (place, _), one in stated.items() if place == "body"]
    fields = {str(name): one for (place, name), one in stated.items() if place == "formData"}
    made["parameters"] = [
        {key: one[key] for key in ("name", "in", "required", "description") if key in one} | {"schema": _schema(one)}
        for (place, _), one in stated.items()
        if place in ("path", "query", "header")
    ]
    consumes = _media_types(operation, document, "consumes")
    if bodies:
        content = {consumes[0]: {"schema": bodies[0].get("schema")}}
        request = {key: bodies[0][key] for key in ("description", "required") if key in bodies[0]}
        made["requestBody"] = {**request, "content": content}
    elif fields:
        kind = next((kind for kind in consumes if kind in (_FORM, _MULTIPART)), _FORM)
        schema: dict[str, Json] = {"type": "object", "properties": {n: _field(one) for n, one in fields.items()}}
        schema["required"] = [name for name, one in fields.items() if one.get("required") is True]
        made["requestBody"] = {"content": {kind: {"schema": schema}}}
    responses = operation.get("responses")
    produces = _media_types(operation, document, "produces")
    if isinstance(responses, dict):
        made["responses"] = {
            code: _response(references.resolved(one), produces) for code, one in responses.items() if _is_code(code)
        }
    return made


def servers(document: dict[str, Any]) -> list[Json]:
    """`host` and `basePath` as servers."""
    host, base = document.get("host"), document.get("basePath")
    base = base if isinstance(base, str) else ""
    return [{"url": f"https://{host}{base}" if isinstance(host, str) and host else base}]


def _schema(parameter: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema := parameter.get("schema"), dict):
        return schema
    return {key: value for key, value in parameter.items() if key not in _OWN_KEYS}


def _field(parameter: dict[str, Any]) -> dict[str, Any]:
    told = parameter.get("description")
    return _schema(parameter) | ({"description": told} if isinstance(told, str) else {})


def _response(response: dict[str, Any], produces: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {key: response[key] for key in ("description",) if key in response}
    examples = response.get("examples")
    examples = examples if isinstance(examples, dict) else {}
    if "schema" not in response and not examples:
        return made
    kind = next((kind for kind in [*produces, *examples] if kind in examples), produces[0])
    media: dict[str, Any] = {"schema": response.get("schema")}
    if kind in examples:
        media["example"] = examples[kind]
    return made | {"content": {kind: media}}


def _media_types(operation: dict[str, Any], document: dict[str, Any], key: str) -> list[str]:
    stated = [kind for kind in _list(operation.get(key)) or _list(document.get(key)) if isinstance(kind, str) and kind]
    return sorted(stated, key=lambda kind: "json" not in kind) or ["application/json"]


def _is_code(code: Json) -> bool:
    return isinstance(code, str) and not code.startswith("x-")


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []
