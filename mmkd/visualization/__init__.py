"""Pictures of what networks have learnt."""

from mmkd.visualization.embeddings import Panel, visualize_embeddings

__all__ = ['Panel', 'visualize_embeddings']
