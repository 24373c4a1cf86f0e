package cni

import (
	"encoding/json"
	"net"
	"net/netip"
	"path"
	"regexp"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// Commands.
const (
	Add    = "ADD"
	Del    = "DEL"
	Check  = "CHECK"
	GC     = "GC"
	Status = "STATUS"
)

// Request is what the plugin was called with.
type Request struct {
	Command, ContainerID, NetNS, IfName, Args string
	Config                                    []byte
}

// Call is a Request that was understood.
type Call struct {
	Command, Version string
	Config           string // name of the configuration
	Runtime          string // whose configuration it is, where several share one isled
	ContainerID      string
	NetNS            string
	IfName           string // as the runtime calls it
	Interface        string // the name that it gets
	Network          string
	Create           *network.CreateRequest // makes the network when it is not there
	WayOut           *bool                  // the default routes lead over it; nil: when there are no others
	Name             string                 // of the pod or container; "": not known
	Aliases          []string
	IPs              []netip.Addr
	MAC              net.HardwareAddr
	Ports            []Port
	Bandwidth        Bandwidth
	DNS              DNS
	Prev             Result
	Valid            []Attachment // GC: those to be kept
}

// Attachment is what a runtime knows of one.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

var (
	identifier = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$`)
	ifname     = regexp.MustCompile(`^[!-.0-9;-~]{1,15}$`) // printable, without '/' and ':'
)

// Parse reads a request. Its errors have codes.
func Parse(r Request) (Call, error) {
	c := Call{Command: r.Command, ContainerID: r.ContainerID, NetNS: r.NetNS, IfName: r.IfName}
	var conf config
	if err := json.Unmarshal(r.Config, &conf); err != nil {
		return c, failf(CodeDecode, "configuration: %w", err)
	}
	for _, step := range []func() error{
		func() error { return c.checkVersion(conf.CNIVersion) },
		c.checkEnvironment,
		func() error { return c.configure(conf) },
		func() error { return c.arguments(r.Args) },
	} {
		if err := step(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// checkEnvironment asks for what the command needs.
func (c *Call) checkEnvironment() error {
	switch c.Command {
	case GC, Status:
		return nil
	case Add, Check:
		if !path.IsAbs(c.NetNS) || path.Clean(c.NetNS) != c.NetNS {
			return failf(CodeEnvironment, "CNI_NETNS %q is not an absolute path without '.' and '..'", c.NetNS)
		}
	case Del:
	default:
		return failf(CodeEnvironment, "CNI_COMMAND %q is not known", c.Command)
	}
	if !identifier.MatchString(c.ContainerID) {
		return failf(CodeEnvironment, "CNI_CONTAINERID %q is not an identifier: letters, digits, '_', '.' and '-', beginning with a letter or digit", c.ContainerID)
	}
	return checkInterface(CodeEnvironment, "CNI_IFNAME", c.IfName)
}

func checkInterface(code Code, what, name string) error {
	if !ifname.MatchString(name) || name == "." || name == ".." {
		return failf(code, "%s %q is not the name of an interface: 1 to 15 printable characters without spaces, '/' and ':'", what, name)
	}
	return nil
}

// arguments reads CNI_ARGS: "KEY=VALUE;…". Of what is not known nothing is said: others
// in the chain may know it.
func (c *Call) arguments(args string) error {
	known := map[string]string{}
	for _, kv := range strings.Split(args, ";") {
		k, v, ok := strings.Cut(strings.TrimSpace(kv), "=")
		if !ok && k != "" {
			return failf(CodeEnvironment, "CNI_ARGS: %q is not KEY=VALUE", kv)
		}
		known[k] = v
	}
	if pod := known["K8S_POD_NAME"]; identifier.MatchString(pod) {
		c.Name = pod
		if space := known["K8S_POD_NAMESPACE"]; identifier.MatchString(space) {
			c.Aliases = append(c.Aliases, pod+"."+space)
		}
	}
	if ip := known["IP"]; ip != "" && len(c.IPs) == 0 {
		if err := c.wantIPs(CodeEnvironment, "CNI_ARGS: IP", strings.Split(ip, ",")); err != nil {
			return err
		}
	}
	if mac := known["MAC"]; mac != "" && len(c.MAC) == 0 {
		return c.wantMAC(CodeEnvironment, "CNI_ARGS: MAC", mac)
	}
	return nil
}
