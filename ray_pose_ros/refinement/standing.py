"""Matches on what stands still in front of a camera while the object moves.

On a turntable the room behind the object says that no camera has moved, and says it with more and
better matches than the object has. So does the gripper that a wrist camera sees, or what a
recording has printed on its images. Of a scene that a camera moves in, points come back to their
own pixels by chance only; of views from one and the same place, all do.
"""

from __future__ import annotations

import numpy as np

from ray_pose_ros.multiview.two_view import RayMatches

_STILL, _FAR = 2.0, 10.0  # deviations of a match: has not moved, and is where it never was
_FEWEST, _SHARE = 8, 0.05  # matches of either kind


def without_standing(matches: RayMatches) -> RayMatches:
    """Matches of two views without those that have not moved in the image, if others have.

    The two cameras may be one or several: what has the same ray in both has not moved. All matches
    where nothing has moved, or nearly nothing but wrong matches, and where little has not.
    """
    moved = np.linalg.norm(matches.a - matches.b, axis=1) / matches.sigma
    still, rest = moved < _STILL, moved > _FAR
    if min(still.sum(), rest.sum()) < max(_FEWEST, _SHARE * len(matches)):
        return matches
    return matches.take(~still)
