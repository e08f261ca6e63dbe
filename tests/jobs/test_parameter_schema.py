import pytest

from epochd.jobs.parameter_schema import filled, problems, require_usable

SCHEMA = {
    "type": "object",
    "properties": {
        "width": {"type": "integer", "minimum": 1, "maximum": 64, "default": 8},
        "activation": {"enum": ["relu", "gelu"], "default": "relu"},
        "dropout": {"anyOf": [{"type": "number", "exclusiveMaximum": 1}, {"type": "null"}], "default": None},
        "block": {"$ref": "#/$defs/Block", "default": {"heads": 2}},
        "sizes": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        "label": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
    },
    "required": ["sizes"],
    "additionalProperties": False,
    "$defs": {
        "Block": {
            "type": "object",
            "properties": {
                "heads": {"type": "integer", "default": 4},
                "bias": {"type": "boolean", "default": True},
            },
            "additionalProperties": False,
        }
    },
}


def test_defaults_are_filled_in_at_every_depth_and_what_was_sent_stays():
    assert filled(SCHEMA, {}) == {
        "width": 8,
        "activation": "relu",
        "dropout": None,
        "block": {"heads": 2, "bias": True},
    }
    given = {"width": 9, "sizes": [1], "block": {"bias": False}, "dropout": 0.5}
    assert filled(SCHEMA, given) == {**given, "activation": "relu", "block": {"bias": False, "heads": 4}}
    filled(SCHEMA, {})["block"]["heads"] = 7
    assert filled(SCHEMA, {})["block"]["heads"] == 2, "no two jobs share a default"


@pytest.mark.parametrize(
    ("sent", "param", "code", "message"),
    [
        ({"width": "8"}, "width", "wrong_type", 'must be a whole number; got "8"'),
        ({"width": True}, "width", "wrong_type", "must be a whole number; got true"),
        ({"width": 65}, "width", "out_of_range", "must be at most 64; got 65"),
        ({"activation": "tanh"}, "activation", "not_one_of", 'must be "relu" or "gelu"; got "tanh"'),
        ({"dropout": 1.5}, "dropout", "out_of_range", "must be less than 1; got 1.5"),
        ({"block": {"heads": []}}, "block.heads", "wrong_type", "must be a whole number; got an array"),
        ({"block": {"haeds": 1}}, "block.haeds", "unknown_parameter", "is not known; did you mean 'heads'?"),
        ({"sizes": []}, "sizes", "too_short", "must have at least 1 entries"),
        ({"sizes": [1, "2"]}, "sizes.1", "wrong_type", 'must be a whole number; got "2"'),
        ({"sizes": None}, "sizes", "wrong_type", "must be an array; got null"),
        ({"label": "A"}, "label", "invalid_format", 'must be like ^[a-z]+$; got "A"'),
        ({"wdith": 8}, "wdith", "unknown_parameter", "is not known; did you mean 'width'?"),
    ],
)
def test_each_problem_names_its_parameter_and_what_would_be_right(sent, param, code, message):
    [found] = problems(SCHEMA, filled(SCHEMA, {"sizes": [1], **sent}))
    assert (found.param, found.code, found.message) == (f"model.{param}", code, message)


def test_all_that_is_wrong_is_told_at_once_and_what_is_misspelt_first():
    found = problems(SCHEMA, {"sizse": [1], "width": 0, "zzz": 1})
    assert [(one.param, one.code) for one in found] == [
        ("model.sizse", "unknown_parameter"),
        ("model.zzz", "unknown_parameter"),
        ("model.sizes", "required"),
        ("model.width", "out_of_range"),
    ]
    [alone] = problems({"type": "object", "additionalProperties": False}, {"a": 1})
    assert alone.message == "is not known; nothing can be given here"


def test_what_is_missing_is_told_one_by_one():
    schema = {"type": "object", "required": ["a", "b"]}
    assert [one.param for one in problems(schema, {})] == ["model.a", "model.b"]


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ([], "object"),
        ({"type": "array"}, "object"),
        ({"type": "object", "properties": {"a": {"type": "int"}}}, "properties.a"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "regex"),
        ({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/a.json"}}}, "not in it"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}, "not in it"),
        ({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}, "not in it"),
        ({"type": "object", "properties": {"name": {}}}, "the model's own"),
        ({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}, "model.a must be"),
    ],
)
def test_a_schema_that_would_fail_later_is_refused_when_it_is_published(schema, wrong):
    require_usable(SCHEMA)
    with pytest.raises(ValueError, match=wrong):
        require_usable(schema)
