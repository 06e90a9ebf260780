import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.hygiene.filters import is_placeholder, why_left_out
from hephaestus_jax.forge.hygiene.language import language_of
from hephaestus_jax.forge.hygiene.licences import allowed
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    Document,
    MessageAction,
    Provenance,
    TextObservation,
    Trajectory,
)

FROM = Provenance("s", "1", "MIT")


def _api(description: str, name: str = "GET /v1/pets/{id}", function: str = "getPet") -> ApiDoc:
    return ApiDoc(name, "x.com", description, FROM, interface="rest", function=function)


def test_licence_policies() -> None:
    licences = ["MIT", "MIT OR GPL-3.0-only", "GPL-3.0-only", "see our terms", "unknown", ""]
    assert [allowed(x, "permissive") for x in licences] == [True, True, False, False, False, False]
    assert [allowed(x, "stated") for x in licences] == [True, True, True, True, False, False]
    assert all(allowed(x, "any") for x in licences)
    with pytest.raises(UserError, match="polite"):
        allowed("MIT", "polite")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "Returns a list of all users that belong to the given account, newest first."),
        ("de", "Gibt eine Liste aller Benutzer zurück, die dem angegebenen Konto zugeordnet sind."),
        ("es", "Devuelve una lista de todos los usuarios asociados a la cuenta indicada en la solicitud."),
        ("it", "Restituisce l'elenco di tutti gli utenti associati all'account indicato nella richiesta."),
        ("nl", "Geeft een lijst van alle gebruikers die aan het opgegeven account zijn gekoppeld."),
        ("ru", "Возвращает список всех пользователей, связанных с указанной учётной записью."),
        ("zh", "返回与指定帐户关联的所有用户的列表。"),
        ("ja", "指定されたアカウントに関連付けられたすべてのユーザーを返します。"),
        ("en", "Convert the number into its Arabic text representation حول العدد إلى ما يقابله كتابة"),
        ("", "Gets a user."),
        ("", ""),
        ("", "vpcId subnetId SecurityGroupIds nat_gateway_id x509 kms:Decrypt arn:aws:iam::123456789012:role/x"),
        ("", "`select * from users` https://api.example.com/v1/users {userId} DescribeInstances"),
    ],
)
def test_languages(code: str, text: str) -> None:
    assert language_of(text) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        "TODO",
        "string",
        "No description available.",
        "description here",
        "getPet",
        "getPet()",
        "GET /v1/pets/{id}",
        "---",
    ],
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text, "GET /v1/pets/{id}", "getPet")
    assert "description" in why_left_out(_api(text), ["en"])


@pytest.mark.parametrize(
    "text",
    [
        "Get pet",
        "List pets",
        "Deprecated: use the other one.",
        "Returns the string of a pet.",
        "Löscht ein Tier",
    ],
)
def test_short_but_real_descriptions_stay(text: str) -> None:
    assert not is_placeholder(text, "GET /v1/pets/{id}", "getPet")
    assert why_left_out(_api(text), ["en"]) == ""


def test_descriptions_that_are_left_out() -> None:
    german = "Gibt eine Liste aller Benutzer zurück, die dem angegebenen Konto zugeordnet sind."
    assert why_left_out(_api(german), ["en"]) == "language de"
    assert why_left_out(_api(german), ["en", "de"]) == why_left_out(_api(german), []) == ""
    assert why_left_out(_api("Lorem ipsum dolor sit amet."), ["en"]) == "lorem ipsum"
    about = "Fills a page with text, such as the well-known one that printers have used for five hundred years"
    assert why_left_out(_api(f"{about} and that begins with Lorem ipsum."), ["en"]) == ""
    assert why_left_out(_api("A picture: " + "iVBORw0KGgoAAAANSUhEUgAA" * 40), ["en"]) == "encoded text"
    assert why_left_out(_api("a\x00\x01\x02\x03\x04b\ufffd\x00\x01"), ["en"]) == "binary text"
    assert why_left_out(_api("The same line again.\n" * 30), ["en"]) == "repeated lines"
    assert why_left_out(_api("word " * 20_000), ["en"]) == "description too long"


def test_documents() -> None:
    code = "".join(f"def function_{n}(a, b):\n    return a + b * {n}\n\n\n" for n in range(200))
    assert why_left_out(Document(code, "code", FROM, "python"), ["en"]) == ""
    minified = "var a=1;" + "function b(c,d){return c*d+a};" * 300
    assert why_left_out(Document(minified, "code", FROM), ["en"]) == "minified code"
    assert why_left_out(Document("pass\n", "code", FROM), ["en"]) == "too short"
    assert why_left_out(Document("# Kommentar auf Deutsch\n" + code, "code", FROM), ["en"]) == ""
    spanish = "Devuelve una lista de todos los usuarios asociados a la cuenta indicada en la solicitud."
    assert why_left_out(Document(spanish, "text", FROM), ["en"]) == "language es"


def test_trajectories() -> None:
    user = TextObservation("What is the weather in Paris, and what should I wear there tomorrow?", "user")
    call = ApiAction("weather", {"city": "Paris"})
    assert why_left_out(Trajectory((user, call, MessageAction("It rains.")), FROM), ["en"]) == ""
    assert why_left_out(Trajectory((user,), FROM), ["en"]) == "no action"
    assert why_left_out(Trajectory((user, *[call] * 20), FROM), ["en"]) == "one action over and over"
    foreign = TextObservation("¿Qué tiempo hará mañana en París y qué ropa debería llevar para el viaje?", "user")
    assert why_left_out(Trajectory((foreign, call), FROM), ["en"]) == "language es"
    answer = TextObservation("Mañana lloverá en París durante todo el día y hará bastante frío.", "environment")
    assert why_left_out(Trajectory((user, call, answer), FROM), ["en"]) == ""  # what a tool returns may be in any
