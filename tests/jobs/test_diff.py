from epochd.jobs.diff import differences


def found(a, b):
    return [(one.path, one.a, one.b, one.only_in) for one in differences(a, b)]


def test_equal_values_differ_nowhere():
    assert found({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}) == []


def test_each_difference_has_its_path():
    a = {"model": {"name": "mlp", "hidden_sizes": [8]}, "same": 1, "gone": None, "kind": True}
    b = {"model": {"name": "cnn", "channels": [4]}, "same": 1, "new": {"x": 1}, "kind": 1}
    assert found(a, b) == [
        ("model.name", "mlp", "cnn", None),
        ("model.hidden_sizes", [8], None, "a"),
        ("model.channels", None, [4], "b"),
        ("gone", None, None, "a"),
        ("kind", True, 1, None),
        ("new", None, {"x": 1}, "b"),
    ]


def test_a_value_in_place_of_an_object_is_one_difference():
    assert found({"policy": None}, {"policy": {"patience": 5}}) == [("policy", None, {"patience": 5}, None)]
