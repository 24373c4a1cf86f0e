package kernel

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"isle/internal/kernel/netns"
	"isle/internal/kernel/rtnl"
)

// Visitor looks into namespaces, given by path, for what others have left there.
type Visitor struct{}

// Links names the links of a namespace. One that is not there has none.
func (Visitor) Links(ns string) (names []string, err error) {
	err = within(ns, func(c *rtnl.Conn) error {
		links, err := c.Links(false)
		for _, l := range links {
			names = append(names, l.Name)
		}
		return err
	})
	return names, err
}

// RemoveLink takes a link of a namespace away. One that is not there is no error.
func (Visitor) RemoveLink(ns, name string) error {
	return within(ns, func(c *rtnl.Conn) error {
		if err := c.Do(rtnl.DelLink(name)); !errors.Is(err, unix.ENODEV) {
			return err
		}
		return nil
	})
}

// Yield has the default routes that others have made over a link count after ours.
func (Visitor) Yield(ns, name string) error {
	return within(ns, func(c *rtnl.Conn) error {
		index, err := c.Index(name)
		if err != nil {
			return err
		}
		return c.Yield(index)
	})
}

func within(path string, fn func(*rtnl.Conn) error) error {
	ns, err := netns.OpenFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := rtnl.Open(ns)
	if err != nil {
		return err
	}
	defer c.Close()
	return fn(c)
}
