"""Check an exported model against the PyTorch model that it came from."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkd.classification import Classifier
from mmkd.classification.data.images import center_crop, to_tensor
from mmkd.deploy.device.metadata import ModelMetadata
from mmkd.deploy.device.runtime import Detections
from mmkd.deploy.export.agreement import (
    FLOAT16,
    FLOAT32,
    Agreement,
    MismatchError,
    Tolerance,
    check_detections,
    check_scores,
    predict_maps,
)
from mmkd.deploy.export.image_graph import preprocessing_model
from mmkd.deploy.export.predictions import compare_predictions, random_sizes, samples_of_sizes
from mmkd.errors import UserError
from mmkd.images import load_image
from mmkd.registry import DATASETS

__all__ = ['Image', 'Run', 'check_images', 'check_random', 'dataset_images', 'find_images']

IMAGES_PER_FOLDER = 20
# Of a prepared image: what interpolating in another order or arithmetic may change, and what
# float32 leaves.
GREY_LEVELS, ROUNDING = 1, 0.05

# From the exported model's inputs (`image`, and `sizes` if it takes them) to its outputs.
Run = Callable[..., Sequence[np.ndarray]]
# A file, or (h, w, 3) uint8 in BGR order.
Image = str | os.PathLike | np.ndarray
# From an image to (3, H, W) float32, and the factors (fx, fy) by which it was scaled.
Prepare = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def find_images(paths: Sequence[str | os.PathLike]) -> list[Path]:
    """Return the image files among ``paths``, and the first 20 by name of each folder.

    Raises:
        UserError: If a path does not exist, or a folder holds no image.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.iterdir()
                           if file.suffix.lower() in ('.jpg', '.jpeg', '.png'))
            if not files:
                raise UserError(f"folder '{path}' holds no .jpg, .jpeg or .png file: correct "
                                '--images')
            found += files[:IMAGES_PER_FOLDER]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"'{path}' does not exist: correct --images")
    return found


