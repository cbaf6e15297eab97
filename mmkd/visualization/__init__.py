"""Pictures of what networks have learnt."""

from mmkd.visualization.comparison import Column, draw_comparison
from mmkd.visualization.embeddings import Panel, visualize_embeddings

__all__ = ['Column', 'Panel', 'draw_comparison', 'visualize_embeddings']
