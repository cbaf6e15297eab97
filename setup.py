"""Package metadata. ``pip install -e .`` for work on mmkd, ``pip install .[deploy]`` to export."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'mmkd/__init__.py').read_text()).group(1)

setup(
    name='mmkd',
    version=VERSION,
    description='Multi-teacher knowledge distillation of object detectors on MMDetection',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmkd', 'mmkd.*']),
    # Where OpenMMLab's tools look for them; in a clone these are links to the repository's folders.
    package_data={'mmkd': ['.mim/*.yml'] + [f'.mim/**/*.{suffix}' for suffix in
                                            ('py', 'sh', 'md', 'txt', 'yml')],
                  'mmkd.report': ['*.jinja']},
    entry_points={'console_scripts': ['mmkd=mmkd.commands:main']},
    # The onedl packages are the maintained distributions of mmengine, mmcv and mmdet.
    install_requires=[
        'torch>=2.4',
        'onedl-mmengine>=0.10.12',
        'onedl-mmcv>=2.3.6',
        'onedl-mmdetection>=3.5.1',
        'pycocotools>=2.0.8',
        'filelock>=3.12',
        'scipy>=1.10',
        'tqdm>=4.65',
    ],
    extras_require={
        'deploy': ['onnx>=1.17', 'onnxscript>=0.3', 'onnxruntime>=1.20', 'pillow>=9.1'],
        'vis': ['jinja2>=3.1', 'matplotlib>=3.8', 'tensorboard>=2.17', 'scikit-learn>=1.5'],
        'docs': ['mkdocs-material>=9.5', 'mkdocstrings[python]>=0.26'],
        'completion': ['argcomplete>=3'],
        'label': ['ensemble-boxes>=1.0.9'],
        'timm': ['timm>=1.0.15', 'torchvision'],  # the torchvision that belongs to torch
        'transformers': ['transformers>=5', 'safetensors>=0.4'],
        'dev': ['argcomplete>=3', 'pytest>=8', 'pytest-xdist>=3.5', 'ruff>=0.8'],
    },
)
