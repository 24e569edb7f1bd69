"""ONNX's own backend node tests for the operators that the reader takes, through reader and emulator.

ONNX generates these cases itself (`onnx.backend.test`), expected outputs included; nothing is downloaded.
Their weights, scales and zero points are graph inputs; `bind` makes initializers of them, from the case's
own data, because a program's weights cannot be fed. Every single-node case of these operators stands in one
of two lists: it must pass, or it is left out, and must then be refused for the reason beside it. The lists
are those of onnx 1.23. (Cases named `..._expanded` spell other operators out in these; they are not tests
of these operators.)
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from ohmfold.errors import OhmfoldError
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import Operator
from ohmfold.toolchain.reader import read_program
from ohmfold.toolchain.reference import run_reference

# The operators under test, each with the inputs that a program holds as constants.
BOUND_INPUTS = {
    "Add": (), "ArgMax": (), "Cast": (), "Clip": (1, 2), "Concat": (), "ConvInteger": (1, 2, 3),
    "DequantizeLinear": (1, 2), "Div": (), "Dropout": (1, 2), "DynamicQuantizeLinear": (), "Flatten": (),
    "Identity": (), "LeakyRelu": (), "MatMulInteger": (1, 2, 3), "MaxPool": (), "Mul": (), "Pad": (1, 2, 3),
    "QLinearConv": tuple(range(1, 9)), "QLinearMatMul": tuple(range(1, 8)), "QuantizeLinear": (1, 2),
    "Relu": (), "Reshape": (1,), "Softmax": (), "Split": (1,), "Squeeze": (1,), "Sub": (), "Transpose": (),
    "Unsqueeze": (1,),
}  # fmt: skip


CASES_TO_RUN = """
    add add_bcast add_int16 add_int8 add_uint16 add_uint32 add_uint64 add_uint8
    argmax_default_axis_example argmax_default_axis_example_select_last_index argmax_default_axis_random
    argmax_default_axis_random_select_last_index argmax_keepdims_example
    argmax_keepdims_example_select_last_index argmax_keepdims_random
    argmax_keepdims_random_select_last_index argmax_negative_axis_keepdims_example
    argmax_negative_axis_keepdims_example_select_last_index argmax_negative_axis_keepdims_random
    argmax_negative_axis_keepdims_random_select_last_index argmax_no_keepdims_example
    argmax_no_keepdims_example_select_last_index argmax_no_keepdims_random
    argmax_no_keepdims_random_select_last_index clip clip_default_inbounds clip_default_int8_inbounds
    clip_default_int8_max clip_default_int8_min clip_default_max clip_default_min clip_example
    clip_inbounds clip_min_greater_than_max clip_outbounds clip_splitbounds concat_1d_axis_0
    concat_1d_axis_negative_1 concat_2d_axis_0 concat_2d_axis_1 concat_2d_axis_negative_1
    concat_2d_axis_negative_2 concat_3d_axis_0 concat_3d_axis_1 concat_3d_axis_2
    concat_3d_axis_negative_1 concat_3d_axis_negative_2 concat_3d_axis_negative_3 constant_pad
    constant_pad_axes constant_pad_negative_axes convinteger_with_padding convinteger_without_padding
    dequantizelinear dequantizelinear_axis dequantizelinear_blocked dequantizelinear_int16
    dequantizelinear_uint16 div div_bcast div_example div_int16 div_int32_trunc div_int8 div_uint16
    div_uint32 div_uint64 div_uint8 dropout_default dropout_default_old dropout_default_ratio
    dropout_random_old dynamicquantizelinear dynamicquantizelinear_max_adjusted
    dynamicquantizelinear_min_adjusted flatten_axis0 flatten_axis1 flatten_axis2 flatten_axis3
    flatten_default_axis flatten_negative_axis1 flatten_negative_axis2 flatten_negative_axis3
    flatten_negative_axis4 identity leakyrelu leakyrelu_default leakyrelu_example matmulinteger
    maxpool_1d_default maxpool_2d_ceil maxpool_2d_ceil_output_size_reduce_by_one maxpool_2d_default
    maxpool_2d_dilations maxpool_2d_pads maxpool_2d_precomputed_pads maxpool_2d_precomputed_same_upper
    maxpool_2d_precomputed_strides maxpool_2d_same_lower maxpool_2d_same_upper maxpool_2d_strides
    maxpool_2d_uint8 mul mul_bcast mul_example mul_int16 mul_int8 mul_uint16 mul_uint32 mul_uint64
    mul_uint8 qlinearconv qlinearmatmul_2D_int8_float32 qlinearmatmul_2D_uint8_float32 quantizelinear
    quantizelinear_axis quantizelinear_blocked_asymmetric quantizelinear_blocked_symmetric
    quantizelinear_int16 quantizelinear_uint16 relu reshape_allowzero_reordered reshape_extended_dims
    reshape_negative_dim reshape_negative_extended_dims reshape_one_dim reshape_reduced_dims
    reshape_reordered_all_dims reshape_reordered_last_dims reshape_zero_and_negative_dim reshape_zero_dim
    softmax_axis_0 softmax_axis_1 softmax_axis_2 softmax_default_axis softmax_example
    softmax_large_number softmax_negative_axis split_1d_uneven_split_opset18
    split_2d_uneven_split_opset18 split_equal_parts_1d_opset13 split_equal_parts_1d_opset18
    split_equal_parts_2d split_equal_parts_2d_opset13 split_equal_parts_default_axis_opset13
    split_equal_parts_default_axis_opset18 split_variable_parts_1d_opset13
    split_variable_parts_1d_opset18 split_variable_parts_2d_opset13 split_variable_parts_2d_opset18
    split_variable_parts_default_axis_opset13 split_variable_parts_default_axis_opset18
    split_zero_size_splits_opset13 split_zero_size_splits_opset18 squeeze squeeze_negative_axes sub
    sub_bcast sub_example sub_int16 sub_int8 sub_uint16 sub_uint32 sub_uint64 sub_uint8
    transpose_all_permutations_0 transpose_all_permutations_1 transpose_all_permutations_2
    transpose_all_permutations_3 transpose_all_permutations_4 transpose_all_permutations_5
    transpose_default unsqueeze_axis_0 unsqueeze_axis_1 unsqueeze_axis_2 unsqueeze_negative_axes
    unsqueeze_three_axes unsqueeze_two_axes unsqueeze_unsorted_axes
