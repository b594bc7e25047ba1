# Sourced by scripts/setup, test, demo and env.sh: which ROS there is and which environment goes
# with it. Sets ROS_KIND (system, wheels or none), DISTRO, BASE_PYTHON and VENV; runs nothing else.
# shellcheck shell=bash

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# The first of the given interpreters that is 3.10 or newer, and no environment's own: one that
# calls this from an activated environment still gets the interpreter behind it.
find_python() {
  local candidate
  for candidate in "$@"; do
    if "$candidate" -c 'import sys
ok = sys.version_info >= (3, 10) and sys.prefix == sys.base_prefix
sys.exit(not ok)' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

# A ROS from apt or from source, sourced in this shell, with Python bindings for its interpreter.
find_system_ros_python() {
  local candidate
  if [ -z "${ROS_DISTRO-}" ] || [ -z "${AMENT_PREFIX_PATH-}" ]; then return 1; fi
  for candidate in ${PYTHON-} /usr/bin/python3 python3; do
    if find_python "$candidate" >/dev/null && "$candidate" -c 'import rclpy' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

choose_ros() {
  if [ "${ROS_DISTRO-}" = none ]; then
    ROS_KIND=none
    DISTRO=none
  elif BASE_PYTHON=$(find_system_ros_python); then
    ROS_KIND=system
    DISTRO=$ROS_DISTRO
  else
    ROS_KIND=wheels
    DISTRO=${ROS_DISTRO:-jazzy}
  fi
  if [ -z "${BASE_PYTHON-}" ]; then
    # shellcheck disable=SC2086  # an unset PYTHON is no candidate
    BASE_PYTHON=$(find_python ${PYTHON-} python3 python3.13 python3.12 python3.11 python3.10 \
      /usr/bin/python3) || BASE_PYTHON=
  fi
}

# .venv, unless it belongs to another ROS already: then one named after this ROS, beside it.
choose_venv() {
  VENV_OWNER="$ROS_KIND $DISTRO"
  if [ -n "${RAY_POSE_VENV-}" ]; then
    VENV=$RAY_POSE_VENV
    case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
    if [ "$(venv_owner "$VENV")" != "$VENV_OWNER" ]; then
      die "RAY_POSE_VENV=$VENV is for '$(venv_owner "$VENV")', not for '$VENV_OWNER'." \
        'Name another folder, or delete this one.'
    fi
  elif [ "$(venv_owner "$REPO/.venv")" = "$VENV_OWNER" ]; then
    VENV=$REPO/.venv
  elif [ "$ROS_KIND" = system ]; then
    VENV=$REPO/.venv-$DISTRO-system
  else
    VENV=$REPO/.venv-$DISTRO
  fi
}

# What an environment is for; one that no setup has marked yet is for whoever comes.
venv_owner() { cat "$1/ray_pose_ros.owner" 2>/dev/null || printf '%s' "$VENV_OWNER"; }

# The environment's programs, and its prefix where ament looks for share/ and lib/.
enter_venv() {
  export PATH="$VENV/bin:$PATH"
  case ":${AMENT_PREFIX_PATH-}:" in
    *":$VENV:"*) ;;
    *) export AMENT_PREFIX_PATH="$VENV${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}" ;;
  esac
  # A name of a ROS that is not there would mislead whatever asks.
  [ "$DISTRO" = none ] || export ROS_DISTRO="$DISTRO"
}

# Away from every other ROS on the network, and from other runs on this machine.
isolate_ros() {
  export ROS_DOMAIN_ID="${ROS_DOMAIN_ID:-$((1 + $$ % 100))}"
  export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
  # Humble knows only this name, the later ones warn about it.
  [ "$DISTRO" != humble ] || export ROS_LOCALHOST_ONLY=1
}
