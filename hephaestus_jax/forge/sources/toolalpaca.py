"""ToolAlpaca (Tang et al., arXiv 2306.05301): real and simulated APIs with instructions and the calls they ask for.

Its catalogue of public services says one line about each and nothing of their operations: it becomes a text per
category. Keys of services, which the data's own calls hold, are no business of the agent's: tools and calls lack them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.forge.tool_data.checked import checked
from hephaestus_jax.forge.tool_data.json_values import list_of, object_of, parse_json
from hephaestus_jax.forge.tool_data.rows import objects
from hephaestus_jax.forge.tool_data.tool_schemas import any_schema, parameters_schema
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    ApiError,
    Document,
    Json,
    MessageAction,
    Record,
    Step,
    TextObservation,
    Tool,
    Trajectory,
)

LICENCE = "Apache-2.0"
HOST = "github.com/tangqiaoyu/ToolAlpaca"
_PLACES = ("path", "query", "header")


@source("toolalpaca", files="**/*.json")
def read_toolalpaca(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """ToolAlpaca's APIs as documentation; golden answers and simulated runs as trajectories."""
    for where, row in objects(file, quarantine):
        if isinstance(row.get("entries"), list):
            yield from _catalogue(row["entries"], file, quarantine)
        elif "Documentation" in row or "NLDocumentation" in row:
            yield from _api(row, file, where, quarantine)
        else:
            quarantine.add("unknown form", file.place(where), f"keys {', '.join(sorted(row)[:8])}")


def _catalogue(entries: list[Json], file: SourceFile, quarantine: Quarantine) -> Iterator[Document]:
    """Lists of public APIs, one line about each, by category."""
    lists: dict[str, list[str]] = {}
    for index, entry in enumerate(entries):
        place = f"entries[{index}]"
        name, told = (entry.get(key) if isinstance(entry, Mapping) else None for key in ("API", "Description"))
        if not isinstance(name, str) or not isinstance(told, str) or not name.strip() or not told.strip():
            quarantine.add("malformed API", file.place(place), "an entry has API and Description")
            continue
        access = {"": "none", "apiKey": "API key", "OAuth": "OAuth"}.get(entry.get("Auth"), entry.get("Auth"))
        category, link = entry.get("Category"), entry.get("Link")
        needs = f" (authentication: {access})" if isinstance(access, str) and access != "none" else ""
        described = "" if told.strip().rstrip(".") == name.strip() else f": {told.strip().rstrip('.')}."
        at = f" {link}" if isinstance(link, str) and link else ""
        titled = category.strip() if isinstance(category, str) and category.strip() else "Other"
        lists.setdefault(titled, []).append(f"- {name.strip()}{needs}{described}{at}")
    for category, lines in lists.items():
        text = f"# Public APIs: {category}\n\n" + "\n".join(lines) + "\n"
        yield Document(text, "text", file.provenance(f"entries.{category}", LICENCE, HOST), "en")


def _host(url: Json) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.") if isinstance(url, str) else ""
    except ValueError:
        return ""


# One API with its instructions.


def _api(row: Mapping[str, Json], file: SourceFile, where: str, quarantine: Quarantine) -> Iterator[Record]:
    try:
        spec = _specification(row)
        docs = {doc.function: doc for doc in _operations(spec, row, file, where)}
    except ValueError as error:
        quarantine.add("malformed documentation", file.place(where), str(error))
        return
    yield from docs.values()
    secret = frozenset(row["Authentication"]) if isinstance(row.get("Authentication"), Mapping) else frozenset[str]()
    tools = tuple(Tool(doc.function, doc.description, _without(doc.parameters, secret)) for doc in docs.values())
    if not tools:
        quarantine.add("no operation", file.place(where), "the documentation describes none")
        return
    instructions, answers = row.get("Instructions"), row.get("Golden_Answers")
    if isinstance(instructions, list) and isinstance(answers, list):
        if len(instructions) != len(answers):
            found = f"{len(instructions)} instructions, {len(answers)} answers"
            quarantine.add("answers do not pair", file.place(where), found)
        else:
            for index, (instruction, answer) in enumerate(zip(instructions, answers, strict=True)):
                task = _Task(tools, secret, file, f"{where}.Golden_Answers[{index}]")
                yield from _golden(instruction, answer, task, quarantine)
    instances = row.get("Instances")
    for index, instance in enumerate(instances if isinstance(instances, list) else ()):
        yield from _simulated(instance, _Task(tools, secret, file, f"{where}.Instances[{index}]"), quarantine)


