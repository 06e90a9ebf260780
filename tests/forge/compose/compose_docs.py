"""API documentation in the shape that readers give it, for the tests of composition."""

from __future__ import annotations

import json
from typing import Any

from hephaestus_jax.formats.records import ApiDoc, ApiExample, Provenance


def text(description: str = "", **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def schema(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def example(
    arguments: dict[str, Any] | None, result: Any = None, intent: str | None = None, call: str = ""
) -> ApiExample:
    stated = result if result is None or isinstance(result, str) else json.dumps(result)
    return ApiExample(call=call, arguments=arguments, result=stated, intent=intent)


def doc(name: str, description: str, *examples: ApiExample, **fields: Any) -> ApiDoc:
    licence, path = fields.pop("licence", "MIT"), fields.pop("path", "api.json")
    provenance = Provenance("specs", "1.0", licence, path=f"{path}:{name}", processing=("read",))
    made = {"provider": "pets.example", "interface": "rest", **fields}
    return ApiDoc(name=name, description=description, provenance=provenance, examples=examples, **made)


PET = schema(id=text(), name=text(), kind=text())
FINN = {"id": "pet_41", "name": "Finn", "kind": "dog"}
TAMA = {"id": "pet_77", "name": "Tama", "kind": "cat"}

CREATE_PET = doc(
    "POST /v1/pets",
    "Creates a pet.",
    example({"name": "Finn", "kind": "dog"}, FINN),
    parameters=schema("name", name=text("The name of the pet.", **{"x-in": "body"}), kind=text("What it is.")),
    returns=PET,
    function="createPet",
)
GET_PET = doc(
    "GET /v1/pets/{pet_id}",
    "Retrieves the specified pet.",
    example({"pet_id": "pet_77"}, TAMA),
    example({"pet_id": "pet_41"}, FINN),
    parameters=schema("pet_id", pet_id=text("The id of the pet.", **{"x-in": "path"})),
    returns=PET,
    function="getPet",
    licence="Apache-2.0",
)
LIST_PETS = doc(
    "GET /v1/pets",
    "List all of your pets",
    example({"limit": 2}, {"pets": [FINN, TAMA]}),
    parameters=schema(limit={"type": "integer", "maximum": 100, "description": "How many."}),
    returns=schema(pets={"type": "array", "items": PET}),
    function="listPets",
)
FEED_PET = doc(
    "POST /v1/pets/{pet_id}/meals",
    "Feeds a pet.",
    example({"pet_id": "pet_88", "food": "fish", "grams": 120}, {"meal": 9, "pet_id": "pet_88", "food": "fish"}),
    parameters=schema(
        "pet_id", "food", pet_id=text("Which pet."), food=text("What it eats."), grams={"type": "integer"}
    ),
    returns=schema(meal={"type": "integer"}, pet_id=text(), food=text()),
    function="feedPet",
)
DELETE_PET = doc(
    "DELETE /v1/pets/{pet_id}",
    "Deletes the specified pet.",
    example({"pet_id": "pet_99"}),
    parameters=schema("pet_id", pet_id=text("The id of the pet.")),
    function="deletePet",
)
UNRELATED = tuple(
    doc(f"GET /v1/{what}", f"Lists the {what} of the clinic.", parameters=schema(), function=f"list{what.title()}")
    for what in ("doctors", "rooms", "invoices", "vaccines", "visits", "owners", "prices", "holidays")
)
PETS = (CREATE_PET, GET_PET, LIST_PETS, FEED_PET, DELETE_PET, *UNRELATED)

VPC = {"VpcId": "vpc-a01106c2", "CidrBlock": "10.0.0.0/16"}
CREATE_VPC = doc(
    "ec2.CreateVpc",
    "Creates a VPC with the specified CIDR blocks.",
    example({"CidrBlock": "10.0.0.0/16"}, {"Vpc": VPC}, "To create a VPC"),
    parameters=schema("CidrBlock", CidrBlock=text("The range of addresses.")),
    returns=schema(Vpc=schema(VpcId=text(), CidrBlock=text())),
    interface="rpc",
    function="create_vpc",
)
CREATE_SUBNET = doc(
    "ec2.CreateSubnet",
    "Creates a subnet in the specified VPC.",
    example(
        {"VpcId": "vpc-ffffffff", "CidrBlock": "10.0.0.0/16"},
        {"Subnet": {"SubnetId": "subnet-9d4a7b6c", "VpcId": "vpc-ffffffff"}},
        "To create a subnet",
    ),
    parameters=schema("VpcId", "CidrBlock", VpcId=text("The ID of the VPC."), CidrBlock=text("The range.")),
    returns=schema(Subnet=schema(SubnetId=text(), VpcId=text())),
    interface="rpc",
    function="create_subnet",
)
DESCRIBE_VPCS = doc(
    "ec2.DescribeVpcs",
    "Describes one or more of your VPCs.",
    example({"VpcIds": ["vpc-a01106c2"]}, {"Vpcs": [{**VPC, "CidrBlock": "172.31.0.0/16"}]}),
    parameters=schema(VpcIds={"type": "array", "items": {"type": "string"}, "description": "Which."}),
    returns=schema(Vpcs={"type": "array", "items": schema(VpcId=text(), CidrBlock=text())}),
    interface="rpc",
    function="describe_vpcs",
)
NETWORK = (CREATE_VPC, CREATE_SUBNET, DESCRIBE_VPCS)

CREATE_DISK = doc(
    "az disk create",
    "Create a managed disk.",
    example(
        {"name": "disk1", "resource_group": "rg-1", "size_gb": 10},
        intent="Create a managed disk of 10 GB.",
        call="az disk create -n disk1 -g rg-1 --size-gb 10",
    ),
    example(None, intent="Remove it all.", call="az disk create -n disk1 -g rg-1; rm -rf /"),
    parameters=schema("name", name=text(), resource_group=text(), size_gb={"type": "integer"}),
    interface="cli",
    provider="azure-cli",
)
