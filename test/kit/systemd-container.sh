#!/bin/bash
# Boots a real systemd as PID 1 of a throw-away container, whose root is a memory overlay over this machine's root: nothing here changes.
#   systemd-container.sh nspawn|unshare [--bind FROM:TO]... [--env NAME=VALUE]... [--hide DIR]...
# Prints "leader PID" (as seen from inside its own pid namespace) when systemd answers, and stays until its standard input ends.
set -euo pipefail

if [ -z "${SYSTEMD_CONTAINER_CGROUP:-}" ]; then
  # Everything that is started below lives in one pid namespace and ends with this process.
  export SYSTEMD_CONTAINER_CGROUP=kms-agent-test-$$
  status=0
  unshare --mount --pid --fork --kill-child --mount-proc --propagation private bash "$0" "$@" || status=$?
  for root in $(findmnt -rn -t cgroup2 -o TARGET); do
    [ ! -d "$root/$SYSTEMD_CONTAINER_CGROUP" ] || find "$root/$SYSTEMD_CONTAINER_CGROUP" -depth -type d -exec rmdir {} + || status=1
  done
  exit $status
fi

backend=$1; shift
binds=() environment=() hidden=()
while [ $# -gt 0 ]; do
  case $1 in
    --bind) binds+=("$2") ;;
    --env) environment+=("$2") ;;
    --hide) hidden+=("$2") ;;
    *) echo "unknown option $1" >&2; exit 64 ;;
  esac
  shift 2
done

# A cgroup of its own below a pure version 2 hierarchy: systemd would otherwise use the machine's root cgroup, and a hybrid one where that is.
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$SYSTEMD_CONTAINER_CGROUP"
echo 0 > "/sys/fs/cgroup/$SYSTEMD_CONTAINER_CGROUP/cgroup.procs"

work=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root
# A machine of its own, without the services of this one.
: > "$root/etc/fstab"
rm -f "$root/etc/machine-id" "$root/var/lib/systemd/credential.secret"
: > "$root/etc/machine-id"
rm -rf "$root"/etc/systemd/system/*.wants "$root/var/log/journal" "$root/var/lib/systemd/linger"
echo kms-agent-test > "$root/etc/hostname"
for folder in ${hidden[@]+"${hidden[@]}"}; do
  [ ! -d "$root$folder" ] || { mkdir -p "$work/empty"; mount --bind "$work/empty" "$root$folder"; }
done
for bind in ${binds[@]+"${binds[@]}"}; do mkdir -p "$root${bind#*:}"; done
target=systemd.unit=multi-user.target

start_nspawn() {
  local options=()
  for bind in ${binds[@]+"${binds[@]}"}; do options+=("--bind-ro=$bind"); done
  for variable in ${environment[@]+"${environment[@]}"}; do options+=("--setenv=$variable"); done
  # IPAddressDeny= needs bpf(2), which nspawn takes away and systemd then does without.
  exec setsid systemd-nspawn --quiet "--directory=$root" --machine=kms-agent-test --boot --private-network --register=no --keep-unit --console=pipe \
    --system-call-filter=bpf ${options[@]+"${options[@]}"} $target
}

start_unshare() {
  cat > "$work/init.sh" <<INIT
set -eu
cd "$root"
mount -t proc proc proc; mount -t sysfs -o ro sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755,nosuid tmpfs dev
for node in null zero full random urandom tty; do : > dev/\$node; mount --bind /dev/\$node dev/\$node; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts; ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=1777 tmpfs tmp
INIT
  for bind in ${binds[@]+"${binds[@]}"}; do
    printf 'mkdir -p "%s"; mount --bind "%s" "%s"; mount -o remount,bind,ro "%s"\n' "$root${bind#*:}" "${bind%%:*}" "$root${bind#*:}" "$root${bind#*:}" >> "$work/init.sh"
  done
  # systemd leaves / private where "container" is set; credentials of services would then be empty folders.
  cat >> "$work/init.sh" <<INIT
ip link set lo up || true
mkdir -p .old; pivot_root . .old; umount -l /.old; rmdir /.old; mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin ${environment[@]+$(printf '%q ' "${environment[@]}")} /lib/systemd/systemd --system $target
INIT
  exec setsid unshare --pid --mount --uts --ipc --net --cgroup --fork --kill-child bash "$work/init.sh"
}

"start_$backend" </dev/null >"$work/console.log" 2>&1 &
supervisor=$!
leader=
for _ in $(seq 1200); do
  leader=$(tr -d ' ' < "/proc/$supervisor/task/$supervisor/children" 2>/dev/null || true)
  if [ -n "$leader" ] && [ -S "/proc/$leader/root/run/systemd/private" ]; then break; fi
  kill -0 $supervisor 2>/dev/null || { cat "$work/console.log" >&2; exit 70; }
  sleep 0.05
done
timeout 120 nsenter -a -t "$leader" systemctl is-system-running --wait >/dev/null || true
echo "leader $leader"
cat >/dev/null # until whoever started it lets go
nsenter -a -t "$leader" systemctl poweroff --no-wall >/dev/null 2>&1 || true
for _ in $(seq 200); do kill -0 $supervisor 2>/dev/null || break; sleep 0.05; done
umount -R "$work" 2>/dev/null || umount -l "$work"
rmdir "$work"
