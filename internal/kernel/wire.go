package kernel

import (
	"isle/internal/kernel/netns"
	"isle/internal/kernel/rawlink"
)

// Wire opens a link of the host's namespace for frames of isled's own.
func (k *Kernel) Wire(link string) (w *rawlink.Wire, err error) {
	err = netns.Visit(k.host, func() (err error) {
		w, err = rawlink.Open(link, k.table.GuardMark())
		return err
	})
	return w, err
}
