"""The list of parameters, declared on a node and kept checked."""

from __future__ import annotations

import dataclasses
import difflib

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

from ray_pose_ros.node.parameter import ANY, Parameter, ParameterError
from ray_pose_ros.node.parameters import BY_NAME, PARAMETERS
from ray_pose_ros.node.settings import Settings, make_settings

_OF_ROS = ('use_sim_time', 'start_type_description_service')  # declared later
_OF_TOPICS = 'qos_overrides'  # when they are subscribed to


def declare(node) -> Settings:
    """Declare all parameters on a node and check their start values; raises ParameterError."""
    values = {}
    for p in PARAMETERS:
        try:
            value = node.declare_parameter(p.name, p.default, descriptor(p)).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ParameterError(
                f'parameter {p.name} cannot be used, expected {p.expectation}: {error}'
            ) from None
        values[p.name] = value if isinstance(value, (str, bool, int, float)) else list(value or [])
    return make_settings(values)


def unknown_overrides(node, of_topics: bool = False) -> list[str]:
    """
    Say in a sentence each which parameters a node was started with that it does not have.

    ROS keeps them in silence, so that a misspelt one would do nothing. Those of the quality of
    service are told `of_topics` only, for when these have been subscribed to.
    """
    told = []
    for name in sorted(getattr(node, '_parameter_overrides', {})):
        if name.startswith(_OF_TOPICS) != of_topics or name.startswith(_OF_ROS):
            continue
        if not node.has_parameter(name):
            like = difflib.get_close_matches(name, node.get_parameters_by_prefix(''), 1)
            meant = f'; is {like[0]} meant?' if like else ''
            told.append(f'parameter {name} is not known and does nothing{meant}')
    return told


def descriptor(p: Parameter) -> ParameterDescriptor:
    """Describe a parameter to ROS; its tools then show text and range and check the latter."""
    out = ParameterDescriptor(
        name=p.name,
        description=p.description,
        read_only=p.read_only,
        additional_constraints=f'{p.expectation}; may change: {p.change}',
    )
    if p.minimum is not None and isinstance(p.default, int):
        out.integer_range = [IntegerRange(from_value=int(p.minimum), to_value=int(p.maximum))]
    elif p.minimum is not None and isinstance(p.default, float):
        out.floating_point_range = [
            FloatingPointRange(from_value=float(p.minimum), to_value=float(p.maximum))
        ]
    return out


def on_set(
    settings: Settings, parameters, state: str
) -> tuple[SetParametersResult, Settings | None]:
    """
    Judge a change of parameters in a lifecycle state.

    Returns the answer and, where the change is taken, the new settings. Parameters that are not in
    the list (use_sim_time, QoS overrides) pass.
    """
    values = {p.name: p.value for p in parameters if p.name in BY_NAME}
    values = {
        k: v if isinstance(v, (str, bool, int, float)) else list(v) for k, v in values.items()
    }
    for name in values:
        if BY_NAME[name].change != ANY and state != 'unconfigured':
            reason = (
                f'parameter {name} may change only while the node is unconfigured, but it is '
                f'{state}; deactivate and clean up first'
            )
            return SetParametersResult(successful=False, reason=reason), None
    try:
        changed = make_settings(dataclasses.asdict(settings) | values)
    except ParameterError as error:
        return SetParametersResult(successful=False, reason=str(error)), None
    return SetParametersResult(successful=True), changed
