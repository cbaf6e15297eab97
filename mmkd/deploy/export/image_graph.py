"""Preprocessing as ONNX nodes in front of a model, so that it takes the image as it was read."""

import onnx
from onnx import ModelProto, helper

from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.errors import UserError

__all__ = ['preprocessing_model', 'with_preprocessing']

# How large an image becomes, `size` (height and width, int64), as ModelMetadata.scaled_size.
_SIZES = dict(
    # In double precision, so that a half is rounded as there.
    letterbox="""
        longest = ReduceMax (sides)
        shortest = ReduceMin (sides)
        limited = Concat <axis = 0> (longest, shortest, sides)
        lengths = Cast <to = 11> (limited)
        limits = Constant <value = double[4] {{{longest}, {shortest}, {height}, {width}}}> ()
        ratios = Div (limits, lengths)
        factor = ReduceMin (ratios)
        exact = Mul (precise_sides, factor)
        half = Constant <value = double {{0.5}}> ()
        raised = Add (exact, half)
        rounded = Cast <to = 7> (raised)
        one = Constant <value = int64 {{1}}> ()
        size = Max (rounded, one)
        """,
    crop="""
        shortest = ReduceMin (sides)
        resize = Constant <value = int64 {{{shortest}}}> ()
        enlarged = Mul (sides, resize)
        size = Div (enlarged, shortest)
        """,
    stretch="""
        size = Constant <value = int64[2] {{{height}, {width}}}> ()
        """)

_PADS = """
        input_size = Constant <value = int64[2] {{{height}, {width}}}> ()
        free = Sub (input_size, size)
        before = Constant <value = int64[6] {{0, 0, 0, 0, 0, 0}}> ()
        pads = Concat <axis = 0> (before, free)
        """
# From `normalised` (1, 3, *size) to `filled` (1, 3, H, W).
_FILLS = dict(
    letterbox=_PADS + """
        padding = Constant <value = float {{{pad_value}}}> ()
        filled = Pad (normalised, pads, padding)
        """,
    # Another value for each channel: Pad knows one.
    channels=_PADS + """
        padding = Constant <value = float[1, 3, 1, 1] {{{pad_value}}}> ()
        above_padding = Sub (normalised, padding)
        padded = Pad (above_padding, pads)
        filled = Add (padded, padding)
        """,
    crop="""
        input_size = Constant <value = int64[2] {{{height}, {width}}}> ()
        free = Sub (size, input_size)
        exact_free = Cast <to = 11> (free)
        two = Constant <value = double {{2}}> ()
        exact_start = Div (exact_free, two)
        whole_start = Round (exact_start)
        start = Cast <to = 7> (whole_start)
        end = Add (start, input_size)
        axes = Constant <value = int64[2] {{2, 3}}> ()
        filled = Slice (normalised, start, end, axes)
        """,
    stretch="""
        filled = Identity (normalised)
        """)

_PREPARE = """
    <ir_version: {ir_version}, opset_import: ["" : {opset}]>
    prepare (uint8[height, width, 3] image) => ({type}[1, 3, {height}, {width}] input,
                                                float[4] factors{sizes_output}) {{
        sides = Shape <end = 2> (image)
        precise_sides = Cast <to = 11> (sides)
        {size}
        planes = Transpose <perm = [2, 0, 1]> (image)
        floats = Cast <to = 1> (planes)
        first = Constant <value = int64[1] {{0}}> ()
        batch = Unsqueeze (floats, first)
        whole = Constant <value = int64[2] {{1, 3}}> ()
        sizes = Concat <axis = 0> (whole, size)
        scaled = Resize <mode = "linear" {antialias}> (batch, , , sizes)
        pixels = {rounding} (scaled)
        order = Constant <value = int64[3] {{{order}}}> ()
        ordered = Gather <axis = 1> (pixels, order)
        mean = Constant <value = float[1, 3, 1, 1] {{{mean}}}> ()
        std = Constant <value = float[1, 3, 1, 1] {{{std}}}> ()
        centred = Sub (ordered, mean)
        normalised = Div (centred, std)
        {fill}
        input = Cast <to = {type_number}> (filled)
        precise_size = Cast <to = 11> (size)
        precise_factors = Div (precise_size, precise_sides)
        xyxy = Constant <value = int64[4] {{1, 0, 1, 0}}> ()
        four_factors = Gather (precise_factors, xyxy)
        factors = Cast <to = 1> (four_factors)
        {sizes}
    }}"""


