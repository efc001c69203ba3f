"""A mixture as an ONNX graph: labels, probabilities and log-densities of rows, without dgmm.

    centred    x - mu_k                                     (K, N, D)
    squares    |C_k' (x - mu_k)|^2                           (K, N), transposed
    log joint  log pi_k + log N(x | k), or the t density     (N, K)
    outputs    its argmax, its softmax, its log-sum-exp

Rows come as float32 or float64.  All arithmetic is in float64, so that rows far from zero and
narrow components keep their digits; outputs have the type of the rows.  A noise component is one
more, with C = 0.
"""

from typing import Any, Final, Literal

import numpy as np

from dgmm.errors import UsageError
from dgmm.model.arrays import Array
from dgmm.model.extras import require
from dgmm.model.lazy import Late
from dgmm.model.mixture import NOISE, Mixture

onnx = Late("onnx")

OPSET: Final = 17
"""Of operators: runtimes of 2022 and later have it."""

IR_VERSION: Final = 8
"""Of files that hold these."""

Precision = Literal["float32", "float64"]
"""What rows and outputs may be."""

OUTPUTS: Final = ("labels", "probabilities", "log_densities")
"""The names of the outputs, in their order."""


def graph_of(mixture: Mixture, offset: float, dtype: Precision, names: list[str] | None) -> Any:
    """The ``onnx.ModelProto`` of a ``mixture``, whose log-densities are ``offset`` more.

    ``names`` are those of the features; they are kept as metadata.
    """
    require("onnx", "an ONNX graph", "onnx")
    types = {"float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE}
    if dtype not in types:
        raise UsageError(f"dtype must be one of {', '.join(types)}, not {dtype!r}")
    made = _Graph()
    _outputs(made, mixture, offset, _log_joint(made, mixture), types[dtype])
    info = onnx.helper.make_tensor_value_info
    count = len(mixture.all_weights)
    shapes = {"labels": ["N"], "probabilities": ["N", count], "log_densities": ["N"]}
    kinds = {"labels": onnx.TensorProto.INT64}
    graph = onnx.helper.make_graph(
        made.nodes,
        "dgmm",
        [info("rows", types[dtype], ["N", mixture.n_features])],
        [info(name, kinds.get(name, types[dtype]), shapes[name]) for name in OUTPUTS],
        made.constants,
    )
    model = onnx.helper.make_model(
        graph, producer_name="dgmm", opset_imports=[onnx.helper.make_opsetid("", OPSET)]
    )
    model.ir_version = IR_VERSION
    if names is not None:
        onnx.helper.set_model_props(model, {"feature_names": "\n".join(names)})
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: type[np.generic] = np.float64) -> str:
        """The name of a constant."""
        name = f"constant{len(self.constants)}"
        array = np.array(values, dtype=dtype)
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of what an ``operator`` makes of ``inputs``."""
        output = output or f"value{len(self.nodes)}"
        node = onnx.helper.make_node(operator, inputs, [output], **attributes)
        self.nodes.append(node)
        return output


def _log_joint(graph: _Graph, mixture: Mixture) -> str:
    """log pi_k + log N(x | k), (N, K): of noise, too, as the last."""
    means, constants = mixture.means, mixture.constants
    matrices, factors = _factors(mixture)
    if (noise := mixture.noise_component) is not None:
        means = np.append(means, means[:1], axis=0)
        constants = np.append(constants, noise.log_joint)
        stacked = np.broadcast_to(factors, (mixture.components, *factors.shape[1:]))
        factors = np.append(stacked, np.zeros_like(stacked[:1]), axis=0)
    rows = graph.add("Cast", "rows", to=onnx.TensorProto.DOUBLE)
    each = graph.add("Unsqueeze", rows, graph.constant([0], np.int64))
    away = graph.add("Sub", each, graph.constant(means[:, None]))
    white = graph.add("MatMul" if matrices else "Mul", away, graph.constant(factors))
    apart = graph.add("Mul", white, white)
    axes = graph.constant([2], np.int64)
    squares = graph.add("Transpose", graph.add("ReduceSum", apart, axes, keepdims=0), perm=[1, 0])
    return graph.add("Add", _of_squares(graph, mixture, squares), graph.constant(constants))


def _of_squares(graph: _Graph, mixture: Mixture, squares: str) -> str:
    """What squared distances (N, K) add to the log-density at the mean."""
    if mixture.tails is None:
        return graph.add("Mul", squares, graph.constant(-0.5))
    dof = mixture.dof
    ratio = graph.add("Div", squares, graph.constant(dof))
    log = graph.add("Log", graph.add("Add", ratio, graph.constant(1.0)))
    return graph.add("Mul", log, graph.constant(-(dof + mixture.n_features) / 2))


def _factors(mixture: Mixture) -> tuple[bool, Array]:
    """C (K, D, D), or (1, D, D) if all are one; or what stands for it (K, 1, D) if diagonal."""
    covariances, n_features = mixture.covariances, mixture.n_features
    if covariances.alone(np.arange(1)) is not None:  # no feature goes with another
        return False, (1 / np.sqrt(mixture.variances))[:, None]
    unit = np.eye(n_features)
    each = np.stack([covariances.whiten(k, unit).T for k in range(mixture.components)])
    return True, each[:1] if (each == each[0]).all() else each


def _outputs(graph: _Graph, mixture: Mixture, offset: float, joint: str, kind: int) -> None:
    """Labels, probabilities and log-densities, from log joints (N, K)."""
    top = graph.add("ReduceMax", joint, axes=[1], keepdims=1)
    shares = graph.add("Exp", graph.add("Sub", joint, top))
    last = graph.constant([1], np.int64)
    total = graph.add("ReduceSum", shares, last, keepdims=1)
    log = graph.add("Add", top, graph.add("Log", total))
    graph.add("Cast", graph.add("Div", shares, total), to=kind, output="probabilities")
    density = graph.add("Add", graph.add("Squeeze", log, last), graph.constant(offset))
    graph.add("Cast", density, to=kind, output="log_densities")
    if mixture.noise_component is None:
        graph.add("ArgMax", joint, axis=1, keepdims=0, output="labels")
        return
    labels = graph.add("ArgMax", joint, axis=1, keepdims=0)
    noise = graph.add("Equal", labels, graph.constant(mixture.components, np.int64))
    graph.add("Where", noise, graph.constant(NOISE, np.int64), labels, output="labels")
