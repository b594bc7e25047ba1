"""Cameras, rays and similarity transforms: pure batched functions on tensors, no ROS, no model.

Every convention used here is stated once in docs/conventions.md.
"""
