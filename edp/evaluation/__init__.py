"""Evaluates trained networks: predictions, scores, costs and disagreement."""
