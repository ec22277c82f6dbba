"""ONNX Runtime's blockwise int4 product, MatMulNBits.

Its accuracy level is 4: activations are quantized to int8. Needs `pip install onnx onnxruntime`.
"""

import jax
import numpy as np
import onnx
import onnxruntime
from products import Case, Peers, Timed, in_a_call, int4_codes, rotation, several
from results import THREADS


def onnx_peers(case: Case, x: jax.Array, values: np.ndarray) -> Peers:
    """The product with `values` [in, out] at four bits."""
    codes, scales = int4_codes(values, case.group)
    packed = codes[..., ::2] | codes[..., 1::2] << 4
    kernels = rotation(case, packed.nbytes + scales.nbytes)
    rows = several(x, in_a_call(case, kernels))
    inputs = {f"x{index}": np.asarray(row) for index, row in enumerate(rows)}
    # Outputs in another order each time, or equal kernels would become one.
    stored = [(np.roll(packed, i, axis=0), np.roll(scales, i, axis=0)) for i in range(kernels)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    model = _model(case, list(inputs), stored)
    session = onnxruntime.InferenceSession(model, options)
    yield Timed("ONNX Runtime MatMulNBits", lambda: session.run(None, inputs), len(inputs))


def _model(case: Case, inputs: list[str], stored: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """A file whose graph multiplies every input by the kernels in turns."""
    initializers = [
        onnx.numpy_helper.from_array(array, f"{name}{index}")
        for index, arrays in enumerate(stored)
        for name, array in zip(("codes", "scales"), arrays, strict=True)
    ]
    nodes = [
        onnx.helper.make_node(
            "MatMulNBits",
            [name, f"codes{index % len(stored)}", f"scales{index % len(stored)}"],
            [f"y{index}"],
            domain="com.microsoft",
            accuracy_level=4,
            K=case.size,
            N=case.out,
            bits=4,
            block_size=case.group,
        )
        for index, name in enumerate(inputs)
    ]

    def value(name: str, size: int) -> onnx.ValueInfoProto:
        kind = onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_value_info(name, kind, [case.rows, size])

    graph = onnx.helper.make_graph(
        nodes,
        "products",
        [value(name, case.size) for name in inputs],
        [value(node.output[0], case.out) for node in nodes],
        initializers,
    )
    sets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=sets, ir_version=10).SerializeToString()
