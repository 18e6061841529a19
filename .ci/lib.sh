# Sourced by the scripts of this folder: where state lives, how to complain, how to install.

# Outside the repository: images are large, and a fresh clone should find those of the last run.
state=${ANYBROKER_ENGINE_DIR:-/var/tmp/anybroker-engine}
# dockerd, iptables and debootstrap live there, and not every shell has it on PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'ci: %s\n' "$*" >&2; }

fail() {
  say "error: $*"
  exit 1
}

# need COMMAND WHAT-TO-DO: stop with a sentence when a command is not there.
need() { command -v "$1" >/dev/null || fail "'$1' is missing. $2"; }

# apt_install PACKAGE...: never asks; refreshes the package lists only when it has to.
apt_install() {
  need apt-get "These packages are needed: $*."
  [ "$(id -u)" = 0 ] || fail "root is needed to install: $*."
  local get=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  local install=("${get[@]}" install --no-install-recommends "$@")
  say "installing $*"
  "${install[@]}" </dev/null >&2 || { "${get[@]}" update </dev/null >&2 && "${install[@]}" </dev/null >&2; } \
    || fail "could not install: $*."
}
