"""Pseudo-labels: what teachers find in a folder of images, written as labels."""

from mmkd.label.command import label_folder

__all__ = ['label_folder']
