"""AWS's command line, from the examples and the descriptions of its own commands that its package carries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from hephaestus_jax.forge.clouds.aws_commands import Command, commands_of
from hephaestus_jax.forge.clouds.command_lines import CommandLine, parsed
from hephaestus_jax.forge.clouds.options import CLI_OPTION, arguments_of, property_name, seen_properties, usage
from hephaestus_jax.forge.clouds.reading import fitting
from hephaestus_jax.forge.clouds.rst_examples import Page, page
from hephaestus_jax.forge.sources.source import Package, SourceFile, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiExample, Json

PROVIDER = "aws-cli"
_AWSCLI = Package(
    "pypi", "awscli", "1.46.3", "94c561c1b1b2cf0978ec8d87d956c26c807555438593eec29ea90602b9518cfb", "Apache-2.0"
)
_CUSTOMIZATIONS = "awscli/customizations/__init__.py"
_EXAMPLES = "awscli/examples"
# Operations that stream: the file that their output goes to is the last word of the command.
_STREAMS = frozenset(
    f"{service} {operation}"
    for service, operations in (
        ("apigateway", "get-export get-sdk"),
        ("apigatewayv2", "export-api"),
        (
            "appconfig",
            "get-configuration get-hosted-configuration-version create-hosted-configuration-version",
        ),
        ("appconfigdata", "get-latest-configuration"),
        ("bedrock-runtime", "invoke-model"),
        ("codeartifact", "get-package-version-asset"),
        ("dataexchange", "send-api-asset"),
        ("ebs", "get-snapshot-block"),
        ("glacier", "get-job-output"),
        ("iot-data", "get-thing-shadow update-thing-shadow delete-thing-shadow"),
        ("kinesis-video-archived-media", "get-clip"),
        ("lambda", "invoke"),
        ("lex-runtime", "post-content"),
        ("medialive", "describe-input-device-thumbnail"),
        ("mediastore-data", "get-object"),
        ("omics", "get-read-set get-reference"),
        ("polly", "synthesize-speech"),
        ("s3api", "get-object get-object-torrent"),
        ("sagemaker-runtime", "invoke-endpoint"),
        ("workmailmessageflow", "get-raw-message-content"),
    )
    for operation in operations.split()
)
_OUTFILE: dict[str, Json] = {
    "outfile": {
        "type": "string",
        "description": "The file that the streamed part of the response is written to.",
        CLI_OPTION: "outfile",
    }
}
_NAMED = re.compile(r",? (?:named|called) [`\"'\w.-]+\.?$")  # of an example; the description is of the command
_PAGES = re.compile(r"-(examples|description|synopsis)$")  # parts of the page of one of its own commands


@source("aws_cli", _AWSCLI, files=(f"{_EXAMPLES}/*/**.rst", _CUSTOMIZATIONS))
def read_aws_cli(file: SourceFile, quarantine: Quarantine) -> Iterator[ApiDoc]:
    """The commands of AWS's command line: documented examples with their output, and its own commands' options."""
    own = commands_of(file.root, file.origin, quarantine if file.path == _CUSTOMIZATIONS else Quarantine())
    if file.path == _CUSTOMIZATIONS:
        for command in own.values():
            yield _own_doc(command, file, quarantine)
        return
    name = _command_name(file.path)
    if name is None or name in own:  # the latter stands with its own description
        return
    if (text := file.text(quarantine)) is None:
        return
    found = _of_command(page(text), name)
    if not found.examples:
        quarantine.add("no example", file.place(), "no command of the AWS command line in it")
        return
    yield _example_doc(name, found, file)


def _command_name(path: str) -> str | None:
    parts = path.removeprefix(f"{_EXAMPLES}/").removesuffix(".rst").split("/")
    if parts[-1].startswith("_") or len(parts) < 2 or _PAGES.search(parts[-1]):
        return None
    return " ".join(["aws", *parts])


def _of_command(found: Page, name: str) -> Page:
    """The page without examples of other commands, which some pages show by mistake."""
    words = r"\s+(?:--[\w-]+[\s=]+\S+\s+)*".join(map(re.escape, name.split()))  # aws --region x s3 ls
    return Page(tuple(e for e in found.examples if re.search(rf"(?<!\S){words}(?!\S)", e.call)), found.headings)


def _example_doc(name: str, found: Page, file: SourceFile) -> ApiDoc:
    lines = [_command_line(example.call, name) for example in found.examples]
    properties: dict[str, Json] = dict(seen_properties(line for line in lines if line))
    if name.removeprefix("aws ") in _STREAMS and any(line and line.positional for line in lines):
        properties = {**_OUTFILE, **properties}
    parameters: dict[str, Json] = {"type": "object", "properties": properties}
    processing = ("parameters from examples",)
    if required := _required(name, lines):
        parameters["required"] = required
        processing = ("parameters from examples, required are those that name the thing in each of them",)
    return ApiDoc(
        name=name,
        provider=PROVIDER,
        description=_description(found),
        provenance=replace(file.provenance(), processing=processing),
        signature=usage(name, parameters),
        parameters=parameters,
        examples=_examples(found, lines, parameters),
        interface="cli",
        function=_function(name),
    )


def _required(name: str, lines: Sequence[CommandLine | None]) -> list[str]:
    """The options that name what a command works on and that no example leaves out.

    The pages do not say what is required. By AWS's service models 94 % of these are: lists, which filter by such
    options, and further options of commands that change things, which may be left out, are not among them.
    """
    if not lines or None in lines:
        return []
    given = [line.options for line in lines if line]
    verb = name.split()[-1].split("-")[0]
    names = [
        option
        for place, option in enumerate(given[0])
        if option.endswith(("-id", "-arn", "-name", "-identifier")) and (place == 0 or verb in ("get", "delete"))
    ]
    if verb in ("list", "describe", "search"):
        return []
    return [property_name(option) for option in names if all(options.get(option) for options in given)]


def _own_doc(command: Command, file: SourceFile, quarantine: Quarantine) -> ApiDoc:
    """A command that the command line itself defines, with the examples of its page."""
    found = Page((), ())
    beside = SourceFile(file.root, f"{_EXAMPLES}/{'/'.join(command.name.split()[1:])}.rst", file.origin)
    if (beside.root / beside.path).is_file() and (text := beside.text(quarantine)):
        found = page(text)
    elif command.examples:
        found = page(command.examples)
    lines = [_command_line(example.call, command.name) for example in found.examples]
    properties = dict(command.properties)
    for name, schema in seen_properties(line for line in lines if line).items():  # such as --region
        spelling = schema[CLI_OPTION]
        if not any(spelling in str(stated.get(CLI_OPTION, "")).split() for stated in properties.values()):
            properties.setdefault(name, schema)
    parameters: dict[str, Json] = {"type": "object", "properties": properties}
    if command.required:
        parameters["required"] = list(command.required)
    place = SourceFile(file.root, command.path, file.origin)
    return ApiDoc(
        name=command.name,
        provider=PROVIDER,
        description=command.description or _description(found),
        provenance=place.provenance(str(command.line)),
        signature=usage(command.name, parameters),
        parameters=parameters,
        examples=_examples(found, lines, parameters),
        interface="cli",
        function=_function(command.name),
    )


def _command_line(call: str, name: str) -> CommandLine | None:
    line = parsed(call, name.split())
    service_and_operation = name.removeprefix("aws ")
    if line is None or service_and_operation not in _STREAMS or line.positional or not line.options:
        return line
    last, values = list(line.options.items())[-1]
    if len(values) < 2:
        return line if values else CommandLine((), line.options)
    return CommandLine((values[-1],), {**line.options, last: values[:-1]})


def _examples(
    found: Page, lines: Sequence[CommandLine | None], parameters: Mapping[str, Json]
) -> tuple[ApiExample, ...]:
    made = []
    for example, line in zip(found.examples, lines, strict=True):
        given = arguments_of(line, parameters["properties"]) if line else None
        arguments = None if given is None else fitting(given, parameters)
        made.append(ApiExample(example.shown, example.result, example.intent or None, arguments))
    return tuple(made)


def _description(found: Page) -> str:
    """What a command is for, told by the headings of its examples."""
    headings = [heading for heading in found.headings if heading]
    headings = headings or [_NAMED.sub(".", e.intent) for e in found.examples if e.intent]
    if not headings:
        return ""
    first, *others = dict.fromkeys(headings)
    if not others:
        return first
    return f"{first}\n\nIts examples also show how to:\n\n" + "\n".join(f"- {_lowered(other)}" for other in others)


def _lowered(request: str) -> str:
    words = request.rstrip(".")
    return words if words[:2].isupper() else words[:1].lower() + words[1:]


def _function(name: str) -> str:
    return "_".join(PurePosixPath(part).name for part in name.replace("-", "_").split())
