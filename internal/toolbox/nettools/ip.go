package nettools

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isle/internal/toolbox/applet"
)

type ip struct {
	json, brief bool
	family      int
	dev         string
	table       int
	s           applet.IO
}

// IP shows links, addresses, routes, rules and neighbours: ip [-4|-6] [-j] [-br]
// addr|link|route|rule|neigh [show] [dev NAME] [table N]; ip route get ADDR; and
// ip link set dev NAME up|down. What else changes the network belongs to isled.
func IP(_ context.Context, s applet.IO, args []string) error {
	p := ip{s: s}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if err := p.option(args[0]); err != nil {
			return err
		}
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(s.Err, "usage: ip [-4|-6] [-j] [-br] addr|link|route|rule|neigh [show] [dev NAME] [table N]\n       ip route get ADDR\n       ip link set dev NAME up|down")
		return applet.Usage
	}
	object, rest := args[0], args[1:]
	if object == "route" || object == "r" {
		if len(rest) == 2 && rest[0] == "get" {
			return p.routeGet(rest[1])
		}
	}
	if (object == "link" || object == "l") && len(rest) > 1 && rest[0] == "set" {
		return p.linkSet(rest[1:])
	}
	if err := p.selectors(rest); err != nil {
		return err
	}
	return p.show(object)
}

func (p *ip) option(text string) error {
	switch text {
	case "-4":
		p.family = unix.AF_INET
	case "-6":
		p.family = unix.AF_INET6
	case "-j", "-json", "--json":
		p.json = true
	case "-br", "-brief":
		p.brief = true
	case "-o", "-d", "-p", "-s", "-c": // one line, details, pretty, statistics, colours: no difference here
	default:
		return fmt.Errorf("option %q is not known", text)
	}
	return nil
}

// selectors reads "show dev eth0 table 100"; a bare word is a device.
func (p *ip) selectors(args []string) error {
	for i := 0; i < len(args); i++ {
		switch a := args[i]; a {
		case "show", "list", "ls", "s":
		case "add", "del", "delete", "change", "replace", "flush", "append":
			return fmt.Errorf("%q is not had here: isled owns the network of its containers", a)
		case "dev", "table":
			if i++; i == len(args) {
				return fmt.Errorf("%s needs a value", a)
			}
			if err := p.selector(a, args[i]); err != nil {
				return err
			}
		default:
			p.dev = a
		}
	}
	return nil
}

func (p *ip) selector(name, value string) error {
	if name == "dev" {
		p.dev = value
		return nil
	}
	named := map[string]int{"main": unix.RT_TABLE_MAIN, "local": unix.RT_TABLE_LOCAL, "default": unix.RT_TABLE_DEFAULT, "all": unix.RT_TABLE_UNSPEC}
	if n, ok := named[value]; ok {
		p.table = n
		if value == "all" {
			p.table = -1
		}
		return nil
	}
	_, err := fmt.Sscan(value, &p.table)
	return err
}

func (p *ip) show(object string) error {
	is := func(name string) bool { return object != "" && strings.HasPrefix(name, object) }
	switch {
	case is("address"):
		return p.addresses()
	case is("link"):
		return p.links(false)
	case is("route"):
		return p.routes()
	case is("rule"):
		return p.rules()
	case is("neighbour"), is("neighbor"):
		return p.neighbours()
	}
	return fmt.Errorf("object %q is not known", object)
}

// linkSet is "ip link set [dev] NAME up|down", which lo in a bare namespace needs.
func (p *ip) linkSet(args []string) error {
	if args[0] == "dev" {
		args = args[1:]
	}
	if len(args) != 2 {
		return fmt.Errorf("link set takes a name and up or down")
	}
	link, err := netlink.LinkByName(args[0])
	if err != nil {
		return err
	}
	switch args[1] {
	case "up":
		return netlink.LinkSetUp(link)
	case "down":
		return netlink.LinkSetDown(link)
	}
	return fmt.Errorf("%q is neither up nor down", args[1])
}

func (p *ip) encode(v any) error { return json.NewEncoder(p.s.Out).Encode(v) }
