"""The words of discovery documents as their readers should see them."""

import pytest

from hephaestus_jax.forge.clouds.google_words import is_unusable, worded


@pytest.mark.parametrize(
    ("stated", "plain"),
    [
        ("One of: * A full date. * A month. **Note:** UTC.", "One of:\n* A full date.\n* A month.\n\n**Note:** UTC."),
        ("One of: * `a` * `b` If unset, `a`.", "One of:\n* `a`\n* `b`\n\nIf unset, `a`."),
        ("The release to use. (optional).", "The release to use."),
        ("Allowed values: - `A` - `B`", "Allowed values:\n- `A`\n- `B`"),
        ("It is scaled. For example: 100px (w) * 30px (h)", "It is scaled. For example: 100px (w) * 30px (h)"),
        ("The size: 3 * 4 * 5 bytes", "The size: 3 * 4 * 5 bytes"),
        ("* Lists suspensions.", "Lists suspensions."),
        ("It is kept.By default it is not.", "It is kept. By default it is not."),
        ("A grid. cs/symbol:Grid. See go/grids for more details.", "A grid."),
        ("api-linter: core::0131::x=disabled aip.dev/not-precedent: As before. The size.", "The size."),
        ("Vehicles. TODO(b/342344482) add validations again.", "Vehicles."),
        ("Metadata. Next ID: 35", "Metadata."),
        ("LINT: LEGACY_NAMES The mode.", "The mode."),
        ("LINT.IfChange The front end.", "The front end."),
        ("Detail copybara:strip_begin(b/383363683) copybara:strip_end_and_replace optional string x = 3;", "Detail"),
        ("The package name. REQUIRED", "The package name."),
        ("Its name. Read-write.", "Its name."),
        ("The display name. .", "The display name."),
        ("The time of completion. +optional", "The time of completion."),
        ("Properties of the object. Contains field @type with type URL.", ""),
        ("A generic empty message that you can re-use. It is", "An empty object."),
        ("The files in gs://bucket/go/lib.", "The files in gs://bucket/go/lib."),
    ],
)  # fmt: skip
def test_worded(stated: str, plain: str) -> None:
    assert worded(stated) == plain


@pytest.mark.parametrize(
    "bomb", [": * a", ". ", "copybara:strip_begin(", "api-linter: ", " * ", "go/", "See go/", "b/1234567 "]
)
def test_words_end_soon_on_repetition(bomb: str) -> None:
    assert len(worded("x " + bomb * 50_000)) <= 25_000


@pytest.mark.parametrize(
    ("description", "unusable"),
    [
        ("Optional. Do not use this field unless explicitly documented otherwise.", True),
        ("This field is for internal use only.", True),
        ("This field is not used.", True),
        ("Deprecated. Do not use.", True),
        ("Names of unused networks.", False),
        ("The name of the field to use.", False),
    ],
)
def test_fields_of_no_use(description: str, unusable: bool) -> None:
    assert is_unusable(description) is unusable
