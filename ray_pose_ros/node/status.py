"""`~/status`: in one latched message, whether the poses can be used and what they mean."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from ray_pose_ros.node.outputs import LATCHED


class Status:
    """Publishes a DiagnosticStatus whenever it differs from the last one."""

    def __init__(self, node) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticStatus, '~/status', LATCHED)
        self._last: DiagnosticStatus | None = None

    def update(
        self,
        state: str,
        enabled: bool,
        solved,
        lost: str | None,
        scale: str,
        matching: str,
        settings,
    ) -> None:
        """
        Publish what is so now; `solved` is the last estimate that still holds, or None.

        `scale` says in words what the unit of lengths is, `matching` how far that is, if it is.
        """
        level, message = DiagnosticStatus.OK, 'tracking'
        caution = solved.estimate.caution if solved is not None else None
        if lost:
            level, message = DiagnosticStatus.WARN, f'lost: {lost}'
            if caution:
                message += f'; {caution}'
        elif solved is None:
            message = f'waiting for {settings.min_views} keyframes'
        elif caution:
            message = f'tracking, but {caution}'
        if matching and solved is not None:
            message += f'; matching {matching}'
        if not enabled:
            message = 'paused'
        if state != 'active':
            message = f'the node is {state}'
        values = {
            'state': state,
            'scale': scale,
            'reference_frame': settings.reference_frame,
            'object_frame': settings.object_frame,
            'keyframes': 0 if solved is None else len(solved.keyframes),
        }
        if solved is not None and solved.mapped is not None:
            mapped = solved.mapped.keyframes
            values['map'] = f'{len(mapped)} keyframes, reference {mapped[0].name}'
        if solved is not None:
            values.update(_keyframes(solved))
        name = self._node.get_fully_qualified_name()
        status = DiagnosticStatus(
            level=level,
            name=name,
            hardware_id=name,
            message=message,
            values=[KeyValue(key=k, value=str(v)) for k, v in values.items()],
        )
        if status != self._last:
            self._last = status
            self._publisher.publish(status)


def _keyframes(solved) -> dict[str, str]:
    """Describe every keyframe of a window under its frame's name."""
    out = {}
    for i, keyframe in enumerate(solved.keyframes):
        seconds, rest = divmod(keyframe.stamp_ns, 1_000_000_000)
        out[keyframe.name] = (
            f'camera {keyframe.camera}, stamp {seconds}.{rest:09d}, '
            f'rotation_sigma {float(solved.estimate.rotation_sigma[i]):.4f} rad, '
            f'centre_sigma {float(solved.estimate.centre_sigma[i]):.4f}'
        )
    return out
