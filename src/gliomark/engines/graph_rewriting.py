"""Rewrite converted networks for volumes, so that they are exact and need less memory in OpenVINO.

OpenVINO sums up whole volumes one number after the other when it normalises, which loses three digits over a million
voxels. Instance normalisations therefore average rows first, then small blocks, and then averages of those.
"""

from __future__ import annotations

import numpy as np

from gliomark.engines.openvino_library import openvino, opset13

MAX_BLOCK_SIDE = 8  # averaged at once, per axis


def rewrite_graph(model: openvino.Model) -> None:
    """Rewrite normalisations and the probability of the second of two classes, in place."""
    replace_normalisations(model)
    replace_two_class_softmax(model)
    model.validate_nodes_and_infer_types()


def replace_normalisations(model: openvino.Model) -> None:
    """Rewrite the instance normalisations ``(B, C, ...)`` of a converted network with block averages, in place.

    A maximum pooling behind a normalisation and a ReLU moves before them, which gives the same numbers, so that only
    the pooled volume is normalised.
    """
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "MVN" and _normalises_instances(operation):
            values = operation.input_value(0)
            mean = _average_blocks(values)
            variance = opset13.relu(opset13.subtract(_average_squares(values), opset13.multiply(mean, mean)))
            epsilon = np.float32(operation.get_attributes()["eps"])
            scale = opset13.divide(np.float32(1), opset13.sqrt(opset13.add(variance, epsilon)))
            shift = opset13.multiply(mean, scale)
            if pooling := _find_pooling(operation):
                targets = pooling.output(0).get_target_inputs()
                pooling.input(0).replace_source_output(values)
                pooled = opset13.multiply(pooling.output(0), scale)
                result = opset13.relu(opset13.subtract(pooled, shift)).output(0)
                for target in targets:
                    target.replace_source_output(result)
            else:
                scaled = opset13.multiply(values, scale)
                operation.output(0).replace(opset13.subtract(scaled, shift).output(0))


def replace_two_class_softmax(model: openvino.Model) -> None:
    """Compute the probability of the second of two classes from the difference of their scores, in place.

    This applies where a transposed convolution, whose stride is its kernel, computes the scores ``(B, 2, ...)``, and
    only that probability is used. One channel at full resolution is then enough, instead of two scores and two
    probabilities.
    """
    for softmax in model.get_ordered_ops():
        gather = _find_second_class(softmax)
        if gather is None:
            continue
        scores = softmax.input_value(0).get_node()
        if scores.get_type_name() != "Add":
            continue
        upsampling, bias = scores.input_value(0).get_node(), scores.input_value(1).get_node()
        if bias.get_type_name() != "Constant" or not _enlarges_without_overlap(upsampling):
            continue
        weights, biases = upsampling.input_value(1).get_node().get_data(), bias.get_data()
        difference = weights[:, 1] - weights[:, 0]
        axes, side = difference.ndim - 1, difference.shape[-1]
        kernels = difference.reshape(len(difference), -1).T.reshape(-1, len(difference), *[1] * axes)
        none, one = [0] * axes, [1] * axes
        score = opset13.convolution(
            upsampling.input_value(0), np.ascontiguousarray(kernels), one, none, none, one
        )
        score = opset13.add(score, biases[:, 1:] - biases[:, :1])
        probability = opset13.depth_to_space(opset13.sigmoid(score), "blocks_first", side)
        gather.output(0).replace(opset13.squeeze(probability, np.array([1])).output(0))


def _normalises_instances(operation: openvino.Node) -> bool:
    """Whether a normalisation is over all axes but the first two, whose lengths are known."""
    shape, axes = operation.input_value(0).get_partial_shape(), operation.input_value(1).get_node()
    if axes.get_type_name() != "Constant" or any(side.is_dynamic for side in list(shape)[2:]):
        return False
    return sorted(int(axis) % len(shape) for axis in axes.get_data().ravel()) == list(range(2, len(shape)))


def _find_pooling(operation: openvino.Node) -> openvino.Node | None:
    """Find the maximum pooling that alone uses the ReLU that alone uses an operation; None if there is none."""
    relu = _find_only_user(operation, "Relu")
    return _find_only_user(relu, "MaxPool") if relu else None


def _find_second_class(softmax: openvino.Node) -> openvino.Node | None:
    """Find the operation that alone uses a softmax over two channels, and takes the second; None if there is none."""
    shape = list(softmax.output(0).get_partial_shape()) if softmax.get_type_name() == "Softmax" else []
    if len(shape) < 2 or softmax.get_attributes()["axis"] != 1 or shape[1] != 2:
        return None
    whole = _find_only_user(softmax, "Slice")
    if whole and whole.output(0).get_partial_shape() != softmax.output(0).get_partial_shape():
        return None
    gather = _find_only_user(whole or softmax, "Gather")
    index_and_axis = [gather.input_value(at).get_node() for at in (1, 2)] if gather else []
    if not gather or any(node.get_type_name() != "Constant" for node in index_and_axis):
        return None
    return gather if all(int(node.get_data().ravel()[0]) == 1 for node in index_and_axis) else None


def _find_only_user(operation: openvino.Node, type_name: str) -> openvino.Node | None:
    """Find the operation of a type that alone uses the first output of another; None if there is none."""
    users = [target.get_node() for target in operation.output(0).get_target_inputs()]
    return users[0] if len(users) == 1 and users[0].get_type_name() == type_name else None


def _enlarges_without_overlap(operation: openvino.Node) -> bool:
    """Whether an operation is a transposed convolution of a cubic kernel with the same stride and no padding."""
    if operation.get_type_name() != "ConvolutionBackpropData" or operation.get_input_size() != 2:
        return False
    weights, attributes = operation.input_value(1).get_node(), operation.get_attributes()
    if weights.get_type_name() != "Constant":
        return False
    kernel = list(weights.get_data().shape[2:])
    paddings = [*attributes["pads_begin"], *attributes["pads_end"], *attributes["output_padding"]]
    is_plain = not any(paddings) and all(step == 1 for step in attributes["dilations"])
    return is_plain and list(attributes["strides"]) == kernel and len(set(kernel)) == 1


def _average_squares(values: openvino.Output) -> openvino.Output:
    """Average the squares of ``(B, C, ...)`` over all axes but the first two, without a volume of squares."""
    last = len(values.get_partial_shape()) - 1
    width = list(values.get_partial_shape())[last].get_length()
    norm = opset13.reduce_l2(values, np.array([last]), True)
    return _average_blocks(opset13.multiply(norm, opset13.multiply(norm, np.float32(1 / width))).output(0))


def _average_blocks(values: openvino.Output) -> openvino.Output:
    """Average ``(B, C, ...)`` over all axes but the first two, block by block."""
    sides = [side.get_length() for side in list(values.get_partial_shape())[2:]]
    while max(sides) > 1:
        block = [_choose_block_side(side) for side in sides]
        none = [0] * len(sides)
        values = opset13.avg_pool(values, block, none, none, block, True).output(0)
        sides = [side // step for side, step in zip(sides, block, strict=True)]
    return values


def _choose_block_side(side: int) -> int:
    """Return the largest divisor of a side up to ``MAX_BLOCK_SIDE``; the side itself if it has none."""
    divisors = [step for step in range(2, MAX_BLOCK_SIDE + 1) if side % step == 0]
    return max(divisors, default=side)
