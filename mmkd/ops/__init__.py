"""PyTorch stand-ins for the few compiled mmcv operators that CenterNet uses.

This file imports nothing: ``import mmkd`` runs it, and must stay free of torch.
"""
