# What the virtual machine runs after it has booted; vm.sh's init calls it.
export PATH=/isle/bin:/usr/bin:/bin HOME=/root ISLE_BIN=/isle/bin
. /isle/env
grep cgroup /proc/mounts | cut -d' ' -f2-4
mkdir /disk; busybox mke2fs /dev/vda > /dev/null && mount -t ext4 /dev/vda /disk || exit 1 # for limits of input and output
failed=
run() { # NAME ARG...: a test binary in its folder
  name=$1; shift
  cd /isle/$name
  begin=$(cut -d. -f1 /proc/uptime)
  if /isle/bin/$name.test -test.v "$@" > /tmp/out 2>&1; then verdict=ok; else verdict=FAIL; failed="$failed $name"; fi
  if [ $verdict = ok ]; then grep -E '^ *(---|ok|PASS)' /tmp/out; else cat /tmp/out; fi
  echo "$verdict $name $(($(cut -d. -f1 /proc/uptime) - begin))s"
}
run cgroup
run nft -test.run "$NFT"
run tc
run kernel -test.run "$KERNEL"
run live -test.run "$LIVE"
export TMPDIR=/disk
run spec -test.run 'Isolation|Privileged|Bites|Stats|Written'
unset TMPDIR
run script -test.run "^TestIsle\$/^($SCRIPTS)\$"
[ -z "$failed" ]
