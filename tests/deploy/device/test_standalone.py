"""The folder `device`, copied alone into a program, needs NumPy, OpenCV and onnxruntime alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from handmade_models import metadata, save

import mmkd

ROOM = Path(mmkd.__file__).parent / 'deploy/device'
PROGRAM = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'mmengine', 'mmcv', 'mmdet', 'onnx'):
            raise RuntimeError(f'{name} is not to be imported')
        if name.partition('.')[0] == 'mmkd':  # as where it is not installed
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Refuses())
import cv2
from eyes import Classifier, Detector, open_model
from eyes.drawing import draw
from eyes.files import written_atomically
from eyes.sources import Sources
from eyes.standalone import UserError

detector = Detector('detector.onnx')
for path, _, image in Sources(['photo.png']):
    found = detector(image)
    print(path, found.labels.tolist(), [detector.classes[label] for label in found.labels])
    print(found.boxes.tolist())
    assert (draw(image, found, detector.classes) != image).any()
print(Classifier('classifier.onnx')(image, topk=1).labels.tolist())
try:
    open_model('photo.png')
except UserError as error:
    print(error)
"""


def test_alone_in_a_program(tmp_path):
    shutil.copytree(ROOM, tmp_path / 'eyes', ignore=shutil.ignore_patterns('__pycache__'))
    save(tmp_path / 'detector.onnx', metadata())
    save(tmp_path / 'classifier.onnx', metadata(task='classification'))
    # As bright in red as can be, some green, no blue; twice as large as the input.
    cv2.imwrite(str(tmp_path / 'photo.png'), np.full((16, 16, 3), (0, 100, 250), np.uint8))
    (tmp_path / 'program.py').write_text(PROGRAM)
    done = subprocess.run([sys.executable, 'program.py'], cwd=tmp_path, capture_output=True,
                          text=True, env={'PATH': ''})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "photo.png [2, 1] ['red', 'green']",
        '[[0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 16.0, 16.0]]',
        '[2]',
        "model 'photo.png' is truncated or no ONNX model: export or copy it again"]
