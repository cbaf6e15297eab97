"""PyTorch stand-ins for the compiled mmcv operators that detectors use.

This file imports nothing: ``import mmkd`` runs it, and must stay free of torch.
"""