def _without(schema: Mapping[str, Json], names: frozenset[str]) -> dict[str, Json]:
    """The parameters but those of these names."""
    properties = {name: part for name, part in schema["properties"].items() if name not in names}
    required = [name for name in schema.get("required", []) if name not in names]
    made = {**schema, "properties": properties, "required": required}
    return made if required else {key: value for key, value in made.items() if key != "required"}


def _specification(row: Mapping[str, Json]) -> dict[str, Json]:
    stated = row.get("Documentation")
    spec = parse_json(stated) if isinstance(stated, str) else stated
    return object_of(spec, "Documentation")


def _operations(spec: Mapping[str, Json], row: Mapping[str, Json], file: SourceFile, where: str) -> Iterator[ApiDoc]:
    """Every operation that an agent could call; its function is the name that the instructions' answers use."""
    projection = object_of(row.get("Function_Projection"), "Function_Projection")
    names = {tuple(map(str, place)): name for name, place in projection.items() if isinstance(place, list)}
    servers = spec.get("servers")
    server = servers[0] if isinstance(servers, list) and servers else {}
    address = server.get("url") if isinstance(server, Mapping) else None
    host = _host(address) or str(row.get("Name") or "")
    base = urlsplit(address).path.rstrip("/") if _host(address) and isinstance(address, str) else ""
    info = spec.get("info")
    stated = info.get("license") if isinstance(info, Mapping) else None
    named = stated.get("name") if isinstance(stated, Mapping) else None
    licence = {"MIT License": "MIT", "Apache 2.0": "Apache-2.0"}.get(named, named) if isinstance(named, str) else ""
    for path, methods in object_of(spec.get("paths"), "paths").items():
        for method, operation in object_of(methods, path).items():
            if method not in ("get", "put", "post", "delete", "patch", "head", "options"):
                continue
            fields = object_of(operation, f"{path}.{method}")
            name = names.get((path, method)) or fields.get("operationId")
            if not isinstance(name, str):
                continue  # nothing that its instructions could call
            yield ApiDoc(
                name=f"{method.upper()} {base}/{path.lstrip('/')}",
                provider=host,
                description=_description(fields),
                provenance=file.provenance(f"{where}.{name}", licence or LICENCE, host),
                parameters=_parameters(spec, object_of(methods), fields),
                returns=_returns(spec, fields),
                errors=_errors(fields),
                interface="rest",
                function=name,
                deprecated=fields.get("deprecated") is True,
            )


def _description(operation: Mapping[str, Json]) -> str:
    parts = [operation.get("summary"), operation.get("description")]
    said = [part.strip() for part in parts if isinstance(part, str) and part.strip()]
    if len(said) == 2 and said[1].lower().startswith(said[0].rstrip(".").lower()):  # the summary over again
        return said[1]
    return "\n\n".join(said)


def _with_components(spec: Mapping[str, Json], schema: Mapping[str, Json]) -> dict[str, Json]:
    """The schema with what its references point to."""
    return {**{key: spec[key] for key in ("components", "definitions", "parameters") if key in spec}, **schema}


def _found(value: Json, spec: Mapping[str, Json]) -> Mapping[str, Json]:
    """An object of the specification, its reference followed once."""
    if isinstance(value, Mapping) and isinstance(reference := value.get("$ref"), str):
        value = spec
        for part in reference.removeprefix("#/").split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _parameters(spec: Mapping[str, Json], item: Mapping[str, Json], operation: Mapping[str, Json]) -> dict[str, Json]:
    properties: dict[str, Json] = {}
    required: list[str] = []
    for key in (item, operation):
        for stated in list_of(key.get("parameters"), "parameters"):
            parameter = _found(stated, spec)
            name, place = parameter.get("name"), parameter.get("in")
            if not isinstance(name, str) or place not in _PLACES:
                continue
            schema = _found(parameter.get("schema"), spec)
            properties[name] = {**schema, "description": parameter.get("description") or schema.get("description")}
            if parameter.get("required") is True:
                required.append(name)
    body = _content(_found(operation.get("requestBody"), spec), spec)
    for name, part in (body.get("properties") or {}).items() if isinstance(body.get("properties"), Mapping) else ():
        properties[name if name not in properties else f"body_{name}"] = part
    if isinstance(body.get("required"), list):
        required += [name for name in body["required"] if isinstance(name, str)]
    if body and "properties" not in body:
        properties["body"] = body
    schema = {"type": "object", "properties": properties, "required": required}
    return parameters_schema(_with_components(spec, schema))[0]


