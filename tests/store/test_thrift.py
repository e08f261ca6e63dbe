"""The footer's encoding: what is read is written again byte for byte."""

import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epochd.store import thrift
from epochd.store.thrift import Field, List

integers = st.integers(-(2**63), 2**63 - 1)
simple = st.one_of(
    st.tuples(st.sampled_from([thrift.I16, thrift.I32, thrift.I64]), integers),
    st.tuples(st.just(thrift.BINARY), st.binary(max_size=300)),
    st.tuples(st.just(thrift.TRUE), st.just(True)),
    st.tuples(st.just(thrift.FALSE), st.just(False)),
    st.tuples(st.just(thrift.BYTE), st.binary(min_size=1, max_size=1)),
    st.tuples(st.just(thrift.DOUBLE), st.binary(min_size=8, max_size=8)),
    st.tuples(
        st.just(thrift.LIST), st.lists(integers, max_size=40).map(lambda found: List(thrift.I64, found))
    ),
)


def structs(fields):
    numbered = st.dictionaries(st.integers(1, 300), fields.map(lambda pair: Field(*pair)), max_size=20)
    return numbered.map(lambda found: dict(sorted(found.items())))


def nested(inner):
    of_structs = structs(inner).map(lambda one: (thrift.STRUCT, one))
    lists = st.lists(structs(inner), max_size=20).map(lambda found: (thrift.LIST, List(thrift.STRUCT, found)))
    return st.one_of(inner, of_structs, lists)


@settings(max_examples=40, deadline=None)
@given(structs(st.recursive(simple, nested, max_leaves=8)))
def test_what_was_written_is_read(struct):
    assert thrift.parse(thrift.dump(struct)) == struct


def test_a_footer_is_written_as_it_was():
    file = io.BytesIO()
    columns = {"a": range(5000), "b": ["x", None] * 2500, "c": [True, False] * 2500, "d": [0.5] * 5000}
    pl.DataFrame(columns).write_parquet(file, row_group_size=100)
    data = file.getvalue()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    assert thrift.dump(thrift.parse(footer)) == footer


def test_a_type_that_no_footer_has_is_refused():
    with pytest.raises(ValueError, match="type 11"):
        thrift.parse(b"\x1b\x00\x00")
