# Puts what scripts/setup installed into this shell:   source scripts/env.sh
# `ray-pose`, `pose_node` and `camera_publisher` are on the PATH then, and with a ROS from apt
# `ros2 launch ray_pose_ros pose.launch.py` finds the package.
# shellcheck shell=bash

# Worked out in a shell of its own, so that this one gets three variables and nothing else.
# shellcheck disable=SC2016
if _ray_pose_exports=$(
  bash -c '. "$1/common.sh"
    choose_ros
    choose_venv
    [ -x "$VENV/bin/python" ] || die "there is no environment in $VENV yet: run scripts/setup"
    enter_venv
    printf "export %s=%q\n" PATH "$PATH" AMENT_PREFIX_PATH "$AMENT_PREFIX_PATH"
    [ "$DISTRO" = none ] || printf "export ROS_DISTRO=%q\n" "$ROS_DISTRO"' \
    bash "$(dirname "${BASH_SOURCE[0]:-$0}")"
); then
  eval "$_ray_pose_exports"
fi
unset _ray_pose_exports