def _content(holder: Mapping[str, Json], spec: Mapping[str, Json]) -> Mapping[str, Json]:
    """The schema of the body, of JSON if there is a choice."""
    content = holder.get("content")
    if not isinstance(content, Mapping) or not content:
        return {}
    media = content.get("application/json") or next(iter(content.values()))
    return _found(media.get("schema"), spec) if isinstance(media, Mapping) else {}


def _returns(spec: Mapping[str, Json], operation: Mapping[str, Json]) -> dict[str, Json] | None:
    responses = operation.get("responses")
    for code, response in responses.items() if isinstance(responses, Mapping) else ():
        if code.startswith("2") and (schema := _content(_found(response, spec), spec)):
            return any_schema(_with_components(spec, schema))
    return None


def _errors(operation: Mapping[str, Json]) -> tuple[ApiError, ...]:
    responses = operation.get("responses")
    found = []
    for code, response in responses.items() if isinstance(responses, Mapping) else ():
        if code[:1] in "45" and isinstance(response, Mapping):
            found.append(ApiError(code, str(response.get("description") or "")))
    return tuple(found[:20])


# Trajectories.


@dataclass(frozen=True)
class _Task:
    """What the trajectories of one API share, and the place of one: `secret` are parameters that hold keys."""

    tools: tuple[Tool, ...]
    secret: frozenset[str]
    file: SourceFile
    where: str

    def call(self, name: Json, stated: Json, call_id: str) -> ApiAction:
        """A call without keys."""
        given = object_of(stated, "input of an action")
        kwargs = {key: value for key, value in given.items() if key not in self.secret}
        return ApiAction(_text(name, "action"), kwargs, tool_call_id=call_id)

    def trajectory(self, steps: list[Step], note: str) -> Trajectory:
        """The trajectory of these steps."""
        notes = (note, *(["keys of the service left out"] if self.secret else []))
        provenance = replace(self.file.provenance(self.where, LICENCE, HOST), processing=notes)
        return checked(Trajectory(tuple(steps), provenance, tools=self.tools, name=self.where))


def _golden(instruction: Json, answer: Json, task: _Task, quarantine: Quarantine) -> Iterator[Trajectory]:
    """The calls that an instruction asks for; the data give no results of them."""
    try:
        steps: list[Step] = [TextObservation(_text(instruction, "instruction"), "user")]
        for call in list_of(answer, "the answer"):
            fields = object_of(call, "a call")
            made = task.call(fields.get("Action"), fields.get("Action_Input"), f"call_{len(steps):06d}")
            if all(tool.name != made.function for tool in task.tools):
                raise ValueError(f"{made.function} is not on offer")
            steps.append(replace(made, outcome="ok"))
        if len(steps) == 1:
            raise ValueError("no call answers the instruction")
    except ValueError as error:
        quarantine.add("malformed call", task.file.place(task.where), str(error))
        return
    yield task.trajectory(steps, "golden calls, without results")


def _simulated(instance: Json, task: _Task, quarantine: Quarantine) -> Iterator[Trajectory]:
    """A run of a model against a simulated API: `intermediate_steps` of ((action, input, thought), result)."""
    try:
        fields = object_of(instance, "the instance")
        steps: list[Step] = [TextObservation(_text(fields.get("input"), "input"), "user")]
        for index, stated in enumerate(list_of(fields.get("intermediate_steps"), "intermediate_steps")):
            (name, written, log), result = stated
            thought = str(log or "").partition("\nAction:")[0].removeprefix("Thought:").strip()
            made = task.call(name, written, f"call_{index:06d}")
            steps.append(replace(made, reasoning_content=thought or None))
            steps.append(TextObservation(str(result), "environment", tool_call_id=made.tool_call_id))
        output, last = fields.get("output"), fields.get("Final Thought")
        if isinstance(output, str) and output.strip():
            final = last.strip() or None if isinstance(last, str) else None
            steps.append(MessageAction(output.strip(), reasoning_content=final))
    except (ValueError, TypeError) as error:
        quarantine.add("malformed instance", task.file.place(task.where), str(error))
        return
    yield task.trajectory(steps, "results simulated by a model")


def _text(value: Json, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{what}: expected text, found {value!r}")
    return value.strip()
