import json
import pickle

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.forge.hygiene.scrub import scrub
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    ApiExample,
    Document,
    Provenance,
    TextObservation,
    Trajectory,
    from_json,
    to_json,
)

FROM = Provenance("s", "1", "MIT")
# put together here, so that no scanner takes this file for a leak
GITHUB = "ghp_" + "k3Jx9QvT2mWz8LbR5nYc7HdF4gPs6A1eUoXi"
AWS = "AKIA" + "QYHB7CA5RLR4Y3ON"
STRIPE = "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + "eyJ1aWQiOiJmMjkwZTJlYjBiZDRmNjhiIn0." + "Qk3vLr8TzX1nPw5YhJd7Fg2Ms9Ba"
SLACK = "xoxb-" + "17653672481-19874698323-pdFZKVeTuE8sk7oOcBrzbqgy"
GOOGLE = "AIza" + "SyB4x9-QkWz3vTn7RmLp2Hd8Jf6Gs1Yc5Xo"
AZURE = "q+x5YoiaT09+p7JSeKdghDRUNGTETUuamN6MZDc2j2nG7REGzN9" + "kT4vWm8sQyLb1RfXcHp6AoJdZi3UeVgK0MnTw=="
WEBHOOK = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
APP = "xapp-1-" + "A19Y9QUWHR7-3103459144993-6ee082c309feda739c628efa20124d6d003a6630d95495d395dc3289858312ab"
DISCORD = "895352058338967295/" + "WnCCsTQ3FIoluWqMlEr2ZUFWL8y2wvwhNatRIhMAvxoePlj0QRQkD4mZ8sYb7cXt1uVn"
TELEGRAM = "1743802715:" + "AAQtFIBbB5Z6-AbFcT3XQ6kCEmHEfyv-Rks"
OPAQUE = "k1a7msdaw5g5l5w6" + "qksno5khf59guwgzzf1bxntq"
LOGIN = "c3ZjX2FwcDpj" + "d3U3ajI5dWszMnFvaQ=="
HEX = "e72e16c7e42f292c6912e7710c838347ae178b4a"


def _text(text: str) -> Document:
    return Document(text, "text", FROM)


@pytest.mark.parametrize(
    ("category", "secret", "text"),
    [
        ("e-mail", "leo.guelman@gmail.com", "Creator: Leo <leo.guelman@gmail.com>, 2019."),
        ("e-mail", "jane+news@mail.acme-corp.co.uk", "write to jane+news@mail.acme-corp.co.uk."),
        ("phone number", "+5521998765432", "call +5521998765432 now"),
        ("phone number", "(817) 569-8900", "call (817) 569-8900 now"),
        ("credit card", "4539 1488 0343 6467", "pay with 4539 1488 0343 6467"),
        ("credit card", "4539148803436467", "the card 4539148803436467 was charged"),
        ("IP address", "86.125.112.230", "seen from 86.125.112.230:8080 today"),
        ("IP address", "2620:10d:c083:150e::3000:2", "a client at [2620:10d:c083:150e::3000:2]:43370"),
        ("AWS key", AWS, f"export AWS_ACCESS_KEY_ID={AWS}"),
        ("GitHub token", GITHUB, f"curl -H 'Authorization: token {GITHUB}'"),
        ("Stripe key", STRIPE, f"-u {STRIPE}:"),
        ("Slack token", SLACK, f"post {SLACK}"),
        ("Google key", GOOGLE, f"?key={GOOGLE}&q=1"),
        ("JWT", JWT, f'{{"jwt": "{JWT}"}}'),
        ("bearer token", HEX, f"Authorization: Bearer {HEX}"),
        ("assigned secret", HEX, f'client_secret = "{HEX}"'),
        ("assigned secret", "9MQaTg2VAGI0FIpc10k3UpRXcHj2wQ6x", '"password": "9MQaTg2VAGI0FIpc10k3UpRXcHj2wQ6x"'),
        ("bearer token", OPAQUE, f"-H 'Authorization: Bearer {OPAQUE}'"),
        ("password in a header", LOGIN, f"Authorization: Basic {LOGIN}"),
        ("assigned secret", AZURE, f"AccountName=acme;AccountKey={AZURE};EndpointSuffix=core.windows.net"),
        ("Stripe key", WEBHOOK, f'"secret": "{WEBHOOK}"'),
        ("Slack token", APP, f"SLACK_APP_TOKEN={APP}"),
        ("Discord webhook", DISCORD, f"POST https://discord.com/api/webhooks/{DISCORD}"),
        ("Telegram token", TELEGRAM, f"https://api.telegram.org/bot{TELEGRAM}/sendMessage"),
        ("Mailgun key", "9f05087505798acbc58b504ee8fa5a41", "--user 'api:key-9f05087505798acbc58b504ee8fa5a41'"),
        ("assigned secret", "LeMgdU7EWLsTq0TmCoNqMCgjUvpPndHR", "GET /v1/x?api_key=LeMgdU7EWLsTq0TmCoNqMCgjUvpPndHR"),
        ("password in a command", "ny3qdlnffyl81jn1tgfe", "curl -u kim:ny3qdlnffyl81jn1tgfe https://api.acme.io"),
        ("e-mail", "petra.svoboda@cvut.cz", "<a href='mailto:petra.svoboda@cvut.cz'>"),
        ("phone number", "01 42 76 40 49", "Téléphone : 01 42 76 40 49"),
        ("password in an address", "Tq7186kyo3i8", "postgres://svc_app:Tq7186kyo3i8@db.acme.io:5432/prod"),
        ("e-mail", "katrin.vogel%40siemens-energy.com", "GET /u?email=katrin.vogel%40siemens-energy.com&limit=1"),
        ("e-mail", "jon.snow@docker.com", "GET /v2/Users?filter=userName%20eq%20%22jon.snow@docker.com%22"),
        ("e-mail", "barry.monahan@gmail.com", "barry.monahan@gmail.com"),
        ("e-mail", "TGuptaMcCoy7@lenovo.com", "TGuptaMcCoy7@lenovo.com"),
        ("e-mail", "j2smith.keller@web.de", "j2smith.keller@web.de"),
        ("phone number", "020 7219 3004", "Phone: 020 7219 3004"),
        ("phone number", "415.863.2210", "tel 415.863.2210"),
        ("IP address", "32.4.2.223", '"ipAddress": "32.4.2.223",\n  "near": "Kalamazoo"'),
        ("password in an address", "wv78n3zpz42xezdk", "postgres://doadmin:wv78n3zpz42xezdk@db.nyc3.io:25060/x"),
    ],
)  # fmt: skip
def test_what_is_scrubbed(category: str, secret: str, text: str) -> None:
    clean, counts = scrub(_text(text))
    assert isinstance(clean, Document) and counts == {category: 1}, counts
    assert secret not in clean.text and len(clean.text) > len(text) / 3
    assert clean.provenance.processing == (f"scrubbed: {category}",)
    again, more = scrub(clean)
    assert again is clean and not more, (clean.text, more)


