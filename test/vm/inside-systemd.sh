#!/bin/bash
# Runs in the virtual machine of "run systemd", as isle-vm-test.service.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec > /dev/ttyS0 2>&1
failed=0
check() { # WHAT COMMAND...
  local what=$1 out; shift
  if out=$("$@" 2>&1); then echo "--- PASS: $what"; else echo "--- FAIL: $what: $* → $out"; failed=1; fi
}
echo "VM-UP uptime=$(cut -d' ' -f1 /proc/uptime) kernel=$(uname -r)"
for i in $(seq 600); do [ -S /run/isle.sock ] || [ -S /run/isle/isle.sock ] && break; sleep 0.1; done
check 'isled.service is active' systemctl is-active isled
check 'driver is systemd, version 2' sh -c "isle info | grep -i 'version 2, driver systemd'"
check 'run' isle run -d --name aa --memory 64m --memory-swap 64m --cpus 0.5 --pids-limit 50 isle/toolbox sleep 1000
id=$(isle inspect -f '{{.Id}}' aa); pid=$(isle inspect -f '{{.State.Pid}}' aa); scope=isle-$id.scope
[ "${pid:-0}" -gt 0 ] || pid=none
cg=/sys/fs/cgroup/isle.slice/$scope
[ ! -d $cg/container ] || cg=$cg/container # crun sets limits below the scope
check "a scope in isle.slice" grep -xE "0::/isle.slice/$scope(/container)?" /proc/$pid/cgroup
check 'systemd knows it' systemctl is-active "$scope"
check 'memory.max' grep -x 67108864 $cg/memory.max
check 'cpu.max' grep -x '50000 100000' $cg/cpu.max
check 'pids.max' grep -x 50 $cg/pids.max
check 'update' isle update --memory 96m --memory-swap 96m --cpus 0.25 --pids-limit 70 aa
check 'memory.max updated' grep -x 100663296 $cg/memory.max
check 'cpu.max updated' grep -x '25000 100000' $cg/cpu.max
check 'pids.max updated' grep -x 70 $cg/pids.max
check 'daemon-reload' systemctl daemon-reload
check 'memory.max after reload' grep -x 100663296 $cg/memory.max
check 'pids.max after reload' grep -x 70 $cg/pids.max
echo "isled's own: $(cat /proc/$(systemctl show -p MainPID --value isled)/cgroup), shim: $(for p in $(pgrep -f isle-shim); do cat /proc/$p/cgroup; done | sort -u | tr '\n' ' ')"
check 'restart isled' systemctl restart isled
for i in $(seq 300); do isle ps > /dev/null 2>&1 && break; sleep 0.1; done
check 'the container lives on' sh -c "[ -d /proc/$pid ] && [ \$(isle inspect -f '{{.State.Pid}}' aa) = $pid ]"
check 'exec after the restart' isle exec aa true
check 'stats' sh -c "isle stats --no-stream aa | grep 96MiB"
check 'pause and restart isled' sh -c "isle pause aa && systemctl restart isled && sleep 3 && isle inspect -f '{{.State.Status}}' aa | grep -x paused && isle unpause aa"
check 'unlimited processes' sh -c "isle update --pids-limit -1 aa && grep -x max $cg/pids.max"
check 'oom is told' sh -c "isle run --name oo --memory 32m --memory-swap 32m isle/toolbox stress --mem 200m; [ \$(isle inspect -f '{{.State.OOMKilled}}' oo) = true ] || { isle inspect -f '{{json .State}}' oo; false; }"
check 'remove' isle rm -f aa oo
sleep 1
check 'no scope is left' sh -c "! ls /sys/fs/cgroup/isle.slice | grep scope"
check 'no failed unit of a container' sh -c "! systemctl list-units --all --plain --no-legend 'isle-*.scope' | grep ."
[ $failed = 0 ] || journalctl -u isled --no-pager | tail -40
echo "VM-DONE rc=$failed uptime=$(cut -d' ' -f1 /proc/uptime)"
systemctl poweroff -f -f
