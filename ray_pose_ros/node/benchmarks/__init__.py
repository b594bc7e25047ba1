"""ROS programs that `ray-pose benchmark --ros` starts, each in a process of its own."""
