// Package archtest holds the architecture as tests: who may import whom, that
// packages explain themselves, how messages read, and what no package may do. It
// has no code of its own that others could use.
//
// The table below is docs/architecture.md in a form that fails the build. A new
// package is put into it on purpose or not at all; loosening a line needs a reason
// in the commit.
package archtest

// small are the packages that everybody may import: they know nothing of Isle.
const small = "config event failpoint filters ids undo version"

// layers says which packages of this module each may import besides those of
// small. The longest prefix counts; a package may always import what is below it.
var layers = map[string]string{
	// programs
	"cmd/isle":         "cli",
	"cmd/isled":        "api server engine image runtime volume network netspec kernel firewalld cluster store store/etcd store/bolt",
	"cmd/isle-cni":     "",
	"cmd/isle-shim":    "runtime/shim",
	"cmd/isle-toolbox": "toolbox",
	"bench":            "",
	"docs/gen":         "cli",

	// the way of a request, from above
	"cli":               "api sentence",
	"api":               "",
	"server":            "api cni container image sentence",
	"server/servertest": "api cni server container image",
	"cni":               "",
	"engine":            "api cni network/ipam network/publish container image rootfs runtime runtime/cgroup runtime/jsonlog runtime/spec network store volume",
	"container":         "",
	"image":             "runtime toolbox/applets",
	"rootfs":            "runtime",
	"volume":            "container rootfs runtime store",

	// containers as processes
	"runtime":           "runtime/shim/wire",
	"runtime/cgroup":    "",
	"runtime/jsonlog":   "",
	"runtime/spec":      "container runtime/cgroup",
	"runtime/shim":      "runtime/jsonlog runtime/shim/wire",
	"runtime/shim/wire": "",

	// the network
	"netspec":                   "",
	"reconcile":                 "netspec",
	"network":                   "fabric netspec reconcile store network/dhcp network/ipam network/publish network/dns network/exposure network/doctor network/pulse network/seal ruleset",
	"fabric":                    "",
	"fabric/fabrictest":         "fabric",
	"cluster":                   "api fabric store store/etcd cluster/directory cluster/door cluster/member cluster/pki",
	"cluster/directory":         "fabric store store/etcd",
	"cluster/door":              "cluster/pki",
	"cluster/member":            "cluster/pki",
	"cluster/pki":               "",
	"network/exposure":          "netspec ruleset",
	"network/doctor":            "netspec network/exposure ruleset",
	"network/ipam":              "store",
	"network/seal":              "",
	"network/pulse":             "netspec",
	"network/publish":           "netspec",
	"network/firewall":          "netspec",
	"network/firewalldoc":       "",
	"network/lan":               "netspec network",
	"network/dhcp":              "netspec",
	"network/dns":               "",
	"network/scout":             "netspec network",
	"network/machine":           "kernel netspec network network/ipam network/exposure network/doctor",
	"network/bridged":           "netspec network network/publish network/firewall",
	"network/driver":            "fabric netspec network network/publish network/pulse network/firewall network/lan network/bridged",
	"network/driver/drivertest": "netspec network reconcile",
	"network/driver/builtin":    "network network/driver",
	"ruleset":                   "",
	"kernel":                    "netspec reconcile ruleset",
	"kernel/foreign":            "kernel/netns kernel/nlmsg kernel/rtnl ruleset",
	"firewalld":                 "",
	"firewalld/firewalldtest":   "kernel/probe",
	"store":                     "",
	"store/bolt":                "store",
	"store/etcd":                "store",
	"store/storetest":           "store",
	"failpoint":                 "",
	"config":                    "",
	"event":                     "",
	"filters":                   "",
	"ids":                       "",
	"undo":                      "",
	"sentence":                  "",
	"version":                   "",
	"archtest":                  "",
	"toolbox":                   "",
	"toolbox/applets":           "",
	"toolbox/rlimit":            "",
	"toolbox/applet":            "",
	"toolbox/text":              "toolbox/applet",
	"toolbox/files":             "toolbox/applet",
	"toolbox/host":              "toolbox/applet",
	"toolbox/nettools":          "toolbox/applet",
	"toolbox/shell":             "toolbox/applet toolbox/applets toolbox/rlimit",
	"test":                      "failpoint network runtime image kernel",
}

// drivers never import each other, which the prefix rule above cannot say.
const drivers = "network/driver/"

// forbidden says which outside packages may be imported only below which of ours.
var forbidden = []struct {
	imports string   // outside package, or a prefix ending in /
	only    []string // where it may be used
	why     string
}{
	{"github.com/vishvananda/netlink", []string{"kernel", "toolbox/nettools"}, "the kernel is spoken to in one place"},
	{"github.com/vishvananda/netns", []string{"kernel"}, "changing namespaces is kernel/netns's business"},
	{"github.com/mdlayher/netlink", []string{"kernel"}, "the kernel is spoken to in one place"},
	{"github.com/google/nftables", []string{"kernel/nft", "kernel/probe"}, "the kernel is spoken to in one place"},
	{"github.com/cilium/ebpf", []string{"kernel/bpf", "kernel/tc", "kernel/probe", "runtime/cgroup"}, "the kernel is spoken to in one place"},
	{"github.com/containerd/containerd/v2/", []string{"image"}, "containerd's types stay in one package"},
	{"github.com/docker/cli/", []string{"cli"}, "the library is the CLI's"},
	{"github.com/spf13/cobra", []string{"cli", "cmd/isled", "docs/gen"}, "only programs have command lines"},
	{"github.com/godbus/dbus/v5", []string{"firewalld"}, "the bus is spoken to in one place"},
	{"go.etcd.io/bbolt", []string{"store/bolt", "image"}, "records are written through store"},
	{"go.etcd.io/etcd/client/v3", []string{"store/etcd", "cluster"}, "the cluster's memory is spoken to in one place"},
	{"go.etcd.io/etcd/server/v3/", []string{"store/etcd/etcdtest", "cluster/member"}, "etcd runs inside of isled in one place"},
	{"github.com/u-root/u-root/", []string{"toolbox/files"}, "coreutils are the toolbox's"},
	{"mvdan.cc/sh/v3/", []string{"toolbox/shell"}, "the shell is the toolbox's"},
	{"github.com/insomniacslk/dhcp/", []string{"network/dhcp"}, "leases are asked for in one place"},
	{"github.com/containernetworking/cni/", []string{"network/driver/cni", "bench/cniload"}, "plugins are run in one place"},
	{"github.com/miekg/dns", []string{"toolbox/nettools", "bench"}, "the resolver reads and writes packets itself"},
	{"golang.zx2c4.com/wireguard/", []string{"kernel/wg"}, "links are made in one place"},
	{"net/http/pprof", nil, "it registers itself"},
	{"log", nil, "log/slog is used"},
	{"math/rand", nil, "math/rand/v2 or crypto/rand"},
}

// executed are programs that the product never runs: it speaks to the kernel.
var executed = []string{"iptables", "ip6tables", "nft", "ip", "tc", "brctl", "conntrack", "sysctl", "sh", "bash", "mount", "umount", "modprobe"}

// shimModules is all that isle-shim may link from outside: every line costs
// memory beside each host's containers and is a way to crash their parent.
var shimModules = []string{"github.com/creack/pty", "golang.org/x/sys"}