"""
MUST_PASS = frozenset(CASES_TO_RUN.split())

# The refusal that answers each case that is left out, as a pattern.
LEFT_OUT = {
    "is bfloat16": """
        cast_BFLOAT16_to_FLOAT cast_FLOAT_to_BFLOAT16
    """,
    "holds NaN": """
        cast_DOUBLE_to_FLOAT cast_DOUBLE_to_FLOAT16 cast_FLOAT16_to_DOUBLE cast_FLOAT16_to_FLOAT
        cast_FLOAT_to_DOUBLE cast_FLOAT_to_FLOAT16
    """,
    "(is|are) float4": """
        cast_FLOAT16_to_FLOAT4E2M1 cast_FLOAT4E2M1_to_FLOAT cast_FLOAT4E2M1_to_FLOAT16
        cast_FLOAT_to_FLOAT4E2M1 dequantizelinear_float4e2m1 quantizelinear_float4e2m1
    """,
    "(is|are) float8": """
        cast_FLOAT16_to_FLOAT8E4M3FN cast_FLOAT16_to_FLOAT8E4M3FNUZ cast_FLOAT16_to_FLOAT8E5M2
        cast_FLOAT16_to_FLOAT8E5M2FNUZ cast_FLOAT8E4M3FNUZ_to_FLOAT cast_FLOAT8E4M3FNUZ_to_FLOAT16
        cast_FLOAT8E4M3FN_to_FLOAT cast_FLOAT8E4M3FN_to_FLOAT16 cast_FLOAT8E5M2FNUZ_to_FLOAT
        cast_FLOAT8E5M2FNUZ_to_FLOAT16 cast_FLOAT8E5M2_to_FLOAT cast_FLOAT8E5M2_to_FLOAT16
        cast_FLOAT_to_FLOAT8E4M3FN cast_FLOAT_to_FLOAT8E4M3FNUZ cast_FLOAT_to_FLOAT8E5M2
        cast_FLOAT_to_FLOAT8E5M2FNUZ cast_e8m0_FLOAT16_to_FLOAT8E8M0 cast_e8m0_FLOAT8E8M0_to_FLOAT
        cast_e8m0_FLOAT8E8M0_to_FLOAT16 cast_e8m0_FLOAT_to_FLOAT8E8M0
        cast_no_saturate_FLOAT16_to_FLOAT8E4M3FN cast_no_saturate_FLOAT16_to_FLOAT8E4M3FNUZ
        cast_no_saturate_FLOAT16_to_FLOAT8E5M2 cast_no_saturate_FLOAT16_to_FLOAT8E5M2FNUZ
        cast_no_saturate_FLOAT_to_FLOAT8E4M3FN cast_no_saturate_FLOAT_to_FLOAT8E4M3FNUZ
        cast_no_saturate_FLOAT_to_FLOAT8E5M2 cast_no_saturate_FLOAT_to_FLOAT8E5M2FNUZ
        dequantizelinear_e4m3fn dequantizelinear_e4m3fn_float16 dequantizelinear_e4m3fn_zero_point
        dequantizelinear_e5m2 quantizelinear_e4m3fn quantizelinear_e5m2
    """,
    r"(is|are) u?int[24]\b": """
        cast_FLOAT16_to_INT2 cast_FLOAT16_to_INT4 cast_FLOAT16_to_UINT2 cast_FLOAT16_to_UINT4
        cast_FLOAT_to_INT2 cast_FLOAT_to_INT4 cast_FLOAT_to_UINT2 cast_FLOAT_to_UINT4 cast_INT2_to_FLOAT
        cast_INT2_to_FLOAT16 cast_INT2_to_INT8 cast_INT4_to_FLOAT cast_INT4_to_FLOAT16 cast_INT4_to_INT8
        cast_UINT2_to_FLOAT cast_UINT2_to_FLOAT16 cast_UINT2_to_UINT8 cast_UINT4_to_FLOAT
        cast_UINT4_to_FLOAT16 cast_UINT4_to_UINT8 dequantizelinear_int2 dequantizelinear_int4
        dequantizelinear_uint2 dequantizelinear_uint4 quantizelinear_int2 quantizelinear_int4
        quantizelinear_uint2 quantizelinear_uint4
    """,
    "mask output": """
        dropout_default_mask dropout_default_mask_ratio training_dropout_default_mask
        training_dropout_mask training_dropout_zero_ratio_mask
    """,
    "only constant padding": """
        edge_pad reflect_pad wrap_pad
    """,
    "expected a tensor of known type": """
        identity_opt identity_sequence
    """,
    "3 spatial axes": """
        maxpool_3d_default maxpool_3d_dilations maxpool_3d_dilations_use_ref_impl
        maxpool_3d_dilations_use_ref_impl_large
    """,
    "Indices output": """
        maxpool_with_argmax_2d_precomputed_pads maxpool_with_argmax_2d_precomputed_strides
    """,
    "float16; float32 is read": """
        qlinearmatmul_2D_int8_float16 qlinearmatmul_2D_uint8_float16
    """,
    "a constant matrix is read": """
        qlinearmatmul_3D_int8_float16 qlinearmatmul_3D_int8_float32 qlinearmatmul_3D_uint8_float16
        qlinearmatmul_3D_uint8_float32
    """,
    "training_mode": """
        training_dropout training_dropout_default training_dropout_zero_ratio
    """,
}


def collect():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    return {
        case.name: case
        for case in found
        if len(case.model.graph.node) == 1
        and case.model.graph.node[0].op_type in BOUND_INPUTS
        and case.model.graph.node[0].domain == ""
        and not case.name.endswith("_expanded")
    }


CASES = collect()


def array(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def bind(case):
    """The case's model with its constant inputs as initializers, and the inputs that are left to feed."""
    values, _ = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    node = graph.node[0]
    constant = {node.input[i] for i in BOUND_INPUTS[node.op_type] if i < len(node.input) and node.input[i]}
    fed = {}
    kept = []
    for spec, value in zip(case.model.graph.input, values, strict=True):
        if spec.name in constant:
            tensor = (
                value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value))
            )
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = spec.name
        else:
            fed[spec.name] = value
            kept.append(spec)
    del graph.input[:]
    graph.input.extend(kept)
    return model, fed


