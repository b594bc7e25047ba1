"""Relative camera poses from a few views of an object, by denoising the cameras' rays."""

__version__ = '0.1.0'
