#!/bin/bash
# Boot a Debian cloud kernel under QEMU/TCG with an initramfs that holds a test
# payload, run the payload, report its exit status.  Only Debian packages are used:
# linux-image-*-cloud-amd64 (unpacked, never installed), busybox-static, qemu-system-x86, cpio.
#
#   vm.sh kernel 6.1|6.12           fetch + unpack kernel into $CACHE
#   vm.sh image  KVER PAYLOADDIR    build initramfs: PAYLOADDIR/* is copied to /, PAYLOADDIR/test.sh is run
#   vm.sh run    KVER [qemu args]   boot, stream console, exit with the payload's status
set -euo pipefail
CACHE=${CACHE:-/var/cache/isle-vm}
MODS=${MODS:-"loop virtio_pci virtio_blk ext4 veth bridge br_netfilter macvlan ipvlan vxlan geneve dummy 8021q ifb tun wireguard overlay vrf
 nf_tables nft_ct nft_nat nft_masq nft_redir nft_chain_nat nft_fib_ipv4 nft_fib_ipv6 nft_fib_inet nft_reject_inet nft_log nf_log_syslog nft_limit nft_socket nft_tproxy nft_flow_offload
 nft_meta_bridge nf_conntrack_netlink xfrm_user esp4 esp6 xfrm_interface seqiv gcm ghash_generic ctr aesni_intel
 inet_diag tcp_diag udp_diag af_packet
 sch_tbf sch_htb sch_ingress sch_netem sch_fq cls_u32 cls_bpf cls_matchall cls_flower act_mirred act_gact act_police act_bpf"}

die() { echo "vm.sh: $*" >&2; exit 2; }
kdir() { # the unpacked kernel of that series
  ls -d "$CACHE/k-$1" 2>/dev/null || die "no kernel $1: run '$0 kernel $1' first"; }

# kernel SERIES: the newest that can be had; the mirror may have dropped those of an old index.
kernel() {
  local series=$1 pkg tmp
  mkdir -p "$CACHE"; tmp=$(mktemp -d "$CACHE/dl.XXXX"); trap "rm -rf '$tmp'" EXIT
  pkg=$(download "$series" "$tmp") || { apt-get -qq update; pkg=$(download "$series" "$tmp"); } || die "no package linux-image-$series*-cloud-amd64 to be had by apt"
  dpkg -x "$tmp"/*.deb "$tmp/k"; touch "$tmp/k/.whole"
  rm -rf "$CACHE/k-$series"; mv -T "$tmp/k" "$CACHE/k-$series"
  echo "$pkg -> $CACHE/k-$series"
}

download() { # SERIES DIR: prints the package
  local pkg
  pkg=$(apt-cache search -n "^linux-image-${1//./\\.}\.[0-9].*-cloud-amd64$" | awk '{print $1}' | grep -v unsigned | sort -V | tail -1)
  [ -n "$pkg" ] && (cd "$2" && apt-get -qq -o APT::Sandbox::User=root download "$pkg" >&2) && echo "$pkg"
}

initrd() { echo "${IMAGES:-$CACHE}/initrd-$1"; } # IMAGES: where images are, one run's apart from another's

modfile() { find "$1/" -name "$(echo "$2" | sed 's/[-_]/[-_]/g').ko*" | head -1; }
# print modules in load order, dependencies first; names missing from the package are skipped (built in or absent)
declare -A SEEN=()
resolve() { # moddir outdir name
  [ -n "${SEEN[$3]:-}" ] && return; SEEN[$3]=1
  local f out deps d; f=$(modfile "$1" "$3"); [ -n "$f" ] || return 0
  out="$2/$(basename "${f%.xz}")"
  case $f in *.xz) xz -dc "$f" > "$out";; *) cp "$f" "$out";; esac
  deps=$(tr '\0' '\n' < "$out" | sed -n 's/^depends=//p' | tr ',' ' ')
  for d in $deps; do resolve "$1" "$2" "$d"; done
  basename "$out" >> "$2/order"
}

image() {
  local k payload root m; k=$(kdir "$1"); payload=$2; root=$(mktemp -d "$CACHE/ird.XXXX")
  mkdir -p "$root"/{bin,dev,etc,proc,sys,run,tmp,mods,root,var}
  cp "$(command -v busybox)" "$root/bin/busybox"
  : > "$root/mods/order"
  for m in $MODS; do resolve "$k" "$root/mods" "$m"; done
  cat > "$root/init" <<'I'
#!/bin/busybox sh
export PATH=/bin:/usr/bin:/sbin:/usr/sbin
if [ ! -e /.switched ]; then # runtimes need pivot_root, which the initial rootfs refuses: move to a tmpfs
  /bin/busybox mkdir /n; /bin/busybox mount -t tmpfs -o size=75% root /n
  for d in /*; do [ "$d" = /n ] || /bin/busybox cp -a "$d" /n/; done
  : > /n/.switched; exec /bin/busybox switch_root /n /init
fi
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp
case " $(cat /proc/cmdline) " in
*" cg=hybrid "*) # v1 hierarchies for all but hugetlb, v2 (with hugetlb) at unified: the awkward layout
  mount -t tmpfs tmpfs /sys/fs/cgroup
  for c in cpu cpuacct cpuset memory devices freezer blkio pids; do mkdir /sys/fs/cgroup/$c; mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c || rmdir /sys/fs/cgroup/$c; done
  mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified ;;
*) mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir /sys/fs/cgroup/init; echo 1 > /sys/fs/cgroup/init/cgroup.procs # leave the root so controllers can be delegated
  for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$c > /sys/fs/cgroup/cgroup.subtree_control; done ;;
esac
ip link set lo up
while read m; do insmod /mods/$m 2>/dev/null || echo "insmod $m failed"; done < /mods/order
echo "VM-UP uptime=$(cut -d' ' -f1 /proc/uptime) kernel=$(uname -r)"
sh /test.sh; rc=$?
echo "VM-DONE rc=$rc uptime=$(cut -d' ' -f1 /proc/uptime)"
poweroff -f
I
  chmod +x "$root/init"; cp -a "$payload"/. "$root"/
  (cd "$root" && find . -print0 | cpio --null -o -H newc --quiet -R 0:0) > "$(initrd "$1")"
  rm -rf "$root"
}

# run KERNEL [QEMU-ARG...]: the payload's exit status. A machine that does not come up is
# started anew: that is the emulator's doing. What has come up is not.
run() {
  local log rc=1 try
  kdir "$1" > /dev/null
  log=$(mktemp "$CACHE/log.XXXX")
  for try in 1 2 3; do
    start "$log" "$@"
    grep -q '^VM-UP' "$log" && break
    echo "vm.sh: the machine did not come up in ${BOOT:-90} s, try $try of 3"
  done
  rc=$(sed -n 's/^VM-DONE rc=\([0-9]*\).*/\1/p' "$log" | head -1); rm -f "$log"
  [ -n "$rc" ] || die "the machine did not finish in ${TMO:-90} s; what it printed last is above"
  exit "$rc"
}

start() { # LOG KERNEL [QEMU-ARG...]
  local log=$1 k=$2 kd pid began=$SECONDS; shift 2; kd=$(kdir "$k")
  : > "$log"
  timeout "${TMO:-90}" qemu-system-x86_64 -M "${MACHINE:-q35}" -cpu max -accel "${ACCEL:-tcg}" -smp "${SMP:-1}" -m "${MEM:-1024}" \
    -nodefaults -no-user-config -no-reboot -display none -serial stdio \
    -kernel "$(ls "$kd"/boot/vmlinuz-* | head -1)" -initrd "$(initrd "$k")" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off rdinit=/init tsc=unstable clocksource=hpet no_timer_check ${APPEND:-}" "$@" \
    < /dev/null > "$log" &
  pid=$!
  until grep -q '^VM-UP' "$log" || ! kill -0 "$pid" 2> /dev/null; do
    [ $((SECONDS - began)) -lt "${BOOT:-90}" ] || kill "$pid"
    sleep 0.5
  done
  tail -n +1 -f -s 0.5 --pid="$pid" "$log" | sed -u 's/\r$//'
  wait "$pid" || true
  times > "$log.times"
  echo "the machine ran for $((SECONDS - began)) s; the processors' time: $(tail -1 "$log.times")"
  rm -f "$log.times"
}
cmd=${1:?}; shift; "$cmd" "$@"