def run(case):
    model, fed = bind(case)
    program = read_program(ir.from_proto(model))
    inputs = {name: array(value) for name, value in fed.items()}
    return program, Emulator(program, threads=1).run(inputs), run_reference(program, inputs)


def bits(array):
    floating = np.issubdtype(array.dtype, np.floating)
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}") if floating else array


def test_every_node_case_of_these_operators_is_in_exactly_one_list():
    left_out = [name for names in LEFT_OUT.values() for name in names.split()]
    assert len(left_out) == len(set(left_out))
    assert not MUST_PASS.intersection(left_out)
    assert MUST_PASS.union(left_out) == {name.removeprefix("test_") for name in CASES}
    assert len(MUST_PASS) >= 170


@pytest.mark.parametrize("name", sorted(MUST_PASS))
def test_the_case_has_the_expected_bits(name):
    case = CASES[f"test_{name}"]
    program, emulated, reference = run(case)
    # Softmax alone is defined up to rounding: exp and the order of its sum are the library's. Four units in
    # the last place of float32.
    tolerance = 0.0 if all(not isinstance(x, Operator) or x.exact for x in program.layers) else 2.0**-21
    _, expected = case.data_sets[0]
    for spec, value in zip(case.model.graph.output, expected, strict=True):
        for found in (emulated[spec.name], reference[spec.name]):
            assert found.dtype == array(value).dtype
            assert found.shape == array(value).shape
            if tolerance:
                np.testing.assert_allclose(found, array(value), rtol=tolerance, atol=0)
            else:
                np.testing.assert_array_equal(bits(found), bits(array(value)))


@pytest.mark.parametrize(
    ("name", "reason"), [(name, reason) for reason, names in LEFT_OUT.items() for name in names.split()]
)
def test_a_case_that_is_left_out_is_refused_for_its_reason(name, reason):
    with pytest.raises(OhmfoldError, match=reason):
        run(CASES[f"test_{name}"])
