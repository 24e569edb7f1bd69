"""Models, settings and records that promise more than they hold, nest without an end, or point out of their folder."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from integer_models import build
from onnx import TensorProto, helper, numpy_helper
from tiny_artifacts import tiny_artifact

import ohmfold
from ohmfold.errors import DataError, HardwareError, ModelError, OhmfoldError, RecipeError
from ohmfold.toolchain.artifact import Artifact, parse_model
from ohmfold.toolchain.attacks.masking.plan import Plan
from ohmfold.toolchain.attacks.results import CampaignResult
from ohmfold.toolchain.attacks.suite import load_suite
from ohmfold.toolchain.hardware import Hardware
from ohmfold.toolchain.onnx_file import check_content

if TYPE_CHECKING:
    from pathlib import Path

DEEP = {"lists": "a = " + "[" * 5000, "tables": "a = " + "{a=" * 5000, "digits": "a = " + "9" * 5000}
DTYPES = (
    "BOOL", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "FLOAT16", "BFLOAT16", "FLOAT",
    "DOUBLE", "COMPLEX64", "COMPLEX128", "FLOAT8E4M3FN", "FLOAT8E5M2", "INT4", "UINT4", "FLOAT4E2M1",
)  # fmt: skip


def small_model(**arrays: np.ndarray) -> onnx.ModelProto:
    arrays = {"w": np.ones((4, 3), np.float32), **arrays}
    return build("(float[N, 4] x) => (float[N, 3] y)", "y = MatMul(x, w)", **arrays)


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (2, 4), (), (0, 7)])
def test_every_type_of_tensor_that_onnx_writes_has_the_data_of_its_dimensions(
    name: str, shape: tuple[int, ...], *, raw: bool
) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, name))
    array = np.ones(shape).astype(dtype)
    tensor = numpy_helper.from_array(array, "t")
    if not raw:
        tensor = helper.make_tensor(
            "t", getattr(TensorProto, name), shape, np.ones(shape).reshape(-1).tolist()
        )
    model = small_model()
    model.graph.initializer.append(tensor)
    check_content(model, "here")
    tensor = model.graph.initializer[-1]
    tensor.dims.append(3)
    if int(np.prod(shape)):
        with pytest.raises(ModelError, match="but its data has"):
            check_content(model, "here")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "weights.bin"])
@pytest.mark.parametrize("where", ["initializer", "attribute", "subgraph", "sparse", "function"])
def test_weights_in_another_file_are_refused_wherever_they_hide(where: str, location: str) -> None:
    model = small_model()
    tensor = TensorProto(
        name="far", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=location)
    constant = helper.make_node("Constant", [], ["far"], value=tensor)
    if where == "initializer":
        model.graph.initializer.append(tensor)
    elif where == "attribute":
        model.graph.node.append(constant)
    elif where == "subgraph":
        inner = helper.make_graph([constant], "inner", [], [])
        model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=inner))
    elif where == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    else:
        model.functions.add(name="F", domain="own").node.append(constant)
    with pytest.raises(ModelError, match="'far' lies in another file"):
        parse_model(model.SerializeToString(), "here")


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 62, 1 << 62], [-1], [4, 4], [1] * 70])
def test_dimensions_without_their_data_are_refused(dims: list[int]) -> None:
    model = small_model()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    with pytest.raises(ModelError, match="the file is damaged"):
        parse_model(model.SerializeToString(), "here")


def test_text_that_is_not_utf8_is_refused() -> None:
    data = tiny_artifact().to_bytes().replace(b"MatMulInteger", b"MatMul\xffnteger")
    with pytest.raises(ModelError, match="not UTF-8"):
        parse_model(data, "here")


@pytest.mark.parametrize("field", ["name", "op_type", "domain"])
def test_a_name_of_several_lines_is_refused_in_one(field: str) -> None:
    model = small_model()
    setattr(model.graph.node[0], field, "Mat\n\rMul")
    with pytest.raises(ModelError, match="control characters") as refused:
        parse_model(model.SerializeToString(), "here")
    assert "\n" not in str(refused.value)


def test_an_equation_on_which_shape_inference_never_ends_is_refused() -> None:
    model = small_model()
    model.graph.node.append(helper.make_node("Einsum", ["w"], ["z"], equation="\N{SNOWMAN}"))
    with pytest.raises(ModelError, match="is no equation"):
        parse_model(model.SerializeToString(), "here")


def test_a_function_called_with_more_than_it_takes_is_refused() -> None:
    model = build(
        "(float[N, 4] x) => (float[N, 4] y)", "q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) y = Relu(d)",
        s=np.float32(1),
    )  # fmt: skip
    model.functions.add(name="F", domain="own").input.append("a")
    model.functions[0].output.append("b")
    model.functions[0].opset_import.add(domain="", version=21)
    model.functions[0].node.append(helper.make_node("Relu", ["a"], ["b"]))
    model.opset_import.add(domain="own", version=1)
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "F", "own"
    model.graph.node[-1].input.append("x")
    with pytest.raises(ModelError, match="inlining function"):
        assert Artifact(parse_model(model.SerializeToString(), "here")).program


@pytest.mark.parametrize("schema", ["9" * 5000, "2", "-1", "\N{SUPERSCRIPT TWO}", ""])
def test_a_schema_that_is_not_known_is_refused_in_one_line(schema: str, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(tiny_artifact().to_bytes())
    model.metadata_props.add(key="ohmfold.schema", value=schema)
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="this version reads up to 1") as refused:
        Artifact.load(path)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("value", ["[" * 90000, "9" * 5000, "no JSON"])
def test_metadata_that_are_no_json_stay_text(value: str) -> None:
    model = onnx.load_model_from_string(tiny_artifact().to_bytes())
    model.metadata_props.add(key="ohmfold.recipe", value=value)
    artifact = Artifact(parse_model(model.SerializeToString(), "here"))
    assert artifact.metadata()["recipe"] == value


@pytest.mark.parametrize("size", [1 << 34, 1 << 40])
@pytest.mark.parametrize("grown", ["ConstantOfShape", "Expand", "Range"])
def test_constants_that_a_few_numbers_promise_are_not_computed(grown: str, size: int, tmp_path: Path) -> None:
    body = {
        "ConstantOfShape": "c = ConstantOfShape(n)",
        "Expand": "c = Expand(one, n)",
        "Range": "c = Range(zero, limit, step)",
    }[grown]
    model = build(
        "(float[N, 1, 2, 2] x) => (float[N, 3] y)",
        f"a = Flatten(x) m = MatMul(a, w) {body} s = ReduceMax <keepdims = 0> (c) y = Add(m, s)",
        w=np.ones((4, 3), np.float32), n=np.array([size]), one=np.ones(1, np.float32),
        zero=np.float32(0), limit=np.float32(size), step=np.float32(1),
    )  # fmt: skip
    path = tmp_path / "grown.onnx"
    path.write_bytes(model.SerializeToString())
    tracemalloc.start()
    with pytest.raises(OhmfoldError):
        ohmfold.compile(path, np.zeros((2, 1, 2, 2), np.uint8))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


CONTRADICTIONS = {
    "a bias of the wrong shape": (
        "y = Conv(x, k, b)", {"b": np.ones((4, 1, 2, 2), np.float32)}, "its bias is of shape",
    ),
    "means of rank 2": (
        "a = Conv(x, k) y = BatchNormalization(a, v, v, m, v)", {"m": np.ones((4, 9), np.float32)},
        "contradicts itself",
    ),
    "pads that are a scalar": ("p = Pad(x, n) y = Conv(p, k)", {"n": np.int64(3)}, "contradicts itself"),
    "pads past all measure": ("y = Conv <pads = [500000, 500000, 0, 0]> (x, k) ", {}, "values for one image"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_float_model_that_contradicts_itself_is_refused_before_any_pass(case: str, tmp_path: Path) -> None:
    body, arrays, message = CONTRADICTIONS[case]
    arrays = {"k": np.ones((4, 1, 2, 2), np.float32), "v": np.ones(4, np.float32), **arrays}
    arrays = {name: array for name, array in arrays.items() if f"{name}," in body or f"{name})" in body}
    model = build("(float[N, 1, 4, 4] x) => (float[N, 3] z)", f"{body} f = GlobalAveragePool(y) g = Flatten(f) "
                  "z = MatMul(g, w)", w=np.ones((4, 3), np.float32), **arrays)  # fmt: skip
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=message):
        ohmfold.compile(path, np.zeros((2, 1, 4, 4), np.uint8))


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_toml_without_an_end_is_refused_by_every_reader(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match="not TOML"):
        ohmfold.Recipe.load(path)
    with pytest.raises(RecipeError, match="not TOML"):
        load_suite(path)
    with pytest.raises(RecipeError, match="not TOML"):
        Plan.from_toml(text)
    with pytest.raises(HardwareError, match="not TOML"):
        Hardware.load(path)


def test_a_suite_includes_shipped_suites_and_no_files(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('title = "o"\n[[attacks]]\nname = "a"\nattack = "fgsm"\n')
    path = tmp_path / "suite.toml"
    path.write_text(f'title = "t"\ninclude = ["{other}"]\n')
    with pytest.raises(RecipeError, match="no suite"):
        load_suite(path).expanded()


def test_a_setting_called_like_an_argument_is_an_unknown_setting(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text('title = "t"\n[[attacks]]\nname = "a"\nattack = "fgsm"\nsettings = { name = 1 }\n')
    with pytest.raises(RecipeError, match="name"):
        load_suite(path)


@pytest.mark.parametrize("value", ["1e999", "NaN", "-Infinity"])
def test_a_result_with_a_number_that_json_has_no_word_for_is_refused(value: str, tmp_path: Path) -> None:
    share = {"images": 1, "correct": 1, "accuracy": 1.0, "low": 0.0, "high": 1.0}
    record = {
        "artifact_sha256": "0" * 64, "data": {"name": "d", "images": 1, "sha256": "0" * 64}, "left_out": 0,
        "judge": {"name": "emulator"}, "seed": 0, "norm": "inf", "radius": 6, "suites": [], "clean": share,
        "attacks": [], "skipped": [], "worst_case": [], "verdict": None, "versions": {}, "seconds": {"a": 1.5},
    }  # fmt: skip
    path = tmp_path / CampaignResult.file_name
    path.write_text(json.dumps(record))
    assert CampaignResult.load(tmp_path).seed == 0
    path.write_text(json.dumps(record).replace("1.5", value))
    with pytest.raises(DataError, match="is not the result of attacks"):
        CampaignResult.load(tmp_path)
