package kernel

import (
	"isle/internal/kernel/netns"
	"isle/internal/kernel/wire"
)

// Wire opens a link of the host's namespace for frames of isled's own.
func (k *Kernel) Wire(link string) (w *wire.Wire, err error) {
	err = netns.Visit(k.host, func() (err error) {
		w, err = wire.Open(link, k.table.GuardMark())
		return err
	})
	return w, err
}