@pytest.mark.parametrize(
    "text",
    [
        "mail user@example.com, jane@example.org or me@myhost.test",
        "git clone git@github.com:owner/repo.git, then a@b.T @ c and pkg@1.2.3",
        "my-robot@project.iam.gserviceaccount.com",
        "AKIAIOSFODNN7EXAMPLE, sk_test_xxxxxxxxxxxxxxxxxxxxxxxx, ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "http://user:password@host/ and https://{user}:{pass}@host and postgres://$USER:$PASS@db",
        "10.0.0.1, 192.168.1.1, 127.0.0.1, 203.0.113.7, 8.8.8.8, 0.0.0.0/0, 2001:db8::7, fe80::1",
        "version 3.10.0.0, OID 2.5.29.17, section 1.2.3.4, Chrome/91.0.4472.124, 52.95.110.0/24",
        "call 555-0100 or +1 202 555 0142; 123-456-7890; 2021-03-01 12:30:45",
        "4242 4242 4242 4242 and the id 4539148803436468 and 4539148803436467",
        "nextToken=CAESBgoEIgIIASIMCgoaCAoGIgQKAggB, secretName: my-production-database-credentials-2",
        "passwordHash: 5f4dcc3b5aa765d61d8327deb882cf99, sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "token: 3fa85f64-5717-4562-b3fc-2c963f66afa6, api_key=YOUR_API_KEY_GOES_RIGHT_HERE_1234",
        "std::vector<int>::iterator, 00:1A:2B:3C:4D:5E, x = a+1234567890123",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "admin@contoso.com, support@stripe.com, api_support@visa.com",
        "test.sam@test.com, octocat@github.com, q.k@yopmail.com",
        "1p1oilmc4mt3m6ah6rmf6ik8mm@google.com, 5b50642d-79fc-4410-9e90-4c077cdd1a59@tube.fr, john.doe@adyen.com",
        "call (800) 426-9400, +1(510) 720-9999, +61222222222 or +12129876543; phone 0800 1111",
        "john.smith@linode.com, jbloggs@gmail.com, dave@google.com, my-gcp-id@gmail.com, somemeail@emailprovider.com",
        "sghhgghf@ghghmail.com, jnrgfjp6w@xmpp.zoom.us, RB6iBb@aWlMmuZFPVjptyOCzNgpi.mx, gu@ms.com, contoso@live.com",
        "Cv3p0@gmail.com, RXcMn@gmail.com, PNUMB@VAPXX.com, john@mist.com, mock2@mock.com, myseller@vtex.com",
        "card 4567890145678901, card 5101180000000007 and the payment for fruits from card 543210000023456",
        "remote 104.44.129.255/32, user's publicIp: 54.183.109.81, 96.126.114.98",
        "visits from 12.34.56.78 to 123.124.125.126, user at 134.1.1.1, client 20.1.2.0",
        "Authorization: Basic dXNlcjpwYXNzd29yZA==, Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Basic authentication1 is simple",
        "curl -u user:password https://a.io, curl -u $USER:$PASS x, curl --user alice:aVeryPlainPassword",
        "apiKey: listAllCustomersOfTheStoreV2, api-key-id: my-own-production-key-name",
        "token: a9s8d7f6g5h4j3k2l1, accountKey: 2c92c0f95be68649015bf14e001f2760, apiKey: abcd1234defg56789012",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQss",
    ],
)
def test_what_stays(text: str) -> None:
    record = _text(text)
    clean, counts = scrub(record)
    assert clean is record and not counts, (clean, counts)


