# Sourced by scripts/setup, test, demo and env.sh: which ROS there is and which environment goes
# with it. Sets ROS_KIND (system, wheels or none), DISTRO, BASE_PYTHON and VENV; runs nothing else.
# shellcheck shell=bash disable=SC2034  # those who source this use the variables

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# The first of the given interpreters that is 3.10 or newer. For an environment's own one, as in a
# shell with an activated environment, this is the interpreter behind it.
find_python() {
  local candidate
  for candidate in "$@"; do
    if "$candidate" -c 'import sys
if sys.version_info < (3, 10):
    sys.exit(1)
print(sys._base_executable)' 2>/dev/null; then
      return 0
    fi
  done
  return 1
}

# Is a ROS from apt or from source sourced in this shell? (Not one in an environment of wheels.)
system_ros_is_sourced() {
  local prefix prefixes
  [ -n "${ROS_DISTRO-}" ] || return 1
  IFS=: read -ra prefixes <<<"${AMENT_PREFIX_PATH-}"
  for prefix in ${prefixes[@]+"${prefixes[@]}"}; do
    if [ -d "$prefix/share/rclpy" ] && [ ! -e "$prefix/pyvenv.cfg" ]; then return 0; fi
  done
  return 1
}

# The interpreter that such a ROS was built for.
find_system_ros_python() {
  local candidate python candidates=(/usr/bin/python3 python3)
  [ -z "${PYTHON-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if python=$(find_python "$candidate") && "$python" -c 'import rclpy' 2>/dev/null; then
      printf '%s\n' "$python"
      return 0
    fi
  done
  return 1
}

choose_ros() {
  local candidates=(python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3)
  [ -z "${PYTHON-}" ] || candidates=("$PYTHON")
  if [ "${ROS_DISTRO-}" = none ]; then
    ROS_KIND=none
    DISTRO=none
  elif system_ros_is_sourced; then
    ROS_KIND=system
    DISTRO=$ROS_DISTRO
    BASE_PYTHON=$(find_system_ros_python) ||
      die "ROS 2 $DISTRO is sourced, but no Python here can import its rclpy." \
        'Name the one it was built for: PYTHON=/path/to/python3 (apt: /usr/bin/python3),' \
        'or begin in a shell where no ROS is sourced.'
    return
  else
    ROS_KIND=wheels
    DISTRO=${ROS_DISTRO:-jazzy}
    # Nothing of another ROS may stand before the wheels.
    unset PYTHONPATH
  fi
  BASE_PYTHON=$(find_python "${candidates[@]}") || BASE_PYTHON=
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
