"""Separate the weights of a converted network from its graph, and join them again.

A graph without weights is an OpenVINO model that has a further input per weight. It belongs to a network's settings, so
that it can be shipped, and any weights file of these settings runs without PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliomark.engines.openvino_library import openvino, opset13

WEIGHT_PREFIX = "weight:"  # of the names of inputs that are weights


def separate_weights(model: openvino.Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Replace the weights, of any shape, in a converted network by inputs, in place.

    A weight is recognised by its content, which must therefore differ from that of all others; the same layer under
    two names counts as one. Weights that the graph does not use are left out.
    """
    names: dict[bytes, str] = {}
    for name, weight in weights.items():
        names.setdefault(weight.tobytes(), name)
    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "Constant" or operation.get_element_type() != openvino.Type.f32:
            continue
        value = np.ascontiguousarray(operation.get_data())
        if (found := names.get(value.tobytes())) is not None:
            parameter = opset13.parameter(list(value.shape), openvino.Type.f32, name=found)
            parameter.output(0).set_names({WEIGHT_PREFIX + found})
            operation.output(0).replace(parameter.output(0))
            model.add_parameters([parameter])


def join_weights(model: openvino.Model, weights: Mapping[str, NDArray[Any]]) -> None:
    """Replace the inputs that are weights by their values, of any shape, in place.

    Raises
    ------
    KeyError
        If a weight is missing.
    """
    for parameter in list(model.get_parameters()):
        name = next((one for one in parameter.output(0).names if one.startswith(WEIGHT_PREFIX)), None)
        if name is not None:
            value = opset13.constant(
                np.ascontiguousarray(weights[name.removeprefix(WEIGHT_PREFIX)], np.float32)
            )
            parameter.output(0).replace(value.output(0))
            model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()