def dataset_images(cfg: Config, count: int) -> list[Image]:
    """Return the first images of the config's test data set, as files if it has them.

    Raises:
        UserError: If the data set is missing or empty.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmkd')):
        try:
            dataset = DATASETS.build(cfg.test_dataloader.dataset)
        except FileNotFoundError as error:
            raise UserError(f"the test data set is incomplete, '{error.filename}' is missing: put "
                            'it there, or give --images instead of --data') from error
    count = min(count, len(dataset))
    if not count:
        raise UserError('the test data set of the config is empty: give --images instead of --data')
    if hasattr(dataset, 'paths'):
        return list(map(str, dataset.paths[:count]))
    if hasattr(dataset, 'images'):
        return list(dataset.images[:count].flip(1).permute(0, 2, 3, 1).numpy())
    return [dataset.get_data_info(index)['img_path'] for index in range(count)]


def check_random(run: Run, model: nn.Module, metadata: ModelMetadata) -> Agreement:
    """Compare on random inputs, in a batch of one and a batch of three, or in the fixed one.

    Where the size is dynamic, a wider and a lower input follow. A model that takes images gets
    noise of several sizes.

    Raises:
        MismatchError: If the results differ.
    """
    (height, width), step = metadata.input_size, metadata.size_divisor
    if metadata.input_kind == 'image':
        generator = np.random.default_rng(0)
        sizes = ((height, width), (height * 2, width), (height // 2 + 1, width - 1))
        return check_images(run, model, metadata, [
            generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes])
    shapes = [(batch, height, width) for batch in ((metadata.batch,) if metadata.batch else (1, 3))]
    if metadata.dynamic_size:
        lower = max(height // 2 // step, 1) * step
        shapes += [(shapes[0][0], height, width + step), (shapes[-1][0], lower, width)]
    generator = torch.Generator().manual_seed(0)
    agreement = Agreement()
    for batch, *size in shapes:
        inputs = torch.randn(batch, 3, *size, generator=generator)
        sizes = random_sizes(batch, size, metadata)
        outputs = _outputs(run, inputs.numpy(), sizes, metadata)
        agreement.add(_compare(outputs, model, inputs, metadata, samples_of_sizes(sizes, size)))
    return agreement


def _outputs(run: Run, images: np.ndarray, sizes: Sequence[tuple[int, int]],
             metadata: ModelMetadata) -> list[np.ndarray]:
    inputs = metadata.feed(images.astype(_dtype(metadata)), sizes).values()
    return list(run(*inputs))


def check_images(run: Run, model: nn.Module, metadata: ModelMetadata,
                 images: Sequence[Image]) -> Agreement:
    """Compare on images, from the file to boxes in its pixels or to probabilities.

    PyTorch's side goes through the test data's transforms of ``model.cfg`` and the model's data
    preprocessor, the other through :meth:`ModelMetadata.prepare` or the nodes in front of the
    exported model. Where those need not give the same pixels (they may differ by one grey level:
    inside the graph, and where an image is averaged to a smaller one), the pixels are compared
    first, and PyTorch's network gets those of the exported model.

    Args:
        run: The exported model.
        model: The PyTorch model.
        metadata: Of the exported model.
        images: Files or arrays.

    Raises:
        UserError: If a file cannot be read; names it.
        MismatchError: If the results differ; names the file.
    """
    prepare = _preparation(metadata)
    pytorch_inputs = _pytorch_inputs(model, metadata, prepare)
    agreement = Agreement()
    for index, image in enumerate(images):
        pixels = _pixels(image)
        prepared, factors = prepare(pixels)
        expected, sample = pytorch_inputs(image)
        if metadata.input_kind == 'image':
            outputs = run(pixels)
        else:
            batch = np.repeat(prepared[None], metadata.batch or 1, axis=0)
            sizes = [metadata.scaled_size(*pixels.shape[:2])] * len(batch)
            outputs = [output[:1] for output in _outputs(run, batch, sizes, metadata)]
            if metadata.task == 'detection':
                outputs[0] = outputs[0] / np.tile(factors, 2)
        try:
            difference = _check_pixels(prepared, expected, metadata)
            agreement.add(_compare(outputs, model, torch.from_numpy(prepared)[None], metadata,
                                   [sample]))
        except MismatchError as error:
            name = (f'image {index} of the data' if isinstance(image, np.ndarray)
                    else f"'{os.fspath(image)}'")
            raise MismatchError(f'on {name} {error}') from error
        agreement.pixel_difference = max(agreement.pixel_difference, difference)
    return agreement


def _dtype(metadata: ModelMetadata) -> type:
    return np.float16 if metadata.precision == 'float16' else np.float32


def _tolerance(metadata: ModelMetadata) -> Tolerance:
    return FLOAT16 if metadata.precision == 'float16' else FLOAT32


def _preparation(metadata: ModelMetadata) -> Prepare:
    """What prepares images for the exported model."""
    if metadata.input_kind == 'tensor':
        return metadata.prepare
    # As for a network in float32: half precision belongs to the network's share of the difference.
    proto = preprocessing_model(replace(metadata, precision='float32'), opset=18, ir_version=10)
    session = onnxruntime.InferenceSession(proto.SerializeToString(),
                                           providers=['CPUExecutionProvider'])

    def prepare(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prepared, factors = session.run(['input', 'factors'], {'image': image})
        return prepared[0], factors[:2]

    return prepare


def _pytorch_inputs(model: nn.Module, metadata: ModelMetadata, prepare: Prepare) -> Callable:
    """What brings an image, a file or an array, to ``(3, H, W)`` in testing.

    The second that it returns is a detector's data sample, None of a classifier.
    """
    if metadata.task == 'detection':
        return _detector_inputs(model)

    def load(image: Image) -> tuple[np.ndarray, None]:
        pixels = _pixels(image)
        if metadata.resize_mode == 'crop':
            rgb = center_crop(pixels[..., ::-1], min(metadata.resize_to), metadata.input_size[0])
        elif pixels.shape[:2] == metadata.input_size:
            rgb = pixels[..., ::-1]
        else:
            # Images of this data set have one size: testing would not take another.
            return prepare(pixels)[0], None
        batch = model.data_preprocessor(dict(inputs=to_tensor(rgb)[None]))
        return batch['inputs'][0].numpy(), None

    return load


def _detector_inputs(model: nn.Module) -> Callable:
    steps = get_test_pipeline_cfg(model.cfg)
    with DefaultScope.overwrite_default_scope(model.cfg.get('default_scope', 'mmkd')):
        of_file = Compose(steps)
        of_array = Compose([dict(steps[0], type='mmdet.LoadImageFromNDArray'), *steps[1:]])

    def load(image: Image) -> tuple[np.ndarray, DetDataSample]:
        sample = (of_array(dict(img=image, img_id=0)) if isinstance(image, np.ndarray)
                  else of_file(dict(img_path=os.fspath(image), img_id=0)))
        batch = model.data_preprocessor(
            dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]))
        return batch['inputs'][0].numpy(), batch['data_samples'][0]

    return load


def _pixels(image: Image) -> np.ndarray:
    return image if isinstance(image, np.ndarray) else load_image(image)


def _check_pixels(prepared: np.ndarray, expected: np.ndarray, metadata: ModelMetadata) -> float:
    """Return the largest difference of two prepared images in grey levels.

    Raises:
        MismatchError: If they differ by more than what these two ways of scaling explain.
    """
    if prepared.shape != expected.shape:
        raise MismatchError(f'the prepared image has the shape {prepared.shape}, in PyTorch '
                            f'{expected.shape}')
    std = np.array(metadata.std)[:, None, None]
    difference = float((np.abs(prepared - expected) * std).max())
    exact = metadata.input_kind == 'tensor' and metadata.resize_mode != 'crop'
    allowed = ROUNDING if exact else GREY_LEVELS + ROUNDING
    if not difference <= allowed:
        raise MismatchError(f'the prepared image differs by {difference:.2g} grey levels')
    return difference


def _compare(outputs: Sequence[np.ndarray], model: nn.Module, inputs: Tensor,
             metadata: ModelMetadata, samples: Sequence[DetDataSample | None]) -> Agreement:
    """Compare the outputs for a batch of prepared images with PyTorch's, in float32.

    Args:
        outputs: Of the exported model.
        model: The PyTorch model.
        inputs: ``(N, 3, H, W)`` float32.
        metadata: Of the exported model.
        samples: What belongs to the inputs of a detector; boxes are in pixels of the images before
            these were scaled.
    """
    agreement, tolerance = Agreement(), _tolerance(metadata)
    if isinstance(model, Classifier):
        with torch.no_grad():
            expected = model(inputs).softmax(1).numpy()
        for one in zip(*outputs, expected, strict=True):
            agreement.add(check_scores(*one, tolerance))
        return agreement
    factors = np.array([sample.scale_factor for sample in samples])
    tolerance = tolerance._replace(box=tolerance.box / min(1, factors.min()))
    if metadata.nms is not None or metadata.takes_sizes:
        return compare_predictions(outputs, model, inputs, samples, metadata.nms, tolerance)
    kernel = model.bbox_head.test_cfg.local_maximum_kernel
    heatmaps, boxes = predict_maps(model, inputs)
    boxes = boxes / np.tile(factors, 2)[:, None, None]
    for *one, heatmap, cells in zip(*outputs, heatmaps, boxes, strict=True):
        agreement.add(check_detections(Detections(*one), heatmap, cells, kernel, tolerance))
    return agreement
