"""Validating on another data set: what is refused before a job is queued, and how it is planned."""

from dataclasses import replace

import pytest

from epochd.contract.spec import JobSpec
from epochd.datasets.catalogue import describe
from epochd.datasets.info import Column
from epochd.errors import InvalidRequestError
from epochd.jobs.known import Known, KnownDataset
from epochd.jobs.resolve import plan_of, resolve

IRIS = describe("iris")
OTHERS = {
    "more": replace(IRIS, name="more", samples=30),
    "one": replace(IRIS, name="one", samples=1),
    "wrong": replace(IRIS, name="wrong", columns=(Column("sepal length (cm)", "date"), *IRIS.columns[1:])),
    "tulips": replace(IRIS, name="tulips", classes=("tulip", *(IRIS.classes or ())[1:])),
}


class Shelf(Known):
    """Has a few data sets more."""

    def dataset(self, name, param="dataset"):
        name = name.removeprefix("ds_")
        return KnownDataset(f"ds_{name}", OTHERS[name]) if name in OTHERS else super().dataset(name, param)


def job(**validation):
    return JobSpec.model_validate(
        {"dataset": "iris", "epochs": 2, "batch_size": 10, "validation": validation}
    )


@pytest.mark.parametrize("name", ["more", "one"])
def test_all_samples_train_and_all_of_the_other_set_validate(name):
    spec = resolve(job(dataset=name), Shelf())
    assert (spec.validation.dataset, spec.validation.fraction) == (f"ds_{name}", None)
    plan = plan_of(spec, Shelf())
    assert (plan.train_samples, plan.validation_samples) == (150, OTHERS[name].samples)
    assert plan.total_iterations == 30


@pytest.mark.parametrize(
    ("validation", "param", "code", "said"),
    [
        ({"dataset": "wrong"}, "validation.dataset", "validation_does_not_fit", "is a date in wrong"),
        ({"dataset": "tulips"}, "validation.dataset", "validation_does_not_fit", "'tulip'"),
        ({"dataset": "digits"}, "validation.dataset", "validation_does_not_fit", "image data"),
        (
            {"dataset": "more", "fraction": 0.5},
            "validation.fraction",
            "fraction_and_dataset",
            "nothing is held",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_queued(validation, param, code, said):
    with pytest.raises(InvalidRequestError) as caught:
        resolve(job(**validation), Shelf())
    (error,) = caught.value.errors
    assert (error.param, error.code) == (param, code)
    assert said in error.message


def test_an_unknown_data_set_is_named():
    with pytest.raises(InvalidRequestError) as caught:
        resolve(job(dataset="nothing"), Shelf())
    assert caught.value.errors[0].code == "unknown_dataset"
