"""The models that can be asked for, and their parameters. Each says which data and tasks it is made for."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from epochd.contract.base import Request
from epochd.contract.storable import require_storable

Kind = Literal["table", "image", "array", "text"]
Task = Literal["classification", "regression"]
Encoding = Literal["one_hot", "codes"]

LayerSize = Annotated[int, Field(ge=1, le=65_536)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Blocks = Annotated[int, Field(ge=1, le=64)]
Heads = Annotated[int, Field(ge=1, le=64)]

OPERATOR_MODEL = r"^[A-Za-z][A-Za-z0-9_.\-]{0,99}$"


class BuiltinModel(Request):
    """What every model here says of itself."""

    KINDS: ClassVar[tuple[Kind, ...]] = ("table", "image", "array")
    """The data that it takes."""
    TASKS: ClassVar[tuple[Task, ...]] = ("classification", "regression")
    ENCODING: ClassVar[Encoding] = "one_hot"
    """How the categories of a table reach it: a column a category, or a code a column for it to embed."""


class LinearModel(BuiltinModel):
    """Softmax regression, or linear regression: one layer, no hidden units."""

    name: Literal["linear"]


class MlpModel(BuiltinModel):
    """A multi-layer perceptron: for each hidden size a linear layer, ReLU and dropout."""

    name: Literal["mlp"]
    hidden_sizes: Annotated[list[LayerSize], Field(min_length=1, max_length=64)] = [128]
    dropout: Fraction = 0.0
    batch_norm: bool = False
    """Batch normalisation before each ReLU; needs at least 2 samples in every mini-batch."""


class CnnModel(BuiltinModel):
    """A convolutional network for images: 3×3 convolutions, ReLU, 2×2 pooling, then a classifier head."""

    KINDS: ClassVar[tuple[Kind, ...]] = ("image",)

    name: Literal["cnn"]
    channels: Annotated[list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=1, max_length=16)] = [
        16,
        32,
    ]
    hidden_size: LayerSize = 64
    dropout: Fraction = 0.0
    batch_norm: bool = False


class ResNetModel(BuiltinModel):
    """A residual network for images (He et al., 2016).

    Its first layer suits the image: a 3×3 convolution up to 64 pixels, the paper's 7×7 with pooling beyond.
    """

    KINDS: ClassVar[tuple[Kind, ...]] = ("image",)

    name: Literal["resnet"]
    depth: Literal[18, 34, 50] = 18
    """Layers; 50 has bottleneck blocks."""
    width: Annotated[int, Field(ge=8, le=512, multiple_of=8)] = 64
    """Channels of the first stage; each of the next three has twice as many as the one before."""
    dropout: Fraction = 0.0
    """Before the last layer."""


class TabularResNetModel(BuiltinModel):
    """A residual network for tables (Gorishniy et al., 2021)."""

    KINDS: ClassVar[tuple[Kind, ...]] = ("table",)

    name: Literal["tabular_resnet"]
    blocks: Blocks = 3
    width: LayerSize = 128
    hidden_factor: Annotated[float, Field(ge=0.5, le=8)] = 2.0
    """Hidden units of a block, in widths."""
    dropout: Fraction = 0.1


class FtTransformerModel(BuiltinModel):
    """A feature-tokenizer transformer for mixed tables (Gorishniy et al., 2021): each column is a token."""

    KINDS: ClassVar[tuple[Kind, ...]] = ("table",)
    ENCODING: ClassVar[Encoding] = "codes"

    name: Literal["ft_transformer"]
    blocks: Blocks = 3
    width: Annotated[int, Field(ge=4, le=4096)] = 64
    """Numbers in a token; a multiple of `heads`."""
    heads: Heads = 8
    dropout: Fraction = 0.1


class TextClassifierModel(BuiltinModel):
    """A small transformer encoder over the words of a text (Vaswani et al., 2017)."""

    KINDS: ClassVar[tuple[Kind, ...]] = ("text",)

    name: Literal["text_classifier"]
    vocabulary_size: Annotated[int, Field(ge=3, le=1_000_000)] = 10_000
    """At most so many words of the training split, the most frequent ones; others are all one unknown word."""
    sequence_length: Annotated[int, Field(ge=1, le=4096)] = 128
    """Words of a text that are read."""
    blocks: Blocks = 2
    width: Annotated[int, Field(ge=4, le=4096)] = 64
    """Numbers in a token; a multiple of `heads`."""
    heads: Heads = 4
    dropout: Fraction = 0.1


class OperatorModel(Request):
    """A model of the operator's own, from a package installed beside the workers; `GET /v1/models` lists them."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, StringConstraints(pattern=OPERATOR_MODEL)]

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything but the name: what the model's own schema describes."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _require_storable(self) -> Self:
        require_storable(self.parameters)
        return self


BUILTIN_MODELS: dict[str, type[BuiltinModel]] = {
    "linear": LinearModel,
    "mlp": MlpModel,
    "cnn": CnnModel,
    "resnet": ResNetModel,
    "tabular_resnet": TabularResNetModel,
    "ft_transformer": FtTransformerModel,
    "text_classifier": TextClassifierModel,
}
"""By the names that callers send."""


def _kind_of_model(value: Any) -> str:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    # Whatever names no model is checked as one of the operator's: that says what is wrong with it, and where.
    return name if isinstance(name, str) and name in BUILTIN_MODELS else "operator"


Model = Annotated[
    Annotated[LinearModel, Tag("linear")]
    | Annotated[MlpModel, Tag("mlp")]
    | Annotated[CnnModel, Tag("cnn")]
    | Annotated[ResNetModel, Tag("resnet")]
    | Annotated[TabularResNetModel, Tag("tabular_resnet")]
    | Annotated[FtTransformerModel, Tag("ft_transformer")]
    | Annotated[TextClassifierModel, Tag("text_classifier")]
    | Annotated[OperatorModel, Tag("operator")],
    Discriminator(_kind_of_model),
]