def preprocessing_model(metadata: ModelMetadata, opset: int, ir_version: int) -> ModelProto:
    """Return :meth:`ModelMetadata.prepare` as a model.

    Pixels are interpolated in floating point and not, as there, in fixed point: they may differ
    by one grey level.

    Args:
        metadata: What it prepares for.
        opset: Version of the ONNX operators.
        ir_version: Version of the ONNX format.

    Returns:
        a model from ``image``, ``(h, w, 3)`` uint8 in BGR order, to ``input``, ``(1, 3, H, W)``
        float32 or, for a model in float16, float16, and ``factors``, ``(fx, fy, fx, fy)`` float32;
        for a model that takes sizes ``image_sizes``, ``(1, 2)`` int64, besides.

    Raises:
        UserError: If the operators cannot average, which scaling for a classifier does.
    """
    antialias = metadata.resize_mode != 'letterbox'
    if antialias and opset < 18:
        raise UserError(f'ONNX opset {opset} cannot scale an image as this model needs it: use '
                        '--opset 18 or leave --image-input out')
    height, width = metadata.input_size
    half = metadata.precision == 'float16'
    channels = isinstance(metadata.pad_value, tuple)
    values = dict(
        height=height, width=width, opset=opset,
        pad_value=(', '.join(map(repr, metadata.pad_value)) if channels else metadata.pad_value),
        sizes_output=', int64[1, 2] image_sizes' if metadata.takes_sizes else '',
        sizes='image_sizes = Unsqueeze (size, first)' if metadata.takes_sizes else '',
        ir_version=ir_version, longest=max(metadata.resize_to), shortest=min(metadata.resize_to),
        mean=', '.join(map(repr, metadata.mean)), std=', '.join(map(repr, metadata.std)),
        order='2, 1, 0' if metadata.channel_order == 'RGB' else '0, 1, 2',
        rounding='Round' if metadata.resize_dtype == 'uint8' else 'Identity',
        antialias=', antialias = 1, exclude_outside = 1' if antialias else '',
        type='float16' if half else 'float', type_number=10 if half else 1)
    parts = dict(size=_SIZES[metadata.resize_mode].format(**values),
                 fill=_FILLS['channels' if channels else metadata.resize_mode].format(**values))
    return onnx.parser.parse_model(_PREPARE.format(**values, **parts))


def with_preprocessing(proto: ModelProto, metadata: ModelMetadata) -> ModelProto:
    """Put the preprocessing in front of an exported model, and boxes into pixels of the image.

    Args:
        proto: A model whose input is ``image``, and ``sizes`` where it takes them, with a batch of
            1.
        metadata: What its images must look like.

    Raises:
        UserError: As :func:`preprocessing_model`.
    """
    opset, = (entry.version for entry in proto.opset_import if entry.domain == '')
    prepare = onnx.compose.add_prefix(
        preprocessing_model(metadata, opset, proto.ir_version), 'prepare/')
    outputs = {value.name: value for value in proto.graph.output}
    has_boxes = 'boxes' in outputs
    # What leads to no output is left out.
    sizes = [('prepare/image_sizes', 'sizes')] if metadata.takes_sizes else []
    joined = onnx.compose.merge_models(
        prepare, proto, io_map=[('prepare/input', 'image'), *sizes],
        outputs=[*outputs, *(['prepare/factors'] if has_boxes else [])])
    _rename(joined.graph, 'prepare/image', 'image')
    joined.graph.input[0].name = 'image'
    if has_boxes:
        _rename(joined.graph, 'boxes', 'boxes_of_input')
        joined.graph.node.append(helper.make_node(
            'Div', ['boxes_of_input', 'prepare/factors'], ['boxes'], 'scale_boxes'))
    del joined.graph.output[:]
    joined.graph.output.extend(outputs.values())
    del joined.graph.value_info[:]
    return joined


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
