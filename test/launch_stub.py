"""
A recording stand-in for `launch` and `launch_ros`, which do not exist as wheels.

Has the names that launch files of this package use, from the set that Humble has, and keeps what
they were given. `perform` works as in the real one for these substitutions.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from pathlib import Path


def perform(value, context) -> str:
    """Turn text, a substitution or a list of both into text."""
    if isinstance(value, (list, tuple)):
        return ''.join(perform(v, context) for v in value)
    return value.perform(context) if hasattr(value, 'perform') else str(value)


class Context:
    """Launch arguments and the environment that the launched processes get."""

    def __init__(self, arguments: dict[str, str], environment: dict[str, str], share: Path):
        self.configurations, self.environment = dict(arguments), dict(environment)
        self.share, self.nodes, self.declared = share, [], []


class LaunchConfiguration:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context.configurations[self.name]


class EnvironmentVariable:
    def __init__(self, name, *, default_value=None):
        self.name, self.default = name, default_value

    def perform(self, context):
        if self.name in context.environment:
            return context.environment[self.name]
        assert self.default is not None, f'{self.name} is not set and has no default'
        return perform(self.default, context)


class PathJoinSubstitution:
    def __init__(self, parts):
        self.parts = parts

    def perform(self, context):
        return os.path.join(*(perform(p, context) for p in self.parts))


class FindPackageShare:
    def __init__(self, package):
        assert package == 'ray_pose_ros'

    def perform(self, context):
        return str(context.share)


class DeclareLaunchArgument:
    def __init__(self, name, *, default_value=None, description=None, choices=None):
        self.name, self.default, self.description = name, default_value, description

    def execute(self, context):
        context.declared.append(self)
        if self.name not in context.configurations:
            context.configurations[self.name] = perform(self.default, context)


class SetEnvironmentVariable:
    def __init__(self, name, value):
        self.name, self.value = name, value

    def execute(self, context):
        context.environment[perform(self.name, context)] = perform(self.value, context)


class OpaqueFunction:
    def __init__(self, *, function, args=(), kwargs=None):
        self.function, self.args, self.kwargs = function, args, kwargs or {}

    def execute(self, context):
        for entity in self.function(context, *self.args, **self.kwargs) or ():
            entity.execute(context)


class IfCondition:
    def __init__(self, predicate):
        self.predicate = predicate

    def evaluate(self, context):
        return perform(self.predicate, context).lower() in ('true', '1')


class Node:
    KNOWN = {
        'package', 'executable', 'name', 'namespace', 'parameters', 'arguments', 'remappings',
        'output', 'emulate_tty', 'condition', 'respawn', 'respawn_delay',
    }  # fmt: skip

    def __init__(self, **kwargs):
        assert set(kwargs) <= self.KNOWN, f'unknown arguments {set(kwargs) - self.KNOWN}'
        self.kwargs = kwargs

    def execute(self, context):
        condition = self.kwargs.get('condition')
        if condition is None or condition.evaluate(context):
            self.environment = dict(context.environment)
            context.nodes.append(self)


class LaunchDescription:
    def __init__(self, entities):
        self.entities = entities


@contextlib.contextmanager
def installed():
    """Let `import launch` find this file's classes."""
    modules = {
        'launch': (LaunchDescription,),
        'launch.actions': (DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable),
        'launch.conditions': (IfCondition,),
        'launch.substitutions': (EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution),
        'launch_ros': (),
        'launch_ros.actions': (Node,),
        'launch_ros.substitutions': (FindPackageShare,),
    }
    before = {name: sys.modules.get(name) for name in modules}
    try:
        for name, members in modules.items():
            module = types.ModuleType(name)
            for member in members:
                setattr(module, member.__name__, member)
            sys.modules[name] = module
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
