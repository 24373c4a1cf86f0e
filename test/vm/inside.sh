# What the virtual machine runs after it has booted; vm.sh's init calls it. A suite is a
# line of /isle/suites: its test binary is run in its folder, and told of as go test does.
export PATH=/isle/bin:/usr/bin:/bin HOME=/root ISLE_BIN=/isle/bin TMPDIR=/disk GOTRACEBACK=all
grep cgroup /proc/mounts | cut -d' ' -f2-4
mkdir /disk; busybox mke2fs /dev/vda > /dev/null && mount -t ext4 /dev/vda /disk || exit 1 # for limits of input and output

suite() { # PACKAGE TESTS [LEFT-OUT]
  cd "/isle/src/$1" || return
  begin=$(cut -d' ' -f1 /proc/uptime)
  ./pkg.test -test.v -test.timeout "$LIMIT" -test.run "$2" ${3:+-test.skip "$3"} > /tmp/out 2>&1
  awk -f /isle/report.awk -v package="isle/$1" -v status=$? -v must="$MUST" -v begin="$begin" -v end="$(cut -d' ' -f1 /proc/uptime)" /tmp/out
}

. /isle/env
failed=0
while read -r package tests skip; do
  case $package in '' | '#'*) continue ;; esac
  suite "$package" "$tests" "$skip" < /dev/null || failed=1
done < /isle/suites
exit $failed
