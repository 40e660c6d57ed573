#!/usr/bin/env bash
# Tests Dockerfile and compose.yml for real: starts a dockerd of its own, makes a Debian with Node.js as
# the base image, builds, and plays the walk-through. Removes everything it made. Installs nothing;
# it wants root and Debian's docker.io, docker-compose (or the compose plugin) and debootstrap.
#
# The last line counts: `N passed, N failed, N skipped`. What it wants and cannot have is skipped, with
# a reason; exit code 1 is for failures alone.
set -euo pipefail
cd "$(dirname "$0")"

suite=bookworm
node=22
daemon_wait=40     # seconds
build_bound=300
play_bound=150
passed=0 failed=0 skipped=0
work='' daemon='' loops_before='' connections_before=''

say() { printf '%s\n' "$*"; }
pass() { say "ok: $*"; passed=$((passed + 1)); }
fail() { say "NOT OK: $*"; failed=$((failed + 1)); }
skip() {
  say "SKIPPED: $*"
  skipped=$((skipped + 1))
  [ -n "$work" ] || say "$passed passed, $failed failed, $skipped skipped"
  exit 0
}

# Loop devices that only the two nodes can have made: with their mounts, and after these are gone.
our_loops() {
  local file
  for file in /sys/block/loop*/loop/backing_file; do
    grep -Eqs '^(/volume|/run/hast-h[12]/shared/volume)$' "$file" || continue
    file=${file#/sys/block/}
    say "/dev/${file%%/*}"
  done
}

connections() { ls "$work/fusectl" 2>/dev/null || true; }

# Servers that are gone, with somebody waiting for them: new, and mounted nowhere outside of containers.
abort_dead() {
  local id
  for id in $(connections); do
    grep -qx "$id" <<<"$connections_before" && continue
    grep -q " 0:$id " /proc/self/mountinfo && continue
    echo 1 > "$work/fusectl/$id/abort" || true
  done
}

detach_loops() {
  local loop
  for loop in $(our_loops); do
    grep -qx "$loop" <<<"$loops_before" || losetup -d "$loop" || true
  done
}

end_process() {
  local pid=$1 tries
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    [ "$tries" -ne 0 ] || kill -TERM "$pid" 2>/dev/null || true
    sleep 0.2
  done
  kill -KILL "$pid" 2>/dev/null || true
}

stop_daemon() {
  local containerd=''
  containerd=$(cat "$work/exec/containerd/containerd.pid" 2>/dev/null) || true
  end_process "$daemon"
  # It ends with dockerd, unless that had to be killed.
  [ -z "$containerd" ] || end_process "$containerd"
}

clean_up() {
  local code=$? mounted
  trap - EXIT
  trap '' INT TERM HUP
  set +e
  if [ -n "$daemon" ]; then
    [ ! -S "$work/sock" ] || timeout 60 "${compose[@]}" --profile walk-through down -v -t 5 \
      >>"$work/down.log" 2>&1 || { abort_dead; timeout 30 "${compose[@]}" kill >/dev/null 2>&1; }
    abort_dead
    detach_loops
    stop_daemon
  fi
  if [ -n "$work" ]; then
    for mounted in $(awk '{ print $5 }' /proc/self/mountinfo | grep "^$work/" | sort -r); do
      umount "$mounted" || umount -l "$mounted"
    done
    rm -rf --one-file-system "$work"
  fi
  [ "$code" -eq 0 ] || [ "$failed" -gt 0 ] || fail "interrupted, or an error above (code $code)"
  say "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
  exit
}

needs() {
  [ "$(id -u)" -eq 0 ] || skip 'it starts dockerd: run it as root'
  local program
  for program in dockerd docker debootstrap npm losetup; do
    command -v "$program" >/dev/null || skip "$program is not installed: see README.md"
  done
  if docker compose version >/dev/null 2>&1; then compose=(docker compose)
  elif command -v docker-compose >/dev/null; then compose=(docker-compose)
  else skip 'neither docker compose nor docker-compose is installed: see README.md'
  fi
  compose+=(-p hast -f "$PWD/compose.yml")
  [ -e /dev/fuse ] || skip '/dev/fuse does not exist: modprobe fuse'
  [ -e /dev/loop-control ] || skip '/dev/loop-control does not exist: modprobe loop'
}

# Without rules of a firewall and without forwarding: nothing outside of its folder is changed but a
# bridge, which goes with the network. Builds use the machine's own network.
start_daemon() {
  setsid dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" \
    --containerd-namespace hast-test --containerd-plugins-namespace hast-test-plugins \
    -H "unix://$work/sock" --iptables=false --ip6tables=false --ip-forward=false --bridge=none \
    --log-level=warn >"$work/dockerd.log" 2>&1 </dev/null &
  daemon=$!
  local tries
  for ((tries = 0; tries < daemon_wait * 2; tries++)); do
    if docker version >/dev/null 2>&1; then return; fi
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.5
  done
  skip "dockerd cannot start here: $(tail -n 1 "$work/dockerd.log")"
}

# Debian, Node.js from npm's packages, and what this machine needs to reach its registry.
make_base() {
  local root=$work/root modules=$work/npm/node_modules arch
  arch=$(node -p process.arch)
  debootstrap --variant=minbase "$suite" "$root" >"$work/base.log" 2>&1 \
    || skip "no Debian for the base image: $(tail -n 1 "$work/base.log")"
  npm install --no-audit --no-fund --ignore-scripts --prefix "$work/npm" \
    "node-linux-$arch@$node" npm@10 >"$work/base.log" 2>&1 \
    || skip "no Node.js for the base image: $(tail -n 1 "$work/base.log")"
  install -m 755 "$modules/node-linux-$arch/bin/node" "$root/usr/local/bin/node"
  mkdir -p "$root/usr/local/lib/node_modules" "$root/etc/ssl/certs"
  cp -a "$modules/npm" "$root/usr/local/lib/node_modules/"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  local certificates=/etc/ssl/certs/ca-certificates.crt changes=()
  if [ -e "$certificates" ]; then
    cp -L "$certificates" "$root$certificates"
    changes+=(--change "ENV NODE_EXTRA_CA_CERTS=$certificates")
  fi
  changes+=(--change "ENV npm_config_registry=$(npm config get registry)")
  tar -C "$root" -c . | docker import "${changes[@]}" - hast-base >/dev/null
  rm -rf --one-file-system "$root" "$work/npm"
}

build() {
  if timeout "$build_bound" docker build --network host -f Dockerfile --build-arg BASE=hast-base \
    -t hast-linux .. >"$work/build.log" 2>&1
  then pass 'the image is built'
  else fail 'the image is not built'; tail -n 30 "$work/build.log"; return 1
  fi
}

play() {
  # Not every machine may give this right away; what it is for is in README.md.
  if [ $((0x$(awk '/^CapBnd/ { print $2 }' /proc/self/status) >> 24 & 1)) -eq 0 ]; then
    say 'this machine has no CAP_SYS_RESOURCE to give: left out'
    export OPTIONAL_CAP=MKNOD
  fi
  timeout 90 "${compose[@]}" up -d --no-build >"$work/up.log" 2>&1 \
    || { fail 'the pair does not start'; tail -n 20 "$work/up.log"; return 1; }
  pass 'the pair is started'
  if timeout "$play_bound" "${compose[@]}" run --rm -T walk-through
  then pass 'the walk-through'
  else
    fail 'the walk-through'
    "${compose[@]}" logs --tail 30 || true
    return 1
  fi
  local left
  left=$(our_loops | grep -vxF "${loops_before:-none}" || true)
  [ -z "$left" ] && pass 'no loop device is left' || fail "left: $left"
}

compose=()
needs
work=$(mktemp -d "${TMPDIR:-/tmp}/hast-docker-XXXXXX")
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
export DOCKER_HOST="unix://$work/sock" DOCKER_SOCKET="$work/sock" DOCKER_BUILDKIT=0
mkdir "$work/fusectl"
mount -t fusectl none "$work/fusectl" || skip 'fusectl cannot be mounted'
loops_before=$(our_loops)
connections_before=$(connections)
start_daemon
make_base
build && play || true
