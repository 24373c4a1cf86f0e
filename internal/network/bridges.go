package network

import "isle/internal/netspec"

// Bridges is who wants to know which bridges are ours: a firewall of the host that
// has its own idea of what may pass. Its methods must not wait.
type Bridges interface {
	// Add says that a bridge is ours; it may say so again.
	Add(bridge string)
	// Remove says that it is not any more.
	Remove(bridge string)
}

// announce tells what a unit's change from one state to another means.
func (m *Manager) announce(from, to netspec.State) {
	if m.Bridges == nil {
		return
	}
	for _, name := range bridges(from.Without(to)) {
		m.Bridges.Remove(name)
	}
	for _, name := range bridges(to) {
		m.Bridges.Add(name)
	}
}

func bridges(s netspec.State) (names []string) {
	for _, o := range s {
		if l, ok := o.(netspec.Link); ok && l.Kind == netspec.Bridge {
			names = append(names, l.Name)
		}
	}
	return names
}
