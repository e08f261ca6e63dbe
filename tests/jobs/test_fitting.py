"""What suits which data: on descriptions of data sets alone, without a database."""

import pytest

from epochd.contract.models import BUILTIN_MODELS
from epochd.contract.spec import JobSpec
from epochd.datasets.info import Column, DatasetInfo
from epochd.jobs import fitting
from epochd.jobs.resolve import resolve
from epochd.training.plan import make_plan

CLASSES = ("cat", "dog", "horse")
TABLE = DatasetInfo(
    "animals", "classification", 100, (2,), CLASSES, 0, "", "table", (Column("a"), Column("b"))
)
PRICES = DatasetInfo("prices", "regression", 100, (2,), None, 1, "", "table", (Column("a"), Column("b")))
IMAGES = DatasetInfo("photos", "classification", 100, (3, 8, 8), CLASSES, 0, "", "image")
LARGE_IMAGES = DatasetInfo("scans", "classification", 100, (3, 9, 9), CLASSES, 0, "", "image")
ARRAYS = DatasetInfo("signals", "classification", 100, (5, 7), CLASSES, 0, "", "array")
TEXTS = DatasetInfo("reviews", "classification", 100, (), CLASSES, 0, "", "text")


def spec(**body) -> JobSpec:
    return JobSpec.model_validate(
        {"dataset": "a", "epochs": 1, "batch_size": 8, "loss": "cross_entropy", **body}
    )


def wrong(info: DatasetInfo, **body) -> dict[str, str]:
    return {error.param: error.code for error in fitting.of_data(spec(**body), info)}


@pytest.mark.parametrize("info", [TABLE, PRICES, IMAGES, ARRAYS, TEXTS], ids=lambda info: info.name)
@pytest.mark.parametrize("name", BUILTIN_MODELS)
def test_every_model_takes_the_data_that_it_names(name, info):
    loss = "mse" if info.task == "regression" else "cross_entropy"
    errors = fitting.of_data(spec(model={"name": name}, loss=loss), info)
    assert bool(errors) == (info.kind not in BUILTIN_MODELS[name].KINDS)
    for error in errors:
        assert error.param == "model.name"
        assert error.code.startswith("model_needs_")
        assert info.name in error.message


@pytest.mark.parametrize(("info", "model", "message"), [
    (TABLE, "cnn", "cnn needs images, but animals is a table of 2 features: take linear, mlp, tabular_resnet or ft_tr"),
    (IMAGES, "ft_transformer", "ft_transformer needs a table, but photos holds images: take linear, mlp, cnn or resn"),
    (ARRAYS, "resnet", "resnet needs images, but signals holds arrays of the shape 5×7: take linear or mlp."),
    (TEXTS, "mlp", "mlp needs a table or images or an array, but reviews holds texts: take text_classifier."),
])  # fmt: skip
def test_the_answer_says_what_would_fit(info, model, message):
    assert fitting.of_data(spec(model={"name": model}), info)[0].message.startswith(message)


def test_the_default_model_fits():
    assert fitting.default_model(TEXTS).name == "text_classifier"
    for info in (TABLE, IMAGES, ARRAYS):
        assert fitting.default_model(info).name == "mlp"


@pytest.mark.parametrize(("width", "heads", "advised"), [(10, 4, "take 8 or 12"), (4, 8, "take 8, or")])
def test_heads_share_the_width(width, heads, advised):
    model = {"name": "text_classifier", "width": width, "heads": heads}
    [error] = fitting.of_data(spec(model=model), TEXTS)
    assert (error.param, error.code) == ("model.width", "width_not_multiple_of_heads")
    assert advised in error.message


def test_class_weights_are_of_classes_that_are_there():
    assert wrong(TABLE, class_weights={"cat": 2, "dog": 1}) == {}
    assert wrong(TABLE, class_weights="balanced", label_smoothing=0.1) == {}
    assert wrong(TABLE, class_weights={"cta": 2}) == {"class_weights.cta": "unknown_class"}
    [error] = fitting.of_data(spec(class_weights={"cta": 2}), TABLE)
    assert error.message == "There is no class 'cta'. Did you mean 'cat'? There are: cat, dog, horse."
    found = wrong(PRICES, loss="mse", class_weights="balanced", label_smoothing=0.1)
    assert found == {
        "class_weights": "class_weights_without_classes",
        "label_smoothing": "label_smoothing_without_classes",
    }


def test_metrics_fit_the_task_and_are_measured_once_on_validation():
    assert wrong(TABLE, metrics=["f1", "auroc"]) == {}
    assert wrong(PRICES, loss="mae", metrics=["mae", "rmse", "mape"]) == {}
    assert wrong(TABLE, metrics=["f1", "rmse"]) == {"metrics.1": "metric_does_not_fit_task"}
    assert wrong(PRICES, loss="mse", metrics=["auroc"]) == {"metrics.0": "metric_does_not_fit_task"}
    assert wrong(TABLE, metrics=["f1", "f1"]) == {"metrics.1": "metric_twice"}
    assert wrong(TABLE, metrics=["f1"], validation=None) == {"metrics": "metrics_need_validation"}


def test_only_images_are_augmented_and_something_is_left_of_them():
    assert wrong(IMAGES, augmentation={"horizontal_flip": True, "crop_padding": 7}) == {}
    assert wrong(IMAGES, augmentation={"crop_padding": 8}) == {
        "augmentation.crop_padding": "crop_padding_exceeds_image"
    }
    assert wrong(TABLE, augmentation={}) == {"augmentation": "augmentation_needs_images"}


@pytest.mark.parametrize(("info", "model", "refused"), [
    (TABLE, {"name": "tabular_resnet"}, True),
    (TABLE, {"name": "ft_transformer"}, False),
    (IMAGES, {"name": "resnet"}, True),
    (LARGE_IMAGES, {"name": "resnet"}, False),
    (TABLE, {"name": "mlp", "batch_norm": True}, True),
    (TABLE, {"name": "mlp"}, False),
    (TABLE, {"name": "their_own"}, False),
])  # fmt: skip
def test_batch_normalisation_takes_no_mini_batch_of_one(info, model, refused):
    plan = make_plan(train_samples=33, validation_samples=0, batch_size=8, epochs=1, drop_last=False)
    errors = fitting.of_plan(spec(model=model), info, plan)
    assert [error.code for error in errors] == ["batch_norm_needs_two_samples"] * refused
    for error in errors:
        assert "take a batch size of 7 or 9, or drop_last true" in error.message


def test_an_extra_metric_can_be_watched():
    policy = {"monitor": "validation_rmse"}
    body = {"dataset": "diabetes", "loss": "mse", "metrics": ["rmse"], "early_stopping": policy}
    resolved = resolve(spec(**body))
    assert resolved.early_stopping.mode == "min"
