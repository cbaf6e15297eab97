"""Small ONNX models whose results are known by hand.

The detector finds two objects, each as large as its input, with the two largest sigmoids of the
channels' means as scores and these channels as labels; the classifier's probabilities are the
softmax of the channels' means.
"""

import onnx

from mmkd.deploy.device.metadata import ModelMetadata

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'
DETECTOR = HEAD + """
net ({type}[{n}, 3, {h}, {w}] image)
        => ({type}[{n}, 2, 4] boxes, {type}[{n}, 2] scores, int64[{n}, 2] labels) {{
    axes = Constant <value = int64[2] {{2, 3}}> ()
    means = ReduceMean <keepdims = 0> (image, axes)
    probabilities = Sigmoid (means)
    two = Constant <value = int64[1] {{2}}> ()
    scores, labels = TopK (probabilities, two)
    sides = Shape <start = 2> (image)
    order = Constant <value = int64[4] {{1, 0, 1, 0}}> ()
    corners = Gather (sides, order)
    from_zero = Constant <value = int64[4] {{0, 0, 1, 1}}> ()
    whole_box = Mul (corners, from_zero)
    box = Cast <to = {number}> (whole_box)
    batch = Shape <end = 1> (image)
    rest = Constant <value = int64[2] {{2, 4}}> ()
    shape = Concat <axis = 0> (batch, rest)
    boxes = Expand (box, shape)
}}"""
CLASSIFIER = HEAD + """
net ({type}[{n}, 3, {h}, {w}] image) => ({type}[{n}, 3] scores) {{
    axes = Constant <value = int64[2] {{2, 3}}> ()
    means = ReduceMean <keepdims = 0> (image, axes)
    scores = Softmax <axis = 1> (means)
}}"""
# An image model: pixels as they are, divided by 100.
IMAGE_DETECTOR = HEAD + """
net (uint8[h, w, 3] image)
        => (float[1, 2, 4] boxes, float[1, 2] scores, int64[1, 2] labels) {
    floats = Cast <to = 1> (image)
    axes = Constant <value = int64[2] {0, 1}> ()
    means = ReduceMean <keepdims = 0> (floats, axes)
    hundred = Constant <value = float {100.0}> ()
    small = Div (means, hundred)
    probabilities = Sigmoid (small)
    rows = Constant <value = int64[2] {1, 3}> ()
    many = Reshape (probabilities, rows)
    two = Constant <value = int64[1] {2}> ()
    scores, labels = TopK (many, two)
    boxes = Constant <value = float[1, 2, 4] {1, 2, 3, 4, 5, 6, 7, 8}> ()
}"""


def metadata(**values):
    """Metadata that leaves pixels as they are, in BGR order, divided by 100."""
    return ModelMetadata(**(dict(
        classes=('blue', 'green', 'red'), input_size=(8, 8), channel_order='BGR', mean=(0., 0., 0.),
        std=(100., 100., 100.), resize_to=(8, 8)) | values))


def save(path, about, graph=None):
    """Write the model that fits its metadata; return the path."""
    if graph is None:
        if about.input_kind == 'image':
            graph = IMAGE_DETECTOR
        else:
            height, width = ('h', 'w') if about.dynamic_size else about.input_size
            half = about.precision == 'float16'
            graph = (DETECTOR if about.task == 'detection' else CLASSIFIER).format(
                type='float16' if half else 'float', number=10 if half else 1,
                n=about.batch or 'n', h=height, w=width)
    model = onnx.parser.parse_model(graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.helper.set_model_props(model, about.to_props())
    onnx.save(model, path)
    return path
