"""SIFT of OpenCV with RootSIFT descriptors, mutual nearest neighbours and the ratio test."""

from __future__ import annotations

import cv2
import numpy as np

from .features import Features, Matches, check_features, check_image, on_mask, working_image
from .nearest import mutual_nearest


class SiftMatcher:
    """The matcher that is always there. See create_matcher for the arguments.

    Source: Arandjelovic and Zisserman, "Three things everyone should know to improve object
    retrieval", 2012, section 3, for the square root that makes Euclidean distance Hellinger's.
    """

    name = 'sift'

    def __init__(self, max_side: int = 1600, max_features: int = 4096, max_ratio: float = 0.8):
        self.max_side = max_side
        self.max_features = max_features
        self.max_ratio = max_ratio

    def extract(self, image: np.ndarray, mask: np.ndarray | None = None) -> Features:
        """See Matcher.extract; `extra` has scale (pixels) and angle (radians)."""
        check_image(image, mask)
        working = working_image(image, mask, self.max_side)
        keypoints, descriptors = [], None
        if working is not None:
            # with a mask the best are chosen among those on it, below
            limit = self.max_features if mask is None else 0
            sift, shift = _create(limit)
            grey = cv2.cvtColor(working.image, cv2.COLOR_RGB2GRAY)
            keypoints, descriptors = sift.detectAndCompute(grey, None)
        height, width = image.shape[:2]
        if not keypoints:
            empty = np.zeros(0)
            return Features(
                np.zeros((0, 2)),
                np.zeros((0, 128), dtype=np.float32),
                empty,
                width,
                height,
                {'scale': empty, 'angle': empty},
                self.name,
            )
        # OpenCV's pixel centres are at whole numbers
        centres = np.array([k.pt for k in keypoints], dtype=np.float64) + 0.5 + shift
        features = Features(
            working.to_image(centres),
            _root(descriptors),
            np.array([k.response for k in keypoints], dtype=np.float64),
            width,
            height,
            {
                'scale': np.array([k.size for k in keypoints]) / 2 / working.scale.mean(),
                'angle': np.radians([k.angle for k in keypoints]),
            },
            self.name,
        )
        features = features.take(on_mask(features.points, mask))
        order = np.argsort(-features.scores, kind='stable')
        return features.take(order[: self.max_features])

    def match(self, a: Features, b: Features) -> Matches:
        """See Matcher.match."""
        check_features(a, b, self.name)
        found = mutual_nearest(a.descriptors, b.descriptors, self.max_ratio)
        # a point with two orientations is there twice: one match between two places is enough
        places = np.concatenate([a.points[found.indices[:, 0]], b.points[found.indices[:, 1]]], 1)
        order = np.argsort(-found.scores, kind='stable')
        _, first = np.unique(places[order].round(2), axis=0, return_index=True)
        keep = np.sort(order[first])
        return Matches(found.indices[keep], found.scores[keep])


def _create(limit: int):
    """OpenCV's SIFT, and what to add to its points (pixels).

    COLMAP's contrast threshold: half of OpenCV's, since plain objects have little texture.
    """
    settings = {'nfeatures': limit, 'contrastThreshold': 0.02}
    try:
        return cv2.SIFT_create(**settings, enable_precise_upscale=True), 0.0
    except TypeError:
        # OpenCV before 4.8 has a doubled image whose pixel centres lie a quarter pixel off
        return cv2.SIFT_create(**settings), -0.25


def _root(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT: unit sum, then the root, so that the length is 1; (M, 128) float32."""
    positive = np.maximum(descriptors, 0)
    total = np.maximum(positive.sum(1, keepdims=True), 1e-12)
    return np.sqrt(positive / total).astype(np.float32)