def test_the_key_of_an_account_is_its_name() -> None:
    for key, found in (("2c92c0f95be68649015bf14e001f2760", {}), (AZURE, {"assigned secret": 1})):
        doc = ApiDoc("f", "x.com", "d", FROM, examples=(ApiExample("f", arguments={"accountKey": key}),))
        assert scrub(doc)[1] == found


def test_what_is_made_up_keeps_its_form() -> None:
    inner = "\n".join(["MIIEowIBAAKCAQEAuEPzOUE+kiEH1WLiMeBytTEF856j0hOVcSUSUkZxKvqczkWM"] * 2)
    key = json.dumps({"key": f"-----BEGIN RSA PRIVATE KEY-----\n{inner}\n-----END RSA PRIVATE KEY-----"})
    clean, counts = scrub(_text(key))
    assert counts == {"private key": 1} and isinstance(clean, Document)
    assert "MIIEowIB" not in clean.text and json.loads(clean.text)["key"].count("\n") == 3
    clean, counts = scrub(_text(f"Authorization: Bearer {JWT}"))
    assert counts == {"JWT": 1} and isinstance(clean, Document) and "Bearer eyJhbGci" in clean.text
    clean, _ = scrub(_text("GET /u?email=katrin.vogel%40siemens-energy.com"))
    assert isinstance(clean, Document) and clean.text == "GET /u?email=user%40example.com"


def test_values_that_depend_on_each_other_still_agree() -> None:
    steps = (
        TextObservation("Log me in as rodrigo.cunha@vtex.com.br and list what maria@vtex.com.br sees.", "user"),
        ApiAction("login", {"email": "rodrigo.cunha@vtex.com.br"}),
        TextObservation(json.dumps({"access_token": HEX, "expires": 60}), "environment"),
        ApiAction("list", {"header": HEX, "as": ["maria@vtex.com.br"]}),
    )
    clean, counts = scrub(Trajectory(steps, FROM))
    assert isinstance(clean, Trajectory) and counts == {"e-mail": 4, "assigned secret": 2}
    said, login, answer, listing = clean.steps
    assert isinstance(said, TextObservation) and said.content.startswith(
        "Log me in as user@example.com and list what user2@"
    )
    assert isinstance(login, ApiAction) and login.kwargs == {"email": "user@example.com"}
    assert isinstance(answer, TextObservation) and isinstance(listing, ApiAction)
    token = json.loads(answer.content)["access_token"]
    assert listing.kwargs == {"header": token, "as": ["user2@example.com"]} and token != HEX and len(token) == len(HEX)


def test_schemas_stay_valid_and_patterns_untouched() -> None:
    properties = {
        "email": {"type": "string", "format": "email", "default": "jorge@jjf.com", "pattern": "^.+@jjf.com$"},
        "apiKey": {"type": "string", "default": "blM9R6kWFMVFYl4TFZ3fi8cMdyDONi6cj01dqI"},
        "format": {"type": "string", "description": "As jorge@jjf.com likes it"},
    }
    schema = {"type": "object", "properties": properties}
    example = ApiExample("f", arguments={"email": "jorge@jjf.com", "apiKey": "blM9R6kWFMVFYl4TFZ3fi8cMdyDONi6cj01dqI"})
    clean, counts = scrub(ApiDoc("f", "x.com", "d", FROM, parameters=schema, examples=(example,)))
    assert isinstance(clean, ApiDoc) and counts == {"e-mail": 3, "assigned secret": 2}
    jsonschema.Draft202012Validator.check_schema(clean.parameters)
    made = clean.parameters["properties"]
    assert made["email"]["pattern"] == "^.+@jjf.com$" and made["email"]["default"] == "user@example.com"
    assert made["format"]["description"] == "As user@example.com likes it"
    assert clean.examples[0].arguments == {name: made[name]["default"] for name in ("email", "apiKey")}
    assert from_json(to_json(clean)) == clean and list(made) == list(properties)


@given(st.text())
def test_any_text_survives(text: str) -> None:
    clean, counts = scrub(_text(text))
    assert bool(counts) == (clean != _text(text))


def test_in_another_process() -> None:
    assert pickle.loads(pickle.dumps(scrub))(_text("mail leo.guelman@gmail.com"))[1] == {"e-mail": 1}
