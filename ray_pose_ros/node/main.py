"""
Entry point of the node; exit code 0 after SIGINT or SIGTERM in any phase.

The signals are handled here and not by rclpy: its handlers raise KeyboardInterrupt wherever the
main thread happens to be, or take the context away under a publisher. A flag that is looked at
between two callbacks has no such moment. Before ROS is up there is nothing to tidy, so the process
just ends.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOP_S = 3.0  # launch kills a node that takes longer than 5 s


def _leave_at_once(signum, frame) -> None:
    os._exit(0)


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal comes or the context is shut down; returns the exit code."""
    for s in SIGNALS:
        signal.signal(s, _leave_at_once)
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from rclpy.utilities import remove_ros_args

    from ray_pose_ros.node.economy import settle
    from ray_pose_ros.node.parameter import ParameterError
    from ray_pose_ros.node.parameters import BY_NAME
    from ray_pose_ros.node.pose_node import PoseNode

    argparse.ArgumentParser(
        'pose_node',
        usage='%(prog)s [-h] [--ros-args -p NAME:=VALUE ... --params-file FILE]',
        description='Images of one or several cameras in, camera poses out.',
        epilog='parameters (docs/parameters.md): ' + ', '.join(BY_NAME),
    ).parse_args(remove_ros_args(args)[1:])
    stop = threading.Event()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for s in SIGNALS:
        signal.signal(s, lambda signum, frame: stop.set())
    node = executor = None
    code, ended, settled = 0, True, False
    try:
        node = PoseNode()
        node.stopping = lambda: stop.is_set() or not rclpy.ok()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not stop.is_set() and rclpy.ok():
            try:
                executor.spin_once(timeout_sec=0.1)
            except ExternalShutdownException:
                break
            except Exception as error:
                if not rclpy.ok():
                    break
                node.report_escaped(error)
            if settled != (node.health.model == 'ready'):
                settled = not settled
                if settled:  # here and not in the node: it is for the whole process
                    settle()
    except ParameterError as error:
        rclpy.logging.get_logger('ray_pose').fatal(str(error))
        code = 2
    finally:
        for s in SIGNALS:  # a second Ctrl-C must not interrupt the tidying up
            signal.signal(s, signal.SIG_IGN)
        if node is not None:
            ended = node.stop(_STOP_S)
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        if node is not None and ended:
            node.destroy_node()
        rclpy.try_shutdown()
    if not ended:
        # an inference that cannot be interrupted: do not wait for it, do not tear down under it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == '__main__':
    sys.exit(main())
